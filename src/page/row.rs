//! Row type of the page registry.

use std::{future::Future, pin::Pin, time::Duration};

use super::{Content, PageError, Params, View, summary::Summary};
use crate::event::{Event, filter};

/// Parameters of a task list that are not filters.
pub const LIST_PARAMETERS: [&str; 3] = ["q", "limit", "cursor"];

pub(super) type Rendering<'a> = Pin<Box<dyn Future<Output = Result<Content, PageError>> + Send + 'a>>;

/// Filters supported by a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// None.
    None,
    /// Filters of a task list.
    Tasks,
    /// Filters of the event stream.
    Events,
}

/// What surrounds the content of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chrome {
    /// Navigation, menus and footer.
    Full,
    /// Link status and clock only, for wall displays; live unless switched off.
    Display,
}

/// Time travel support of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// As far back as the log.
    Log,
    /// No history.
    Present,
}

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Name in `/live?page=`.
    pub name: &'static str,
    /// URL path.
    pub path: &'static str,
    /// Label in the navigation; empty if not listed.
    pub nav: &'static str,
    /// The number beside its label; 0 for none. Named in the summary as the page is.
    pub badge: fn(&Summary) -> usize,
    /// Listed in the menu of rare pages, not in the bar.
    pub is_rare: bool,
    /// Shortcut: the letter that opens it after `g`.
    pub key: Option<char>,
    /// What surrounds its content.
    pub chrome: Chrome,
    /// Rendered from the tables; other pages only use the board.
    pub from_tables: bool,
    /// Supported filters.
    pub filters: Filters,
    /// Further parameters.
    pub own: &'static [(&'static str, Check)],
    /// Time travel support.
    pub reach: Reach,
    /// Update rate.
    pub pace: Pace,
    /// API endpoint with the same data; `{id}` and `{name}` stand for those of the page.
    pub api: Option<&'static str>,
    /// Event stream with the same data.
    pub stream: &'static str,
    /// Whether an event can change it.
    pub concerned: fn(&Params, &Event) -> bool,
    pub(super) render: for<'a> fn(&'a View, &'a Params) -> Rendering<'a>,
}

/// Validates a parameter value.
pub type Check = fn(&str) -> Result<(), String>;

/// Maximum update rate of a live page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Minimum interval between two renderings.
    pub page: Duration,
    /// Minimum interval between two updates of one region; the first change after an idle period is sent immediately.
    pub region: Duration,
}

impl Page {
    /// Whether the page has a filter or parameter of that name.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        let is_filter = match self.filters {
            Filters::None => false,
            Filters::Tasks => LIST_PARAMETERS.contains(&name) || filter::is_known(name),
            Filters::Events => filter::is_known(name),
        };
        is_filter || name == filter::PROJECT || self.own.iter().any(|(own, _)| *own == name)
    }

    /// Its URL path with the ID or the name filled in.
    #[must_use]
    pub fn address(&self, params: &Params) -> String {
        params.fill(self.path)
    }

    /// Whether it is the page of one object.
    #[must_use]
    pub fn is_of_one(&self) -> bool {
        self.path.contains('{')
    }

    /// Renders it, at the requested time and for the requested projects.
    pub(super) async fn content(&self, view: &View, params: &Params) -> Result<Content, PageError> {
        let moment = params.at.filter(|_| self.reach == Reach::Log);
        let projects = params.filter.projects();
        if moment.is_none() && projects.is_empty() {
            return (self.render)(view, params).await;
        }
        let view = match moment {
            Some(moment) => view.at(moment).await?,
            None => view.clone(),
        };
        (self.render)(&view.of(&projects), params).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::{
        PAGES,
        golden::{id, params},
    };

    fn page(name: &str) -> &'static Page {
        PAGES.iter().find(|page| page.name == name).unwrap()
    }

    #[test]
    fn a_page_takes_the_parameters_of_its_filters_and_its_own() {
        for (name, taken, refused) in [
            ("tasks", &["queue", "label.x", "q", "cursor", "limit"][..], &["show", "at", "colour"][..]),
            ("events", &["queue", "types", "label.x"], &["q", "cursor", "limit"]),
            ("failures", &["show"], &["queue", "q"]),
            ("overview", &[], &["queue", "label.x", ""]),
            ("wall", &["boards", "rotate", "dim_to"], &["queue"]),
        ] {
            assert!(taken.iter().all(|parameter| page(name).takes(parameter)), "{name}");
            assert!(!refused.iter().any(|parameter| page(name).takes(parameter)), "{name}");
        }
    }

    #[test]
    fn the_path_of_an_object_has_its_id() {
        let with_id = Params { id: Some(id(7)), ..Params::default() };
        assert_eq!(page("task").address(&with_id), format!("/tasks/{}", id(7)));
        assert_eq!(page("tasks").address(&with_id), "/tasks");
        assert_eq!(page("queues").address(&Params::default()), "/queues");
    }

    #[test]
    fn an_own_parameter_is_the_first_of_its_name() {
        let params = params("wall", &[("rotate", "5"), ("rotate", "6"), ("theme", "")]);
        assert_eq!((params.own("rotate"), params.own("theme"), params.own("scale")), (Some("5"), Some(""), None));
        let rest = params.without(&["rotate"]);
        assert_eq!(rest, [("theme".to_owned(), String::new())]);
    }

    #[test]
    fn a_page_with_an_id_says_so_wherever_it_is_shared() {
        for page in &PAGES {
            let needs_id = page.is_of_one();
            assert!(page.nav.is_empty() || !needs_id, "{} cannot be in the navigation", page.name);
            let api = page.api.unwrap_or_default();
            assert!(api.is_empty() || api.contains('{') == needs_id, "{}", page.name);
        }
    }
}
