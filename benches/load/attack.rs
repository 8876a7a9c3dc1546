//! Attackers beside good clients: 16 clients that create tasks, alone, beside one attacker of each kind, and alone again.
//! The bar: at least 90 % of their rate, the 99th percentile of `/healthz` below 50 ms, less than 100 MiB more memory.
//!
//! `BENCH_SECONDS` sets the length of each part (5). `cargo bench -- attack NAME` runs one attacker.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};

use crate::{
    bench::{Bench, Client, execute, percentile, seconds},
    server::Server,
};

/// Clients that create tasks.
const GOOD: usize = 16;
/// An attacker's connections are opened again after so long.
const AGAIN: Duration = Duration::from_millis(20);

/// What one task of an attacker does, again and again.
type Attack = fn(String) -> BoxFuture<'static, ()>;

struct Attacker {
    name: &'static str,
    /// Tasks at once.
    tasks: usize,
    attack: Attack,
}

const ATTACKERS: [Attacker; 11] = [
    Attacker { name: "slow bodies", tasks: 500, attack: |address| Box::pin(held(address, slow_form())) },
    Attacker { name: "big bodies", tasks: 300, attack: |address| Box::pin(big_body(address)) },
    Attacker {
        name: "whole bodies",
        tasks: 60,
        attack: |address| Box::pin(answered(address, "POST", "/api/v1/events", &REPORTS)),
    },
    Attacker { name: "h2 preface", tasks: 900, attack: |address| Box::pin(held(address, b"PRI * HTTP".to_vec())) },
    Attacker { name: "first byte", tasks: 900, attack: |address| Box::pin(held(address, b"P".to_vec())) },
    Attacker { name: "h2 no window", tasks: 20, attack: |address| Box::pin(no_window(address)) },
    Attacker {
        name: "searches",
        tasks: 16,
        attack: |address| {
            Box::pin(async move {
                let path = format!("/api/v1/tasks?status=failed&q={}b", "a".repeat(199));
                answered(address, "GET", &path, &[]).await;
            })
        },
    },
    Attacker { name: "openapi", tasks: 20, attack: |address| Box::pin(answered(address, "GET", "/openapi.json", &[])) },
    Attacker { name: "cross-site streams", tasks: 50, attack: |address| Box::pin(held(address, cross_site())) },
    Attacker {
        name: "surrogates",
        tasks: 1,
        attack: |address| {
            let body = br#"{"task_type":"x","payload":"\ud83d"}"#;
            Box::pin(answered(address, "POST", "/api/v1/tasks", body))
        },
    },
    Attacker { name: "names", tasks: 1, attack: |address| Box::pin(names(address)) },
];

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let machine = elsewhere();
    let chosen = std::env::args().skip_while(|argument| argument != "attack").nth(1);
    println!(
        "{:<20} {:>9} {:>9} {:>7} {:>12} {:>10}",
        "attack", "alone/s", "beside/s", "ratio", "healthz p99", "memory"
    );
    for attacker in &ATTACKERS {
        if chosen
            .as_ref()
            .is_some_and(|chosen| chosen.starts_with(|c: char| c != '-') && !attacker.name.contains(chosen))
        {
            continue;
        }
        let database = bench.database();
        let url = bench.url_of(&database);
        let server = Server::start_anywhere(&url);
        clients.block_on(async {
            prepare(&server.address, &database).await;
            // The first rounds of a server are its slowest.
            good(&server.address, Duration::from_secs(1)).await;
            let time = Duration::from_secs(seconds(5));
            let (first, _) = good(&server.address, time).await;
            let before = server.usage().resident_kib;
            let over = Arc::new(AtomicBool::new(false));
            let attack = begin(&machine, attacker, &server.address, &over);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (beside, health) = good(&server.address, time).await;
            let after = server.usage().resident_kib;
            over.store(true, Ordering::Relaxed);
            drop(attack);
            // What is left of the attack ends; then alone again, since the machine is not the same all the time.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (second, _) = good(&server.address, time).await;
            let alone = f64::midpoint(first, second);
            println!(
                "{:<20} {alone:>9.0} {beside:>9.0} {:>6.0} % {health:>9.1} ms {:>6} MiB",
                attacker.name,
                100.0 * beside / alone,
                (after.saturating_sub(before)) / 1_024
            );
        });
        server.kill();
    }
}

