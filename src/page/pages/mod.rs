//! The pages: one table. To add a page, add its row and its `mod` line here, its file and its template.

mod analytics;
mod audit;
mod bulk;
mod events;
mod facets;
mod failure;
mod failures;
mod overview;
mod parent;
mod queue;
mod queues;
mod schedules;
mod streams;
mod task;
mod tasks;
mod test_client;
mod wall;
mod wall_tiles;
mod worker;
mod workers;

use std::{future::ready, time::Duration};

use super::{
    PageError, REGION,
    row::{Chrome, Filters, Pace, Page, Reach},
};
use crate::{
    base_path::BasePath,
    event::{Kind, kind::Topic},
};

/// Cheap to render: changes appear immediately.
const QUICK: Pace = Pace { page: Duration::from_millis(25), region: REGION };
/// Reads a few rows.
const MODERATE: Pace = Pace { page: Duration::from_millis(100), region: REGION };
/// Reads a list.
const SLOW: Pace = Pace { page: Duration::from_secs(1), region: REGION };
/// For wall displays: all changes, once a second.
const CALM: Pace = Pace { page: Duration::from_secs(1), region: Duration::ZERO };

/// Defaults of a page rendered from the board.
const BOARD: Page = Page {
    name: "",
    path: "",
    nav: "",
    badge: |_| 0,
    is_rare: false,
    key: None,
    chrome: Chrome::Full,
    from_tables: false,
    filters: Filters::None,
    own: &[],
    reach: Reach::Log,
    pace: QUICK,
    api: None,
    stream: "/events",
    concerned: |_, _| true,
    render: |_, _| Box::pin(ready(Err(PageError::NotFound(String::new())))),
};

