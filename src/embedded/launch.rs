//! Runs the PostgreSQL binaries: `initdb` for a new cluster, then the server.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio_util::sync::CancellationToken;

use super::{
    Interrupted, TIMEOUT,
    binaries::{Account, Binaries},
    folder::private_dir,
    log::Log,
};

/// Settings of every private server. Its log never contains statements or their parameters.
const SETTINGS: [&str; 7] = [
    "listen_addresses=",
    "port=5432",
    "max_connections=60",
    "shared_buffers=128MB",
    "max_wal_size=2GB",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
];
/// Delay after which a start logs what it waits for.
const QUIET: Duration = Duration::from_secs(3);

/// Inputs to start a server.
pub(super) struct Server<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) cluster: &'a Path,
    pub(super) socket_dir: &'a Path,
    pub(super) log: &'a Log,
    pub(super) account: Option<&'a Account>,
    pub(super) settings: &'a [&'a str],
}

/// A command for one of the binaries: with an empty environment, as the account, in its own process group (Ctrl-C must
/// reach us first, so that we stop it gracefully), and killed by the kernel if we are killed.
fn program(binaries: &Binaries, name: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new(binaries.dir.join(name));
    command
        .current_dir("/")
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", &binaries.dir)
        .process_group(0)
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let parent = rustix::process::getpid();
    #[expect(unsafe_code, reason = "the only way to have the kernel stop the server when this process is killed")]
    // SAFETY: only two system calls are made between fork and exec; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::INT))?;
            // The parent was killed in the meantime: the signal would never arrive.
            if rustix::process::getppid() != Some(parent) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    command
}

/// Creates the cluster in a temporary directory and renames it, so that an interrupted attempt leaves nothing half
/// done.
pub(super) fn init(
    binaries: &Binaries,
    data_dir: &Path,
    cluster: &Path,
    account: Option<&Account>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let fresh = data_dir.join("pg.new");
    if fs::symlink_metadata(&fresh).is_ok() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    private_dir(&fresh, account)?;
    let mut initdb = program(binaries, "initdb", account)
        .args([
            "-U",
            "taskwatch",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
            "--data-checksums",
            "-D",
        ])
        .arg(&fresh)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run initdb")?;
    let Some(status) = wait(&mut initdb, stop)? else {
        let _ = fs::remove_dir_all(&fresh);
        return Err(Interrupted.into());
    };
    if !status.success() {
        bail!(
            "cannot create the database in {}: {}; choose another directory with --data-dir or set DATABASE_URL",
            data_dir.display(),
            complaint(&mut initdb)?
        );
    }
    fs::rename(&fresh, cluster)?;
    Ok(())
}

/// Waits for the end of a program; `None` when it was stopped meanwhile, and killed.
fn wait(program: &mut Child, stop: &CancellationToken) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = program.try_wait()? {
            return Ok(Some(status));
        }
        if stop.is_cancelled() {
            let _ = program.kill();
            let _ = program.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of a program's output that say what is wrong.
fn complaint(program: &mut Child) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stderr) = program.stderr.take() {
        stderr.read_to_end(&mut bytes)?;
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> =
        text.lines().filter(|line| line.contains("rror") || line.contains("FATAL") || line.contains("space")).collect();
    Ok(lines.join(" "))
}

/// `-k` takes a list of directories: a quoted name may contain commas and spaces, quotes are doubled.
fn quoted(dir: &Path) -> OsString {
    let mut bytes = vec![b'"'];
    for byte in dir.as_os_str().as_bytes() {
        bytes.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    bytes.push(b'"');
    OsString::from_vec(bytes)
}

/// Starts the server and waits until it accepts connections.
pub(super) fn launch(server: &Server<'_>, stop: &CancellationToken) -> anyhow::Result<Child> {
    let started = Instant::now();
    let deadline = started + TIMEOUT;
    let mut logged = false;
    loop {
        let file = server.log.open()?;
        let mut command = program(server.binaries, "postgres", server.account);
        command.arg("-D").arg(server.cluster).arg("-k").arg(quoted(server.socket_dir));
        for setting in SETTINGS.iter().chain(server.settings) {
            command.args([OsStr::new("-c"), OsStr::new(setting)]);
        }
        command.stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().context("cannot start PostgreSQL")?;
        if wait_ready(&mut child, server.cluster, deadline, stop)? {
            return Ok(child);
        }
        // After a kill -9 its processes may keep the shared memory for a moment.
        let lingers = server.log.last_lines().contains("shared memory block");
        if !lingers || Instant::now() > deadline {
            bail!("PostgreSQL did not start. Last log lines: {}", server.log.last_lines());
        }
        if !logged && started.elapsed() > QUIET {
            tracing::info!("waiting for the processes of an older PostgreSQL in {} to end", server.cluster.display());
            logged = true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether it became ready; `false` if it exited or timed out.
fn wait_ready(child: &mut Child, cluster: &Path, deadline: Instant, stop: &CancellationToken) -> anyhow::Result<bool> {
    let pid = child.id().to_string();
    let started = Instant::now();
    let mut logged = false;
    loop {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        let text = fs::read(cluster.join("postmaster.pid")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next() == Some(&pid) && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
            return Ok(true);
        }
        if stop.is_cancelled() {
            super::end(child);
            return Err(Interrupted.into());
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(false);
        }
        if !logged && started.elapsed() > QUIET {
            tracing::info!("waiting for PostgreSQL to start in {} (it may recover from a crash)", cluster.display());
            logged = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_folder_is_one_name_of_the_list() {
        for (path, quoted_path) in [("/a b,c/run", r#""/a b,c/run""#), (r#"/a"b/run"#, r#""/a""b/run""#)] {
            assert_eq!(quoted(Path::new(path)), OsString::from(quoted_path));
        }
    }
}
