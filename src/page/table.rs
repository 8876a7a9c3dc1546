//! The pages: ONE table.

use std::{
    future::{Future, ready},
    pin::Pin,
    time::Duration,
};

use super::{
    Content, Pace, PageError, Params, REGION, View, analytics, bulk, events, failures, overview, parent, queues,
    schedules, streams, task, tasks, trial, wall, workers,
};
use crate::event::{Event, Kind, filter, kind::Topic};

/// Parameters of a list of tasks that are no filters.
pub const LIST: [&str; 3] = ["q", "limit", "cursor"];

type Rendering<'a> = Pin<Box<dyn Future<Output = Result<Content, PageError>> + Send + 'a>>;

/// Which filters a page takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// None.
    None,
    /// Those of a list of tasks.
    Tasks,
    /// Those of the event stream.
    Events,
}

/// How far back a page can look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// As far as the log.
    Log,
    /// It knows the present only.
    Present,
}

/// One row of the table.
#[derive(Debug)]
pub struct Page {
    /// Its name in `/live?page=`.
    pub name: &'static str,
    /// Its address.
    pub path: &'static str,
    /// Its word in the navigation; empty when it is not there.
    pub nav: &'static str,
    /// It reads the tables; the others only the board.
    pub from_tables: bool,
    /// Which filters it takes.
    pub filters: Filters,
    /// Parameters beside the filters.
    pub own: &'static [(&'static str, Check)],
    /// How far back it can look.
    pub reach: Reach,
    /// How often it changes.
    pub pace: Pace,
    /// Whether an event can change it.
    pub concerned: fn(&Params, &Event) -> bool,
    pub(super) render: for<'a> fn(&'a View, &'a Params) -> Rendering<'a>,
}

/// Says what is wrong with the value of a parameter.
pub type Check = fn(&str) -> Result<(), String>;

/// Cheap to render: a change is there at once.
const QUICK: Pace = Pace { page: Duration::from_millis(25), region: REGION };
/// Reads a few rows.
const MODERATE: Pace = Pace { page: Duration::from_millis(100), region: REGION };
/// Reads a list.
const SLOW: Pace = Pace { page: Duration::from_secs(1), region: REGION };
/// For screens that nobody sits before: everything that changed, once a second.
const CALM: Pace = Pace { page: Duration::from_secs(1), region: Duration::ZERO };

/// A page made from the board; the rest is filled in.
const BOARD: Page = Page {
    name: "",
    path: "",
    nav: "",
    from_tables: false,
    filters: Filters::None,
    own: &[],
    reach: Reach::Log,
    pace: QUICK,
    concerned: |_, _| true,
    render: |_, _| Box::pin(ready(Err(PageError::NotFound(String::new())))),
};

