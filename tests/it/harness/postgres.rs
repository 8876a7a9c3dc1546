//! PostgreSQL servers of a test's own, which it may stop, promote, copy and replace, and a way to them that can be turned.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{net::UnixListener, net::UnixStream, task::JoinSet};

use super::{cluster, eventually, program::Folder};

/// The folder of the newest PostgreSQL.
fn binaries() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("the tests need Debian's PostgreSQL")
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").is_file())
        .collect();
    found.sort();
    found.pop().expect("the tests need PostgreSQL")
}

/// A program of PostgreSQL, as the account that may run it.
fn program(name: &str) -> Command {
    let path = binaries().join(name);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/").env_remove("DATABASE_URL");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// One server, stopped at the end of the test.
pub(crate) struct Server {
    folder: Folder,
}

impl Server {
    fn folder() -> Folder {
        let folder = Folder::new();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder.0));
        }
        folder
    }

    /// A new cluster, running.
    pub(crate) fn start() -> Self {
        let server = Self { folder: Self::folder() };
        run(program("initdb")
            .args(["-U", "taskwatch", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"])
            .arg(server.data()));
        server.starts();
        server
    }

    /// A standby that follows another server.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let server = Self { folder: Self::folder() };
        let (host, data) = (primary.folder.0.display().to_string(), server.data());
        run(program("pg_basebackup")
            .args(["-h", &host, "-U", "taskwatch", "-X", "stream", "-c", "fast", "-R", "-D"])
            .arg(data));
        server.starts();
        server
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    /// The folder of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.folder.0
    }

    pub(crate) fn starts(&self) {
        let options = format!("-k {} -c listen_addresses= -c fsync=off", self.folder.0.display());
        let log = self.folder.0.join("log");
        run(program("pg_ctl").args(["-w", "-o", &options, "-D"]).arg(self.data()).arg("-l").arg(log).arg("start"));
    }

    /// `how`: `fast` or `immediate`.
    pub(crate) fn stops(&self, how: &str) {
        run(program("pg_ctl").args(["-w", "-m", how, "-D"]).arg(self.data()).arg("stop"));
    }

    pub(crate) fn promotes(&self) {
        run(program("pg_ctl").args(["-w", "-D"]).arg(self.data()).arg("promote"));
    }

    /// Takes a copy of the stopped server's folder.
    pub(crate) fn copies_its_folder(&self) -> PathBuf {
        let copy = self.folder.0.join("copy");
        run(Command::new("cp").arg("-a").arg(self.data()).arg(&copy));
        copy
    }

    /// Puts a copy of the stopped server's folder in its place.
    pub(crate) fn puts_back(&self, copy: &Path) {
        std::fs::remove_dir_all(self.data()).unwrap();
        run(Command::new("cp").arg("-a").arg(copy).arg(self.data()));
    }

    /// One of PostgreSQL's own programs against this server.
    pub(crate) fn runs(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let host = self.folder.0.display().to_string();
        run(program(name).args(["-h", &host, "-U", "taskwatch"]).args(arguments)).stdout
    }

    /// How to connect to a database of it.
    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        options(self.socket_dir(), database)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = program("pg_ctl").args(["-m", "immediate", "-D"]).arg(self.data()).arg("stop").output();
    }
}

fn options(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .ssl_mode(PgSslMode::Disable)
        .username("taskwatch")
        .database(database)
}

/// A proxy that leads to one server or another, as a virtual address does. Turning it cuts all connections.
pub(crate) struct Proxy {
    folder: Folder,
    target: Arc<Mutex<PathBuf>>,
    connections: Arc<Mutex<JoinSet<()>>>,
    _accepting: tokio_util::task::AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) fn to(server: &Server) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.0.join(".s.PGSQL.5432")).unwrap();
        let target = Arc::new(Mutex::new(server.socket_dir().join(".s.PGSQL.5432")));
        let connections: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let (leads_to, open) = (target.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let path = leads_to.lock().unwrap().clone();
                open.lock().unwrap().spawn(async move {
                    if let Ok(mut server) = UnixStream::connect(path).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        let _accepting = tokio_util::task::AbortOnDropHandle::new(accepting);
        Self { folder, target, connections, _accepting }
    }

    /// Leads to another server from now on.
    pub(crate) fn turns_to(&self, server: &Server) {
        *self.target.lock().unwrap() = server.socket_dir().join(".s.PGSQL.5432");
        self.cuts();
    }

    /// Cuts all connections.
    pub(crate) fn cuts(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        options(&self.folder.0, database)
    }
}

/// Waits until a standby has everything that its primary has.
pub(crate) async fn catches_up(standby: &PgConnectOptions, primary: &PgConnectOptions) {
    let head = "SELECT coalesce(max(position), 0) FROM taskwatch.events";
    let wanted = cluster::number(primary, head).await;
    eventually("the standby has everything", || async { cluster::number(standby, head).await >= wanted }).await;
}
