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
    let missing = || PageError::NotFound("Bulk action not found. It may have been removed by retention.".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let bulk = bulk::one(view.store.pool(), id).await?.ok_or_else(missing)?;
    Content::new(format!("({}) {}", state(&bulk.state).2, verb(&bulk.action)), &BulkPage { bulk })
}

/// The action as text.
pub(super) fn verb(action: &BulkAction) -> &'static str {
    match action {
        BulkAction::Cancel { .. } => "Cancel tasks",
        BulkAction::Retry | BulkAction::RetryFamily => "Retry tasks",
        BulkAction::WithChildren { of } => verb(of),
        BulkAction::Delete => "Delete tasks",
        BulkAction::Edit { .. } => "Edit tasks",
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        model::task_query::TaskQuery,
        page::golden::{HOSTILE, ago, check_template, id},
    };

    #[test]
    fn the_page_of_a_bulk_action_is_as_it_was() {
        let action = BulkAction::WithChildren { of: Box::new(BulkAction::Cancel { reason: Some(HOSTILE.to_owned()) }) };
        let bulk = Bulk::new(id(70), action, TaskQuery::default(), HOSTILE.to_owned(), ago(60));
        check_template(
            "bulk",
            &BulkPage { bulk: Bulk { succeeded: 1_234, failed: 5, max_per_second: Some(50), ..bulk } },
        );
    }

    #[test]
    fn only_a_running_action_can_be_stopped() {
        for state in BulkState::ALL.iter().copied() {
            let bulk = Bulk::new(Uuid::nil(), BulkAction::Delete, TaskQuery::default(), "ops".to_owned(), ago(60));
            let html = BulkPage { bulk: Bulk { state, ..bulk } }.render().unwrap();
            assert_eq!(html.contains("/cancel\""), state == BulkState::Running, "{state}");
            assert!(html.contains(super::state(&state).2), "{html}");
        }
    }

    #[test]
    fn an_action_with_children_is_called_like_the_action() {
        let with = |of| BulkAction::WithChildren { of: Box::new(of) };
        for action in [BulkAction::Retry, BulkAction::Delete, BulkAction::Cancel { reason: None }] {
            assert_eq!(verb(&with(with(action.clone()))), verb(&action));
        }
        assert_eq!(verb(&BulkAction::RetryFamily), verb(&BulkAction::Retry));
    }
}
