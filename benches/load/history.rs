//! What a long history costs: claims, the overview and the snapshot with a million finished tasks and five million events in
//! the store against an empty store; then the removal of the older half while 500 reports a second go on.
//!
//! `BENCH_TASKS` sets the number of finished tasks (1,000,000), each with five events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use taskwatch::{app::Options, clock::Clock, config::Settings, store::Store};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::bench::{Bench, Client, execute, percentile};

/// Requests of each kind in one measurement.
const ROUNDS: usize = 300;
/// Connections that report during the removal, and reports a second of each.
const REPORTERS: usize = 25;
const EACH: u64 = 20;

/// Median times, milliseconds.
struct QueueRates {
    claim: f64,
    overview: f64,
    snapshot: f64,
}

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let tasks: i64 = std::env::var("BENCH_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let for_ever = || Settings { retain_tasks_days: 0, retain_events_days: 0, ..Settings::default() };
    let (empty, _) = bench.serve_on(for_ever(), Options::new(bench.database()));
    let database = bench.database();
    let began = Instant::now();
    clients.block_on(seed(&database, tasks));
    println!("history: {tasks} finished tasks, {} events written in {:.0} s", tasks * 5, began.elapsed().as_secs_f64());
    let began = Instant::now();
    let (full, stop) = bench.serve_on(for_ever(), Options::new(database.clone()));
    println!(
        "history: first start, the board folded from {} events: {:.1} s",
        tasks * 5,
        began.elapsed().as_secs_f64()
    );
    // Turn by turn, so that the noise of the machine meets both; the quieter turn counts.
    let mut best: Option<(QueueRates, QueueRates)> = None;
    for _ in 0..3 {
        let (one, two) = clients.block_on(async { (measure(&empty).await, measure(&full).await) });
        let less = |a: &QueueRates, b: QueueRates| QueueRates {
            claim: a.claim.min(b.claim),
            overview: a.overview.min(b.overview),
            snapshot: a.snapshot.min(b.snapshot),
        };
        best = Some(match best {
            None => (one, two),
            Some((a, b)) => (less(&a, one), less(&b, two)),
        });
    }
    let Some((one, two)) = best else { return };
    for (what, a, b) in [
        ("claim", one.claim, two.claim),
        ("overview page", one.overview, two.overview),
        ("snapshot", one.snapshot, two.snapshot),
    ] {
        println!("history: {what}: empty {a:.2} ms, full {b:.2} ms (medians of {ROUNDS}): {:.2} times", b / a);
    }
    stop.cancel();
    let settings = Settings { retain_tasks_days: 30, retain_events_days: 30, ..Settings::default() };
    let (address, _) = bench.serve_on(settings, Options::new(database.clone()));
    clients.block_on(retain(&address, &database, tasks));
}

/// Tasks that were created, started and completed over the last sixty days, with their events.
pub(crate) async fn seed(database: &PgConnectOptions, tasks: i64) {
    Store::open(database.clone(), Clock::default()).await.expect("the database can be migrated").close().await;
    for million in 0..=tasks * 5 / 1_000_000 {
        execute(database, &format!("SELECT taskwatch.ensure_partitions({million}000000)")).await;
    }
    let step = 50_000;
    for from in (0..tasks).step_by(usize::try_from(step).unwrap_or(1)) {
        let to = (from + step).min(tasks);
        let statement = format!(
            r#"SET synchronous_commit = off;
            INSERT INTO taskwatch.queues (name) VALUES ('old') ON CONFLICT DO NOTHING;
            CREATE TEMP TABLE IF NOT EXISTS made (n bigint, id uuid, at timestamptz);
            TRUNCATE made;
            INSERT INTO made SELECT n, gen_random_uuid(), now() - interval '60 days' * (1 - n / {tasks}.0)
                FROM generate_series({from} + 1, {to}) AS n;
            INSERT INTO taskwatch.tasks (id, project_id, task_type, queue, priority, status, max_attempts, attempt, outcome,
                created_at, enqueued_at, started_at, finished_at)
            SELECT id, 'default', 'old', 'old', 5, 'completed', 3, 1, 'completed', at, at, at, at FROM made;
            INSERT INTO taskwatch.events (position, at, event_type, task_id, queue, project_id, body)
            SELECT (n - 1) * 5 + k, at, kind, id, 'old', 'default', format(
                '{{"event_id":"%s-%s","position":%s,"event_type":"%s","schema_version":1,"ts":"%s","project_id":"default","task_id":"%s","task_type":"old","queue":"old","priority":5,"attempt":1%s}}',
                epoch, (n - 1) * 5 + k, (n - 1) * 5 + k, kind, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), id, rest)
            FROM made, taskwatch.log, (VALUES
                (1, 'task_created', ',"status":"pending"'),
                (2, 'task_enqueued', ',"old_status":"pending","status":"pending"'),
                (3, 'task_started', ',"old_status":"pending","status":"running"'),
                (4, 'task_progress', ',"old_status":"running","status":"running","data":{{"percent":50.0}}'),
                (5, 'task_completed', ',"old_status":"running","status":"completed","duration_ms":1200')) AS told (k, kind, rest)"#
        );
        execute(database, &statement).await;
    }
    execute(database, "VACUUM ANALYZE").await;
}

