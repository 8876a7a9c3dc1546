//! Starts: they can be stopped while they wait, say what is wrong, and only a server makes a place for data.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
};

use rustix::process::Signal;

use crate::harness::{
    eventually,
    program::{Folder, Program, Running, command, output},
};

/// A place that takes connections and never says anything.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_its_database_says_so_and_can_be_stopped() {
    let (_listener, address) = silent();
    let url = format!("postgres://u@{address}/x");
    for signal in [Signal::TERM, Signal::INT] {
        let start = Running::start(&mut command(&["--database-url", &url, "--listen", "127.0.0.1:0"]));
        start.says(&format!("waiting for the database at {address}")).await;
        start.signal(signal);
        assert_eq!(start.ends().0.code(), Some(0));
    }
    // And it does not wait without a bound.
    let (code, said) = Running::start(&mut command(&["--database-url", &url, "--listen", "127.0.0.1:0"])).ends();
    assert_eq!(code.code(), Some(2));
    assert!(said.contains("does not answer") && said.matches("check DATABASE_URL").count() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_can_be_stopped_while_its_database_is_made() {
    let folder = Folder::new();
    let data = folder.0.to_str().unwrap();
    let start = Running::start(&mut command(&["--data-dir", data, "--listen", "127.0.0.1:0"]));
    eventually("the database is being made", || async { folder.0.join("pg.new").exists() }).await;
    start.signal(Signal::TERM);
    let (code, said) = start.ends();
    assert_eq!(code.code(), Some(0), "{said}");
    assert!(!folder.0.join("pg.new").exists() && !folder.0.join("pg/postmaster.pid").exists());
    assert_eq!(Program::start(&folder.0, &[]).terminate().code(), Some(0));
}

#[test]
fn only_a_server_makes_a_place_for_data() {
    let folder = Folder::new();
    let missing = folder.0.join("typo");
    let (code, out, error) = output(&["verify", "--data-dir", missing.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (2, ""), "{error}");
    assert!(error.contains("no database in") && !missing.exists(), "{error}");
    let (code, _, error) = output(&["verify", "--data-dir", folder.0.to_str().unwrap()]);
    assert_eq!(code, 2, "{error}");
    for arguments in [
        &["openapi"][..],
        &["verify"],
        &["health", "--url", "http://127.0.0.1:1"],
        &["status", "--url", "http://127.0.0.1:1"],
        &["demo", "--url", "http://127.0.0.1:1", "--seconds", "1"],
        &["tail", "--url", "no address"],
    ] {
        let mut command = command(arguments);
        let command = command.env("HOME", &folder.0).env("TASKWATCH_DATA_DIR", folder.0.join("made"));
        let ended = command.env_remove("XDG_DATA_HOME").output().unwrap();
        assert!(arguments == ["openapi"] || !ended.status.success(), "{arguments:?}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "{arguments:?} made something");
    }
}

#[test]
fn messages_blame_the_right_thing_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (arguments, code, says, times) in [
        // The port is the cause, whatever database is named.
        (
            vec![
                "--database-url".to_owned(),
                "postgres://u@127.0.0.1:1/x".to_owned(),
                "--listen".to_owned(),
                format!("localhost:{port}"),
            ],
            2,
            format!("port {port} is taken"),
            1,
        ),
        (
            ["--database-url", "postgres://u@127.0.0.1:1/x", "--listen", "127.0.0.1:0"].map(ToOwned::to_owned).to_vec(),
            2,
            "Connection refused".to_owned(),
            1,
        ),
        (["--listen", "nowhere"].map(ToOwned::to_owned).to_vec(), 2, "ADDRESS:PORT".to_owned(), 1),
        (
            ["demo", "--url", "http://127.0.0.1:1", "--seconds", "2"].map(ToOwned::to_owned).to_vec(),
            1,
            "no taskwatch answers at http://127.0.0.1:1".to_owned(),
            1,
        ),
        (["demo", "--url", "nowhere"].map(ToOwned::to_owned).to_vec(), 2, "invalid --url".to_owned(), 1),
        (
            ["health", "--url", "http://127.0.0.1:1"].map(ToOwned::to_owned).to_vec(),
            1,
            "no taskwatch answers".to_owned(),
            1,
        ),
        (
            ["status", "--url", "http://127.0.0.1:1"].map(ToOwned::to_owned).to_vec(),
            2,
            "no taskwatch answers".to_owned(),
            1,
        ),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (got, out, error) = output(&arguments);
        assert_eq!(got, code, "{arguments:?}: {out} {error}");
        assert_eq!(error.matches(&says).count(), times, "{arguments:?}: {error}");
        let database = error.contains("cannot reach the database");
        assert_eq!(error.contains("check DATABASE_URL"), database, "{arguments:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_at_a_name_in_any_folder_whatever_the_environment_says() {
    let folder = Folder::new();
    let mut paths: Vec<OsString> = ["a, b'c\"d", "größe\\$(x)", "-k"].iter().map(|name| (*name).into()).collect();
    paths.push(OsString::from_vec(b"no\xffutf8".to_vec()));
    paths.push("x".repeat(120).into());
    for path in paths {
        let data = folder.0.join(&path);
        let mut start = command(&["--listen", "localhost:0"]);
        // What PostgreSQL's own programs take from the environment does not reach the private database.
        start.env("TASKWATCH_DATA_DIR", &data);
        start.envs([("PGOPTIONS", "-c default_transaction_read_only=on -c no=such"), ("PGUSER", "x"), ("PGPORT", "1")]);
        start.envs([("PGHOST", "x.example"), ("PGSSLMODE", "verify-full"), ("PGDATABASE", "x"), ("PGDATA", "/x")]);
        start.envs([("PGPASSWORD", "x"), ("PGSERVICE", "x"), ("PGSSLROOTCERT", "/x"), ("LC_ALL", "xx_YY")]);
        let program = Program::up(&mut start);
        let (code, out, error) = output(&["health", "--ready", "--url", &program.url]);
        assert_eq!(code, 0, "{}: {out}{error}", data.display());
        let (code, out, _) = output(&["status", "--url", &program.url]);
        assert_eq!((code, out.as_str()), (0, "ok\n"));
        // Without an address it asks where the environment makes a server listen.
        let listen = program.url.trim_start_matches("http://");
        assert!(command(&["health"]).env("TASKWATCH_LISTEN", listen).output().unwrap().status.success());
        let checked =
            command(&["verify"]).env("TASKWATCH_DATA_DIR", &data).env("PGOPTIONS", "-c no=such").output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert_eq!(program.terminate().code(), Some(0));
    }
}

#[test]
fn without_a_home_it_asks_for_a_folder() {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
    let mut start = command(&["--listen", "127.0.0.1:0"]);
    if rustix::process::geteuid().is_root() {
        // The build's folder may be private to root, so the binary goes along.
        let binary = folder.0.join("taskwatch");
        fs::copy(env!("CARGO_BIN_EXE_taskwatch"), &binary).unwrap();
        start = std::process::Command::new(binary);
        start.args(["--listen", "127.0.0.1:0"]).uid(65_534).gid(65_534);
    }
    let work: PathBuf = folder.0.join("work");
    fs::create_dir(&work).unwrap();
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).unwrap();
    for home in [None, Some(""), Some("relative")] {
        start.env_remove("XDG_DATA_HOME").env_remove("HOME").env_remove("DATABASE_URL").current_dir(&work);
        if let Some(home) = home {
            start.env("HOME", home);
        }
        let ended = start.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("HOME is not set") && said.contains("--data-dir"), "{said}");
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    }
}
