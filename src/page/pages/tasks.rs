//! The task list: filters in the URL, keyset pagination, and bulk actions on the matches.

use askama::Template;

use crate::page::{Content, PageError, Params, View, format};
use crate::{
    clock::Time,
    event::{Event, filter},
    feed::time_travel::Moment,
    model::{
        Status, Task,
        task_query::{LABEL_PREFIX, TaskQuery},
    },
    store::search,
};

/// Historical view: tasks examined per page; historical statuses are not indexed.
const MAX_EXAMINED: usize = 2_000;

#[derive(Template)]
#[template(path = "tasks.html")]
struct Tasks<'a> {
    tasks: Vec<Task>,
    statuses: [Status; 8],
    params: &'a Params,
    text: &'a str,
    is_filtered: bool,
    more_filters: Vec<&'static filter::Row>,
    /// Whether one of the additional filters is set.
    shows_more: bool,
    others: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    is_first: bool,
    is_past: bool,
    /// The search was limited to tasks created since then.
    searched_to: Option<Time>,
    first_url: String,
    next_url: Option<String>,
    clear_url: String,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let (tasks, next, searched_to) = match params.at {
        Some(moment) => {
            let (tasks, next) = past(view, &params.tasks, moment).await?;
            (tasks, next, None)
        }
        None => {
            let found = search::page(view.store.read_permit(&params.tasks).await?.pool(), &params.tasks).await?;
            (found.tasks, found.next, found.searched_to)
        }
    };
    let without_cursor = params.without(&["cursor"]);
    let next_url = next.map(|cursor| {
        let mut pairs = without_cursor.clone();
        pairs.push(("cursor".to_owned(), search::cursor(cursor)));
        format!("/tasks?{}", format::query(&pairs))
    });
    let when: Vec<_> = params.pairs.iter().filter(|(name, _)| name == "at").cloned().collect();
    let filters: Vec<_> = params.without(&["at", "play", "cursor", "limit"]);
    let more_filters: Vec<_> = filter::ROWS.iter().filter(|row| row.label.is_some()).collect();
    let page = Tasks {
        tasks,
        statuses: Status::ALL,
        params,
        text: params.tasks.text.as_deref().unwrap_or_default(),
        is_filtered: !filters.is_empty(),

        labels: filters.iter().filter(|(name, _)| name.starts_with(LABEL_PREFIX)).cloned().collect(),
        shows_more: filters.iter().any(|(name, _)| {
            name.starts_with(LABEL_PREFIX) || more_filters.iter().any(|row| row.name == name.as_str())
        }),
        more_filters,
        others: filters,
        is_first: params.tasks.before.is_none(),
        is_past: params.at.is_some(),
        searched_to,
        first_url: format!("/tasks?{}", format::query(&without_cursor)),
        next_url,
        clear_url: format!("/tasks?{}", format::query(&when)),
    };
    Content::new("Tasks", &page)
}

/// Tasks as they were, newest first, and where the list goes on.
async fn past(
    view: &View,
    query: &TaskQuery,
    moment: Moment,
) -> Result<(Vec<Task>, Option<(Time, uuid::Uuid)>), PageError> {
    let limit = usize::try_from(query.limit).unwrap_or_default();
    let mut wanted = TaskQuery { limit: 200, ..query.clone() }.frozen(moment.time);
    wanted.conditions.remove("status");
    wanted.before = Some(query.before.unwrap_or((moment.time, uuid::Uuid::max())));
    let (mut found, mut looked) = (Vec::new(), 0);
    loop {
        let part = search::page(view.store.read_permit(&wanted).await?.pool(), &wanted).await?;
        looked += part.tasks.len();
        let then = as_of(view, part.tasks, moment).await?;
        let passes = |task: &Task| query.statuses().is_none_or(|statuses| statuses.contains(&task.status));
        found.extend(then.into_iter().filter(passes));
        if found.len() > limit {
            found.truncate(limit);
            let last = found.last().map(|task| (task.created_at, task.id));
            return Ok((found, last));
        }
        if part.next.is_none() || looked >= MAX_EXAMINED {
            return Ok((found, part.next));
        }
        wanted.before = part.next;
    }
}

/// Tasks with their status at a moment; tasks created later are omitted.
pub(super) async fn as_of(view: &View, tasks: Vec<Task>, moment: Moment) -> Result<Vec<Task>, PageError> {
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let epoch = view.subscriptions.epoch();
    let last = view.event_log.last_of_each(epoch, &ids, moment.position).await?;
    let last: std::collections::HashMap<_, _> =
        last.into_iter().filter_map(|recorded| Some((recorded.event.task_id?, recorded.event))).collect();
    Ok(tasks.into_iter().filter_map(|task| Some(then(task.clone(), last.get(&task.id)?))).collect())
}

