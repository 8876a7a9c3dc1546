//! Stream clients: streams and live pages, their lag, and the last closed ones.

use std::sync::{Arc, atomic::Ordering};

use askama::Template;

use crate::feed::stream_registry::{CloseReason, ClosedStream, Purpose, Row};
use crate::page::{Content, PageError, Params, View};

/// Maximum number of open streams shown.
const SHOWN: usize = 200;

#[derive(Template)]
#[template(path = "streams.html")]
struct Streams {
    open: Vec<Line>,
    all: usize,
    ended: Vec<(Line, ClosedStream)>,
    events: u64,
    bytes: u64,
    refused: u64,
}

/// A row of the table.
struct Line {
    row: Arc<Row>,
    what: String,
    form: String,
    behind: i64,
    behind_ms: Option<u64>,
}

impl Line {
    fn new(view: &View, row: Arc<Row>) -> Self {
        let (behind, behind_ms) = view.byte_readers.lag(row.position());
        let what = match row.info.purpose {
            Purpose::Events | Purpose::Poll => format!("/events?{}", row.info.query),
            Purpose::Page => format!("/live?{}", row.info.query),
        };
        Self { what: what.trim_end_matches('?').to_owned(), form: row.info.form_in_words(), behind, behind_ms, row }
    }

    fn events(&self) -> u64 {
        self.row.events.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.row.bytes.load(Ordering::Relaxed)
    }
}

pub(super) fn render(view: &View, _: &Params) -> Result<Content, PageError> {
    let (open, ended) = view.stream_registry.rows();
    let all = open.len();
    let mut open: Vec<_> = open.into_iter().map(|row| Line::new(view, row)).collect();
    // Largest lag first.
    open.sort_by_key(|line| (std::cmp::Reverse(line.behind), line.row.id));
    open.truncate(SHOWN);
    let ended = ended.into_iter().map(|ended| (Line::new(view, ended.row.clone()), ended)).collect();
    let counters = &view.stream_registry.counters;
    let page = Streams {
        open,
        all,
        ended,
        events: counters.events.load(Ordering::Relaxed),
        bytes: counters.bytes.load(Ordering::Relaxed),
        refused: counters.refused.load(Ordering::Relaxed),
    };
    Ok(Content { title: format!("({all} open) Stream clients"), html: page.render()? })
}

/// CSS class and label of a close reason.
const fn look(close_reason: &CloseReason) -> (&'static str, &'static str) {
    match *close_reason {
        CloseReason::ClientLeft
        | CloseReason::Finished
        | CloseReason::PageGone
        | CloseReason::Rotation
        | CloseReason::Drain => ("quiet", "■"),
        CloseReason::Stuck | CloseReason::TooOld | CloseReason::LogChanged => ("warn", "▲"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_lost_something_looks_like_a_problem() {
        let warns = CloseReason::ALL.into_iter().filter(|reason| look(reason).0 == "warn");
        assert_eq!(warns.collect::<Vec<_>>(), [CloseReason::Stuck, CloseReason::TooOld, CloseReason::LogChanged]);
    }
}
