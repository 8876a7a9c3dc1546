//! Unmodified clients of Server-Sent Events from npm, PyPI and the Rust registry follow the stream through a line that is
//! cut at any byte, while the server is killed and drained. Each must have every event once, in order, and nothing else.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{
    DEADLINE, eventually, packages,
    program::{Folder, Program},
};

const NPM: [&str; 4] =
    ["eventsource", "eventsource-client", "@microsoft/fetch-event-source", "launchdarkly-eventsource"];
const PYPI: [&str; 4] = ["httpx-sse", "sseclient", "requests-sse", "aiohttp-sse-client2"];

/// A line between clients and a server: it cuts connections after some bytes, as long as it is told to.
struct Line {
    address: String,
    cuts: Arc<AtomicU64>,
    /// Nothing is cut any more.
    calm: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Line {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, calm) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = {
            let (cuts, calm) = (cuts.clone(), calm.clone());
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    tokio::spawn(carry(client, server.clone(), cuts.clone(), calm.clone()));
                }
            })
        };
        Self { address, cuts, calm, task }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. What is cut is cut for both sides, at once.
async fn carry(mut client: TcpStream, server: String, cuts: Arc<AtomicU64>, calm: Arc<AtomicBool>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let mut left = if fastrand::bool() { fastrand::usize(150..3_000) } else { fastrand::usize(3_000..60_000) };
    let (mut up, mut down) = ([0; 4_096], [0; 4_096]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 => if server.write_all(&up[..count]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count) if count > 0 => {
                    let cut = count >= left && !calm.load(Ordering::Relaxed);
                    let count = if cut { left } else { count };
                    if client.write_all(&down[..count]).await.is_err() {
                        return;
                    }
                    if cut {
                        cuts.fetch_add(1, Ordering::Relaxed);
                        // Half of them with a reset instead of an end.
                        if fastrand::bool() {
                            let _ = client.set_zero_linger();
                        }
                        return;
                    }
                    left = left.saturating_sub(count).max(1);
                }
                _ => return,
            },
        }
    }
}

/// What a client has got: type and data of each message.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<(String, String)>>>);

impl Inbox {
    fn put(&self, kind: &str, data: &str) {
        self.0.lock().unwrap().push((kind.to_owned(), data.to_owned()));
    }

    /// Positions of the events, in the order in which they came.
    fn positions(&self) -> Vec<i64> {
        let all = self.0.lock().unwrap();
        let events = all.iter().filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
        events.filter(|event| event["event_type"].is_string()).filter_map(|event| event["position"].as_i64()).collect()
    }

    /// Messages that nobody sent: without data, or of a type that is none.
    fn phantoms(&self) -> Vec<(String, String)> {
        let all = self.0.lock().unwrap();
        let known: Vec<_> = taskwatch::event::schema::names().collect();
        let sent = |(kind, data): &&(String, String)| {
            known.contains(&kind.as_str()) && serde_json::from_str::<Value>(data).is_ok_and(|data| data.is_object())
        };
        all.iter().filter(|message| !sent(message)).cloned().collect()
    }
}

/// A client in a process of its own.
struct Reading(Child);

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(command: &mut Command) -> (Inbox, Reading) {
    use std::io::BufRead;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let inbox = Inbox::default();
    let (lines, into) = (std::io::BufReader::new(child.stdout.take().unwrap()), inbox.clone());
    std::thread::spawn(move || {
        // Some libraries print words of their own, such as empty lines.
        for line in lines.lines().map_while(Result::ok).filter(|line| line.starts_with('{')) {
            let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            into.put(message["type"].as_str().unwrap_or_default(), message["data"].as_str().unwrap_or_default());
        }
    });
    (inbox, Reading(child))
}

/// `reqwest-eventsource`: comes back by itself.
async fn reqwest_eventsource(url: String, inbox: Inbox) {
    let mut source = reqwest_eventsource::EventSource::new(reqwest_012::Client::new().get(url)).unwrap();
    while let Some(event) = source.next().await {
        if let Ok(reqwest_eventsource::Event::Message(message)) = event {
            inbox.put(&message.event, &message.data);
        }
    }
}

/// `eventsource-client`, of LaunchDarkly: comes back by itself.
async fn eventsource_client(url: String, inbox: Inbox) {
    use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
    let again = ReconnectOptions::reconnect(true).retry_initial(true).delay(Duration::from_millis(500)).build();
    let transport = launchdarkly_sdk_transport::HyperTransport::builder().build_http().unwrap();
    let client = ClientBuilder::for_url(&url).unwrap().reconnect(again).build_with_transport(transport);
    let mut events = client.stream();
    loop {
        match events.try_next().await {
            Ok(Some(SSE::Event(event))) => inbox.put(&event.event_type, &event.data),
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => return,
        }
    }
}

