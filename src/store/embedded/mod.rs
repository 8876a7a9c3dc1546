//! A private Postgres: the system's own binaries, a cluster in the data folder, a unix socket and no port.
//!
//! Start it from the main thread before any runtime: the kernel's "parent died" signal, which stops the cluster when
//! this process is killed, belongs to the thread that spawned it.

mod binaries;

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process, set_parent_process_death_signal, test_kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use binaries::{Account, Binaries, account, existing_major, find_binaries, reachable};

/// The oldest Postgres that has what we use.
const OLDEST: u32 = 14;
/// How long a start or a stop may take (crash recovery included).
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest path of a unix socket, less the file's own name.
const LONGEST_SOCKET_DIR: usize = 85;

/// A running private cluster.
#[derive(Debug)]
pub struct Embedded {
    server: Child,
    log: PathBuf,
    socket_dir: PathBuf,
    major: u32,
    _lock: File,
}

impl Embedded {
    /// Starts the cluster in `data_dir`, making it first if there is none. `settings` are passed on as `-c name=value`.
    ///
    /// # Errors
    /// With one sentence that says what is wrong and what to do.
    pub fn start(data_dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        fs::create_dir_all(&data_dir).with_context(|| {
            format!("cannot create the data folder {}; choose another with --data-dir", data_dir.display())
        })?;
        let lock = lock(&data_dir)?;
        let cluster = data_dir.join("pg");
        let account = account(&cluster)?;
        let binaries = find_binaries(existing_major(&cluster)?, &cluster)?;
        if let Some(account) = &account {
            // The folder itself stays root's: what lies beside the cluster cannot be exchanged by its account.
            reachable(&data_dir, account)?;
        }
        let socket_dir = socket_dir(&data_dir);
        private_dir(&socket_dir, account.as_ref())?;
        if !cluster.join("PG_VERSION").exists() {
            init(&binaries, &data_dir, &cluster, account.as_ref())?;
        }
        let log = data_dir.join("pg.log");
        stop_orphan(&cluster)?;
        let server = launch(&binaries, &cluster, &socket_dir, &log, account.as_ref(), settings)?;
        Ok(Self { server, log, socket_dir, major: binaries.major, _lock: lock })
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
        let lock = File::open(data_dir.join("lock")).ok()?;
        let held = lock.try_lock_shared().is_err();
        held.then(|| options(&socket_dir(&data_dir)))
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

    /// A sentence with the last log lines when the server has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.server.try_wait().ok().flatten()?;
        Some(format!(
            "PostgreSQL stopped ({status}); start taskwatch again, it recovers by itself. Last log lines: {}",
            last_lines(&self.log)
        ))
    }

