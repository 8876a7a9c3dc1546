//! Pages: each renders a fragment from the board or from the tables; the shell around it is the same for all.
//!
//! To add a page: its file here, its template of the same name, its row in [`PAGES`].

mod analytics;
mod bulk;
mod carry;
pub mod chart;
mod events;
mod failures;
pub mod format;
mod fragments;
mod live;
mod overview;
mod parent;
mod queues;
pub mod regions;
mod registry;
mod row;
mod schedules;
pub mod shell;
mod streams;
mod task;
mod tasks;
mod trial;
pub mod visible;
mod wall;
mod workers;

use std::{sync::Arc, time::Duration};

use askama::Template;
use uuid::Uuid;

pub use fragments::{Fragment, Fragments, Freshness};
pub use live::{LivePages, Viewer};
pub use registry::PAGES;
pub use row::{Check, Filters, LIST, Pace, Page, Reach};

use crate::{
    base_path::BasePath,
    clock::{Clock, Time},
    event::Filter,
    feed::{
        Deliveries, SharedBoard, Subscriptions,
        ledger::Ledger,
        past::{Moment, Past, PastError},
    },
    model::task_query::TaskQuery,
    store::{EventLog, Store, search::Horizon, writing::Writing},
};

/// What pages are rendered from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The tables.
    pub store: Store,
    /// The event log.
    pub event_log: EventLog,
    /// The board; that of the past when [`Params::at`] says so.
    pub board: SharedBoard,
    /// Boards of the past.
    pub past: Past,
    /// How far back searches look.
    pub horizon: Horizon,
    /// The feed.
    pub subscriptions: Subscriptions,
    /// Streams.
    pub ledger: Arc<Ledger>,
    /// What streams are fed from.
    pub deliveries: Deliveries,
    /// Whether the database takes writes.
    pub writing: Writing,
    /// The time.
    pub clock: Clock,
    /// How often workers are asked to report.
    pub heartbeat_seconds: u32,
    /// A worker that is silent for so long is worth a word.
    pub quiet: chrono::TimeDelta,
    /// Where the server listens, for commands to try.
    pub url: String,
    /// Where addresses of a live page lead; what is not live is led there on its way out.
    pub base: BasePath,
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
    /// When: nothing is now.
    pub at: Option<Moment>,
    /// How many seconds of the past pass in one.
    pub play: Option<u32>,
    /// Its query, without what steers the refresh.
    pub pairs: Vec<(String, String)>,
}

impl Params {
    /// The value of a parameter of its own.
    #[must_use]
    pub fn own(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Its query without some parameters.
    fn without(&self, names: &[&str]) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect()
    }
}

/// What a page says.
#[derive(Debug)]
pub struct Content {
    /// Its title.
    pub title: String,
    /// Its HTML.
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
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be shown as it was.
    #[error(transparent)]
    Past(#[from] PastError),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The template fails.
    #[error(transparent)]
    Template(#[from] askama::Error),
}

impl View {
    /// The same view at another time.
    async fn at(&self, moment: Moment) -> Result<Self, PageError> {
        let board = self.past.board(moment.position).await?;
        Ok(Self { board, clock: Clock::stopped(moment.time), ..self.clone() })
    }

    fn now(&self) -> Time {
        self.clock.now()
    }
}

/// One region of a page goes out at most this often.
pub const REGION: Duration = Duration::from_millis(250);
