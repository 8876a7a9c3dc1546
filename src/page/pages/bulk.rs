//! Progress of a bulk action.

use askama::Template;

use crate::page::{Content, PageError, Params, View};
use crate::{
    model::bulk::{Bulk, BulkAction, BulkState},
    store::bulk,
};

#[derive(Template)]
#[template(path = "bulk.html")]
struct BulkPage {
    bulk: Bulk,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("There is no such action. It may have been removed for its age.".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let bulk = bulk::one(view.store.pool(), id).await?.ok_or_else(missing)?;
    Content::new(format!("({}) {}", state(&bulk.state).2, verb(&bulk.action)), &BulkPage { bulk })
}

/// The action as text.
pub(super) fn verb(action: &BulkAction) -> &'static str {
    match action {
        BulkAction::Cancel { .. } => "Cancel tasks",
        BulkAction::Retry | BulkAction::RetryFamily => "Run tasks again",
        BulkAction::WithChildren { of } => verb(of),
        BulkAction::Delete => "Delete tasks",
        BulkAction::Edit { .. } => "Change tasks",
    }
}

/// CSS class, icon and text of a state.
const fn state(state: &BulkState) -> (&'static str, &'static str, &'static str) {
    match state {
        BulkState::Running => ("busy", "▶", "running"),
        BulkState::Done => ("good", "✓", "done"),
        BulkState::Cancelled => ("quiet", "■", "cancelled"),
    }
}
