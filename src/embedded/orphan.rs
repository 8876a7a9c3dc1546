//! What a killed taskwatch left behind: its PostgreSQL, or only a file that names a process.
//!
//! A process id in a file is a hint, never a proof: after a restart of the machine, and soon in a container, the number
//! belongs to something else. Only a process that is shown to be this cluster's server is signalled.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio_util::sync::CancellationToken;

use super::{Interrupted, PATIENCE};
use crate::clock::machine_time;

/// How long the kernel's own "parent died" signal may take to end it.
const GRACE: Duration = Duration::from_secs(2);
/// How far the start of a process may be from what its file says, seconds: both are rounded.
const SAME_START: u64 = 10;
/// The line of `postmaster.pid` that names the shared memory.
const SHARED_MEMORY_LINE: usize = 7;
/// Ticks of `/proc/PID/stat`, a second.
const TICKS: u64 = 100;

/// Whose process has the id that `postmaster.pid` names.
#[derive(Debug)]
enum Holder {
    /// None lives under this id.
    None,
    /// Something that is not this cluster's server.
    Other,
    /// This cluster's server, and a handle that stays with exactly this process (`None` on kernels without it).
    Ours(Option<OwnedFd>),
    /// No file names a server, but this process runs in the cluster's folder.
    Unnamed(i32),
    /// It may be this cluster's server, but this says otherwise.
    Doubtful(String),
}

/// Waits for a server that a killed taskwatch left, and stops it if it does not go. A file that names any other process
/// is made harmless, without a signal. The caller holds the lock of the data folder.
///
/// # Errors
/// When that server does not stop, or it cannot be shown whose it is.
pub(super) fn settle(cluster: &Path, stop: &CancellationToken) -> anyhow::Result<()> {
    let path = cluster.join("postmaster.pid");
    let started = Instant::now();
    let mut signalled = false;
    let mut logged = false;
    loop {
        let text = match fs::read(&path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let file = text.as_deref().and_then(Left::read);
        let holder = file.as_ref().map_or_else(|| survivor(cluster), |left| holder(left, cluster));
        let pid = match (&file, &holder) {
            (Some(left), _) => left.pid.as_raw_nonzero().get(),
            (None, Holder::Unnamed(pid)) => *pid,
            (None, _) => 0,
        };
        match holder {
            Holder::None | Holder::Other => return release(&path, text.as_deref(), file.as_ref(), &holder),
            Holder::Ours(handle) if !signalled && started.elapsed() > GRACE => {
                let Some(handle) = handle else {
                    bail!(
                        "an older PostgreSQL (process {pid}) still runs in {}; stop it with: kill -INT {pid}",
                        cluster.display()
                    );
                };
                // It may have ended in the meantime; then the next round sees that.
                let _ = pidfd_send_signal(handle, Signal::INT);
                signalled = true;
            }
            Holder::Unnamed(_) if started.elapsed() > PATIENCE => bail!(
                "process {pid} of an older PostgreSQL still runs in {}, though no postmaster.pid names it; stop it with: kill -INT {pid}",
                cluster.display()
            ),
            Holder::Doubtful(why) if started.elapsed() > GRACE => bail!(
                "process {pid} may be a PostgreSQL that still runs in {}, but {why}; if it is one left over, stop it with: kill -INT {pid}; if not, remove {} and start again",
                cluster.display(),
                path.display()
            ),
            Holder::Ours(_) | Holder::Unnamed(_) | Holder::Doubtful(_) => {}
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "an older PostgreSQL (process {pid}) still runs in {} and does not stop; stop it with: kill -QUIT {pid}",
                cluster.display()
            );
        }
        if stop.is_cancelled() {
            return Err(Interrupted.into());
        }
        if !logged && started.elapsed() > GRACE {
            tracing::info!("waiting for an older PostgreSQL (process {pid}) to stop");
            logged = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No server of this cluster lives under the id. PostgreSQL itself copes with an id that nothing has; one that something
/// else has would keep it from starting. Naming ourselves, its parent, tells PostgreSQL that the file is left over, and it
/// still looks for processes that hold the old shared memory.
fn release(path: &Path, text: Option<&str>, file: Option<&Left>, holder: &Holder) -> anyhow::Result<()> {
    let done = match (text, file, holder) {
        (Some(_), None, _) => fs::remove_file(path),
        // It does not name the old shared memory either.
        (Some(text), ..) if text.lines().count() < SHARED_MEMORY_LINE => fs::remove_file(path),
        (Some(text), Some(left), Holder::Other) => {
            tracing::info!(
                "{} names process {}, which is not this database's server; the file was left by one that was killed",
                path.display(),
                left.pid.as_raw_nonzero()
            );
            let rest: Vec<_> = text.lines().skip(1).collect();
            fs::write(path, format!("{}\n{}\n", std::process::id(), rest.join("\n")))
        }
        _ => Ok(()),
    };
    done.with_context(|| format!("cannot write {}", path.display()))
}

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    pid: Pid,
    /// Unix time of the server's start, seconds.
    started: Option<u64>,
}

impl Left {
    /// The first line is the id, negative for a stand-alone backend; the third the time. `None` when it is damaged.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let id: i32 = lines.next()?.trim().parse().ok()?;
        let pid = Pid::from_raw(id.checked_abs()?)?;
        Some(Self { pid, started: lines.nth(1).and_then(|line| line.trim().parse().ok()) })
    }
}

/// Looks at the process. The handle is taken first, so that the process it belongs to is the one that was looked at.
fn holder(left: &Left, cluster: &Path) -> Holder {
    let handle = match pidfd_open(left.pid, PidfdFlags::empty()) {
        Ok(handle) => Some(handle),
        Err(Errno::SRCH) => return Holder::None,
        Err(_) => None,
    };
    let proc = Path::new("/proc").join(left.pid.as_raw_nonzero().to_string());
    let (Ok(status), Ok(stat)) = (fs::read_to_string(proc.join("status")), fs::read_to_string(proc.join("stat")))
    else {
        return if handle.is_none() { Holder::None } else { Holder::Doubtful("/proc does not show it".to_owned()) };
    };
    // "pid (name) state ppid … start": the name may hold anything, so the fields are counted behind it.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return Holder::Other;
    }
    if uid(&status) != fs::metadata(cluster).ok().map(|meta| meta.uid()) {
        return Holder::Other;
    }
    match is_server(&proc, cluster) {
        Ok(false) => return Holder::Other,
        Ok(true) => {}
        Err(why) => return Holder::Doubtful(why),
    }
    let start =
        fields.get(19).and_then(|ticks| ticks.parse::<u64>().ok()).zip(boot()).map(|(t, boot)| boot + t / TICKS);
    match (start, left.started) {
        (Some(start), Some(said)) if start.abs_diff(said) <= SAME_START => Holder::Ours(handle),
        _ => Holder::Doubtful("it was not started when postmaster.pid says".to_owned()),
    }
}

