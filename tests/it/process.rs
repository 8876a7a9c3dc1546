//! The real binary: starting, stopping, dying, starting again.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::program::{Folder, Program, output};

async fn creates(program: &Program) -> String {
    let reply = reqwest::Client::new()
        .post(format!("{}/api/v1/tasks", program.url))
        .json(&json!({ "task_type": "t" }))
        .send()
        .await;
    let json: Value = reply.unwrap().json().await.unwrap();
    json["task"]["id"].as_str().unwrap().to_owned()
}

async fn has(program: &Program, id: &str) -> bool {
    reqwest::get(format!("{}/api/v1/tasks/{id}", program.url)).await.unwrap().status() == 200
}

/// The private database's process id.
fn postgres(folder: &Folder) -> i32 {
    let text = std::fs::read_to_string(folder.0.join("pg/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn verifies(folder: &Folder) {
    let (code, out, error) = output(&["verify", "--data-dir", folder.0.to_str().unwrap()]);
    assert_eq!(code, 0, "{out} {error}");
    assert!(out.contains("clean"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_from_nothing_and_keeps_its_data() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let id = creates(&program).await;
    assert_eq!(program.terminate().code(), Some(0));
    let program = Program::start(&folder.0, &[]);
    assert!(has(&program, &id).await);
    program.signal(Signal::INT);
    assert_eq!(program.ends().code(), Some(0));
    verifies(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_recovers_from_being_killed() {
    let folder = Folder::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let program = Program::start(&folder.0, &[]);
        ids.push(creates(&program).await);
        program.kill();
    }
    let program = Program::start(&folder.0, &[]);
    for id in &ids {
        assert!(has(&program, id).await);
    }
    // Now its database is killed: it says so and ends, and the next start recovers.
    let postmaster = rustix::process::Pid::from_raw(postgres(&folder)).unwrap();
    rustix::process::kill_process(postmaster, Signal::KILL).unwrap();
    assert_eq!(program.ends().code(), Some(1));
    let program = Program::start(&folder.0, &[]);
    assert!(has(&program, &ids[1]).await);
    assert_eq!(program.terminate().code(), Some(0));
    verifies(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_what_was_tampered_with() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let id = creates(&program).await;
    // While it runs, too.
    verifies(&folder);
    let socket = folder.0.join("run");
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(&socket)
        .port(5432)
        .username("taskwatch")
        .database("postgres");
    crate::harness::cluster::execute(
        &options,
        &format!("UPDATE taskwatch.tasks SET status = 'completed' WHERE id = '{id}'"),
    )
    .await;
    assert_eq!(program.terminate().code(), Some(0));
    let (code, out, _) = output(&["verify", "--data-dir", folder.0.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(out.contains("DIFFERENCE") && out.contains(&id), "{out}");
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let folder = Folder::new();
    let data = folder.0.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
    let old = Folder::new();
    std::fs::create_dir(old.0.join("pg")).unwrap();
    std::fs::write(old.0.join("pg/PG_VERSION"), "9\n").unwrap();
    let file = folder.0.join("file");
    std::fs::write(&file, "").unwrap();
    for (arguments, code, says) in [
        (vec!["--listen", "0.0.0.0:8080"], 2, "refusing to listen on 0.0.0.0:8080"),
        (vec!["--listen", "here"], 2, "invalid"),
        (vec!["--poll-seconds", "1"], 2, "2..=3600"),
        (vec!["--lease-seconds", "5"], 2, "--lease-seconds must exceed"),
        (vec!["--log", "???=7", "--data-dir", data], 2, "--log"),
        (vec!["--data-dir", data, "--listen", &port], 2, "is taken"),
        (vec!["--data-dir", old.0.to_str().unwrap()], 2, "was created by PostgreSQL 9"),
        (vec!["--data-dir", file.to_str().unwrap()], 2, "cannot create the data directory"),
        (vec!["--database-url", "mysql://x"], 2, "postgres://"),
        (vec!["--database-url", "postgres://nobody@127.0.0.1:1/x"], 2, "cannot reach the database at 127.0.0.1:1"),
        (vec!["fly"], 2, "unrecognized subcommand"),
    ] {
        let (got, out, error) = output(&arguments);
        assert_eq!(got, code, "{arguments:?}: {out} {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    }
}

#[test]
fn a_folder_has_one_server() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let (code, _, error) = output(&["--data-dir", folder.0.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 2);
    assert!(error.contains(&format!("in use by process {}", program.pid())), "{error}");
    program.terminate();
}

#[test]
fn an_ordinary_user_can_run_it() {
    if !rustix::process::geteuid().is_root() {
        return; // Every other test here is this one then.
    }
    use std::os::unix::process::CommandExt;
    let folder = Folder::new();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    // The build's folder may be private to root, so the binary goes along.
    let binary = folder.0.join("taskwatch");
    std::fs::copy(env!("CARGO_BIN_EXE_taskwatch"), &binary).unwrap();
    let nobody = 65_534;
    let mut child = std::process::Command::new(&binary)
        .args(["--data-dir", folder.0.join("data").to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .env_remove("DATABASE_URL")
        .current_dir("/")
        .uid(nobody)
        .gid(nobody)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert!(line.starts_with("taskwatch listening on http://127.0.0.1:"), "{line}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_works_over_the_public_api() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &["--demo"]);
    crate::harness::eventually("work is done and parents are in progress", || async {
        let stats: Value = reqwest::get(format!("{}/api/v1/stats", program.url)).await.unwrap().json().await.unwrap();
        let snapshot: Value =
            reqwest::get(format!("{}/api/v1/snapshot", program.url)).await.unwrap().json().await.unwrap();
        stats["completed"].as_u64() > Some(10)
            && snapshot["parents"].as_array().is_some_and(|parents| !parents.is_empty())
    })
    .await;
    assert_eq!(program.terminate().code(), Some(0));
    verifies(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_python_does_its_work() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let http = reqwest::Client::new();
    let task = json!({ "task_type": "add", "queue": "math", "payload": { "a": 2, "b": 40 } });
    let created: Value =
        http.post(format!("{}/api/v1/tasks", program.url)).json(&task).send().await.unwrap().json().await.unwrap();
    let id = created["task"]["id"].as_str().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/worker.py");
    let mut worker = std::process::Command::new("python3").args([script, &program.url, "math"]).spawn().unwrap();
    let read = async || -> Value {
        reqwest::get(format!("{}/api/v1/tasks/{id}", program.url)).await.unwrap().json().await.unwrap()
    };
    crate::harness::eventually("the worker completes the task", || async {
        read().await["task"]["status"] == "completed"
    })
    .await;
    assert_eq!(read().await["task"]["result"], json!({ "sum": 42 }));
    worker.kill().unwrap();
    worker.wait().unwrap();
    program.terminate();
}

#[test]
fn help_and_the_document_are_printed() {
    let (code, out, _) = output(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("--listen") && out.contains("demo") && out.contains("verify"));
    let (code, out, _) = output(&["openapi"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["info"]["title"], "taskwatch");
}
