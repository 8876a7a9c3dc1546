//! What a killed server leaves behind: its own PostgreSQL is stopped, and no other process is ever signalled.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::harness::{
    eventually,
    program::{Folder, Program, Running, command},
};

/// A process of this test that ends with it.
struct Process(Child);

impl Process {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program as the owner of the cluster, in a folder.
fn starts(program: &Path, arguments: &[&str], cluster: &Path, folder: &Path) -> Process {
    let owner = fs::metadata(cluster).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    Process(command.spawn().unwrap())
}

fn file(folder: &Folder) -> PathBuf {
    folder.0.join("pg/postmaster.pid")
}

fn postmaster(folder: &Folder) -> i32 {
    fs::read_to_string(file(folder)).unwrap().lines().next().unwrap().parse().unwrap()
}

/// A folder whose PostgreSQL was killed together with its server, so that its files still name its process.
fn crashed() -> Folder {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    kill_process(Pid::from_raw(postmaster(&folder)).unwrap(), Signal::KILL).unwrap();
    assert_eq!(program.ends().code(), Some(1));
    assert!(file(&folder).exists());
    folder
}

/// Puts another process id into the files, and another time of start.
fn names(folder: &Folder, pid: i32, started: Option<u64>) {
    let text = fs::read_to_string(file(folder)).unwrap();
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    lines[0] = pid.to_string();
    if let Some(started) = started {
        lines[2] = started.to_string();
    }
    fs::write(file(folder), lines.join("\n") + "\n").unwrap();
    let socket = folder.0.join("run/.s.PGSQL.5432.lock");
    let text = fs::read_to_string(&socket).unwrap();
    let rest: Vec<_> = text.lines().skip(1).collect();
    fs::write(&socket, format!("{pid}\n{}\n", rest.join("\n"))).unwrap();
}

async fn answers(program: &Program) {
    assert_eq!(reqwest::get(format!("{}/readyz", program.url)).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_left_alone() {
    let other_folder = Folder::new();
    let other = Program::start(&other_folder.0, &[]);
    let theirs = postmaster(&other_folder);
    let started = fs::read_to_string(file(&other_folder)).unwrap().lines().nth(2).unwrap().parse().unwrap();
    for started in [None, Some(started)] {
        let folder = crashed();
        names(&folder, theirs, started);
        let program = Program::start(&folder.0, &[]);
        answers(&program).await;
        assert_eq!(program.terminate().code(), Some(0));
    }
    answers(&other).await;
    assert_eq!(postmaster(&other_folder), theirs);
    let log = fs::read_to_string(other_folder.0.join("pg.log")).unwrap();
    assert!(!log.contains("shutdown request"), "{log}");
    assert_eq!(other.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_processes_are_left_alone() {
    let folder = crashed();
    let cluster = folder.0.join("pg");
    let tools = Folder::new();
    // It has the right name and the right user, but works elsewhere.
    let namesake = tools.0.join("postgres");
    fs::copy("/bin/sleep", &namesake).unwrap();
    for (program, work_in) in
        [(Path::new("/bin/sleep"), Path::new("/")), (&namesake, Path::new("/")), (Path::new("/bin/sleep"), &cluster)]
    {
        let mut process = starts(program, &["600"], &cluster, work_in);
        names(&folder, process.pid(), None);
        let program = Program::start(&folder.0, &[]);
        answers(&program).await;
        kill_process(Pid::from_raw(postmaster(&folder)).unwrap(), Signal::KILL).unwrap();
        assert_eq!(program.ends().code(), Some(1));
        assert!(process.lives());
    }
    // A process of ours, and an id that nothing has.
    for pid in [i32::try_from(std::process::id()).unwrap(), 4_194_303] {
        names(&folder, pid, None);
        let program = Program::start(&folder.0, &[]);
        kill_process(Pid::from_raw(postmaster(&folder)).unwrap(), Signal::KILL).unwrap();
        assert_eq!(program.ends().code(), Some(1));
    }
    // A damaged file, and one that someone wrote anew.
    for text in ["", "nonsense\n", &format!("{}\n", std::process::id())] {
        fs::remove_file(file(&folder)).unwrap();
        fs::write(file(&folder), text).unwrap();
        let program = Program::start(&folder.0, &[]);
        kill_process(Pid::from_raw(postmaster(&folder)).unwrap(), Signal::KILL).unwrap();
        assert_eq!(program.ends().code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_doubt_it_says_whose_process_it_is_and_signals_nothing() {
    let folder = crashed();
    let cluster = folder.0.join("pg");
    let tools = Folder::new();
    let namesake = tools.0.join("postgres");
    fs::copy("/bin/sleep", &namesake).unwrap();
    let mut process = starts(&namesake, &["600"], &cluster, &cluster);
    names(&folder, process.pid(), Some(1_700_000_000));
    let data = folder.0.to_str().unwrap();
    let (code, said) = Running::start(&mut command(&["--data-dir", data, "--listen", "127.0.0.1:0"])).ends();
    assert_eq!(code.code(), Some(2), "{said}");
    let pid = process.pid();
    assert!(said.contains(&format!("process {pid} may be a PostgreSQL")) && said.contains("kill -INT"), "{said}");
    assert!(process.lives());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_server_is_stopped_when_it_was_left_running() {
    let folder = crashed();
    let cluster = folder.0.join("pg");
    let major = fs::read_to_string(cluster.join("PG_VERSION")).unwrap();
    let binary = PathBuf::from(format!("/usr/lib/postgresql/{}/bin/postgres", major.trim()));
    let run = folder.0.join("run");
    let arguments = ["-D", cluster.to_str().unwrap(), "-k", run.to_str().unwrap(), "-c", "listen_addresses="];
    for named in [true, false] {
        let mut orphan = starts(&binary, &arguments, &cluster, Path::new("/"));
        eventually("the old server is ready", || async {
            fs::read_to_string(file(&folder)).unwrap_or_default().contains("ready")
        })
        .await;
        if named {
            let program = Program::start(&folder.0, &[]);
            assert!(!orphan.lives(), "two servers on one folder");
            assert_eq!(program.terminate().code(), Some(0));
        } else {
            // Without the file it cannot be shown to be the server, so it is waited for.
            fs::remove_file(file(&folder)).unwrap();
            let data = folder.0.to_str().unwrap();
            let start = Running::start(&mut command(&["--data-dir", data, "--listen", "127.0.0.1:0"]));
            start.says(&format!("waiting for an older PostgreSQL (process {})", orphan.pid())).await;
            assert!(orphan.lives());
            start.signal(Signal::TERM);
            assert_eq!(start.ends().0.code(), Some(0), "asked to stop while it waits");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_server_may_take_its_time_after_kill_9() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    // The kernel tells it to end, but a client's process that does not react holds it up.
    let database = PgConnectOptions::new_without_pgpass();
    let database = database.socket(folder.0.join("run")).port(5432).username("taskwatch").database("postgres");
    let mut conn = PgConnection::connect_with(&database).await.unwrap();
    let client: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.unwrap();
    let client = Pid::from_raw(client).unwrap();
    kill_process(client, Signal::STOP).unwrap();
    program.kill();
    let data = folder.0.to_str().unwrap();
    let start = Running::start(&mut command(&["--data-dir", data, "--listen", "127.0.0.1:0"]));
    start.says("waiting for an older PostgreSQL").await;
    kill_process(client, Signal::CONT).unwrap();
    start.says("using a private PostgreSQL").await;
    start.signal(Signal::TERM);
    assert_eq!(start.ends().0.code(), Some(0));
}