async fn measure(address: &str) -> QueueRates {
    let mut client = Client::connect(address).await;
    let worker = client.worker().await;
    let claim = json!({ "worker_id": worker, "queues": ["bench"] }).to_string();
    let (mut claims, mut overviews, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        client.post("/api/v1/tasks", r#"{"task_type":"bench","queue":"bench"}"#.to_owned()).await;
        let began = Instant::now();
        let claimed = client.post("/api/v1/claims", claim.clone()).await;
        claims.push(began.elapsed().as_secs_f64() * 1_000.0);
        let done = json!({ "worker_id": worker, "attempt": 1 }).to_string();
        let id = claimed["tasks"][0]["id"].as_str().expect("a task").to_owned();
        client.post(&format!("/api/v1/tasks/{id}/complete"), done).await;
        for (path, times) in [("/", &mut overviews), ("/api/v1/snapshot", &mut snapshots)] {
            let began = Instant::now();
            client.get(path).await;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        percentile(times, 50.0)
    };
    QueueRates { claim: median(&mut claims), overview: median(&mut overviews), snapshot: median(&mut snapshots) }
}

/// Reports go on until the older half is gone.
async fn retain(address: &str, database: &PgConnectOptions, tasks: i64) {
    let (over, told) = tokio::sync::watch::channel(false);
    let mut reporters = JoinSet::new();
    for number in 0..REPORTERS {
        let (mut client, told) = (Client::connect(address).await, told.clone());
        reporters.spawn(async move {
            let worker = client.worker().await;
            client.post("/api/v1/tasks", r#"{"task_type":"bench","queue":"bench"}"#.to_owned()).await;
            let claim = json!({ "worker_id": worker, "queues": ["bench"], "wait_seconds": 5 }).to_string();
            let claimed: Value = client.post("/api/v1/claims", claim).await;
            let path = format!("/api/v1/tasks/{}/progress", claimed["tasks"][0]["id"].as_str().expect("a task"));
            tokio::time::sleep(Duration::from_millis(1_000 / EACH * number as u64 / REPORTERS as u64)).await;
            let mut tick = tokio::time::interval(Duration::from_millis(1_000 / EACH));
            let mut times = Vec::new();
            while !*told.borrow() {
                tick.tick().await;
                let percent = times.len() % 100;
                let body = json!({ "worker_id": worker, "attempt": 1, "percent": percent }).to_string();
                let began = Instant::now();
                client.post(&path, body).await;
                times.push(began.elapsed().as_secs_f64() * 1_000.0);
            }
            times
        });
    }
    let began = Instant::now();
    let mut conn = PgConnection::connect_with(database).await.expect("the database answers");
    loop {
        let left: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT min(position) FROM taskwatch.events), (SELECT count(*) FROM taskwatch.tasks WHERE queue = 'old')",
        )
        .fetch_one(&mut conn)
        .await
        .expect("the database counts");
        if (left.0 >= tasks * 5 / 2 && left.1 <= tasks / 2) || began.elapsed() > Duration::from_secs(900) {
            println!(
                "history: after {:.0} s the log begins at {}, {} old tasks are left",
                began.elapsed().as_secs_f64(),
                left.0,
                left.1
            );
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let _ = over.send(true);
    let mut times: Vec<f64> = reporters.join_all().await.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    println!(
        "history: {} reports meanwhile: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        times.len(),
        percentile(&times, 50.0),
        percentile(&times, 99.0),
        times.last().copied().unwrap_or_default()
    );
}
