//! A private Postgres: the system's own binaries, a cluster in the data folder, a unix socket and no port.
//!
//! Start it from the main thread: the kernel's "parent died" signal, which stops the cluster when this process is killed,
//! belongs to the thread that spawned it.

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

/// The oldest Postgres that has what we use.
const OLDEST: u32 = 14;
/// How long a start or a stop may take (crash recovery included).
const PATIENCE: Duration = Duration::from_secs(60);

/// The start was asked to stop while it waited.
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
    /// Starts the cluster in `data_dir`, making it first if there is none. `settings` are passed on as `-c name=value`.
    ///
    /// # Errors
    /// With one sentence that says what is wrong and what to do.
    pub fn start(data_dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        Self::start_unless(data_dir, settings, &CancellationToken::new())
    }

    /// The same, but given up as soon as `stop` is cancelled.
    ///
    /// # Errors
    /// With one sentence that says what is wrong and what to do, or with [`Interrupted`].
    pub fn start_unless(data_dir: &Path, settings: &[&str], stop: &CancellationToken) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let cluster = data_dir.join("pg");
        let account = account(&cluster)?;
        folder::prepare(&data_dir, account.as_ref())?;
        let lock = folder::lock(&data_dir)?;
        let binaries = find_binaries(existing_major(&cluster)?, &cluster)?;
        if let Some(account) = &account {
            // The folder itself stays root's: what lies beside the cluster cannot be exchanged by its account.
            reachable(&data_dir, account)?;
        }
        if !cluster.join("PG_VERSION").exists() {
            launch::init(&binaries, &data_dir, &cluster, account.as_ref(), stop)?;
        }
        orphan::settle(&cluster, stop)?;
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

    /// Ends with a sentence when `data_dir` holds no private database: for commands that must not make one.
    ///
    /// # Errors
    /// When there is none, or it cannot be looked at.
    pub fn must_exist(data_dir: &Path) -> anyhow::Result<()> {
        if existing_major(&std::path::absolute(data_dir)?.join("pg"))?.is_none() {
            bail!(
                "there is no database in {}; name the data folder with --data-dir, or the database with DATABASE_URL",
                data_dir.display()
            );
        }
        Ok(())
    }

    /// How to connect.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        options(&self.socket_dir)
    }

    /// How to connect to the cluster that another taskwatch runs in `data_dir` at the moment; `None` when none does.
    #[must_use]
    pub fn of_another(data_dir: &Path) -> Option<PgConnectOptions> {
        let data_dir = std::path::absolute(data_dir).ok()?;
        folder::is_locked(&data_dir).then(|| options(&folder::socket_dir(&data_dir)))
    }

    /// Takes `PGOPTIONS` out of this process's environment, which would reach the private server with each connection.
    /// Only before any other thread is started.
    pub fn forget_environment() {
        #[expect(unsafe_code, reason = "connection options cannot be made without what PGOPTIONS says")]
        // SAFETY: called first thing in main, when no other thread can read the environment.
        unsafe {
            std::env::remove_var("PGOPTIONS");
        }
    }

    /// The folder that everything of it is in.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its major version.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// A sentence with the last log lines when the server has ended by itself. To be asked now and then: it also keeps the
    /// server's log bounded.
    pub fn ended(&mut self) -> Option<String> {
        self.log.trim();
        let status = self.server.try_wait().ok().flatten()?;
        Some(format!(
            "PostgreSQL stopped ({status}); start taskwatch again, it recovers by itself. Last log lines: {}",
            self.log.last_lines()
        ))
    }

    /// Stops the server ("fast": connections are cut, everything is written).
    pub fn stop(mut self) {
        end(&mut self.server);
        folder::remove_socket_dir(&self.data_dir, self.account.as_ref());
    }
}

/// Stops our own child. Its id cannot be another process's: it is ours until it was waited for.
fn end(server: &mut Child) {
    if !matches!(server.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::INT);
    }
    let deadline = Instant::now() + PATIENCE;
    while matches!(server.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every field is set, so that `PG…` variables of the environment have no say.
fn options(socket_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .ssl_mode(PgSslMode::Disable)
        .username("taskwatch")
        .password("")
        .database("postgres")
}
