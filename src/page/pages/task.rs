//! One task: where its time went, error, payload, result, attempts, event history, details and actions.

use std::sync::Arc;

use askama::Template;
use uuid::Uuid;

use super::tasks::as_of;
use crate::page::{
    Content, PageError, Params, View, format,
    json_view::{JsonView, Line},
    timeline::{Timeline, is_stalled},
};
use crate::{
    board::{
        Board,
        health::{self, Health},
    },
    clock::Time,
    event::{Event, Kind},
    feed,
    model::{Name, Status, Task, phase::Counts, task_query::LABEL_PREFIX},
    store::{families, search},
};

/// Maximum number of events shown.
const EVENTS: i64 = 200;
/// Maximum number of dependencies and of dependents shown.
const NEIGHBOURS: i64 = 20;

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    task: Task,
    timeline: Timeline,
    /// Median and p95 run time of its type, if known.
    usual: Option<String>,
    history: Vec<Entry>,
    attempts: Vec<Attempt>,
    payload: Option<JsonView>,
    result: Option<JsonView>,
    /// Number of failed tasks with the same error.
    alike: u64,
    facts: Vec<Fact>,
    health: Health,
    depends_on: Vec<Task>,
    gone: usize,
    dependents: Vec<Task>,
    /// Counts of descendants: total, unfinished, failed or cancelled.
    below: u64,
    open_below: u64,
    again: u64,
    is_past: bool,
}

/// One attempt, reconstructed from events.
struct Attempt {
    number: u32,
    worker_id: Option<Uuid>,
    machine_id: Option<Name>,
    started_at: Time,
    /// How it ended: an event type.
    end: Option<Kind>,
    duration_ms: Option<u64>,
    error: Option<String>,
}

/// One entry of the history, newest first: an event, or several reports of progress in a row.
struct Entry {
    events: Vec<Arc<Event>>,
    /// Time since the event before it, milliseconds.
    after_ms: Option<u64>,
}

/// A name and a value of the details, with a link.
struct Fact {
    name: &'static str,
    value: String,
    url: Option<String>,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("Task not found. It may have been deleted.".to_owned());
    let pool = view.store.pool();
    let id = params.id.ok_or_else(missing)?;
    let mut task = search::task(pool, id).await?.ok_or_else(missing)?;
    let until = params.at.map_or(i64::MAX, |at| at.position);
    if let Some(moment) = params.at {
        let unborn = || PageError::NotFound("This task did not exist at that time.".to_owned());
        task = as_of(view, vec![task], moment).await?.pop().ok_or_else(unborn)?;
    }
    let events: Vec<_> = view.event_log.of_task(view.subscriptions.epoch(), id, until, EVENTS).await?;
    let events: Vec<_> = events.into_iter().map(|recorded| recorded.event).collect();
    let name = format::clip(task.title.as_deref().unwrap_or(task.task_type.as_str()), 80);
    let wanted: Vec<_> =
        task.depends_on.iter().take(usize::try_from(NEIGHBOURS).unwrap_or_default()).copied().collect();
    let depends_on = neighbours(view, params, &wanted).await?;
    let waiting = if task.has_dependents { search::dependents(pool, id, NEIGHBOURS).await? } else { Vec::new() };
    let dependents = neighbours(view, params, &waiting).await?;
    let open = match params.at {
        _ if task.status != Status::Blocked || task.depends_on.is_empty() => Vec::new(),
        None => search::open_dependencies(pool, id).await?,
        Some(_) => depends_on.iter().filter(|task| task.status != Status::Completed).map(|task| task.id).collect(),
    };
    let below = if task.is_parent {
        families::children(pool, &families::parents(pool, &[id]).await?).await?
    } else {
        Counts::default()
    };
    let board = feed::read(&view.board);
    let page = TaskPage {
        below: below.total(),
        open_below: below.total() - below.finished(),
        again: below.failed + below.cancelled,
        health: health::of_task(&board, &task, &open, view.quiet, view.now()),
        timeline: Timeline::new(&events, view.now()),
        usual: usual(&board, &task, view.now()),
        payload: task.payload.as_ref().map(|json| JsonView::new(json.as_str(), "payload")),
        result: task.result.as_ref().map(|json| JsonView::new(json.as_str(), "result")),
        alike: task.fingerprint().and_then(|name| board.failures.groups.get(&name)).map_or(0, |group| group.open),
        facts: facts(&task, &board),
        attempts: attempts(&events),
        history: history(&events),
        gone: task.depends_on.len() - depends_on.len(),
        depends_on,
        dependents,
        is_past: params.at.is_some(),
        task,
    };
    drop(board);
    Content::new(format!("({}) {name}", page.task.status), &page)
}

