//! Demo workers.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{client::Client, content};

/// Machines of the workers.
const MACHINES: [&str; 4] = ["rack-1", "rack-2", "rack-7", "edge-berlin"];
/// External services of the workers.
const CONNECTORS: [&str; 3] = ["object-store", "comfyui", "smtp-relay"];
/// A task type that takes longer than the others,
const SLOW: &str = "export-ledger";
/// by this factor.
const SLOW_FACTOR: f64 = 2.5;
/// One attempt in this many fails.
const FAILS_ONE_IN: u32 = 9;
/// Average interval between worker crashes.
const DIES_EVERY: Duration = Duration::from_secs(600);
/// Delay before a crashed worker is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(8);

/// Speed of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Concurrent tasks.
    slots: usize,
    /// Average run time of a task, seconds.
    seconds: f64,
    /// Progress reports per task.
    reports: u32,
}

impl Pace {
    /// Chosen so that all workers together keep up with the rate, with 25% headroom and more for what takes longer.
    pub(super) fn new(rate: f64, workers: u32) -> Self {
        let seconds = (f64::from(workers) * 2.0 / rate).clamp(0.2, 2.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a hundred thousand")]
        let slots = (rate * seconds * 1.6 / f64::from(workers)).ceil() as usize;
        Self { slots: slots.max(1), seconds, reports: if rate > 50.0 { 1 } else { 4 } }
    }
}

/// Runs a worker and restarts it when it crashes.
pub(super) async fn keep_working(client: Client, number: u32, pace: Pace, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let life = DIES_EVERY.mul_f64(0.2 + 1.6 * fastrand::f64());
        if let Err(error) = live(&client, number, pace, life, &stopping).await {
            tracing::debug!(error = format!("{error:#}"), "demo worker error");
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_AFTER) => {}
            () = stopping.cancelled() => {}
        }
    }
}

struct Worker {
    client: Client,
    id: String,
    connector: &'static str,
    pace: Pace,
    held: Mutex<Vec<(String, u64)>>,
}

/// Runs a worker from registration to its end: deregisters on shutdown, does not when it crashes.
async fn live(
    client: &Client,
    number: u32,
    pace: Pace,
    life: Duration,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    let connector = CONNECTORS[number as usize % CONNECTORS.len()];
    let queues = match number % 4 {
        0 => json!(["media", "default"]),
        1 => json!(["mail", "default", "crm-sync"]),
        2 => json!(["media"]),
        _ => json!(["default", "mail", "media"]),
    };
    let registered = client
        .post(
            "/api/v1/workers",
            &json!({
                "name": format!("worker-{number}"),
                "machine_id": MACHINES[number as usize % MACHINES.len()],
                "queues": queues,
                "connectors": [{ "connector_id": connector }],
                "version": "1.4.2",
            }),
        )
        .await?;
    let id = registered["worker"]["id"].as_str().unwrap_or_default().to_owned();
    let beat = Duration::from_secs(registered["heartbeat_seconds"].as_u64().unwrap_or(10));
    let worker = Arc::new(Worker { client: client.clone(), id, connector, pace, held: Mutex::default() });
    let dies_at = Instant::now() + life;
    let mut parts = JoinSet::new();
    parts.spawn(worker.clone().beat(beat));
    let working = worker.clone().claim(queues, stopping.clone());
    tokio::select! {
        worked = working => worked?,
        // Dropping the futures simulates the crash: no more reports are sent.
        () = tokio::time::sleep_until(dies_at) => return Ok(()),
    }
    client.delete(&format!("/api/v1/workers/{}", worker.id)).await?;
    Ok(())
}

