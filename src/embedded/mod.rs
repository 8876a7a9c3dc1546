//! A private PostgreSQL: the system's own binaries, a cluster in the data directory, a Unix socket and no port.
//!
//! Must be started from the main thread: the kernel's parent-death signal, which stops the cluster when this process is
//! killed, is bound to the thread that spawned it.

mod binaries;
mod folder;
mod launch;
mod log;
mod orphan;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_util::sync::CancellationToken;

use binaries::{Account, account, existing_major, find_binaries, reachable};

/// Oldest supported major version.
const OLDEST: u32 = 14;
/// Timeout of a start or a stop (including crash recovery).
const TIMEOUT: Duration = Duration::from_secs(60);

/// The start was interrupted by a stop request.
#[derive(Debug, thiserror::Error)]
#[error("stopped while starting")]
pub struct Interrupted;

/// A running private cluster.
#[derive(Debug)]
pub struct Embedded {
    server: Child,
    log: log::Log,
    data_dir: PathBuf,
    socket_dir: PathBuf,
    account: Option<Account>,
    major: u32,
    _lock: File,
}

impl Embedded {
    /// Starts the cluster in `data_dir`, creating it first if necessary. `settings` are passed on as `-c name=value`.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do.
    pub fn start(data_dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        Self::start_unless(data_dir, settings, &CancellationToken::new())
    }

    /// The same, aborted as soon as `stop` is cancelled.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do, or [`Interrupted`].
    pub fn start_unless(data_dir: &Path, settings: &[&str], stop: &CancellationToken) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let cluster = data_dir.join("pg");
        let account = account(&cluster)?;
        folder::prepare(&data_dir, account.as_ref())?;
        let lock = folder::lock(&data_dir)?;
        let binaries = find_binaries(existing_major(&cluster)?, &cluster)?;
        if let Some(account) = &account {
            // The directory itself stays owned by root: the account cannot replace anything beside the cluster.
            reachable(&data_dir, account)?;
        }
        if !cluster.join("PG_VERSION").exists() {
            launch::init(&binaries, &data_dir, &cluster, account.as_ref(), stop)?;
        }
        orphan::stop_server(&cluster, stop)?;
        let socket_dir = folder::make_socket_dir(&data_dir, account.as_ref())?;
        let log = log::Log::of(&data_dir);
        let server = launch::launch(
            &launch::Server {
                binaries: &binaries,
                cluster: &cluster,
                socket_dir: &socket_dir,
                log: &log,
                account: account.as_ref(),
                settings,
            },
            stop,
        )?;
        Ok(Self { server, log, data_dir, socket_dir, account, major: binaries.major, _lock: lock })
    }

    /// Fails if `data_dir` contains no private database: for commands that must not create one.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn must_exist(data_dir: &Path) -> anyhow::Result<()> {
        if existing_major(&std::path::absolute(data_dir)?.join("pg"))?.is_none() {
            bail!(
                "no database in {}; set the data directory with --data-dir, or the database with DATABASE_URL",
                data_dir.display()
            );
        }
        Ok(())
    }

    /// Connection options.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        options(&self.socket_dir)
    }

    /// Connection options of the cluster that another taskwatch currently runs in `data_dir`; `None` if there is none.
    #[must_use]
    pub fn of_another(data_dir: &Path) -> Option<PgConnectOptions> {
        let data_dir = std::path::absolute(data_dir).ok()?;
        folder::is_locked(&data_dir).then(|| options(&folder::socket_dir(&data_dir)))
    }

    /// Removes `PGOPTIONS` from this process's environment, which would be sent to the private server with each
    /// connection. Must be called before any other thread is started.
    pub fn forget_environment() {
        #[expect(unsafe_code, reason = "connection options cannot be made without what PGOPTIONS says")]
        // SAFETY: called first in main, when no other thread can read the environment.
        unsafe {
            std::env::remove_var("PGOPTIONS");
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Major version.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// Process ID of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// A sentence with the last log lines if the server has exited unexpectedly. Must be called periodically: it also
    /// rotates the server's log.
    pub fn ended(&mut self) -> Option<String> {
        self.log.trim();
        let status = self.server.try_wait().ok().flatten()?;
        Some(format!(
            "PostgreSQL stopped ({status}); start taskwatch again, it recovers by itself. Last log lines: {}",
            self.log.last_lines()
        ))
    }

    /// Stops the server ("fast" mode: connections are closed, all data is written).
    pub fn stop(mut self) {
        end(&mut self.server);
        folder::remove_socket_dir(&self.data_dir, self.account.as_ref());
    }
}

/// Stops our own child. Its process ID cannot be reused until it has been waited for.
fn end(server: &mut Child) {
    if !matches!(server.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::INT);
    }
    let deadline = Instant::now() + TIMEOUT;
    while matches!(server.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sets every field, so that `PG…` environment variables have no effect.
fn options(socket_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .ssl_mode(PgSslMode::Disable)
        .username("taskwatch")
        .password("")
        .database("postgres")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_command_does_not_create_the_database_that_it_is_about() {
        let dir = std::env::temp_dir().join(format!("tw-none-{:016x}", fastrand::u64(..)));
        let error = Embedded::must_exist(&dir).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no database in {}", dir.display())), "{error}");
        assert!(error.contains("--data-dir") && error.contains("DATABASE_URL") && !dir.exists());
        assert!(Embedded::of_another(&dir).is_none());
        std::fs::create_dir_all(dir.join("pg")).unwrap();
        std::fs::write(dir.join("pg/PG_VERSION"), "17\n").unwrap();
        assert!(Embedded::must_exist(&dir).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