/// What some of the attacks need: failed tasks with long errors, a queue at its limit.
async fn prepare(address: &str, database: &sqlx::postgres::PgConnectOptions) {
    let mut client = Client::connect(address).await;
    let tasks = vec![json!({ "task_type": "old", "queue": "old" }); 500];
    for _ in 0..3 {
        client.post("/api/v1/tasks", json!(tasks).to_string()).await;
    }
    let failed = "UPDATE taskwatch.tasks SET status = 'failed', error = repeat('a', 16000) WHERE queue = 'old'";
    execute(database, failed).await;
    client.post("/api/v1/tasks", json!({ "task_type": "t", "queue": "full" }).to_string()).await;
    answered(address.to_owned(), "PATCH", "/api/v1/queues/full", br#"{"concurrency_limit":1}"#).await;
    let worker = client.worker().await;
    client.post("/api/v1/claims", json!({ "worker_id": worker, "queues": ["full"] }).to_string()).await;
}

/// Good clients for a while: their rate, and the 99th percentile of `/healthz` beside them, milliseconds.
async fn good(address: &str, time: Duration) -> (f64, f64) {
    let (done, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + time);
    let mut clients = JoinSet::new();
    for _ in 0..GOOD {
        let (address, done) = (address.to_owned(), done.clone());
        clients.spawn(async move {
            let mut client = Client::connect(&address).await;
            while Instant::now() < until {
                client.post("/api/v1/tasks", r#"{"task_type":"bench"}"#.to_owned()).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        // A new connection each time, as probes come.
        Client::connect(address).await.get("/healthz").await;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clients.join_all().await;
    times.sort_unstable_by(f64::total_cmp);
    (done.load(Ordering::Relaxed) as f64 / time.as_secs_f64(), percentile(&times, 99.0))
}

/// Lets the attacker's tasks run until it is over; they end with what is handed back.
fn begin(machine: &Runtime, attacker: &Attacker, address: &str, over: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..attacker.tasks {
        let (attack, address, over) = (attacker.attack, address.to_owned(), over.clone());
        let again = async move {
            while !over.load(Ordering::Relaxed) {
                attack(address.clone()).await;
                tokio::time::sleep(AGAIN).await;
            }
        };
        tasks.spawn_on(again, machine.handle());
    }
    tasks
}

/// A runtime for the attackers with the lowest priority, so that the cost of sending counts less than the cost of serving.
fn elsewhere() -> Runtime {
    let lowest = || {
        let _ = rustix::process::setpriority_process(None, 19);
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).on_thread_start(lowest).enable_all().build().expect("a runtime can be made")
}

fn slow_form() -> Vec<u8> {
    b"POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\na".to_vec()
}

fn cross_site() -> Vec<u8> {
    b"GET /events?after=earliest HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n".to_vec()
}

/// A thousand reports, padded to almost 4 MiB.
static REPORTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let report = |number: usize| json!({ "event_type": "task_progress", "task_id": format!("a{number}"), "message": "x".repeat(4_000) });
    serde_json::to_vec(&(0..1_000).map(report).collect::<Vec<_>>()).expect("it is JSON")
});
/// Almost 4 MiB of nothing.
static BLANKS: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b' '; 4_194_000]);

/// Bytes of a body that wait in the attacker's kernel (which doubles this). On one machine the copying of whole bodies
/// into the buffers of connections would be measured otherwise, which a server does not pay for.
const SEND_BUFFER: u32 = 32 * 1024;

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let address: std::net::SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.connect(address).await
}

/// Sends something, and waits until the server has enough of it.
async fn held(address: String, bytes: Vec<u8>) {
    held_with(address, bytes, &[]).await;
}

async fn held_with(address: String, head: Vec<u8>, body: &[u8]) {
    let Ok(mut stream) = connect(&address).await else { return };
    if stream.write_all(&head).await.is_ok() && stream.write_all(body).await.is_ok() {
        let mut read = [0; 4_096];
        while stream.read(&mut read).await.is_ok_and(|read| read > 0) {}
    }
}

/// All of 4 MiB but the end.
async fn big_body(address: String) {
    let head = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4194304\r\n\r\n";
    held_with(address, head.into(), &BLANKS).await;
}

/// One request; its answer is read to the end, whatever it is.
async fn answered(address: String, method: &str, path: &str, body: &[u8]) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    held_with(address, head.into(), body).await;
}

/// Streams and documents of which nothing is ever taken.
async fn no_window(address: String) {
    let Ok(stream) = TcpStream::connect(&address).await else { return };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let Ok((mut sender, connection)) = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await else { return };
    let connection = tokio::spawn(connection);
    let mut held = Vec::new();
    for number in 0..90 {
        let path = if number < 2 { "/events?after=earliest" } else { "/openapi.json" };
        let request = Request::get(format!("http://{address}{path}")).body(Empty::new()).expect("a request");
        match sender.send_request(request).await {
            Ok(answer) => held.push(answer),
            Err(_) => break,
        }
    }
    let _ = connection.await;
}

/// Claims that name one queue at its limit, and others that do not exist.
async fn names(address: String) {
    let mut client = Client::connect(&address).await;
    let worker = client.worker().await;
    for _ in 0..50 {
        let mut queues: Vec<_> = (0..63).map(|_| format!("made-up-{:016x}", fastrand::u64(..))).collect();
        queues.push("full".to_owned());
        client.post("/api/v1/claims", json!({ "worker_id": worker, "queues": queues }).to_string()).await;
    }
}
