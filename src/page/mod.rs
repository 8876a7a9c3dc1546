//! Pages: each renders a fragment from the board or from the tables; the layout around it is the same for all.
//!
//! To add a page: its file in `pages/`, its template of the same name, and its row in [`PAGES`].

pub mod chart;
pub mod done;
pub mod format;
pub mod fragment_diff;
mod fragments;
mod json_view;
pub mod layout;
mod live;
mod log_range;
mod page_links;
mod pages;
pub mod preferences;
mod problem_list;
pub mod project_choices;
mod queue_table;
mod row;
pub mod still;
pub mod summary;
mod switcher;
mod timeline;
pub mod visible;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use askama::Template;
use uuid::Uuid;

pub use fragments::{Fragment, Fragments, Freshness};
pub use live::{LivePages, Viewer};
pub use pages::{PAGES, hides_a_page};
pub use row::{Check, Chrome, Filters, LIST_PARAMETERS, Pace, Page, Reach};

use crate::{
    base_path::BasePath,
    clock::{Clock, Time},
    event::{Filter, filter::PROJECT},
    feed::{
        self, ByteReaders, SharedBoard, Subscriptions,
        stream_registry::StreamRegistry,
        time_travel::{Moment, TimeTravel, TimeTravelError},
    },
    model::{Name, task_query::TaskQuery},
    store::{EventLog, Store, writing::Writing},
};

/// Dependencies of page rendering. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The tables.
    pub store: Store,
    /// The event log.
    pub event_log: EventLog,
    /// The board; a historical one if [`Params::at`] is set.
    pub board: SharedBoard,
    /// Historical boards.
    pub time_travel: TimeTravel,
    /// The feed.
    pub subscriptions: Subscriptions,
    /// The stream registry.
    pub stream_registry: Arc<StreamRegistry>,
    /// Delivery of events to streams.
    pub byte_readers: ByteReaders,
    /// Whether the database accepts writes.
    pub writing: Writing,
    /// The clock.
    pub clock: Clock,
    /// Heartbeat interval requested from workers, seconds.
    pub heartbeat_seconds: u32,
    /// Time without a heartbeat after which a worker counts as quiet.
    pub quiet: chrono::TimeDelta,
    /// URL of the server, for example commands.
    pub url: String,
    /// Prefix added to links in live fragments; all other pages are prefixed when the response is sent.
    pub base: BasePath,
}

/// Parameters of a page request.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// The ID in the path.
    pub id: Option<Uuid>,
    /// The name in the path.
    pub name: Option<Name>,
    /// Filters.
    pub filter: Filter,
    /// Filters for queries on the tables.
    pub tasks: TaskQuery,
    /// Time travel: the moment to show; `None` for now.
    pub at: Option<Moment>,
    /// Replay speed; `None` if not replaying.
    pub play: Option<u32>,
    /// Query parameters, without those that control refreshing.
    pub pairs: Vec<(String, String)>,
}

impl Params {
    /// The value of a parameter specific to this page.
    #[must_use]
    pub fn own(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Parameters that links to other pages keep: the time and the projects shown.
    fn carried(&self) -> Vec<(&'static str, &str)> {
        let both = [("at", self.own("at").unwrap_or_default()), (PROJECT, self.filter.value(PROJECT))];
        both.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// A URL with the ID or the name in place of `{id}` or `{name}`.
    fn fill(&self, url: &str) -> String {
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        let name = self.name.as_ref().map(|name| format::path_segment(name.as_str())).unwrap_or_default();
        url.replace("{id}", &id).replace("{name}", &name)
    }

    /// The query without some parameters.
    fn without(&self, names: &[&str]) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect()
    }
}

/// A rendered page.
#[derive(Debug)]
pub struct Content {
    /// Title.
    pub title: String,
    /// HTML.
    pub html: String,
}

impl Content {
    fn new(title: impl Into<String>, page: &impl Template) -> Result<Self, PageError> {
        Ok(Self { title: title.into(), html: page.render()? })
    }
}

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The historical view is unavailable.
    #[error(transparent)]
    TimeTravel(#[from] TimeTravelError),
    /// Any error of the database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The template failed.
    #[error(transparent)]
    Template(#[from] askama::Error),
}

impl View {
    /// The same view at another time.
    async fn at(&self, moment: Moment) -> Result<Self, PageError> {
        let board = self.time_travel.board(moment.position).await?;
        Ok(Self { board, clock: Clock::stopped(moment.time), ..self.clone() })
    }

    /// The same view of some projects; of all of them if none is named.
    fn of(self, projects: &BTreeSet<Name>) -> Self {
        Self { board: feed::narrowed(&self.board, projects), ..self }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }
}

/// Minimum interval between two updates of one region of a page.
pub const REGION: Duration = Duration::from_millis(250);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod golden;
