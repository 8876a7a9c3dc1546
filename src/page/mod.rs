//! Pages: ONE table. Each renders a fragment from the board or from the tables; the shell around it is the same for all.
//!
//! To add a page: its file here, its template of the same name, its row in [`PAGES`].

mod events;
pub mod format;
mod fragments;
mod overview;
mod parent;
mod streams;
mod task;
mod tasks;
mod workers;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use askama::Template;
use uuid::Uuid;

pub use fragments::{Fragment, Fragments, Freshness};

use crate::{
    clock::Clock,
    event::{Event, Filter, Kind},
    feed::{Deliveries, SharedBoard, Subscriptions, ledger::Ledger},
    store::{Store, search::TaskQuery},
};

/// A live page is rendered at most this often.
pub const LIVE_EVERY: Duration = Duration::from_millis(250);

/// What pages are rendered from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The tables.
    pub store: Store,
    /// The board.
    pub board: SharedBoard,
    /// The feed.
    pub subscriptions: Subscriptions,
    /// Streams.
    pub ledger: Arc<Ledger>,
    /// What streams are fed from.
    pub deliveries: Deliveries,
    /// The time.
    pub clock: Clock,
    /// How often workers are asked to report.
    pub heartbeat_seconds: u32,
    /// A worker that is silent for so long is worth a word.
    pub quiet: chrono::TimeDelta,
    /// Where the server listens, for commands to try.
    pub url: String,
}

/// What a page is asked to show.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// The id in its path.
    pub id: Option<Uuid>,
    /// Its filters.
    pub filter: Filter,
    /// The same for the tables.
    pub tasks: TaskQuery,
    /// Its query, without what steers the refresh.
    pub pairs: Vec<(String, String)>,
}

/// Which parameters a page takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// None.
    None,
    /// Those of a list of tasks.
    Tasks,
    /// Those of the event stream.
    Events,
}

/// What a page says.
#[derive(Debug)]
pub struct Content {
    /// Its title.
    pub title: String,
    /// Its HTML.
    pub html: String,
}

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The template fails.
    #[error(transparent)]
    Template(#[from] askama::Error),
}

type Rendering<'a> = Pin<Box<dyn Future<Output = Result<Content, PageError>> + Send + 'a>>;

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
    /// Which parameters it takes.
    pub filters: Filters,
    /// Whether an event can change it.
    pub concerned: fn(&Params, &Event) -> bool,
    render: for<'a> fn(&'a View, &'a Params) -> Rendering<'a>,
}

/// The table.
pub static PAGES: [Page; 7] = [
    Page {
        name: "overview",
        path: "/",
        nav: "Overview",
        from_tables: false,
        filters: Filters::None,
        concerned: |_, _| true,
        render: |view, params| Box::pin(std::future::ready(overview::render(view, params))),
    },
    Page {
        name: "tasks",
        path: "/tasks",
        nav: "Tasks",
        from_tables: true,
        filters: Filters::Tasks,
        concerned: |_, event| event.task_id.is_some() && event.event_type != Kind::TaskProgress,
        render: |view, params| Box::pin(tasks::render(view, params)),
    },
    Page {
        name: "task",
        path: "/tasks/{id}",
        nav: "",
        from_tables: true,
        filters: Filters::None,
        concerned: |params, event| event.task_id == params.id,
        render: |view, params| Box::pin(task::render(view, params)),
    },
    Page {
        name: "parent",
        path: "/parents/{id}",
        nav: "",
        from_tables: true,
        filters: Filters::None,
        concerned: |params, event| event.task_id == params.id || event.parent_task_id == params.id,
        render: |view, params| Box::pin(parent::render(view, params)),
    },
    Page {
        name: "workers",
        path: "/workers",
        nav: "Workers",
        from_tables: false,
        filters: Filters::None,
        concerned: |_, event| event.worker_id.is_some(),
        render: |view, params| Box::pin(std::future::ready(workers::render(view, params))),
    },
    Page {
        name: "events",
        path: "/events-view",
        nav: "Live events",
        from_tables: false,
        filters: Filters::Events,
        concerned: |params, event| event.position.is_some() && params.filter.matches(event),
        render: |view, params| Box::pin(std::future::ready(events::render(view, params))),
    },
    Page {
        name: "streams",
        path: "/streams",
        nav: "Streams",
        from_tables: false,
        filters: Filters::None,
        concerned: |_, _| true,
        render: |view, params| Box::pin(std::future::ready(streams::render(view, params))),
    },
];

