//! One error group: the latest error whole, since when and how often, where, and a form to retry its tasks.

use askama::Template;
use uuid::Uuid;

use super::failures::Row;
use crate::page::{Content, PageError, Params, View, format};
use crate::{board::Board, clock::Time, feed, model::Name};

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    row: Row,
    /// Some workers on which its tasks failed.
    workers: Vec<(Uuid, String)>,
    is_past: bool,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing =
        || PageError::NotFound("Error group not found. Groups are kept while they have failed tasks.".to_owned());
    let fingerprint = params.name.as_ref().ok_or_else(missing)?;
    let page = FailurePage::of(&feed::read(&view.board), fingerprint, params.at.is_some(), view.now());
    let page = page.ok_or_else(missing)?;
    Content::new(format!("{} · Error group", page.row.group.task_type), &page)
}

impl FailurePage {
    fn of(board: &Board, fingerprint: &Name, is_past: bool, now: Time) -> Option<Self> {
        let row = Row::of(fingerprint, board.failures.groups.get(fingerprint)?, now);
        let named = |id: &Uuid| {
            let name = board.workers.0.get(id).map(|seen| seen.name.to_string());
            (*id, name.unwrap_or_else(|| format::short(id)))
        };
        let workers = row.group.workers.iter().map(named).collect();
        Some(Self { row, workers, is_past })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::golden::{board, check_template, hostile, now};

    #[test]
    fn the_page_of_an_error_group_is_as_it_was() {
        let board = board();
        let fingerprint = board.failures.open()[0].0.clone();
        check_template("failure", &FailurePage::of(&board, &fingerprint, false, now()).unwrap());
        assert!(FailurePage::of(&board, &hostile("unknown"), false, now()).is_none());
    }
}