/// The table.
pub static PAGES: [Page; 14] = [
    Page {
        name: "overview",
        path: "/",
        nav: "Overview",
        render: |view, params| Box::pin(ready(overview::render(view, params))),
        ..BOARD
    },
    Page {
        name: "tasks",
        path: "/tasks",
        nav: "Tasks",
        from_tables: true,
        filters: Filters::Tasks,
        pace: SLOW,
        concerned: |_, event| event.task_id.is_some() && event.event_type != Kind::TaskProgress,
        render: |view, params| Box::pin(tasks::render(view, params)),
        ..BOARD
    },
    Page {
        name: "task",
        path: "/tasks/{id}",
        from_tables: true,
        pace: MODERATE,
        concerned: |params, event| event.task_id == params.id,
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
        render: |view, params| Box::pin(parent::render(view, params)),
        ..BOARD
    },
    Page {
        name: "queues",
        path: "/queues",
        nav: "Queues",
        concerned: |_, event| event.queue.is_some() || event.worker_id.is_some(),
        render: |view, params| Box::pin(ready(queues::render(view, params))),
        ..BOARD
    },
    Page {
        name: "workers",
        path: "/workers",
        nav: "Workers",
        concerned: |_, event| event.worker_id.is_some(),
        render: |view, params| Box::pin(ready(workers::render(view, params))),
        ..BOARD
    },
    Page {
        name: "failures",
        path: "/failures",
        nav: "Failures",
        own: &[("show", failures::check_show)],
        concerned: |_, event| event.data.fingerprint.is_some(),
        render: |view, params| Box::pin(ready(failures::render(view, params))),
        ..BOARD
    },
    Page {
        name: "events",
        path: "/events-view",
        nav: "Live events",
        filters: Filters::Events,
        concerned: |params, event| event.position.is_some() && params.filter.matches(event),
        render: |view, params| Box::pin(events::render(view, params)),
        ..BOARD
    },
    Page {
        name: "analytics",
        path: "/analytics",
        nav: "Analytics",
        own: &[("range", analytics::check_range)],
        pace: CALM,
        concerned: |_, event| event.event_type.row().topic == Topic::TasksStatus,
        render: |view, params| Box::pin(ready(analytics::render(view, params))),
        ..BOARD
    },
    Page {
        name: "schedules",
        path: "/schedules",
        nav: "Recurring",
        from_tables: true,
        own: &[("after", schedules::check_after)],
        reach: Reach::Present,
        pace: SLOW,
        concerned: |_, event| event.data.schedule.is_some(),
        render: |view, params| Box::pin(schedules::render(view, params)),
        ..BOARD
    },
    Page {
        name: "streams",
        path: "/streams",
        nav: "Streams",
        reach: Reach::Present,
        pace: CALM,
        render: |view, params| Box::pin(ready(streams::render(view, params))),
        ..BOARD
    },
    Page {
        name: "bulk",
        path: "/bulk/{id}",
        from_tables: true,
        reach: Reach::Present,
        pace: CALM,
        concerned: |_, event| event.task_id.is_some() || event.event_type == Kind::OperatorAction,
        render: |view, params| Box::pin(bulk::render(view, params)),
        ..BOARD
    },
    Page {
        name: "test-client",
        path: "/test-client",
        filters: Filters::Events,
        reach: Reach::Present,
        concerned: |params, event| event.position.is_some() && params.filter.matches(event),
        render: |view, params| Box::pin(ready(trial::render(view, params))),
        ..BOARD
    },
    Page {
        name: "wall",
        path: "/wall",
        own: &wall::OWN,
        pace: CALM,
        render: |view, params| Box::pin(ready(wall::render(view, params))),
        ..BOARD
    },
];

impl Page {
    /// The page has a filter or a parameter of that name.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        let is_filter = match self.filters {
            Filters::None => false,
            Filters::Tasks => LIST.contains(&name) || filter::is_known(name),
            Filters::Events => filter::is_known(name),
        };
        is_filter || self.own.iter().any(|(own, _)| *own == name)
    }

    /// Its address with an id filled in.
    #[must_use]
    pub fn address(&self, params: &Params) -> String {
        match params.id {
            Some(id) => self.path.replace("{id}", &id.to_string()),
            None => self.path.to_owned(),
        }
    }

    /// Renders it, as of the time asked for.
    pub(super) async fn content(&self, view: &View, params: &Params) -> Result<Content, PageError> {
        match params.at.filter(|_| self.reach == Reach::Log) {
            Some(moment) => (self.render)(&view.at(moment).await?, params).await,
            None => (self.render)(view, params).await,
        }
    }
}

impl Page {
    /// Where programs get the same: the API, if it has that, and the stream.
    #[must_use]
    pub fn programs(&self) -> (Option<&'static str>, &'static str) {
        match self.name {
            "overview" | "wall" => (Some("/api/v1/stats"), "/events"),
            "tasks" => (Some("/api/v1/tasks"), "/events?topics=tasks"),
            "task" => (Some("/api/v1/tasks/{id}"), "/events?task_id={id}"),
            "parent" => (Some("/api/v1/tasks?parent_task_id={id}"), "/events?parent_task_id={id}"),
            "queues" => (Some("/api/v1/queues"), "/events?topics=queues"),
            "workers" => (Some("/api/v1/workers"), "/events?topics=workers,connectors"),
            "failures" => (Some("/api/v1/failures"), "/events?types=task_failed,task_retry"),
            "analytics" => (Some("/api/v1/history"), "/events?topics=stats"),
            "schedules" => (Some("/api/v1/schedules"), "/events?types=operator_action"),
            "streams" => (Some("/api/v1/streams"), "/events"),
            "bulk" => (Some("/api/v1/bulk/{id}"), "/events?topics=tasks"),
            _ => (None, "/events"),
        }
    }
}
