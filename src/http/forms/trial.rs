//! The test client: submits tasks and plays the worker, by the calls that programs use.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{As, Fields, Sent, failure, field, fields, goes_on, input, object};
use crate::http::{
    api::{claims, reports, tasks, workers},
    caller::Caller,
    conditions::IdempotencyKey,
    input::{Id, OneOrMany},
    problem::Problem,
    site::Site,
};

/// Tasks submitted at once.
const MOST: usize = 100;

fn back(task_ids: &str) -> String {
    if task_ids.is_empty() { "/test-client".to_owned() } else { format!("/test-client?task_id={task_ids}") }
}

pub(super) async fn submit(State(site): State<Site>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    match try_submit(&site, caller, sent).await {
        Ok(ids) => goes_on(&site, &back(&ids)).await,
        Err(problem) => failure(&site, &headers, &problem, Some(("Test client", "/test-client".to_owned()))),
    }
}

async fn try_submit(site: &Site, caller: Caller, sent: Sent) -> Result<String, Problem> {
    const TASK: [(&str, As); 6] = [
        ("task_type", As::Text),
        ("queue", As::Text),
        ("priority", As::Number),
        ("max_attempts", As::Number),
        ("title", As::Text),
        ("payload", As::Json),
    ];
    let fields = fields(sent)?;
    let count = field(&fields, "count").unwrap_or("1").parse().ok().filter(|count| (1..=MOST).contains(count));
    let count = count.ok_or_else(|| {
        let detail = format!("must be a whole number from 1 to {MOST}");
        Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "count", detail)
    })?;
    let task = object(&fields, &TASK, false)?;
    let ids: Vec<_> = (0..count).map(|_| Uuid::now_v7().to_string()).collect();
    let one = |id: &String| {
        let mut task = task.clone();
        task.insert("id".to_owned(), id.as_str().into());
        input(task).map(|task| task.0)
    };
    let items = ids.iter().map(one).collect::<Result<_, _>>()?;
    tasks::create(State(site.clone()), caller, IdempotencyKey::default(), OneOrMany { items, single: false }).await?;
    Ok(ids.join(","))
}

pub(super) async fn work(State(site): State<Site>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    let shown = sent.as_ref().ok().and_then(|form| field(form, "task_id")).unwrap_or_default().to_owned();
    match try_work(&site, &caller, sent).await {
        Ok(id) if shown.is_empty() => goes_on(&site, &back(&id)).await,
        Ok(id) if shown.contains(&id) => goes_on(&site, &back(&shown)).await,
        Ok(id) => goes_on(&site, &back(&format!("{shown},{id}"))).await,
        Err(problem) => failure(&site, &headers, &problem, Some(("Test client", back(&shown)))),
    }
}

/// Takes one task as a worker of its own and ends it; tells which.
async fn try_work(site: &Site, caller: &Caller, sent: Sent) -> Result<String, Problem> {
    let fields = fields(sent)?;
    let queue = field(&fields, "queue").unwrap_or("test-client");
    if !["complete", "fail", "give_up"].contains(&field(&fields, "end").unwrap_or("complete")) {
        let detail = "must be one of complete, fail, give_up";
        return Err(Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "end", detail));
    }
    let worker = object_of(json!({ "name": "test-client", "machine_id": "browser", "queues": [queue] }));
    let registered = workers::register_as(site, input(worker)?).await?;
    let worker_id = registered.worker.id;
    let done = end_one(site, caller, worker_id, queue, &fields).await;
    workers::leave(State(site.clone()), caller.clone(), Id(worker_id)).await?;
    done
}

async fn end_one(
    site: &Site,
    caller: &Caller,
    worker_id: Uuid,
    queue: &str,
    fields: &Fields,
) -> Result<String, Problem> {
    let claim = object_of(json!({ "worker_id": worker_id, "queues": [queue] }));
    let claimed = claims::claim(State(site.clone()), caller.clone(), input(claim)?).await?;
    let claimed = serde_json::to_value(&claimed.0).unwrap_or_default();
    let task = &claimed["tasks"][0];
    let Some(id) = task["id"].as_str().and_then(|id| Uuid::parse_str(id).ok()) else {
        let detail = format!("No task waits in the queue {queue}. Submit one, or look whether the queue is paused.");
        return Err(Problem::new(StatusCode::CONFLICT, "nothing_to_claim", detail));
    };
    let (site, caller) = (State(site.clone()), caller.clone());
    let mut report = object_of(json!({ "worker_id": worker_id, "attempt": task["attempt"] }));
    let end = field(fields, "end").unwrap_or("complete");
    let done = if end == "complete" {
        report.insert("result".to_owned(), json!({ "by": "test client" }));
        reports::complete(site, caller, Id(id), input(report)?).await
    } else {
        let error = field(fields, "error").unwrap_or("failed by the test client");
        report.insert("error".to_owned(), error.into());
        report.insert("retryable".to_owned(), (end == "fail").into());
        reports::fail(site, caller, Id(id), input(report)?).await
    };
    done.map(|_| id.to_string())
}

fn object_of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
