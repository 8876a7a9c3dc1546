//! The events page: the newest events of the log.

use std::sync::Arc;

use askama::Template;

use crate::page::{Content, PageError, Params, View};
use crate::{
    board::recent,
    event::{Event, filter},
    feed,
};

/// Historical view: maximum number of events examined for matches of a filter.
const MAX_EXAMINED: i64 = 20_000;

#[derive(Template)]
#[template(path = "events.html")]
struct Events<'a> {
    events: Vec<Arc<Event>>,
    rows: &'a [filter::Row],
    params: &'a Params,
    filtered: usize,
    position: i64,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let (position, newest) = {
        let board = feed::read(&view.board);
        (board.position, board.recent.events.iter().cloned().collect::<Vec<_>>())
    };
    let passes = |event: &Event| params.filter.matches(event);
    let events = match params.at {
        _ if params.filter.is_empty() => newest,
        // With a filter the board's newest events may be too few; memory has more, and the log has all.
        None => view.subscriptions.newest(recent::EVENTS, passes),
        Some(moment) => {
            let epoch = view.subscriptions.epoch();
            view.event_log.newest_until(epoch, moment.position, (recent::EVENTS, MAX_EXAMINED), passes).await?
        }
    };
    let filtered = params.without(&["at", "play"]).len();
    Content::new("Events", &Events { events, rows: &filter::ROWS, params, filtered, position })
}
