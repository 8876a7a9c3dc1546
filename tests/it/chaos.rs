//! The server is killed again and again while many clients work: nothing acknowledged is lost, nothing is done twice.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    Stream,
    program::{Folder, Program, output},
};

/// Clients at once.
const CLIENTS: usize = 64;
/// How often the server is killed.
const KILLS: usize = 3;

/// Tasks in all; the figure in the README was run with 20,000.
fn tasks() -> usize {
    std::env::var("TASKWATCH_CHAOS_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000)
}

/// What the clients were told.
#[derive(Default)]
struct Told {
    created: Mutex<HashSet<String>>,
    completed: Mutex<HashSet<String>>,
    done: Mutex<Vec<String>>,
}

/// Repeats a call until it is answered; a server that is away is tried again.
async fn call(http: &reqwest::Client, url: &str, body: &Value) -> (u16, Value) {
    loop {
        if let Ok(response) = http.post(url).json(body).timeout(Duration::from_secs(20)).send().await {
            let status = response.status().as_u16();
            if let (false, Ok(json)) = (status == 503, response.json().await) {
                return (status, json);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn client(url: String, told: Arc<Told>, left: Arc<AtomicUsize>, all: usize) {
    let http = reqwest::Client::new();
    let worker_body = json!({ "name": "w", "machine_id": "m" });
    let worker = call(&http, &format!("{url}/api/v1/workers"), &worker_body).await.1["worker"]["id"].clone();
    loop {
        let creates = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if creates {
            // An id of one's own makes creating safe to repeat.
            let id = uuid::Uuid::now_v7().to_string();
            let (status, _) = call(&http, &format!("{url}/api/v1/tasks"), &json!({ "id": id, "task_type": "t" })).await;
            assert!(status == 201 || status == 200, "{status}");
            told.created.lock().unwrap().insert(id);
        } else if told.completed.lock().unwrap().len() == all {
            return;
        }
        let claim = json!({ "worker_id": worker, "queues": ["default"], "wait_seconds": u32::from(!creates) });
        let (status, claimed) = call(&http, &format!("{url}/api/v1/claims"), &claim).await;
        assert_eq!(status, 200, "{claimed}");
        for task in claimed["tasks"].as_array().unwrap() {
            let id = task["id"].as_str().unwrap();
            let body = json!({ "worker_id": worker, "attempt": task["attempt"] });
            let (status, answer) = call(&http, &format!("{url}/api/v1/tasks/{id}/complete"), &body).await;
            match status {
                200 => {
                    told.done.lock().unwrap().push(id.to_owned());
                    told.completed.lock().unwrap().insert(id.to_owned());
                }
                // The lease ran out while the server was away; someone else does it.
                409 => assert_eq!(answer["code"], "lease_lost"),
                other => panic!("{other} {answer}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_is_done_twice() {
    let all = tasks();
    let folder = Folder::new();
    // A claim whose answer died with the server comes back when its lease ends.
    let quick = ["--lease-seconds", "4", "--heartbeat-seconds", "1", "--worker-ttl-seconds", "4"];
    let mut program = Program::start(&folder.0, &quick);
    let url = program.url.clone();
    let listen = url.trim_start_matches("http://").to_owned();
    let (told, left) = (Arc::new(Told::default()), Arc::new(AtomicUsize::new(all)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(url.clone(), told.clone(), left.clone(), all));
    }
    for kill in 1..=KILLS {
        let enough = all * kill / (KILLS + 2);
        while told.completed.lock().unwrap().len() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        program.kill();
        program = Program::start_on(&folder.0, &listen, &quick);
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    // Every acknowledged report is in the log, once, and the log is dense.
    let http = reqwest::Client::new();
    let stats: Value = reqwest::get(format!("{url}/api/v1/stats")).await.unwrap().json().await.unwrap();
    let head = stats["position"].as_i64().unwrap();
    let mut stream = Stream::open(&http, &format!("{url}/events?after=earliest"), None).await;
    let (mut expected, mut completed) = (0, Vec::new());
    for frame in stream.events_to(head).await {
        expected += 1;
        let event = frame.json();
        assert_eq!(event["position"], expected);
        if event["event_type"] == "task_completed" {
            completed.push(event["task_id"].as_str().unwrap().to_owned());
        }
    }
    let once: HashSet<_> = completed.iter().cloned().collect();
    assert_eq!(once.len(), completed.len(), "a task was completed twice");
    assert_eq!(once.len(), all);
    assert_eq!(*told.created.lock().unwrap(), once);
    assert_eq!(told.done.lock().unwrap().len(), all, "a completion was acknowledged to two");
    assert_eq!(program.terminate().code(), Some(0));
    let (code, out, _) = output(&["verify", "--data-dir", folder.0.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}");
    println!("{all} tasks, {CLIENTS} clients, {KILLS} kills: {out}");
}
