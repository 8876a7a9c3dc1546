//! The task list: filters in the URL, keyset pagination, and bulk actions on the matches.

use std::collections::BTreeSet;

use askama::Template;

use super::facets::{self, Facet};
use crate::page::{Content, PageError, Params, View, format};
use crate::{
    clock::Time,
    event::{Event, filter},
    feed::{self, time_travel::Moment},
    model::{
        Status, Task,
        task_query::{TaskQuery, without_exclusion},
    },
    store::search,
};

/// Historical view: tasks examined per page; historical statuses are not indexed.
const MAX_EXAMINED: usize = 2_000;

#[derive(Template)]
#[template(path = "tasks.html")]
struct Tasks<'a> {
    tasks: Vec<Task>,
    params: &'a Params,
    text: &'a str,
    /// Filters that are set: name, value, and the URL without it.
    chips: Vec<(String, String, String)>,
    facets: Vec<Facet>,
    views: Vec<(&'static str, String, bool)>,
    rows: Vec<&'static filter::Row>,
    /// The filters as parameters of forms and of bulk actions.
    others: Vec<(String, String)>,
    is_first: bool,
    is_past: bool,
    /// The search ended there, before the page was full.
    searched_to: Option<Time>,
    first_url: String,
    next_url: Option<String>,
    clear_url: String,
}

impl Tasks<'_> {
    fn is_filtered(&self) -> bool {
        !self.others.is_empty()
    }
}

/// Ready-made filters.
const VIEWS: [(&str, &[(&str, &str)]); 5] = [
    ("Failing now", &[("status", "failed"), ("finished", "-15m..")]),
    ("Running", &[("status", "running")]),
    ("Retrying", &[("status", "retrying")]),
    ("Blocked", &[("status", "blocked")]),
    ("Due in 1h", &[("status", "scheduled"), ("due", "..+1h")]),
];

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
    let filters: Vec<_> = params.without(&["at", "play", "cursor", "limit"]);
    let page = Tasks {
        tasks,
        params,
        text: params.tasks.text.as_deref().unwrap_or_default(),
        chips: chips(params, &filters),
        facets: facets::of(&feed::read(&view.board), params),
        views: views(params, &filters),
        rows: filter::ROWS.iter().filter(|row| row.column.is_some()).collect(),
        is_first: params.tasks.before.is_none(),
        is_past: params.at.is_some(),
        searched_to,
        first_url: format::address("/tasks", &without_cursor),
        next_url,
        clear_url: format::address("/tasks", &time_of(params)),
        others: filters,
    };
    Content::new("Tasks", &page)
}

/// The parameter that keeps a page in the past.
fn time_of(params: &Params) -> Vec<(String, String)> {
    params.pairs.iter().filter(|(name, _)| name == "at").cloned().collect()
}

/// Filters that are set, each with the URL of the page without it.
fn chips(params: &Params, filters: &[(String, String)]) -> Vec<(String, String, String)> {
    let chip = |(name, value): &(String, String)| {
        let row = filter::row(without_exclusion(name).0);
        let short =
            row.filter(|row| !row.short.is_empty()).map_or(name.clone(), |row| name.replace(row.name, row.short));
        let rest = format::address("/tasks", &params.without(&[name, "cursor"]));
        (short, value.clone(), rest)
    };
    filters.iter().map(chip).collect()
}

/// Ready-made filters, each with its URL, and whether it is the one that is set.
fn views(params: &Params, filters: &[(String, String)]) -> Vec<(&'static str, String, bool)> {
    let kept = |name: &str| name == filter::PROJECT;
    let set: BTreeSet<_> = filters.iter().filter(|(name, _)| !kept(name)).cloned().collect();
    let view = |(title, view): (&'static str, &[(&str, &str)])| {
        let wanted: Vec<_> = view.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let chosen = wanted.iter().cloned().collect::<BTreeSet<_>>() == set;
        let project = params.pairs.iter().filter(|(name, _)| kept(name)).cloned();
        let pairs: Vec<_> = wanted.into_iter().chain(project).chain(time_of(params)).collect();
        (title, format::address("/tasks", &pairs), chosen)
    };
    VIEWS.into_iter().map(view).collect()
}

/// Tasks as they were, newest first, and the cursor of the next page.
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
        let given = [("queue", label.as_str()), ("status", "failed,running"), ("label.env", &label)];
        let params = params("tasks", &given);
        let page = Tasks {
            tasks: Status::ALL.into_iter().zip(1..).map(|(status, number)| task(number, status)).collect(),
            params: &params,
            text: crate::page::golden::HOSTILE,
            chips: chips(&params, &params.pairs),
            facets: facets::of(&crate::page::golden::board(), &params),
            views: views(&params, &params.pairs),
            rows: filter::ROWS.iter().filter(|row| row.column.is_some()).collect(),
            others: params.pairs.clone(),
            is_first: false,
            is_past: false,
            searched_to: Some(ago(86_400)),
            first_url: "/tasks?queue=x".to_owned(),
            next_url: Some("/tasks?queue=x&cursor=y".to_owned()),
            clear_url: "/tasks?".to_owned(),
        };
        check_template("tasks", &page);
    }

    #[test]
    fn a_chip_names_its_filter_as_people_type_it_and_leads_to_the_rest() {
        let params = params("tasks", &[("-task_type", "a*"), ("queue", "q"), ("label.x", "1")]);
        let chips = chips(&params, &params.pairs);
        let names: Vec<_> = chips.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["-type", "queue", "label.x"]);
        assert_eq!(chips[1].2, "/tasks?-task_type=a%2A&label.x=1");
    }

    #[test]
    fn a_view_is_chosen_when_its_filters_are_set_and_no_others() {
        let chosen = |given: &[(&str, &str)]| {
            let params = params("tasks", given);
            let views = views(&params, &params.pairs);
            views.into_iter().filter(|(.., chosen)| *chosen).map(|(title, ..)| title).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[("finished", "-15m.."), ("status", "failed")]), ["Failing now"]);
        assert_eq!(chosen(&[("status", "running"), ("project_id", "atlas")]), ["Running"]);
        assert_eq!(chosen(&[("status", "running"), ("queue", "q")]), Vec::<&str>::new());
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
