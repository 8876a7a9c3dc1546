//! Examples of the main bodies. A test validates each against its schema.

use serde_json::{Value, json};

const TASK: &str = "019358f2-6a4b-7c3d-8e1f-2a3b4c5d6e7f";
const WORKER: &str = "019358f2-7b5c-7d4e-9f20-3b4c5d6e7f80";
const AT: &str = "2026-11-20T16:05:00.123456Z";

/// Adds the examples.
pub(super) fn add(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    for (name, example) in all() {
        if schemas[name].is_object() {
            schemas[name]["examples"] = json!([example]);
        }
    }
}

fn all() -> Vec<(&'static str, Value)> {
    let fence = |mut fields: Value| {
        fields["worker_id"] = WORKER.into();
        fields["attempt"] = 1.into();
        fields
    };
    let record = json!({
        "id": TASK, "project_id": "default", "task_type": "mail", "queue": "mails", "priority": 5, "status": "running",
        "payload": { "order": 7 }, "max_attempts": 3, "backoff_initial_seconds": 1, "backoff_max_seconds": 3600, "attempt": 1,
        "retry_count": 0, "worker_id": WORKER, "machine_id": "rack-7", "created_at": AT, "enqueued_at": AT,
        "started_at": AT, "lease_expires_at": "2026-11-20T16:06:00.123456Z",
    });
    let worker = json!({
        "id": WORKER, "name": "mailer-1", "machine_id": "rack-7", "queues": ["mails"], "status": "idle",
        "connectors": {}, "started_at": AT, "last_seen_at": AT,
    });
    vec![
        (
            "CreateTask",
            json!({ "task_type": "mail", "queue": "mails", "payload": { "order": 7 }, "priority": 7, "labels": { "customer": "acme" } }),
        ),
        ("EditTask", json!({ "priority": 9, "assignee": "ann" })),
        ("Cancel", json!({ "reason": "the order was withdrawn" })),
        ("PauseQueue", json!({ "reason": "the mail provider is down" })),
        ("TaskRecord", record.clone()),
        ("TaskResponse", json!({ "task": record.clone() })),
        ("TaskList", json!({ "tasks": [record], "event_id": "5c1f09ae-184" })),
        ("RegisterWorker", json!({ "name": "mailer-1", "machine_id": "rack-7", "queues": ["mails"] })),
        ("WorkerRecord", worker.clone()),
        ("Registered", json!({ "worker": worker, "heartbeat_seconds": 10, "lease_seconds": 60 })),
        ("HeartbeatInput", json!({ "status": "active", "tasks": [{ "task_id": TASK, "attempt": 1 }] })),
        ("HeartbeatResponse", json!({ "cancelled": [] })),
        ("ClaimInput", json!({ "worker_id": WORKER, "queues": ["mails"], "wait_seconds": 20 })),
        ("ProgressInput", fence(json!({ "percent": 40.0, "message": "2 of 5 sent" }))),
        ("CompleteInput", fence(json!({ "result": { "sent": 5 } }))),
        ("FailInput", fence(json!({ "error": "the mail server refused the message" }))),
        ("ReleaseInput", fence(json!({}))),
        ("Report", fence(json!({ "task_id": TASK, "report": "complete", "result": { "sent": 5 } }))),
        ("BulkInput", json!({ "action": "retry", "filter": { "status": "failed", "queue": "mails" } })),
        ("LimitQueue", json!({ "concurrency_limit": 10, "rate_limit": 100, "rate_period_seconds": 60 })),
        (
            "PutSchedule",
            json!({ "cron": "*/15 8-18 * * MON-FRI", "time_zone": "Europe/Berlin", "task": { "task_type": "report" } }),
        ),
        (
            "NativeReport",
            json!({ "event_type": "task_started", "task_id": "job-17", "task_type": "mail", "queue": "mails", "worker_id": "box-1", "ts": "2026-11-21T10:00:00Z" }),
        ),
        (
            "CloudEvent",
            json!({ "specversion": "1.0", "type": "com.example.task_completed", "source": "/mailer", "id": "17-2", "subject": "job-17", "time": "2026-11-21T10:00:02Z" }),
        ),
        (
            "Problem",
            json!({ "type": "about:blank", "title": "Conflict", "status": 409, "code": "lease_lost", "detail": "attempt 1 of this worker no longer holds the task", "request_id": "019358f2-8c6d" }),
        ),
    ]
}
