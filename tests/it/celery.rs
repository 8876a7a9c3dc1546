//! A real Celery application, unchanged but for one file of signal handlers, with a real Redis as its broker.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::{
    eventually, packages,
    program::{Folder, Program},
};

/// A program that goes with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The workers' processes are of its group.
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        Self(command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn ends_in_order(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn redis(folder: &Path, port: u16) -> Running {
    let arguments =
        ["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", folder.to_str().unwrap(), "--appendonly", "yes"];
    let server = Running::start(Command::new("redis-server").args(arguments));
    let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline, "redis-server does not start; tests/run installs it");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server
}

/// Sends tasks of all kinds; prints each id with the state that Celery itself ends in.
const SEND: &str = "
import json, sys, celery_app as c, celery_signals
from celery.result import AsyncResult
n = int(sys.argv[2])
if sys.argv[1] == 'send':
    ids = [r.id for k in range(n) for r in (c.add.delay(k, 1), c.flaky.delay(k), c.broken.delay(k))]
    celery_signals.flush()
    print(json.dumps(ids))
else:
    ids = json.loads(sys.argv[3])
    states = {}
    for i in ids:
        r = AsyncResult(i, app=c.app)
        r.get(timeout=60, propagate=False)
        states[i] = r.state
    print(json.dumps(states))
";

#[tokio::test(flavor = "multi_thread")]
async fn a_celery_application_is_watched_through_restarts() {
    let (folder, store) = (Folder::new(), Folder::new());
    let (port, broker) = (free_port(), free_port());
    let listen = format!("127.0.0.1:{port}");
    let Some(bin) = packages::python().await else { return };
    let celery = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("python"));
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("TASKWATCH_URL", format!("http://127.0.0.1:{port}"));
        command.env("BROKER", format!("redis://127.0.0.1:{broker}/0"));
        command
    };
    let script = |arguments: &[&str]| -> Value {
        let done = celery(&[&["-c", SEND], arguments].concat()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let mut server = redis(&store.0, broker);
    let program = Program::start_on(&folder.0, &listen, &[]);
    let worker =
        Running::start(&mut celery(&["-m", "celery", "-A", "celery_app", "worker", "-c", "2", "--loglevel", "error"]));
    let mut ids: Vec<String> = serde_json::from_value(script(&["send", "20"])).unwrap();
    // taskwatch goes away in the middle, and then the broker.
    program.kill();
    ids.extend(
        serde_json::from_value::<Vec<String>>(tokio::task::block_in_place(|| {
            let sent = celery(&["-c", &SEND.replace("celery_signals.flush()", "pass"), "send", "1"]).output().unwrap();
            serde_json::from_slice(&sent.stdout).unwrap()
        }))
        .unwrap(),
    );
    let program = Program::start_on(&folder.0, &listen, &[]);
    // A task that runs while its broker goes ends as a failure of Celery's own, which Celery signals to nobody.
    script(&["wait", "0", &serde_json::to_string(&ids).unwrap()]);
    server.ends_in_order();
    server = redis(&store.0, broker);
    ids.extend(serde_json::from_value::<Vec<String>>(script(&["send", "10"])).unwrap());
    let states = script(&["wait", "0", &serde_json::to_string(&ids).unwrap()]);
    let http = reqwest::Client::new();
    let url = &program.url;
    for id in &ids {
        let expected = match states[id].as_str().unwrap() {
            "SUCCESS" => "completed",
            "FAILURE" => "failed",
            other => panic!("Celery ended {id} as {other}"),
        };
        eventually(&format!("task {id} is {expected}"), || async {
            let read = http.get(format!("{url}/api/v1/tasks/{id}")).send().await.unwrap();
            let task: Value = read.json().await.unwrap();
            task["task"]["status"] == expected
        })
        .await;
    }
    let flaky: Value = http.get(format!("{url}/api/v1/tasks/{}", ids[1])).send().await.unwrap().json().await.unwrap();
    assert_eq!((&flaky["task"]["retry_count"], &flaky["task"]["task_type"]), (&2.into(), &"celery_app.flaky".into()));
    let workers: Value = http.get(format!("{url}/api/v1/workers")).send().await.unwrap().json().await.unwrap();
    assert!(workers["workers"].as_array().unwrap().iter().any(|w| w["name"].as_str().unwrap().starts_with("celery@")));
    println!("{} tasks of Celery, each as Celery ended it", ids.len());
    worker.ends_in_order();
    drop(server);
    assert_eq!(program.terminate().code(), Some(0));
    let (code, out, error) = crate::harness::program::output(&["verify", "--data-dir", folder.0.to_str().unwrap()]);
    assert_eq!(code, 0, "{out} {error}");
}
