//! A server in this process, and the people and programs that use it over HTTP.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use taskwatch::{
    app::{App, Options},
    clock::Clock,
    config::Settings,
    event::Event,
    feed::Callbacks,
    http::{limits::Limits, state::AppState},
    store::{Store, verify},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Stream, cluster, eventually};

/// A server on a database of its own.
pub(crate) struct TestApp {
    pub(crate) url: String,
    pub(crate) database: PgConnectOptions,
    pub(crate) clock: Clock,
    pub(crate) state: AppState,
    http: reqwest::Client,
    stop: CancellationToken,
    run: Option<JoinHandle<anyhow::Result<()>>>,
}

/// A registered worker.
#[derive(Clone)]
pub(crate) struct TestWorker {
    pub(crate) id: String,
    client: Client,
}

/// A claimed task, as its worker sees it.
#[derive(Clone)]
pub(crate) struct TestTask {
    pub(crate) id: String,
    pub(crate) attempt: u64,
    pub(crate) record: Value,
    worker: TestWorker,
}

/// The way to a server.
#[derive(Clone)]
struct Client {
    url: String,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Client {
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Reply { status, json: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }
}

impl Reply {
    /// The body, after the status was as expected.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json
    }

    /// The stable code of a problem.
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

/// Settings for tests: any port, and nothing leaves because it is old.
pub(crate) fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        retain_tasks_days: 0,
        retain_events_days: 0,
        observed_stale_days: 0,
        worker_ttl_seconds: 30,
        lease_seconds: 30,
        stream_max_per_address: 10_000,
        ..Settings::default()
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(settings(), Callbacks::default()).await
    }

    /// Whose pages poll every 2 s.
    pub(crate) async fn quick() -> Self {
        Self::with(Settings { poll_seconds: 2, ..settings() }, Callbacks::default()).await
    }

    pub(crate) async fn with(settings: Settings, callbacks: Callbacks) -> Self {
        Self::on(cluster::database().await, settings, callbacks, Clock::default()).await
    }

    /// Whose limits on clients are as given: times can be shortened instead of waited for.
    pub(crate) async fn limited(settings: Settings, change: impl FnOnce(&mut Limits)) -> Self {
        let database = cluster::database().await;
        let mut options = Options::new(database);
        change(&mut options.limits);
        Self::begin(settings, options).await
    }

    async fn on(database: PgConnectOptions, settings: Settings, callbacks: Callbacks, clock: Clock) -> Self {
        Self::begin(settings, Options { clock, callbacks, ..Options::new(database) }).await
    }

    async fn begin(settings: Settings, options: Options) -> Self {
        let (database, clock) = (options.database.clone(), options.clock.clone());
        let app = App::start(settings, options).await.unwrap();
        let (url, stop, state) = (format!("http://{}", app.address()), app.stop(), app.state().clone());
        let run = Some(tokio::spawn(app.run()));
        Self { url, database, clock, state, http: reqwest::Client::new(), stop, run }
    }

    /// Another server on the same database.
    pub(crate) async fn twin(&self) -> Self {
        Self::on(self.database.clone(), settings(), Callbacks::default(), self.clock.clone()).await
    }

    /// Stops this server in order, and starts another on the same database.
    pub(crate) async fn restarted(self) -> Self {
        let (database, clock) = (self.database.clone(), self.clock.clone());
        self.stopped().await;
        Self::on(database, settings(), Callbacks::default(), clock).await
    }

    /// A server on a database that another one left.
    pub(crate) async fn again(database: PgConnectOptions) -> Self {
        Self::on(database, settings(), Callbacks::default(), Clock::default()).await
    }

    /// Ends it at once, in the middle of whatever it does.
    pub(crate) async fn killed(mut self) {
        if let Some(run) = self.run.take() {
            run.abort();
            let _ = run.await;
        }
    }

    /// Stops it in order.
    pub(crate) async fn stopped(mut self) {
        self.stop.cancel();
        if let Some(run) = self.run.take() {
            let url = std::mem::take(&mut self.url);
            drop(self);
            run.await.unwrap().unwrap_or_else(|error| panic!("{url} failed: {error:#}"));
        }
    }

    fn client(&self) -> Client {
        Client { url: self.url.clone(), http: self.http.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.client().send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.client().send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.client().send(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.client().send(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.client().send(Method::DELETE, path, None).await
    }

    /// A connection on which bytes are written and read by hand.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Raw {
        let mut raw = Raw(TcpStream::connect(self.url.trim_start_matches("http://")).await.unwrap());
        raw.sends(bytes).await;
        raw
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Creates one task in the default queue; its id.
    pub(crate) async fn creates(&self, task_type: &str) -> String {
        self.creates_as(json!({ "task_type": task_type })).await
    }

    /// Creates one task; its id.
    pub(crate) async fn creates_as(&self, task: Value) -> String {
        let created = self.post("/api/v1/tasks", &task).await.expect(201);
        created["task"]["id"].as_str().unwrap().to_owned()
    }

    /// Creates many alike.
    pub(crate) async fn creates_many(&self, count: usize, task_type: &str) {
        for chunk in vec![json!({ "task_type": task_type }); count].chunks(1_000) {
            self.post("/api/v1/tasks", &json!(chunk)).await.expect(201);
        }
    }

    pub(crate) async fn task(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/tasks/{id}")).await.expect(200)["task"].clone()
    }

    /// Registers a worker.
    pub(crate) async fn worker(&self, name: &str) -> TestWorker {
        let body = json!({ "name": name, "machine_id": "m1", "queues": ["default"], "connectors": [{ "connector_id": "c1" }] });
        let worker = self.post("/api/v1/workers", &body).await.expect(201);
        TestWorker { id: worker["worker"]["id"].as_str().unwrap().to_owned(), client: self.client() }
    }

    /// Opens `/events` with a query such as `?after=earliest`.
    pub(crate) async fn events(&self, query: &str) -> Stream {
        Stream::open(&self.http, &format!("{}/events{query}", self.url), None).await
    }

    /// The newest position on this server's board.
    pub(crate) async fn position(&self) -> i64 {
        self.get("/api/v1/stats").await.expect(200)["position"].as_i64().unwrap()
    }

    /// Waits until the board shows a position.
    pub(crate) async fn reaches(&self, position: i64) {
        eventually(&format!("the board reaches position {position}"), || async { self.position().await >= position })
            .await;
    }

    /// Waits until the board shows everything in the log.
    pub(crate) async fn settles(&self) -> i64 {
        let head = cluster::number(&self.database, "SELECT coalesce(max(position), 0) FROM taskwatch.events").await;
        self.reaches(head).await;
        head
    }

    /// The log and the tables agree.
    pub(crate) async fn is_clean(&self) {
        let store = Store::open(self.database.clone(), Clock::default()).await.unwrap();
        let report = verify::verify(&store).await.unwrap();
        store.close().await;
        assert!(report.differences.is_empty(), "{report}");
    }

    /// The kinds of a task's events, in order.
    pub(crate) async fn history(&self, id: &str) -> Vec<String> {
        let events = self.get(&format!("/api/v1/tasks/{id}/events")).await.expect(200);
        events.as_array().unwrap().iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
    }

    /// Retention has kept the events from a position on: in the table, and known to this server at once.
    pub(crate) async fn keeps_from(&self, position: i64) {
        cluster::execute(&self.database, &format!("UPDATE taskwatch.log SET oldest = {position}")).await;
        self.state.subscriptions.set_oldest(position);
    }

    /// Moves the server's time forward.
    pub(crate) fn time_passes(&self, seconds: i64) {
        self.clock.advance(chrono::TimeDelta::seconds(seconds));
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestWorker {
    /// Claims one task; there must be one.
    pub(crate) async fn claims(&self, queue: &str) -> TestTask {
        let mut tasks = self.claims_up_to(1, &[queue], 10).await;
        tasks.pop().unwrap_or_else(|| panic!("nothing to claim in {queue}"))
    }

    /// Claims some tasks, waiting for the first.
    pub(crate) async fn claims_up_to(&self, limit: u32, queues: &[&str], wait_seconds: u32) -> Vec<TestTask> {
        let body = json!({ "worker_id": self.id, "queues": queues, "limit": limit, "wait_seconds": wait_seconds });
        let claimed = self.client.send(Method::POST, "/api/v1/claims", Some(&body)).await.expect(200);
        let tasks = claimed["tasks"].as_array().unwrap().iter();
        tasks.map(|record| TestTask::new(self.clone(), record.clone())).collect()
    }

    pub(crate) async fn beats(&self, body: Value) -> Value {
        self.client.send(Method::POST, &format!("/api/v1/workers/{}/heartbeat", self.id), Some(&body)).await.expect(200)
    }

    pub(crate) async fn leaves(&self) {
        self.client.send(Method::DELETE, &format!("/api/v1/workers/{}", self.id), None).await.expect(204);
    }
}

impl TestTask {
    fn new(worker: TestWorker, record: Value) -> Self {
        let id = record["id"].as_str().unwrap().to_owned();
        Self { id, attempt: record["attempt"].as_u64().unwrap(), record, worker }
    }

    /// Sends a report in the name of this attempt.
    pub(crate) async fn reports(&self, what: &str, mut body: Value) -> Reply {
        body["worker_id"] = json!(self.worker.id);
        body["attempt"] = json!(self.attempt);
        self.worker.client.send(Method::POST, &format!("/api/v1/tasks/{}/{what}", self.id), Some(&body)).await
    }

    pub(crate) async fn completes(&self) -> Value {
        self.reports("complete", json!({ "result": { "ok": true } })).await.expect(200)["task"].clone()
    }

    pub(crate) async fn fails(&self, error: &str) -> Value {
        self.reports("fail", json!({ "error": error })).await.expect(200)["task"].clone()
    }

    pub(crate) async fn progresses(&self, percent: u32) -> Value {
        self.reports("progress", json!({ "percent": percent })).await.expect(200)["task"].clone()
    }
}

/// A connection without a client.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn sends(&mut self, bytes: impl AsRef<[u8]>) {
        // One that was refused already may be closed.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Everything until the server closes it.
    pub(crate) async fn closed(&mut self) -> String {
        let mut read = Vec::new();
        let end = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut read)).await;
        assert!(end.is_ok(), "it is not closed; it said {:?}", String::from_utf8_lossy(&read));
        String::from_utf8_lossy(&read).into_owned()
    }

    /// The status of the next answer.
    pub(crate) async fn status(&mut self) -> u16 {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(DEADLINE, self.0.read_u8()).await.expect("there is an answer");
            read.push(byte.expect("there is an answer"));
        }
        let head = String::from_utf8(read).unwrap();
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"))
    }
}

/// A hook made of a closure.
pub(crate) struct FnHook<F>(pub(crate) &'static str, pub(crate) Duration, pub(crate) F);

impl<F, R> taskwatch::feed::Hook for FnHook<F>
where
    F: Fn(std::sync::Arc<Event>) -> R + Send + Sync + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.0
    }

    fn on_event(&self, event: std::sync::Arc<Event>) -> taskwatch::feed::callbacks::HookResult<'_> {
        Box::pin((self.2)(event))
    }

    fn time_limit(&self) -> Duration {
        self.1
    }
}
