//! Health reasons as an operator needs them: what is wrong, since when, and one thing to do about it.

use super::format;
use crate::{
    board::health::{Level, Reason},
    clock::Time,
    model::Name,
};

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProblemRow {
    pub(super) level: Level,
    pub(super) text: String,
    /// Page of what it is about.
    pub(super) url: Option<String>,
    pub(super) since: Option<Time>,
    pub(super) action: Option<Action>,
}

/// What to do about a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) label: &'static str,
    pub(super) url: String,
    /// It changes something: a form, not a link.
    pub(super) is_form: bool,
}

impl Action {
    const fn link(label: &'static str, url: String) -> Self {
        Self { label, url, is_form: false }
    }
}

/// URL of the page of a queue.
pub(super) fn queue_url(name: &Name) -> String {
    format!("/queues/{}", format::path_segment(name.as_str()))
}

impl ProblemRow {
    pub(super) fn of(reason: &Reason) -> Self {
        let filtered = |filter: &str, name: &Name, status: &str| {
            let value = format::filter_value(name.as_str());
            format::address("/tasks", &[("status".to_owned(), status.to_owned()), (filter.to_owned(), value)])
        };
        let (url, action) = if let Some(queue) = &reason.queue {
            let page = queue_url(queue);
            let action = match reason.code {
                "queue_paused" => Action { label: "Resume", url: format!("{page}/resume"), is_form: true },
                "concurrency_limited" | "rate_limited" => Action::link("View limits", page.clone()),
                _ => Action::link("View tasks", filtered("queue", queue, "pending")),
            };
            (Some(page), Some(action))
        } else if let Some(id) = reason.task_id {
            (Some(format!("/tasks/{id}")), Some(Action::link("View task", format!("/tasks/{id}"))))
        } else if let Some(id) = reason.worker_id {
            let page = format!("/workers/{id}");
            (Some(page.clone()), Some(Action::link("View worker", page)))
        } else if let Some(name) = &reason.task_type {
            let failed = filtered("task_type", name, "failed");
            (Some(failed.clone()), Some(Action::link("View failed tasks", failed)))
        } else {
            (None, None)
        };
        let text = format::clip(&reason.text, 240);
        Self { level: reason.severity, text, url, since: reason.since, action }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{
        Board,
        health::{self, rules::RULES},
    };

    #[test]
    fn every_problem_of_a_board_leads_somewhere() {
        let board: Board = crate::page::golden::board();
        let health = health::overall(&board, chrono::TimeDelta::seconds(25), crate::page::golden::now());
        assert!(!health.reasons.is_empty());
        for reason in &health.reasons {
            let row = ProblemRow::of(reason);
            assert!(row.action.is_some() && row.url.is_some(), "{reason:?}");
            assert!(RULES.iter().any(|rule| rule.code == reason.code));
        }
    }
}