    /// Stops the server ("fast": connections are cut, everything is written).
    pub fn stop(mut self) {
        if let Some(pid) = pid(self.server.id()) {
            let _ = kill_process(pid, Signal::INT);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.server.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
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

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file =
        open().with_context(|| format!("cannot write {}; choose another folder with --data-dir", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder)?;
        bail!(
            "{} is in use by process {}; stop that one or choose another --data-dir",
            data_dir.display(),
            holder.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

fn own(dir: &Path, account: &Account) -> anyhow::Result<()> {
    chown(dir, Some(account.uid), Some(account.gid))
        .with_context(|| format!("cannot hand {} to '{}'", dir.display(), account.name))
}

fn private_dir(dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    if !dir.exists() {
        fs::DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    if let Some(account) = account {
        own(dir, account)?;
    } else if fs::metadata(dir)?.uid() != geteuid().as_raw() {
        bail!("{} belongs to another user; remove it or choose another --data-dir", dir.display());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn socket_dir(data_dir: &Path) -> PathBuf {
    let own = data_dir.join("run");
    if own.as_os_str().len() <= LONGEST_SOCKET_DIR {
        return own;
    }
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&data_dir, &mut hash);
    std::env::temp_dir().join(format!("taskwatch-{:016x}", std::hash::Hasher::finish(&hash)))
}

fn program(binaries: &Binaries, name: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new(binaries.dir.join(name));
    command
        .current_dir("/")
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", &binaries.dir)
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Makes the cluster beside its place and moves it there, so that an interrupted attempt leaves nothing half made.
fn init(binaries: &Binaries, data_dir: &Path, cluster: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let fresh = data_dir.join("pg.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    private_dir(&fresh, account)?;
    let output = program(binaries, "initdb", account)
        .args(["-U", "taskwatch", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "-D"])
        .arg(&fresh)
        .output()
        .context("cannot run initdb")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.contains("rror") || line.contains("FATAL") || line.contains("space"))
            .collect();
        bail!(
            "cannot create the database in {}: {}; choose another folder with --data-dir or set DATABASE_URL",
            data_dir.display(),
            lines.join(" ")
        );
    }
    fs::rename(&fresh, cluster)?;
    Ok(())
}

/// A server left over from a killed taskwatch has been told to stop by the kernel; this waits for it, and tells it again.
fn stop_orphan(cluster: &Path) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(cluster.join("postmaster.pid")) else { return Ok(()) };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw) else {
        return Ok(());
    };
    let started = Instant::now();
    let mut told = false;
    while is_postgres(pid) && cluster.join("postmaster.pid").exists() {
        if !told && started.elapsed() > Duration::from_secs(2) {
            let _ = kill_process(pid, Signal::INT);
            told = true;
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "an older PostgreSQL (process {}) still runs in {}; stop it",
                pid.as_raw_nonzero(),
                cluster.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The process lives and is a server: ids are used again after a restart of the machine.
fn is_postgres(pid: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie =
        state.is_ok_and(|state| state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')));
    !zombie && test_kill_process(pid).is_ok() && name.map_or(true, |name| name.contains("postgres"))
}

fn launch(
    binaries: &Binaries,
    cluster: &Path,
    socket_dir: &Path,
    log: &Path,
    account: Option<&Account>,
    settings: &[&str],
) -> anyhow::Result<Child> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let file = File::options()
            .append(true)
            .create(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = program(binaries, "postgres", account);
        command.arg("-D").arg(cluster).arg("-k").arg(socket_dir);
        for setting in
            ["listen_addresses=", "port=5432", "max_connections=60", "shared_buffers=128MB", "max_wal_size=2GB"]
                .iter()
                .chain(settings)
        {
            command.args(["-c", setting]);
        }
        // A group of its own: Ctrl-C must reach us first, we stop it in order.
        command.process_group(0).stdout(file.try_clone()?).stderr(file);
        let parent = rustix::process::getpid();
        #[expect(unsafe_code, reason = "the only way to have the kernel stop the server when this process is killed")]
        // SAFETY: between fork and exec only two system calls are made; nothing is allocated or locked.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::INT))?;
                // Killed in the meantime: then the signal would never come.
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                Ok(())
            });
        }
        let mut server = command.spawn().context("cannot start PostgreSQL")?;
        match wait_ready(&mut server, cluster, deadline)? {
            true => return Ok(server),
            // After a kill -9 its children or its entry in the process table may linger for a moment.
            false if Instant::now() < deadline && lingers(log) => std::thread::sleep(Duration::from_millis(200)),
            false => bail!("PostgreSQL did not start. Last log lines: {}", last_lines(log)),
        }
    }
}

fn wait_ready(server: &mut Child, cluster: &Path, deadline: Instant) -> anyhow::Result<bool> {
    let pid = server.id().to_string();
    loop {
        if server.try_wait()?.is_some() {
            return Ok(false);
        }
        let text = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() == Some(&pid) && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
            return Ok(true);
        }
        if Instant::now() > deadline {
            let _ = server.kill();
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lingers(log: &Path) -> bool {
    let last = last_lines(log);
    last.contains("shared memory block") || last.contains("postmaster.pid")
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
