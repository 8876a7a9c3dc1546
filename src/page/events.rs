//! Live events: the newest of the log.

use std::sync::Arc;

use askama::Template;

use super::{Content, PageError, Params, View};
use crate::{
    board::recent,
    event::{Event, filter},
    feed,
};

#[derive(Template)]
#[template(path = "events.html")]
struct Events<'a> {
    events: Vec<Arc<Event>>,
    rows: &'a [filter::Row],
    params: &'a Params,
    position: i64,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let (position, newest) = {
        let board = feed::read(&view.board);
        (board.position, board.recent.events.iter().cloned().collect::<Vec<_>>())
    };
    let events = if params.filter.is_empty() {
        newest
    } else {
        // Through a filter the board's newest may be too few; memory holds more.
        view.subscriptions.newest(recent::EVENTS, |event| params.filter.matches(event))
    };
    let page = Events { events, rows: &filter::ROWS, params, position };
    Ok(Content { title: "Live events".to_owned(), html: page.render()? })
}
