//! What the load runs share: a private Postgres with fsync on, servers, and a lean HTTP client.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::{
    Request,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use taskwatch::{
    app::{App, Options},
    config::Settings,
    embedded::Embedded,
};
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_util::sync::CancellationToken;

/// The database of one run, removed afterwards.
pub(crate) struct Bench {
    pub(crate) servers: Runtime,
    embedded: Option<Embedded>,
    folder: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bench {
    pub(crate) fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("taskwatch-bench-{}", std::process::id()));
        let embedded = Embedded::start(&folder, &["max_connections=200"]).expect("the benchmark needs PostgreSQL");
        let servers = Runtime::new().expect("a runtime can be made");
        Self { servers, embedded: Some(embedded), folder }
    }

    /// Servers on a fresh database, each with its own writer; their addresses.
    pub(crate) fn serve(&self, count: usize, max_batch: usize) -> Vec<String> {
        let database = self.database();
        let one = || {
            let options = Options { max_batch, ..Options::new(database.clone()) };
            self.serve_on(Settings::default(), options).0
        };
        std::iter::repeat_with(one).take(count).collect()
    }

    /// A fresh database.
    pub(crate) fn database(&self) -> PgConnectOptions {
        let options = self.embedded.as_ref().expect("it runs until it is dropped").options();
        let name = format!("bench_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.servers.block_on(execute(&options, &format!("CREATE DATABASE {name}")));
        options.database(&name)
    }

    /// The URL of a fresh database, for a server of its own.
    pub(crate) fn database_url(&self) -> String {
        self.url_of(&self.database())
    }

    /// The URL of a database.
    pub(crate) fn url_of(&self, options: &PgConnectOptions) -> String {
        let folder = options.get_socket().expect("it listens on a unix socket").display().to_string();
        let name = options.get_database().expect("it has a name");
        format!("postgres://{}@localhost/{name}?host={folder}", options.get_username())
    }

    /// A server; its address, and what stops it.
    pub(crate) fn serve_on(&self, mut settings: Settings, options: Options) -> (String, CancellationToken) {
        self.servers.block_on(async {
            settings.listen.set_port(0);
            let app = App::start(settings, options).await.expect("the server starts");
            let (address, stop) = (app.address().to_string(), app.stop());
            tokio::spawn(app.run());
            (address, stop)
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(embedded) = self.embedded.take() {
            embedded.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) async fn execute(options: &PgConnectOptions, statement: &str) {
    let mut conn = PgConnection::connect_with(options).await.expect("the database answers");
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::raw_sql(statement).execute(&mut conn).await.expect("the statement works");
}

/// One keep-alive connection.
pub(crate) struct Client {
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP begins");
        tokio::spawn(connection);
        Self { address: address.to_owned(), sender }
    }

    /// Sends JSON, expects success, returns JSON.
    pub(crate) async fn post(&mut self, path: &str, body: String) -> Value {
        let request = Request::post(path)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        self.sender.ready().await.expect("the connection stands");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// Reads something; how many bytes came.
    pub(crate) async fn get(&mut self, path: &str) -> usize {
        self.text(path).await.len()
    }

    /// Reads something.
    pub(crate) async fn text(&mut self, path: &str) -> String {
        String::from_utf8_lossy(&self.body(path, "identity").await).into_owned()
    }

    /// Reads something as a browser asks for it; how many bytes came.
    pub(crate) async fn gzipped(&mut self, path: &str) -> usize {
        self.body(path, "gzip").await.len()
    }

    async fn body(&mut self, path: &str, coding: &str) -> Bytes {
        let request = Request::get(path).header("host", &self.address).header("accept-encoding", coding);
        let request = request.body(Full::default()).expect("a request");
        self.sender.ready().await.expect("the connection stands");
        let response = self.sender.send_request(request).await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.into_body().collect().await.expect("a body").to_bytes()
    }

    /// Registers a worker; its id.
    pub(crate) async fn worker(&mut self) -> String {
        let worker = self.post("/api/v1/workers", r#"{"name":"bench","machine_id":"bench"}"#.to_owned()).await;
        worker["worker"]["id"].as_str().expect("an id").to_owned()
    }

    /// Becomes a worker with a task: the worker's id, and where to report progress.
    pub(crate) async fn begins_a_task(&mut self) -> (String, String) {
        let worker = self.worker().await;
        self.post("/api/v1/tasks", r#"{"task_type":"bench"}"#.to_owned()).await;
        let claim = json!({ "worker_id": worker, "queues": ["default"], "wait_seconds": 5 }).to_string();
        let claimed = self.post("/api/v1/claims", claim).await;
        let id = claimed["tasks"][0]["id"].as_str().expect("a task");
        (worker, format!("/api/v1/tasks/{id}/progress"))
    }

    /// Opens a stream.
    pub(crate) async fn stream(mut self, path: &str) -> BodyDataStream<Incoming> {
        let request = Request::get(path).header("host", &self.address).body(Full::default()).expect("a request");
        self.sender.ready().await.expect("the connection stands");
        let response = self.sender.send_request(request).await.expect("an answer");
        assert!(response.status().is_success());
        // The connection lives as long as its sender.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            drop(self);
        });
        BodyDataStream::new(response.into_body())
    }
}

/// Reads frames; hands each `data:` line on until it says stop.
pub(crate) async fn each_event(mut stream: BodyDataStream<Incoming>, mut take: impl FnMut(&str) -> bool) {
    let mut buffer = Vec::new();
    while let Some(Ok(bytes)) = stream.next().await {
        buffer.extend_from_slice(&bytes);
        let mut done = 0;
        while let Some(end) = buffer[done..].windows(2).position(|two| two == b"\n\n") {
            let frame = std::str::from_utf8(&buffer[done..done + end]).expect("frames are UTF-8");
            let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
            if !take(data) {
                return;
            }
            done += end + 2;
        }
        buffer.drain(..done);
    }
}

/// The value at a percentile of sorted values.
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let index = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Seconds of one measurement.
pub(crate) fn seconds(default: u64) -> u64 {
    std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
