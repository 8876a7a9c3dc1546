//! One task: its facts, what it was given, what came out, what happened.

use std::sync::Arc;

use askama::Template;

use super::{Content, PageError, Params, View, format};
use crate::{
    board::verdict::{self, Verdict},
    event::Event,
    feed,
    model::{Status, Task},
    store::{log, search},
};

/// Events shown.
const EVENTS: i64 = 200;
/// Longest payload or result shown, characters.
const LONGEST: usize = 8_192;

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    task: Task,
    events: Vec<Arc<Event>>,
    payload: Option<String>,
    result: Option<String>,
    facts: Vec<(&'static str, String)>,
    verdict: Verdict,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("there is no such task; it may have been deleted".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let task = search::task(view.store.pool(), id).await?.ok_or_else(missing)?;
    let events = log::of_task(view.store.pool(), view.subscriptions.epoch(), id, EVENTS).await?;
    let name = format::clip(task.title.as_deref().unwrap_or(task.task_type.as_str()), 80);
    let waits = task.status == Status::Blocked && !task.depends_on.is_empty();
    let open = if waits { search::open_dependencies(view.store.pool(), id).await? } else { Vec::new() };
    let verdict = verdict::of_task(&feed::read(&view.board), &task, &open, view.quiet, view.clock.now());
    let page = TaskPage {
        verdict,
        payload: task.payload.as_ref().map(|json| format::clip(json.as_str(), LONGEST)),
        result: task.result.as_ref().map(|json| format::clip(json.as_str(), LONGEST)),
        facts: facts(&task),
        events: events.into_iter().rev().map(|recorded| recorded.event).collect(),
        task,
    };
    Ok(Content { title: format!("({}) {name}", page.task.status), html: page.render()? })
}

fn facts(task: &Task) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Type", task.task_type.to_string()),
        ("Queue", task.queue.to_string()),
        ("Project", task.project_id.to_string()),
        ("Priority", task.priority.to_string()),
        ("Attempt", format!("{} of {}", task.attempt.min(task.retry_count + 1), task.max_attempts)),
    ];
    let optional = [
        ("Phase", task.phase.as_ref().map(ToString::to_string)),
        ("Assignee", task.assignee.clone()),
        ("Collaborators", (!task.collaborators.is_empty()).then(|| task.collaborators.join(", "))),
        ("Watchers", (!task.watchers.is_empty()).then(|| task.watchers.join(", "))),
        ("Unique key", task.unique_key.clone()),
        ("Known there as", task.external_id.clone()),
        ("Connector", task.connector_id.as_ref().map(ToString::to_string)),
        ("Machine", task.machine_id.as_ref().map(ToString::to_string)),
        ("Time limit", task.timeout_seconds.map(|seconds| format::duration(&(u64::from(seconds) * 1_000)))),
        ("Took", took(task)),
    ];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    facts.extend(task.labels.iter().map(|(key, value)| ("Label", format!("{key} = {}", format::clip(value, 100)))));
    facts
}

fn took(task: &Task) -> Option<String> {
    let elapsed = task.finished_at? - task.started_at?;
    u64::try_from(elapsed.num_milliseconds()).ok().map(|ms| format::duration(&ms))
}
