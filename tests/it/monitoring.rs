//! `/metrics` as Prometheus, its tools and its Python client read it.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{TestApp, eventually, packages, program::Folder};

/// A server that has done some of everything.
async fn busy() -> TestApp {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_as(json!({ "task_type": "say \"hi\"\\n", "queue": "a \"quoted\" \\ name" })).await;
    app.creates_many(5, "t").await;
    worker.claims("default").await.completes().await;
    worker.claims("default").await.fails("no").await;
    app.post("/api/v1/queues/other/pause", &json!({})).await.expect(200);
    app.get("/api/v1/tasks/nothing").await.expect(400);
    app.settles().await;
    app
}

/// The value of a line of metrics.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in {metrics}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened() {
    let app = busy().await;
    let metrics = app.get("/metrics").await.text;
    for (series, expected) in [
        ("taskwatch_tasks_created_total{queue=\"default\",task_type=\"t\"}", 5.0),
        ("taskwatch_tasks_completed_total{queue=\"default\",task_type=\"t\"}", 1.0),
        ("taskwatch_tasks_retried_total{queue=\"default\",task_type=\"t\"}", 1.0),
        ("taskwatch_attempts_started_total{queue=\"default\",task_type=\"t\"}", 2.0),
        ("taskwatch_task_wait_seconds_count{queue=\"default\"}", 2.0),
        ("taskwatch_task_wait_seconds_bucket{le=\"+Inf\",queue=\"default\"}", 2.0),
        ("taskwatch_task_run_seconds_count{queue=\"default\"}", 2.0),
        ("taskwatch_queue_pending_tasks{queue=\"default\"}", 3.0),
        ("taskwatch_queue_paused{queue=\"other\"}", 1.0),
        ("taskwatch_queue_paused{queue=\"default\"}", 0.0),
        ("taskwatch_queues_paused", 1.0),
        ("taskwatch_error_ratio", 0.5),
        ("taskwatch_workers_online", 1.0),
        ("taskwatch_http_requests_total{method=\"GET\",route=\"/api/v1/tasks/{id}\",status=\"4xx\"}", 1.0),
    ] {
        assert!((value(&metrics, series) - expected).abs() < 1e-9, "{series} is not {expected} in {metrics}");
    }
    let (head, position) = (value(&metrics, "taskwatch_log_head"), value(&metrics, "taskwatch_log_position"));
    assert!(head >= position && position > 0.0);
    // The queue without workers makes the whole degraded or worse, once its task has waited for a while.
    app.time_passes(120);
    eventually("health is not 0", || async { value(&app.get("/metrics").await.text, "taskwatch_health") >= 1.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_parsers_and_promtool_accept_both_formats() {
    let Some(bin) = packages::python().await else { return };
    let app = busy().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/metrics.py");
    let url = app.url.clone();
    let read = move || Command::new(bin.join("python")).arg(script).arg(url).output().unwrap();
    let read = tokio::task::spawn_blocking(read).await.unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = app.get("/metrics").await.text;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// A Prometheus that goes with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_computes_quantiles_of_what_it_scrapes() {
    let app = busy().await;
    let folder = Folder::new();
    let target = app.url.trim_start_matches("http://");
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: taskwatch\n    static_configs: [{{ targets: ['{target}'] }}]\n"
    );
    std::fs::write(folder.0.join("prometheus.yml"), config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prometheus = Command::new("prometheus")
        .current_dir(&folder.0)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(prometheus);
    let asks = |query: &'static str| {
        let request = app.http().get(format!("http://{address}/api/v1/query")).query(&[("query", query)]);
        async move {
            let answer: Value = request.send().await.ok()?.json().await.ok()?;
            answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
        }
    };
    eventually("it scrapes", || async { asks("up{job=\"taskwatch\"}").await == Some(1.0) }).await;
    for query in [
        "histogram_quantile(0.99, sum by (le) (taskwatch_task_wait_seconds_bucket))",
        "histogram_quantile(0.99, sum by (le) (taskwatch_task_run_seconds_bucket))",
        "histogram_quantile(0.99, taskwatch_writer_commit_seconds_bucket)",
    ] {
        eventually(query, || async { asks(query).await.is_some_and(f64::is_finite) }).await;
    }
    // That of streams, once one has sent events.
    let mut stream = app.events("?after=now").await;
    app.creates("t").await;
    let head = app.settles().await;
    stream.events_to(head).await;
    let query = "histogram_quantile(0.99, taskwatch_stream_delay_seconds_bucket)";
    eventually(query, || async { asks(query).await.is_some_and(f64::is_finite) }).await;
    assert_eq!(asks("sum(taskwatch_tasks_created_total)").await, Some(7.0));
}
