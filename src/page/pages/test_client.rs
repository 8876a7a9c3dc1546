//! The test client: create tasks, act as a worker, watch the events. Separate from the monitor.

use std::sync::Arc;

use askama::Template;

use crate::page::{Content, PageError, Params, View};
use crate::{board::recent, event::Event};

#[derive(Template)]
#[template(path = "test_client.html")]
struct Trial<'a> {
    params: &'a Params,
    events: Vec<Arc<Event>>,
    is_filtered: bool,
    task_ids: String,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let is_filtered = !params.filter.is_empty();
    let passes = |event: &Event| params.filter.matches(event);
    let events = if is_filtered { view.subscriptions.newest(recent::EVENTS, passes) } else { Vec::new() };
    let task_ids = params.filter.value("task_id").to_owned();
    Content::new("Test client", &Trial { params, events, is_filtered, task_ids })
}