/// The table.
pub static PAGES: [Page; 18] = [
    Page {
        name: "overview",
        path: "/",
        nav: "Overview",
        key: Some('o'),
        api: Some("/api/v1/stats"),
        render: |view, params| Box::pin(ready(overview::render(view, params))),
        ..BOARD
    },
    Page {
        name: "tasks",
        path: "/tasks",
        nav: "Tasks",
        key: Some('t'),
        from_tables: true,
        filters: Filters::Tasks,
        pace: SLOW,
        concerned: |_, event| event.task_id.is_some() && event.event_type != Kind::TaskProgress,
        api: Some("/api/v1/tasks"),
        stream: "/events?topics=tasks",
        render: |view, params| Box::pin(tasks::render(view, params)),
        ..BOARD
    },
    Page {
        name: "failures",
        path: "/failures",
        nav: "Failures",
        badge: |summary| summary.failures,
        key: Some('f'),
        own: &[("show", failures::check_show)],
        concerned: |_, event| event.data.fingerprint.is_some(),
        api: Some("/api/v1/failures"),
        stream: "/events?types=task_failed,task_retry",
        render: |view, params| Box::pin(ready(failures::render(view, params))),
        ..BOARD
    },
    Page {
        name: "failure",
        path: "/failures/{name}",
        concerned: |params, event| event.data.fingerprint.is_some() && event.data.fingerprint == params.name,
        api: Some("/api/v1/tasks?status=failed&fingerprint={name}"),
        stream: "/events?fingerprint={name}",
        render: |view, params| Box::pin(ready(failure::render(view, params))),
        ..BOARD
    },
    Page {
        name: "queues",
        path: "/queues",
        nav: "Queues",
        badge: |summary| summary.queues,
        key: Some('q'),
        concerned: |_, event| event.queue.is_some() || event.worker_id.is_some(),
        api: Some("/api/v1/queues"),
        stream: "/events?topics=queues",
        render: |view, params| Box::pin(ready(queues::render(view, params))),
        ..BOARD
    },
    Page {
        name: "queue",
        path: "/queues/{name}",
        concerned: |params, event| event.queue == params.name || event.worker_id.is_some(),
        api: Some("/api/v1/queues/{name}"),
        stream: "/events?queue={name}",
        render: |view, params| Box::pin(ready(queue::render(view, params))),
        ..BOARD
    },
    Page {
        name: "workers",
        path: "/workers",
        nav: "Workers",
        badge: |summary| summary.workers,
        key: Some('w'),
        concerned: |_, event| event.worker_id.is_some(),
        api: Some("/api/v1/workers"),
        stream: "/events?topics=workers,connectors",
        render: |view, params| Box::pin(ready(workers::render(view, params))),
        ..BOARD
    },
    Page {
        name: "worker",
        path: "/workers/{id}",
        from_tables: true,
        pace: SLOW,
        concerned: |params, event| event.worker_id == params.id,
        api: Some("/api/v1/workers/{id}"),
        stream: "/events?worker_id={id}",
        render: |view, params| Box::pin(worker::render(view, params)),
        ..BOARD
    },
    Page {
        name: "events",
        path: "/events-view",
        nav: "Events",
        key: Some('e'),
        filters: Filters::Events,
        own: &events::OWN,
        concerned: events::is_concerned,
        render: |view, params| Box::pin(events::render(view, params)),
        ..BOARD
    },
    Page {
        name: "analytics",
        path: "/analytics",
        nav: "Metrics",
        key: Some('a'),
        own: &[("range", analytics::check_range)],
        pace: CALM,
        concerned: |_, event| event.event_type.row().topic == Topic::TasksStatus,
        api: Some("/api/v1/history"),
        stream: "/events?topics=stats",
        render: |view, params| Box::pin(ready(analytics::render(view, params))),
        ..BOARD
    },
    Page {
        name: "schedules",
        path: "/schedules",
        nav: "Schedules",
        key: Some('r'),
        from_tables: true,
        own: &[("after", schedules::check_after)],
        reach: Reach::Present,
        pace: SLOW,
        concerned: |_, event| event.data.schedule.is_some(),
        api: Some("/api/v1/schedules"),
        stream: "/events?types=operator_action",
        render: |view, params| Box::pin(schedules::render(view, params)),
        ..BOARD
    },
    Page {
        name: "audit",
        path: "/audit",
        nav: "Audit",
        is_rare: true,
        key: Some('u'),
        from_tables: true,
        own: &audit::OWN,
        pace: SLOW,
        concerned: audit::is_concerned,
        stream: "/events?topics=queues,tasks:edits",
        render: |view, params| Box::pin(audit::render(view, params)),
        ..BOARD
    },
    Page {
        name: "streams",
        path: "/streams",
        nav: "Stream clients",
        is_rare: true,
        key: Some('s'),
        reach: Reach::Present,
        pace: CALM,
        api: Some("/api/v1/streams"),
        render: |view, params| Box::pin(ready(streams::render(view, params))),
        ..BOARD
    },
    Page {
        name: "test-client",
        path: "/test-client",
        nav: "Test client",
        is_rare: true,
        filters: Filters::Events,
        reach: Reach::Present,
        concerned: |params, event| event.position.is_some() && params.filter.matches(event),
        render: |view, params| Box::pin(ready(test_client::render(view, params))),
        ..BOARD
    },
    Page {
        name: "wall",
        path: "/wall",
        nav: "Wall display",
        is_rare: true,
        chrome: Chrome::Display,
        own: &wall::OWN,
        pace: CALM,
        api: Some("/api/v1/stats"),
        render: |view, params| Box::pin(ready(wall::render(view, params))),
        ..BOARD
    },
    Page {
        name: "task",
        path: "/tasks/{id}",
        from_tables: true,
        pace: MODERATE,
        concerned: |params, event| event.task_id == params.id,
        api: Some("/api/v1/tasks/{id}"),
        stream: "/events?task_id={id}",
        render: |view, params| Box::pin(task::render(view, params)),
        ..BOARD
    },
    Page {
        name: "parent",
        path: "/parents/{id}",
        from_tables: true,
        own: &[("phase", parent::check_phase)],
        pace: MODERATE,
        concerned: |params, event| event.task_id == params.id || event.parent_task_id == params.id,
        api: Some("/api/v1/tasks?parent_task_id={id}"),
        stream: "/events?parent_task_id={id}",
        render: |view, params| Box::pin(parent::render(view, params)),
        ..BOARD
    },
    Page {
        name: "bulk",
        path: "/bulk/{id}",
        from_tables: true,
        reach: Reach::Present,
        pace: CALM,
        concerned: |_, event| event.task_id.is_some() || event.event_type == Kind::OperatorAction,
        api: Some("/api/v1/bulk/{id}"),
        stream: "/events?topics=tasks",
        render: |view, params| Box::pin(bulk::render(view, params)),
        ..BOARD
    },
];

/// Whether a base path begins like the path of a page.
#[must_use]
pub fn hides_a_page(base: &BasePath) -> bool {
    base.first_segment().is_some_and(|first| PAGES.iter().any(|page| page.path.split('/').nth(1) == Some(first)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_keys_are_unique() {
        let unique =
            |values: Vec<String>| values.iter().collect::<std::collections::BTreeSet<_>>().len() == values.len();
        assert!(unique(PAGES.iter().map(|page| page.name.to_owned()).collect()));
        assert!(unique(PAGES.iter().map(|page| page.path.to_owned()).collect()));
        assert!(unique(PAGES.iter().filter_map(|page| page.key).map(String::from).collect()));
        // The keys of the tasks page and of the help itself.
        assert!(PAGES.iter().filter_map(|page| page.key).all(|key| key.is_ascii_lowercase() && key != 'g'));
    }

    #[test]
    fn a_base_path_must_not_hide_a_page() {
        assert!(hides_a_page(&"/tasks/behind".parse().unwrap()));
        assert!(hides_a_page(&"/wall".parse().unwrap()));
        assert!(!hides_a_page(&"/taskwatch".parse().unwrap()) && !hides_a_page(&BasePath::default()));
    }
}