impl Worker {
    async fn beat(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let held = self.held.lock().await.clone();
            let tasks: Vec<_> = held.iter().map(|(id, attempt)| json!({ "task_id": id, "attempt": attempt })).collect();
            let status = if tasks.is_empty() { "idle" } else { "active" };
            let _ = self.heartbeat(json!({ "status": status, "tasks": tasks })).await;
        }
    }

    async fn heartbeat(&self, body: Value) -> anyhow::Result<Value> {
        self.client.post(&format!("/api/v1/workers/{}/heartbeat", self.id), &body).await
    }

    async fn claim(self: Arc<Self>, queues: Value, stopping: CancellationToken) -> anyhow::Result<()> {
        let slots = Arc::new(Semaphore::new(self.pace.slots));
        let mut tasks = JoinSet::new();
        while !stopping.is_cancelled() {
            let Ok(place) = slots.clone().acquire_owned().await else { break };
            let limit = (slots.available_permits() + 1).min(100);
            let body = json!({ "worker_id": self.id, "queues": queues, "limit": limit, "wait_seconds": 10 });
            let claimed = tokio::select! {
                claimed = self.client.post("/api/v1/claims", &body) => claimed?,
                () = stopping.cancelled() => break,
            };
            drop(place);
            for task in claimed["tasks"].as_array().into_iter().flatten() {
                let Ok(place) = slots.clone().acquire_owned().await else { break };
                let (worker, task) = (self.clone(), task.clone());
                tasks.spawn(async move {
                    if let Err(error) = worker.work(&task).await {
                        tracing::debug!(error = format!("{error:#}"), "demo report rejected");
                    }
                    drop(place);
                });
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
        Ok(())
    }

    async fn work(&self, task: &Value) -> anyhow::Result<()> {
        let id = task["id"].as_str().unwrap_or_default().to_owned();
        let attempt = task["attempt"].as_u64().unwrap_or_default();
        self.held.lock().await.push((id.clone(), attempt));
        let is_slow = task["task_type"] == SLOW;
        let ended = self.attempt(&id, attempt, if is_slow { SLOW_FACTOR } else { 1.0 }).await;
        self.held.lock().await.retain(|(held, _)| *held != id);
        ended
    }

    async fn attempt(&self, id: &str, attempt: u64, factor: f64) -> anyhow::Result<()> {
        let shows_connector = self.pace.reports > 1;
        if shows_connector {
            self.connector("active", None).await?;
        }
        let fence = |mut body: Value| {
            body["worker_id"] = json!(self.id);
            body["attempt"] = json!(attempt);
            body
        };
        let total = Duration::from_secs_f64(self.pace.seconds * factor * (0.3 + 1.4 * fastrand::f64()));
        let fails_at = (fastrand::u32(..FAILS_ONE_IN) == 0).then(|| fastrand::u32(..=self.pace.reports));
        for step in 0..=self.pace.reports {
            tokio::time::sleep(total / (self.pace.reports + 1)).await;
            if fails_at == Some(step) {
                let (error, retryable) = content::error();
                let body = fence(json!({ "error": error, "retryable": retryable }));
                self.client.post(&format!("/api/v1/tasks/{id}/fail"), &body).await?;
                if shows_connector {
                    self.connector("error", Some(error)).await?;
                }
                return Ok(());
            }
            if step < self.pace.reports {
                let percent = f64::from(step + 1) * 100.0 / f64::from(self.pace.reports + 1);
                let body = fence(
                    json!({ "percent": percent.round(), "message": format!("step {} of {}", step + 1, self.pace.reports + 1) }),
                );
                self.client.post(&format!("/api/v1/tasks/{id}/progress"), &body).await?;
            }
        }
        let body = fence(json!({ "result": content::result() }));
        self.client.post(&format!("/api/v1/tasks/{id}/complete"), &body).await?;
        if shows_connector {
            self.connector("idle", None).await?;
        }
        Ok(())
    }

    async fn connector(&self, status: &str, error: Option<&str>) -> anyhow::Result<()> {
        let connector = json!({ "connector_id": self.connector, "status": status, "error": error });
        self.heartbeat(json!({ "connectors": [connector] })).await?;
        Ok(())
    }
}
