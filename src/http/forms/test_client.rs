//! The test client: creates tasks and acts as a worker, using the same calls as programs.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::json;
use uuid::Uuid;

use super::{As, Fields, Sent, failure, field, fields, input, object, raw, redirect_after_write};
use crate::{
    command::{
        claim_tasks::ClaimTasks, deregister_worker::DeregisterWorker, lock_set::ClaimRequest,
        register_worker::RegisterWorker,
    },
    http::{
        api::{reports, tasks},
        caller::Caller,
        codes::ErrorCode,
        conditions::IdempotencyKey,
        input::{OneOrMany, mend},
        problem::Problem,
        state::AppState,
    },
    model::{
        Name,
        report::{Fence, Json},
        transition::Transition,
        worker::Worker,
    },
    page::format,
};

/// Maximum number of tasks created at once.
const MAX_TASKS: usize = 100;

/// Maximum size of an error, bytes, as in the API.
const MAX_ERROR: usize = 16_384;

/// Maximum number of tasks that the page follows.
const FOLLOWED: usize = 200;

/// URL of the page that follows the given tasks.
fn back(tasks: &[Uuid]) -> String {
    let ids: Vec<_> = tasks.iter().map(Uuid::to_string).collect();
    let pair = (!ids.is_empty()).then(|| ("task_id".to_owned(), ids.join(",")));
    format::address("/test-client", pair.as_slice())
}

/// The tasks that the page already follows.
fn followed(fields: &Fields) -> Result<Vec<Uuid>, Problem> {
    let texts = field(fields, "task_id").unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty());
    let ids: Option<Vec<_>> = texts.map(|text| Uuid::parse_str(text).ok()).collect();
    ids.filter(|ids| ids.len() <= FOLLOWED).ok_or_else(|| {
        let detail = format!("must be a comma-separated list of at most {FOLLOWED} task IDs");
        Problem::invalid_field("task_id", detail)
    })
}

pub(super) async fn submit(State(state): State<AppState>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    match try_submit(&state, caller, sent).await {
        Ok(ids) => redirect_after_write(&state, &back(&ids)).await,
        Err(problem) => failure(&state, &headers, &problem, Some(("Test client", "/test-client".to_owned()))),
    }
}

async fn try_submit(state: &AppState, caller: Caller, sent: Sent) -> Result<Vec<Uuid>, Problem> {
    const TASK: [(&str, As); 6] = [
        ("task_type", As::Text),
        ("queue", As::Text),
        ("priority", As::Number),
        ("max_attempts", As::Number),
        ("title", As::Text),
        ("payload", As::Json),
    ];
    let fields = fields(sent)?;
    let count = field(&fields, "count").unwrap_or("1").parse().ok().filter(|count| (1..=MAX_TASKS).contains(count));
    let count = count.ok_or_else(|| {
        let detail = format!("must be an integer between 1 and {MAX_TASKS}");
        Problem::invalid_field("count", detail)
    })?;
    let task = object(&fields, &TASK, false)?;
    let ids: Vec<_> = (0..count).map(|_| Uuid::now_v7()).collect();
    let one = |id: &Uuid| {
        let mut task = task.clone();
        task.insert("id".to_owned(), raw(&id.to_string()));
        input(&task).map(|task| task.0)
    };
    let items = ids.iter().map(one).collect::<Result<_, _>>()?;
    tasks::create(State(state.clone()), caller, IdempotencyKey::default(), OneOrMany { items, single: false }).await?;
    Ok(ids)
}

pub(super) async fn work(State(state): State<AppState>, headers: HeaderMap, _: Caller, sent: Sent) -> Response {
    // The next page must be known before anything is changed.
    let read = fields(sent).and_then(|fields| Ok((followed(&fields)?, fields)));
    let (mut shown, fields) = match read {
        Ok(read) => read,
        Err(problem) => return failure(&state, &headers, &problem, Some(("Test client", back(&[])))),
    };
    match try_work(&state, &fields).await {
        Ok(id) => {
            if !shown.contains(&id) {
                shown.push(id);
            }
            redirect_after_write(&state, &back(&shown)).await
        }
        Err(problem) => failure(&state, &headers, &problem, Some(("Test client", back(&shown)))),
    }
}

/// How an attempt of the test client ends.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Fail { retryable: bool },
}

fn end_of(fields: &Fields) -> Result<End, Problem> {
    match field(fields, "end").unwrap_or("complete") {
        "complete" => Ok(End::Complete),
        "fail" => Ok(End::Fail { retryable: true }),
        "give_up" => Ok(End::Fail { retryable: false }),
        _ => Err(Problem::invalid_field("end", "must be one of complete, fail, give_up")),
    }
}

/// Claims one task with a new worker and reports on it; returns its ID.
async fn try_work(state: &AppState, fields: &Fields) -> Result<Uuid, Problem> {
    let end = end_of(fields)?;
    let queue = Name::new(field(fields, "queue").unwrap_or("test-client"))
        .map_err(|error| Problem::invalid_field("queue", error.to_string()))?;
    let error = mend(field(fields, "error").unwrap_or("Failed by the test client").to_owned(), MAX_ERROR);
    let names = (Name::literal("test-client"), Name::literal("browser"));
    let worker = Worker::new(Uuid::now_v7(), names.0, names.1, state.clock.now());
    let worker_id = state.writer.run(RegisterWorker(Worker { queues: vec![queue.clone()], ..worker })).await?.id;
    let done = end_one(state, worker_id, queue, (end, error)).await;
    state.writer.run(DeregisterWorker(worker_id)).await?;
    done
}

async fn end_one(state: &AppState, worker_id: Uuid, queue: Name, (end, error): (End, String)) -> Result<Uuid, Problem> {
    let request = ClaimRequest { worker_id, connector_id: None, queues: vec![queue.clone()], limit: 1 };
    let Some(task) = state.writer.run(ClaimTasks(request)).await?.tasks.into_iter().next() else {
        let detail = format!("Queue {queue} has no pending tasks. Create one, or check whether the queue is paused.");
        return Err(Problem::new(ErrorCode::NoTaskAvailable, detail));
    };
    let fence = Fence { worker_id, attempt: task.attempt };
    let transition = match end {
        End::Complete => Transition::Complete { fence, result: Some(Json::new(raw(&json!({ "by": "test client" })))) },
        End::Fail { retryable } => Transition::Fail { fence, error, retryable, jitter: fastrand::f64() },
    };
    let reported = reports::report(state, task.id, transition).await?;
    Ok(reported.0.task.id)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn form(task_id: &str) -> Fields {
        vec![("task_id".to_owned(), task_id.to_owned())]
    }

    #[test]
    fn the_page_follows_the_tasks_that_its_url_names() {
        let ids: Vec<_> = (0..FOLLOWED as u128).map(Uuid::from_u128).collect();
        let url = back(&ids[..2]);
        assert_eq!(url, format!("/test-client?task_id={}%2C{}", ids[0], ids[1]));
        assert_eq!(back(&[]), "/test-client");
        let list = |ids: &[Uuid]| ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(followed(&form(&list(&ids))).unwrap(), ids);
        assert_eq!(followed(&form(&format!(" {} ,, ", ids[1]))).unwrap(), [ids[1]]);
        assert!(followed(&form("")).unwrap().is_empty());
        for wrong in [format!("{},x", ids[0]), format!("{},{}", list(&ids), ids[0])] {
            assert_eq!(followed(&form(&wrong)).unwrap_err().errors[0].field, "task_id");
        }
    }
}
