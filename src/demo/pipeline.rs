//! An orchestrator: claims parent tasks, creates their children phase by phase, completes them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{KINDS, PROJECTS, client::Client};

/// Phases of each parent.
const PHASES: [&str; 3] = ["fetch", "transform", "publish"];
/// Number of parents in progress.
const PARENTS: usize = 3;
/// Interval of checking whether a phase is complete.
const CHECK_INTERVAL: Duration = Duration::from_millis(1_500);

/// Keeps a few parents in progress, each driven by one worker of the queue `pipelines`.
pub(super) async fn orchestrate(client: Client, rate: f64, stopping: CancellationToken) {
    let mut lines = tokio::task::JoinSet::new();
    for number in 0..PARENTS {
        lines.spawn(keep_orchestrating(client.clone(), number, rate, stopping.clone()));
    }
    while lines.join_next().await.is_some() {}
}

async fn keep_orchestrating(client: Client, number: usize, rate: f64, stopping: CancellationToken) {
    let body = json!({ "name": format!("orchestrator-{number}"), "machine_id": "control", "queues": ["pipelines"] });
    while !stopping.is_cancelled() {
        let Ok(registered) = client.post("/api/v1/workers", &body).await else {
            tokio::time::sleep(CHECK_INTERVAL).await;
            continue;
        };
        let worker_id = registered["worker"]["id"].clone();
        let working = async {
            loop {
                if let Err(error) = one(&client, &worker_id, rate).await {
                    tracing::debug!(error = format!("{error:#}"), "demo pipeline error");
                    return;
                }
            }
        };
        tokio::select! {
            () = working => tokio::time::sleep(CHECK_INTERVAL).await,
            () = stopping.cancelled() => {}
        }
        let _ = client.delete(&format!("/api/v1/workers/{}", worker_id.as_str().unwrap_or_default())).await;
    }
}

/// Runs one parent from creation to completion.
async fn one(client: &Client, worker_id: &Value, rate: f64) -> anyhow::Result<()> {
    let project = PROJECTS[fastrand::usize(..PROJECTS.len())];
    let title = format!("Nightly import {}", fastrand::u32(100..1_000));
    let parent = json!({
        "task_type": "pipeline", "queue": "pipelines", "project_id": project, "title": title, "phases": PHASES,
    });
    client.post("/api/v1/tasks", &parent).await?;
    let claim = json!({ "worker_id": worker_id, "queues": ["pipelines"], "wait_seconds": 10 });
    let claimed = client.post("/api/v1/claims", &claim).await?;
    if let Some(parent) = claimed["tasks"].get(0) {
        run(client, worker_id, parent, rate).await?;
    }
    tokio::time::sleep(CHECK_INTERVAL).await;
    client.post(&heartbeat(worker_id), &json!({ "status": "idle" })).await?;
    Ok(())
}

fn heartbeat(worker_id: &Value) -> String {
    format!("/api/v1/workers/{}/heartbeat", worker_id.as_str().unwrap_or_default())
}

async fn run(client: &Client, worker_id: &Value, parent: &Value, rate: f64) -> anyhow::Result<()> {
    let id = parent["id"].as_str().unwrap_or_default();
    let fence = |mut body: Value| {
        body["worker_id"] = worker_id.clone();
        body["attempt"] = parent["attempt"].clone();
        body
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between ten and two hundred")]
    let children = (rate * 3.0).clamp(10.0, 200.0) as usize;
    for (done, phase) in PHASES.iter().enumerate() {
        let count = fastrand::usize(children / 2..=children);
        let tasks: Vec<_> = (0..count).map(|number| child(id, phase, number)).collect();
        client.post("/api/v1/tasks", &json!(tasks)).await?;
        let percent = (done * 100 / PHASES.len()) as f64;
        let body = fence(json!({ "percent": percent, "message": format!("phase {phase}: {count} tasks") }));
        client.post(&format!("/api/v1/tasks/{id}/progress"), &body).await?;
        let open = format!("/api/v1/tasks?parent_task_id={id}&phase={phase}&status=pending,running,retrying&limit=1");
        while client.get(&open).await?["tasks"].as_array().is_some_and(|tasks| !tasks.is_empty()) {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let held = json!([{ "task_id": id, "attempt": parent["attempt"] }]);
            let body = json!({ "status": "active", "tasks": held });
            client.post(&heartbeat(worker_id), &body).await?;
        }
    }
    client
        .post(&format!("/api/v1/tasks/{id}/complete"), &fence(json!({ "result": { "phases": PHASES.len() } })))
        .await?;
    Ok(())
}

fn child(parent: &str, phase: &str, number: usize) -> Value {
    let (kind, queue, title) = KINDS[fastrand::usize(..KINDS.len())];
    json!({ "task_type": kind, "queue": queue, "parent_task_id": parent, "phase": phase, "title": format!("{title} {number}") })
}