/// The usual run time of the type of a task, in words.
fn usual(board: &Board, task: &Task, now: Time) -> Option<String> {
    let run = |percent| board.kinds.run_ms(&task.task_type, percent, now).map(|ms| format::duration(&ms));
    Some(format!("p50 {}, p95 {}", run(50)?, run(95)?))
}

/// The history, newest first, with reports of progress in a row as one entry.
fn history(events: &[Arc<Event>]) -> Vec<Entry> {
    let mut history: Vec<Entry> = Vec::new();
    let mut before: Option<Time> = None;
    for event in events {
        let after_ms = before.and_then(|before| u64::try_from((event.ts - before).num_milliseconds()).ok());
        before = Some(event.ts);
        let is_progress = |event: &Arc<Event>| event.event_type == Kind::TaskProgress;
        match history.last_mut().filter(|last| is_progress(event) && last.events.iter().all(is_progress)) {
            Some(last) => {
                last.events.push(event.clone());
                last.after_ms = last.after_ms.zip(after_ms).map(|(before, more)| before + more);
            }
            None => history.push(Entry { events: vec![event.clone()], after_ms }),
        }
    }
    history.reverse();
    history
}

impl Entry {
    /// The newest event.
    fn event(&self) -> &Event {
        &self.events[self.events.len() - 1]
    }
}

/// Related tasks, at the requested time.
async fn neighbours(view: &View, params: &Params, ids: &[Uuid]) -> Result<Vec<Task>, PageError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let tasks = search::some(view.store.pool(), ids).await?;
    match params.at {
        Some(moment) => as_of(view, tasks, moment).await,
        None => Ok(tasks),
    }
}

/// Attempts, newest first.
fn attempts(events: &[Arc<Event>]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for event in events {
        // Reported events have the timestamp of the reporting system, not the time of arrival.
        let at = event.data.reported_at.unwrap_or(event.ts);
        if event.event_type == Kind::TaskStarted {
            attempts.push(Attempt {
                number: event.attempt.unwrap_or(1),
                worker_id: event.worker_id,
                machine_id: event.machine_id.clone(),
                started_at: at,
                end: None,
                duration_ms: None,
                error: None,
            });
            continue;
        }
        let ended = event.old_status == Some(Status::Running) && event.status != Some(Status::Running);
        if let Some(attempt) = attempts.last_mut().filter(|attempt| ended && attempt.end.is_none()) {
            // An attempt that stalled is over when its task is pending again.
            attempt.end = Some(if is_stalled(event) { Kind::TaskStalled } else { event.event_type });
            let ms = u64::try_from((at - attempt.started_at).num_milliseconds()).ok();
            attempt.duration_ms = event.duration_ms.or(ms);
            attempt.error.clone_from(&event.error);
        }
    }
    attempts.reverse();
    attempts
}