/// A server process of this cluster that no file names: what is left when someone removed or damaged the file.
fn survivor(cluster: &Path) -> Holder {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut numbered = processes.filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?)));
    let found = numbered.find(|(proc, _)| is_server(proc, cluster) == Ok(true));
    found.map_or(Holder::None, |(_, pid)| Holder::Unnamed(pid))
}

/// The process is a `postgres` whose working folder is the cluster. Where the kernel shows neither (in containers without
/// the right to trace), its name and its `-D` count.
fn is_server(proc: &Path, cluster: &Path) -> Result<bool, String> {
    let program = match fs::read_link(proc.join("exe")) {
        Ok(path) => path.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned()),
        Err(_) => fs::read_to_string(proc.join("comm")).ok().map(|name| name.trim_end().to_owned()),
    };
    match program.as_deref() {
        Some("postgres") => {}
        Some(_) => return Ok(false),
        None => return Err("its program cannot be seen".to_owned()),
    }
    let ours = fs::metadata(cluster).map_err(|error| format!("{} cannot be looked at: {error}", cluster.display()))?;
    if let Ok(folder) = fs::metadata(proc.join("cwd")) {
        return Ok((folder.dev(), folder.ino()) == (ours.dev(), ours.ino()));
    }
    let arguments = fs::read(proc.join("cmdline")).map_err(|_| "its arguments cannot be seen".to_owned())?;
    let arguments: Vec<_> = arguments.split(|byte| *byte == 0).collect();
    let wanted = cluster.as_os_str().as_encoded_bytes();
    Ok(arguments.windows(2).any(|pair| pair[0] == b"-D" && pair[1] == wanted))
}

/// The user that a process acts as, of `/proc/PID/status`.
fn uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Unix time at which the machine was started, seconds.
fn boot() -> Option<u64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = machine_time().duration_since(UNIX_EPOCH).ok()?;
    now.checked_sub(Duration::try_from_secs_f64(seconds).ok()?).map(|boot| boot.as_secs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_names_no_process() {
        for text in ["", "\n", "x\n/d\n1\n", "0\n", "2147483648\n", "-2147483648\n"] {
            assert_eq!(Left::read(text), None, "{text:?}");
        }
        let left = Left::read("-17\n/data/pg\n1700000000\n5432\n").unwrap();
        assert_eq!((left.pid.as_raw_nonzero().get(), left.started), (17, Some(1_700_000_000)));
        assert_eq!(Left::read("17\n").unwrap().started, None);
    }

    #[test]
    fn this_process_is_no_server_of_any_cluster() {
        let me = Left { pid: rustix::process::getpid(), started: None };
        assert!(matches!(holder(&me, &std::env::temp_dir()), Holder::Other));
        assert!(matches!(survivor(&std::env::temp_dir()), Holder::None));
    }
}
