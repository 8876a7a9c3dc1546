//! Situations that a monitor is for: a paused queue, a queue without workers, schedules, chains, tasks that are due later.
//! Trouble comes and goes.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{PROJECTS, client::Client, content};
use crate::clock::{Time, machine_time};

/// How long a trouble lasts, and how long it stays away.
const TROUBLE: Duration = Duration::from_secs(240);
/// Interval of the chains.
const CHAIN_EVERY: Duration = Duration::from_secs(45);

/// Plays all scenes until stopped.
pub(super) async fn play(client: Client, stopping: CancellationToken) {
    let scenes = async {
        if let Err(error) = schedules(&client).await {
            tracing::warn!(error = format!("{error:#}"), "demo schedules not created");
        }
        tokio::join!(pauses(&client), absences(&client), chains(&client));
    };
    tokio::select! {
        () = scenes => {}
        () = stopping.cancelled() => {}
    }
    // What the demo has paused goes on without it.
    told(client.post("/api/v1/queues/crm-sync/resume", &json!({})).await.map(|_| ()));
}

/// Logs an error; the scene goes on.
fn told(done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(error = format!("{error:#}"), "demo scene failed");
    }
}

async fn schedules(client: &Client) -> anyhow::Result<()> {
    for (name, cron, kind, queue) in [
        ("nightly-ledger", "0 2 * * *", "export-ledger", "default"),
        ("mail-digest", "*/15 * * * *", "send-mail", "mail"),
        ("refresh-previews", "*/5 * * * *", "render-preview", "media"),
    ] {
        let task = json!({ "task_type": kind, "queue": queue, "title": name, "project_id": PROJECTS[0] });
        let body = json!({ "cron": cron, "time_zone": "Europe/Berlin", "task": task });
        client.put(&format!("/api/v1/schedules/{name}"), &body).await?;
    }
    Ok(())
}

/// A queue that someone pauses for a reason, and resumes.
async fn pauses(client: &Client) {
    loop {
        told(pause(client).await);
        tokio::time::sleep(TROUBLE).await;
        told(client.post("/api/v1/queues/crm-sync/resume", &json!({})).await.map(|_| ()));
        tokio::time::sleep(TROUBLE / 2).await;
    }
}

async fn pause(client: &Client) -> anyhow::Result<()> {
    let reason = json!({ "reason": "CRM maintenance until 18:00, ticket OPS-4711" });
    client.post("/api/v1/queues/crm-sync/pause", &reason).await?;
    let tasks: Vec<_> = (0..3)
        .map(|number| {
            let tenant = content::tenant();
            json!({ "task_type": "sync-contact", "queue": "crm-sync", "title": format!("Sync contact {number}"),
                "project_id": PROJECTS[1], "labels": { "tenant": tenant }, "payload": content::payload("sync-contact", number, tenant) })
        })
        .collect();
    client.post("/api/v1/tasks", &json!(tasks)).await.map(|_| ())
}

/// A queue whose only worker comes for a while and leaves again.
async fn absences(client: &Client) {
    loop {
        let task = json!({ "task_type": "train-model", "queue": "gpu-batch", "title": "Train recommendation model",
            "project_id": PROJECTS[2], "payload": { "dataset": "s3://globex/clicks.parquet", "epochs": 12, "gpus": 4 } });
        told(client.post("/api/v1/tasks", &task).await.map(|_| ()));
        tokio::time::sleep(TROUBLE).await;
        told(visit(client).await);
        tokio::time::sleep(TROUBLE / 2).await;
    }
}

/// A worker registers, works off its queue and leaves.
async fn visit(client: &Client) -> anyhow::Result<()> {
    let body = json!({ "name": "gpu-1", "machine_id": "rack-gpu", "queues": ["gpu-batch"], "version": "2.0.0-rc1" });
    let worker_id = client.post("/api/v1/workers", &body).await?["worker"]["id"].clone();
    let claim = json!({ "worker_id": worker_id, "queues": ["gpu-batch"], "limit": 20, "wait_seconds": 2 });
    let claimed = client.post("/api/v1/claims", &claim).await?;
    for task in claimed["tasks"].as_array().into_iter().flatten() {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let body = json!({ "worker_id": worker_id, "attempt": task["attempt"], "result": content::result() });
        client.post(&format!("/api/v1/tasks/{}/complete", task["id"].as_str().unwrap_or_default()), &body).await?;
    }
    client.delete(&format!("/api/v1/workers/{}", worker_id.as_str().unwrap_or_default())).await.map(|_| ())
}

/// Tasks that wait for one another, and one that is due later.
async fn chains(client: &Client) {
    loop {
        told(chain(client).await);
        tokio::time::sleep(CHAIN_EVERY).await;
    }
}

async fn chain(client: &Client) -> anyhow::Result<()> {
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let tenant = content::tenant();
    let number = fastrand::u32(10_000..99_999);
    let task = |kind: &str, title: &str, queue: &str| {
        json!({ "task_type": kind, "queue": queue, "title": format!("{title} ORD-{number}"), "project_id": PROJECTS[0],
            "labels": { "tenant": tenant }, "payload": content::payload(kind, number, tenant) })
    };
    let (mut invoice, mut ledger, mut mail) = (
        task("create-invoice", "Invoice", "default"),
        task("export-ledger", "Export ledger", "default"),
        task("send-mail", "Send invoice", "mail"),
    );
    (invoice["id"], invoice["unique_key"]) = (json!(first), json!(format!("invoice/ORD-{number}")));
    (ledger["id"], ledger["depends_on"]) = (json!(second), json!([first]));
    mail["depends_on"] = json!([second]);
    mail["on_dependency_failure"] = json!("cancel");
    let mut reminder = task("send-mail", "Payment reminder", "mail");
    reminder["run_at"] = json!(Time::from(machine_time()) + TimeDelta::minutes(fastrand::i64(10..90)));
    client.post("/api/v1/tasks", &json!([invoice, ledger, mail, reminder])).await.map(|_| ())
}