/// What the frame around a page needs to know.
#[derive(Debug)]
pub struct Shell<'a> {
    /// Which page.
    pub page: &'a Page,
    /// What it shows.
    pub params: &'a Params,
    /// It is live.
    pub live: bool,
    /// It may be.
    pub live_allowed: bool,
    /// Seconds between refreshes.
    pub poll_seconds: u32,
    /// Addresses of files.
    pub asset: fn(&str) -> String,
    /// Version of the program.
    pub version: &'static str,
}

/// Addresses of the files of every page.
struct Files {
    icon: String,
    css: String,
    htmx: String,
    sse: String,
    js: String,
}

impl Files {
    fn new(asset: fn(&str) -> String) -> Self {
        Self {
            icon: asset("icon.svg"),
            css: asset("taskwatch.css"),
            htmx: asset("vendor/htmx.min.js"),
            sse: asset("vendor/hx-sse.min.js"),
            js: asset("taskwatch.js"),
        }
    }
}

#[derive(Template)]
#[template(path = "base.html")]
struct Base<'a> {
    title: &'a str,
    fragment: &'a str,
    pages: &'a [Page],
    here: &'a str,
    live: bool,
    live_allowed: bool,
    live_url: String,
    switch_url: String,
    poll_seconds: u32,
    files: Files,
    version: &'a str,
}

/// A whole page around a fragment.
///
/// # Errors
/// When the template fails.
pub fn shell(shell: &Shell<'_>, fragment: &Fragment) -> Result<String, PageError> {
    let mut live = vec![("page".to_owned(), shell.page.name.to_owned())];
    live.extend(shell.params.id.map(|id| ("id".to_owned(), id.to_string())));
    live.extend(shell.params.pairs.iter().cloned());
    let mut switch = shell.params.pairs.clone();
    switch.push(("live".to_owned(), if shell.live { "0" } else { "1" }.to_owned()));
    let text = std::str::from_utf8(&fragment.html).unwrap_or_default();
    Ok(Base {
        title: &fragment.title,
        fragment: text,
        pages: &PAGES,
        here: shell.page.name,
        live: shell.live,
        live_allowed: shell.live_allowed,
        live_url: format!("/live?{}", format::query(&live)),
        switch_url: format!("{}?{}", shell.page.address(shell.params), format::query(&switch)),
        poll_seconds: shell.poll_seconds,
        files: Files::new(shell.asset),
        version: shell.version,
    }
    .render()?)
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    detail: &'a str,
}

/// A page that says what went wrong.
///
/// # Errors
/// When the template fails.
pub fn error_page(detail: &str, poll_seconds: u32, asset: fn(&str) -> String) -> Result<String, PageError> {
    let fragment = ErrorPage { detail }.render()?;
    Ok(Base {
        title: "That did not work",
        fragment: &fragment,
        pages: &PAGES,
        here: "",
        live: false,
        live_allowed: false,
        live_url: String::new(),
        switch_url: String::new(),
        poll_seconds,
        files: Files::new(asset),
        version: env!("CARGO_PKG_VERSION"),
    }
    .render()?)
}

impl Page {
    /// Its address with an id filled in.
    #[must_use]
    pub fn address(&self, params: &Params) -> String {
        match params.id {
            Some(id) => self.path.replace("{id}", &id.to_string()),
            None => self.path.to_owned(),
        }
    }
}