fn facts(task: &Task, board: &Board) -> Vec<Fact> {
    let plain = |name, value: Option<String>| value.map(|value| Fact { name, value, url: None });
    let linked = |name, value: &Name, url: String| Some(Fact { name, value: value.to_string(), url: Some(url) });
    let filtered =
        |filter: &str, value: &str| format::address("/tasks", &[(filter.to_owned(), format::filter_value(value))]);
    let by_name = |name, filter, value: Option<&Name>| {
        value.and_then(|value| linked(name, value, filtered(filter, value.as_str())))
    };
    let worker = task.worker_id.map(|id| {
        let name = board.workers.0.get(&id).map_or_else(|| format::short(&id), |seen| seen.name.to_string());
        Fact { name: "Worker", value: name, url: Some(format!("/workers/{id}")) }
    });
    let names = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
    let queue = format!("/queues/{}", format::path_segment(task.queue.as_str()));
    [
        by_name("Type", "type", Some(&task.task_type)),
        linked("Queue", &task.queue, queue),
        by_name("Project", "project", Some(&task.project_id)),
        plain("Priority", Some(task.priority.to_string())),
        plain("Attempt", Some(attempt_of(task))),
        by_name("Phase", "phase", task.phase.as_ref()),
        worker,
        by_name("Machine", "machine", task.machine_id.as_ref()),
        by_name("Connector", "connector", task.connector_id.as_ref()),
        plain("Timeout", task.timeout_seconds.map(|seconds| format::duration(&(u64::from(seconds) * 1_000)))),
        plain("Unique key", task.unique_key.clone()),
        plain("External ID", task.external_id.clone()),
        plain("Assignee", task.assignee.clone()),
        plain("Collaborators", names(&task.collaborators)),
        plain("Watchers", names(&task.watchers)),
        plain("Duration", took(task)),
    ]
    .into_iter()
    .flatten()
    .chain(task.labels.iter().map(|(key, value)| Fact {
        name: "Label",
        value: format!("{key}:{}", format::clip(value, 100)),
        url: Some(filtered(&format!("{LABEL_PREFIX}{key}"), value)),
    }))
    .collect()
}

/// Attempt number and maximum. An observed task may have more attempts than were declared.
fn attempt_of(task: &Task) -> String {
    let attempt = task.attempt.min(task.retry_count + 1);
    format!("{attempt} of {}", task.attempts_allowed())
}

fn took(task: &Task) -> Option<String> {
    let elapsed = task.finished_at? - task.started_at?;
    u64::try_from(elapsed.num_milliseconds()).ok().map(|ms| format::duration(&ms))
}

