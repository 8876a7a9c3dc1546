//! The connectors of all workers.

use askama::Template;

use crate::{
    feed,
    page::{Content, PageError, Params, View},
};

#[derive(Template)]
#[template(path = "connectors.html")]
struct Connectors {
    rows: Vec<(String, String, &'static str)>,
}

pub(super) fn render(view: &View, _: &Params) -> Result<Content, PageError> {
    let board = feed::read(&view.board);
    let rows = board.workers.0.values().flat_map(|worker| {
        let connectors = worker.connectors.iter();
        connectors.map(|(id, connector)| (worker.name.to_string(), id.to_string(), connector.status.as_str()))
    });
    Content::new("Connectors", &Connectors { rows: rows.collect() })
}
