//! Queues, most severe first: which one is in trouble, compared with the others.

use askama::Template;

use crate::page::{
    Content, PageError, Params, View,
    queue_table::{self, QueueRow},
};
use crate::{board::health::Level, feed};

/// Maximum number of queues shown.
const SHOWN: usize = 100;

#[derive(Template)]
#[template(path = "queues.html")]
struct Queues {
    queues: Vec<QueueRow>,
    more: usize,
    is_past: bool,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let mut queues = queue_table::rows(&feed::read(&view.board), view.now());
    let bad = queues.iter().filter(|row| row.health.status != Level::Ok).count();
    let more = queues.len().saturating_sub(SHOWN);
    queues.truncate(SHOWN);
    let title = if bad > 0 { format!("({bad}) Queues") } else { "Queues".to_owned() };
    Content::new(title, &Queues { queues, more, is_past: params.at.is_some() })
}