/// CSS class, icon and label of the end of an attempt.
const fn ending(kind: &Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::TaskCompleted => ("good", "✓", "completed"),
        Kind::TaskFailed => ("bad", "✕", "failed"),
        Kind::TaskRetry => ("warn", "↻", "failed, retried"),
        Kind::TaskCancelled => ("quiet", "■", "cancelled"),
        Kind::TaskEnqueued => ("warn", "↺", "released"),
        Kind::TaskStalled => ("warn", "!", "stalled"),
        _ => ("quiet", "○", "ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::golden::{HOSTILE, ago, board, check_template, events_of, hostile, id, now, task};

    #[test]
    fn the_page_of_a_task_is_as_it_was() {
        let events = events_of(3);
        let task_itself = Task { is_parent: true, ..task(3, Status::Failed) };
        let page = TaskPage {
            attempts: attempts(&events),
            timeline: Timeline::new(&events, now()),
            usual: Some("p50 1.0 s, p95 3.0 s".to_owned()),
            history: history(&events),
            payload: Some(JsonView::new(
                &serde_json::json!({ HOSTILE: [HOSTILE, 1, null], "long": HOSTILE.repeat(9) }).to_string(),
                "payload",
            )),
            result: Some(JsonView::new(HOSTILE, "result")),
            alike: 14,
            facts: facts(&task_itself, &board()),
            health: health::of_task(&board(), &task(4, Status::Running), &[], chrono::TimeDelta::seconds(25), now()),
            depends_on: vec![task(1, Status::Completed)],
            gone: 2,
            dependents: vec![task(6, Status::Blocked)],
            below: 7,
            open_below: 2,
            again: 3,
            is_past: false,
            task: task_itself,
        };
        check_template("task", &page);
    }

    fn event(kind: Kind, from: Status, to: Status, seconds: i64) -> Event {
        let mut event = Event::new(kind, ago(seconds));
        (event.old_status, event.status) = (Some(from), Some(to));
        event
    }

    fn started(attempt: Option<u32>, seconds: i64) -> Event {
        Event { attempt, ..event(Kind::TaskStarted, Status::Pending, Status::Running, seconds) }
    }

    /// The attempts: number, how it ended, and how long it took.
    fn told(events: impl IntoIterator<Item = Event>) -> Vec<(u32, Option<Kind>, Option<u64>)> {
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        attempts(&events).into_iter().map(|attempt| (attempt.number, attempt.end, attempt.duration_ms)).collect()
    }

    #[test]
    fn attempts_come_newest_first_each_with_its_end() {
        let retry = event(Kind::TaskRetry, Status::Running, Status::Retrying, 90);
        let done = Event { duration_ms: Some(7), ..event(Kind::TaskCompleted, Status::Running, Status::Completed, 10) };
        assert_eq!(
            told([started(Some(1), 100), retry, started(Some(2), 20), done]),
            [(2, Some(Kind::TaskCompleted), Some(7)), (1, Some(Kind::TaskRetry), Some(10_000))]
        );
    }

    #[test]
    fn an_attempt_without_an_end_runs() {
        let progress = event(Kind::TaskProgress, Status::Running, Status::Running, 50);
        assert_eq!(told([started(None, 100), progress]), [(1, None, None)]);
    }

    #[test]
    fn only_the_first_end_of_an_attempt_counts() {
        let failed = event(Kind::TaskFailed, Status::Running, Status::Failed, 90);
        let again =
            Event { duration_ms: Some(1), ..event(Kind::TaskCancelled, Status::Running, Status::Cancelled, 80) };
        assert_eq!(told([started(Some(1), 100), failed, again]), [(1, Some(Kind::TaskFailed), Some(10_000))]);
    }

    #[test]
    fn an_end_whose_start_is_no_longer_in_the_log_is_no_attempt() {
        assert_eq!(told([event(Kind::TaskFailed, Status::Running, Status::Failed, 90)]), []);
    }

    #[test]
    fn a_reported_attempt_lasts_by_the_clock_of_its_reporter() {
        let mut started = started(Some(1), 0);
        started.data.reported_at = Some(ago(500));
        let mut done = event(Kind::TaskCompleted, Status::Running, Status::Completed, 0);
        done.data.reported_at = Some(ago(440));
        assert_eq!(told([started.clone(), done.clone()]), [(1, Some(Kind::TaskCompleted), Some(60_000))]);
        done.data.reported_at = Some(ago(501));
        assert_eq!(told([started, done])[0].2, None, "no time is negative");
    }

    #[test]
    fn facts_that_are_not_known_are_left_out() {
        let plain =
            crate::model::NewTask::plain(id(1), hostile("mail"), hostile("queue")).into_task(None, false, now());
        let names: Vec<_> = facts(&plain, &Board::default()).into_iter().map(|fact| fact.name).collect();
        assert_eq!(names, ["Type", "Queue", "Project", "Priority", "Attempt"]);
        let whole = facts(&task(1, Status::Failed), &board());
        assert!(whole.len() > 12 && whole.iter().any(|fact| fact.name == "Worker"));
    }

    #[test]
    fn a_released_attempt_is_the_same_attempt_again() {
        let of = |attempt, retry_count| attempt_of(&Task { attempt, retry_count, ..task(1, Status::Pending) });
        assert_eq!(
            (of(0, 0), of(1, 0), of(2, 0), of(2, 1)),
            ("0 of 3".into(), "1 of 3".into(), "1 of 3".into(), "2 of 3".into())
        );
    }

    #[test]
    fn a_task_took_from_its_start_to_its_end() {
        let times = |started: Option<i64>, finished: Option<i64>| {
            took(&Task { started_at: started.map(ago), finished_at: finished.map(ago), ..task(1, Status::Completed) })
        };
        assert_eq!(times(Some(10), Some(5)).as_deref(), Some("5.0 s"));
        assert_eq!((times(None, Some(5)), times(Some(5), None), times(Some(5), Some(10))), (None, None, None));
    }
}