/// `eventsource-stream`: a parser; coming back is its user's.
async fn eventsource_stream(url: String, inbox: Inbox) {
    use eventsource_stream::Eventsource;
    let http = reqwest::Client::new();
    let mut last = String::new();
    loop {
        let answer = http.get(&url).header("last-event-id", &last).send().await;
        if let Ok(answer) = answer {
            let mut events = answer.bytes_stream().eventsource();
            while let Some(Ok(event)) = events.next().await {
                last.clone_from(&event.id);
                inbox.put(&event.event, &event.data);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Creates tasks (two events each) through thick and thin; how many.
async fn publish(url: String, stop: Arc<AtomicBool>) -> usize {
    let http = reqwest::Client::new();
    let mut created = 0;
    while !stop.load(Ordering::Relaxed) {
        let task = json!({ "task_type": "t", "id": uuid::Uuid::now_v7(), "title": "ü\u{2028}".repeat(created % 40) });
        while !http.post(format!("{url}/api/v1/tasks")).json(&task).send().await.is_ok_and(|r| r.status().is_success())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        created += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    created
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_all_kinds_miss_nothing() {
    let rounds: usize = std::env::var("TASKWATCH_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (Some(modules), Some(python)) = (packages::node().await, packages::python().await) else { return };
    let folder = Folder::new();
    let mut program = Program::start(&folder.0, &[]);
    let address = program.url.trim_start_matches("http://").to_owned();
    let line = Line::to(address.clone()).await;
    let url = format!("http://{}/events?after=earliest&heartbeat=5", line.address);
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let types = taskwatch::event::schema::names().collect::<Vec<_>>().join(",");
    let mut inboxes = Vec::new();
    let mut processes = Vec::new();
    for name in NPM {
        let mut node = Command::new("node");
        let (inbox, child) =
            process(node.arg(clients.join("sse.mjs")).args([name, &url]).env("MODULES", &modules).env("TYPES", &types));
        inboxes.push((name, inbox));
        processes.push(child);
    }
    for name in PYPI {
        let (inbox, child) =
            process(Command::new(python.join("python")).arg(clients.join("sse.py")).args([name, &url]));
        inboxes.push((name, inbox));
        processes.push(child);
    }
    let rust =
        ["reqwest-eventsource", "eventsource-client (Rust)", "eventsource-stream"].map(|name| (name, Inbox::default()));
    let of = |index: usize| (url.clone(), rust[index].1.clone());
    let ((url_0, inbox_0), (url_1, inbox_1), (url_2, inbox_2)) = (of(0), of(1), of(2));
    let tasks = [
        tokio::spawn(reqwest_eventsource(url_0, inbox_0)),
        tokio::spawn(eventsource_client(url_1, inbox_1)),
        tokio::spawn(eventsource_stream(url_2, inbox_2)),
    ];
    inboxes.extend(rust);
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn(publish(program.url.clone(), stop.clone()));
    let cut = |times: u64| {
        let (cuts, goal) = (line.cuts.clone(), line.cuts.load(Ordering::Relaxed) + times);
        async move {
            let reached = || async { cuts.load(Ordering::Relaxed) >= goal };
            eventually("the line has been cut often enough", reached).await;
        }
    };
    for _ in 0..rounds {
        cut(15).await;
        program.kill();
        program = Program::start_on(&folder.0, &address, &[]);
        cut(15).await;
        let stopping = program;
        tokio::task::spawn_blocking(move || stopping.terminate()).await.unwrap();
        program = Program::start_on(&folder.0, &address, &[]);
    }
    cut(15).await;
    stop.store(true, Ordering::Relaxed);
    let created = publisher.await.unwrap();
    line.calm.store(true, Ordering::Relaxed);
    let stats: Value = reqwest::get(format!("{}/api/v1/stats", program.url)).await.unwrap().json().await.unwrap();
    let head = stats["position"].as_i64().unwrap();
    assert!(head as usize >= 2 * created);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    for (name, inbox) in &inboxes {
        while inbox.positions().last() != Some(&head) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{name} has come to {:?} of {head}",
                inbox.positions().last()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(inbox.positions(), (1..=head).collect::<Vec<_>>(), "{name}");
        let mut phantoms = inbox.phantoms();
        if *name == "sseclient" {
            // It glues the torn beginning of an event to the first frame after it came back, which is `hello`.
            phantoms.retain(|(kind, _)| kind != "hello");
        }
        assert_eq!(phantoms, [], "{name}");
    }
    println!(
        "{} clients, {head} events, {} cuts: each has every event once, in order",
        inboxes.len(),
        line.cuts.load(Ordering::Relaxed)
    );
    drop(processes);
    tasks.iter().for_each(JoinHandle::abort);
}
