//! What the table of pages says of a page.

use std::{future::Future, pin::Pin, time::Duration};

use super::{Content, PageError, Params, View};
use crate::event::{Event, filter};

/// Parameters of a list of tasks that are no filters.
pub const LIST: [&str; 3] = ["q", "limit", "cursor"];

pub(super) type Rendering<'a> = Pin<Box<dyn Future<Output = Result<Content, PageError>> + Send + 'a>>;

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
    /// Where programs get the same from the API; `{id}` stands for the id of the page.
    pub api: Option<&'static str>,
    /// Where programs follow the same.
    pub stream: &'static str,
    /// Whether an event can change it.
    pub concerned: fn(&Params, &Event) -> bool,
    pub(super) render: for<'a> fn(&'a View, &'a Params) -> Rendering<'a>,
}

/// Says what is wrong with the value of a parameter.
pub type Check = fn(&str) -> Result<(), String>;

/// How often a live page may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// It is rendered at most this often.
    pub page: Duration,
    /// One region of it is sent at most this often; the first change after quiet goes out at once.
    pub region: Duration,
}

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
