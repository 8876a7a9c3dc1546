//! Leftovers of a killed taskwatch: its PostgreSQL server, or only a stale PID file.
//!
//! A process ID in a file is a hint, never a proof: after a reboot, and soon in a container, it is reused by another
//! process. Only a process that is verified to be this cluster's server is signalled.

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

use super::{Interrupted, TIMEOUT};
use crate::clock::machine_time;

/// How long the kernel's parent-death signal may take to stop it.
const GRACE: Duration = Duration::from_secs(2);
/// Tolerance between the start time of a process and the one in its PID file, seconds: both are rounded.
const SAME_START: u64 = 10;
/// The line of `postmaster.pid` with the shared memory key.
const SHARED_MEMORY_LINE: usize = 7;
/// Clock ticks of `/proc/PID/stat` per second.
const TICKS: u64 = 100;

/// The process that has the ID from `postmaster.pid`.
#[derive(Debug)]
enum Holder {
    /// No such process.
    None,
    /// A process that is not this cluster's server.
    Other,
    /// This cluster's server, and a pidfd for exactly this process (`None` on kernels without pidfd).
    Ours(Option<OwnedFd>),
    /// There is no PID file, but this process runs in the cluster's directory.
    Unnamed(i32),
    /// It may be this cluster's server, but there is contrary evidence.
    Doubtful(String),
}

/// Waits for the server of a killed taskwatch to exit, and stops it if it does not. A PID file that names any other
/// process is neutralised without sending a signal. The caller holds the lock of the data directory.
///
/// # Errors
/// That server does not stop, or its identity cannot be verified.
pub(super) fn stop_server(cluster: &Path, stop: &CancellationToken) -> anyhow::Result<()> {
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
                // It may have exited in the meantime; the next iteration notices.
                let _ = pidfd_send_signal(handle, Signal::INT);
                signalled = true;
            }
            Holder::Unnamed(_) if started.elapsed() > TIMEOUT => bail!(
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
        if started.elapsed() > TIMEOUT {
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

/// No server of this cluster has the process ID. PostgreSQL itself handles an unused ID, but one reused by another
/// process would prevent it from starting. Writing our own ID, that of its parent, tells PostgreSQL that the file is
/// stale, and it still checks for processes attached to the old shared memory.
fn release(path: &Path, text: Option<&str>, file: Option<&Left>, holder: &Holder) -> anyhow::Result<()> {
    let done = match (text, file, holder) {
        (Some(_), None, _) => fs::remove_file(path),
        // It does not contain the old shared memory key either.
        (Some(text), ..) if text.lines().count() < SHARED_MEMORY_LINE => fs::remove_file(path),
        (Some(text), Some(left), Holder::Other) => {
            tracing::info!(
                "{} names process {}, which is not this database's server; removing the stale file",
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

/// Content of the PID file.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    pid: Pid,
    /// Start time of the server as Unix time, seconds.
    started: Option<u64>,
}

impl Left {
    /// The first line is the process ID, negative for a stand-alone backend; the third is the start time. `None` if it
    /// is damaged.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let id: i32 = lines.next()?.trim().parse().ok()?;
        let pid = Pid::from_raw(id.checked_abs()?)?;
        Some(Self { pid, started: lines.nth(1).and_then(|line| line.trim().parse().ok()) })
    }
}

/// Inspects the process. The pidfd is opened first, so that it refers to the process that is inspected.
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
    // "pid (name) state ppid … start": the name may contain any character, so fields are counted after it.
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

/// A server process of this cluster without a PID file, if someone removed or damaged the file.
fn survivor(cluster: &Path) -> Holder {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut numbered = processes.filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?)));
    let found = numbered.find(|(proc, _)| is_server(proc, cluster) == Ok(true));
    found.map_or(Holder::None, |(_, pid)| Holder::Unnamed(pid))
}

/// Whether the process is a `postgres` whose working directory is the cluster. If the kernel hides both (in containers
/// without ptrace permission), its name and its `-D` argument decide.
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

/// The effective user ID from `/proc/PID/status`.
fn uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Boot time as Unix time, seconds.
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

    fn cluster() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("tw-orphan-{:016x}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn the_effective_user_is_the_second_of_four() {
        assert_eq!(uid("Name:\tpostgres\nUid:\t0\t106\t106\t106\nGid:\t1\t2\t3\t4\n"), Some(106));
        for damaged in ["", "Uid:\n", "Uid:\t0\n", "Gid:\t0\t106\n", "Uid:\t0\t-1\n"] {
            assert_eq!(uid(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_file_may_end_anywhere_and_its_lines_in_spaces() {
        assert_eq!(Left::read(" 17 \n/d\n 1700000000 \n").unwrap().started, Some(1_700_000_000));
        for (text, started) in
            [("17\n/d", None), ("17\n/d\n-1", None), ("17\n\n5", Some(5)), ("17\r\n/d\r\n5\r\n", Some(5))]
        {
            let left = Left::read(text).unwrap();
            assert_eq!((left.pid.as_raw_nonzero().get(), left.started), (17, started), "{text:?}");
        }
    }

    #[test]
    fn a_stale_file_no_longer_names_another_process() {
        let dir = cluster();
        let path = dir.join("postmaster.pid");
        let whole = "17\n/data/pg\n1700000000\n5432\n/run\n\n  5432001 65538\nready\n";
        let write = |text: &str, holder: &Holder| {
            fs::write(&path, text).unwrap();
            release(&path, Some(text), Left::read(text).as_ref(), holder).unwrap();
            fs::read_to_string(&path).ok()
        };
        let renamed = whole.replacen("17", &std::process::id().to_string(), 1);
        assert_eq!(write(whole, &Holder::Other), Some(renamed), "the shared memory key stays");
        assert_eq!(write(whole, &Holder::None), Some(whole.to_owned()), "an unused number is PostgreSQL's business");
        assert_eq!(write("17\n/data/pg\n1700000000\n", &Holder::Other), None, "it holds no key");
        assert_eq!(write("damaged", &Holder::None), None);
        assert!(release(&path, None, None, &Holder::None).is_ok(), "no file, nothing to do");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_cluster_without_a_server_is_free_at_once() {
        let dir = cluster();
        let stop = CancellationToken::new();
        stop_server(&dir, &stop).unwrap();
        fs::write(dir.join("postmaster.pid"), "rubbish").unwrap();
        stop_server(&dir, &stop).unwrap();
        assert!(!dir.join("postmaster.pid").exists());
        let mine = format!("{}\n{}\n0\n5432\n/run\n\n1 2\nready\n", std::process::id(), dir.display());
        fs::write(dir.join("postmaster.pid"), &mine).unwrap();
        stop_server(&dir, &stop).unwrap();
        assert_eq!(fs::read_to_string(dir.join("postmaster.pid")).unwrap(), mine, "this process is no server");
        fs::remove_dir_all(dir).unwrap();
    }
}