/// A task as of its last event at that time.
fn then(mut task: Task, event: &Event) -> Task {
    let status = event.status.unwrap_or(task.status);
    let same = status == task.status && event.attempt.unwrap_or_default() == task.attempt;
    task.status = status;
    task.attempt = event.attempt.unwrap_or_default();
    task.retry_count = event.retry_count.unwrap_or_default();
    task.queue = event.queue.clone().unwrap_or(task.queue);
    task.priority = event.priority.unwrap_or(task.priority);
    task.parent_task_id = event.parent_task_id;
    task.phase.clone_from(&event.phase);
    task.worker_id = event.worker_id;
    task.machine_id.clone_from(&event.machine_id);
    task.connector_id.clone_from(&event.connector_id);
    task.error.clone_from(&event.error);
    if !same {
        // Set only later.
        task.lease = None;
        task.result = None;
        (task.finished_at, task.run_at) = (None, event.data.next_run_at);
        match status {
            Status::Running => task.started_at = Some(event.ts),
            Status::Pending => task.enqueued_at = Some(event.ts),
            Status::Completed | Status::Failed | Status::Cancelled => task.finished_at = Some(event.ts),
            Status::Scheduled | Status::Blocked | Status::Retrying => {}
        }
    }
    task
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::golden::{ago, check_template, hostile, id, now, params, task};

    #[test]
    fn the_page_of_tasks_is_as_it_was() {
        let label = hostile("v").to_string();
        let params = params("tasks", &[("queue", &label), ("status", "failed,running"), ("label.env", &label)]);
        let page = Tasks {
            tasks: Status::ALL.into_iter().zip(1..).map(|(status, number)| task(number, status)).collect(),
            statuses: Status::ALL,
            params: &params,
            text: crate::page::golden::HOSTILE,
            is_filtered: true,
            more_filters: filter::ROWS.iter().filter(|row| row.label.is_some()).collect(),
            shows_more: true,
            others: params.pairs.clone(),
            labels: vec![("label.env".to_owned(), label)],
            is_first: false,
            is_past: false,
            searched_to: Some(ago(86_400)),
            first_url: "/tasks?queue=x".to_owned(),
            next_url: Some("/tasks?queue=x&cursor=y".to_owned()),
            clear_url: "/tasks?".to_owned(),
        };
        check_template("tasks", &page);
    }

    fn event(status: Status, attempt: Option<u32>) -> Event {
        let mut event = Event::new(crate::event::Kind::TaskUpdated, ago(50));
        (event.status, event.attempt, event.worker_id) = (Some(status), attempt, Some(id(60)));
        event
    }

    #[test]
    fn a_task_of_the_past_has_what_its_last_event_says() {
        let mut event = event(Status::Running, Some(1));
        (event.queue, event.phase) = (Some(hostile("other")), Some(hostile("early")));
        event.priority = crate::model::Priority::new(0);
        let then = then(task(1, Status::Failed), &event);
        assert_eq!((then.status, then.attempt, then.retry_count), (Status::Running, 1, 0));
        assert_eq!((then.queue, then.phase, then.worker_id), (hostile("other"), Some(hostile("early")), Some(id(60))));
        assert_eq!((then.priority.get(), then.parent_task_id, then.error), (0, None, None));
    }

    #[test]
    fn what_came_later_is_not_shown_in_the_past() {
        for (status, started, finished) in [
            (Status::Pending, Some(ago(100)), None),
            (Status::Running, Some(ago(50)), None),
            (Status::Cancelled, Some(ago(100)), Some(ago(50))),
        ] {
            let then = then(task(1, Status::Failed), &event(status, Some(1)));
            assert_eq!((then.started_at, then.finished_at), (started, finished), "{status}");
            assert!(then.result.is_none() && then.lease.is_none() && then.run_at.is_none());
        }
        let earlier = then(task(1, Status::Failed), &event(Status::Running, Some(2)));
        assert_eq!(earlier.finished_at, None, "the same attempt, before it failed");
        assert_eq!(then(task(1, Status::Running), &event(Status::Pending, Some(1))).lease, None);
        let mut retried = event(Status::Retrying, Some(1));
        retried.data.next_run_at = Some(now());
        assert_eq!(then(task(1, Status::Failed), &retried).run_at, Some(now()));
    }

    #[test]
    fn the_same_attempt_with_the_same_status_keeps_its_times() {
        let before = task(1, Status::Failed);
        let then = then(before.clone(), &event(Status::Failed, Some(2)));
        assert_eq!((then.started_at, then.finished_at), (before.started_at, before.finished_at));
    }
}
