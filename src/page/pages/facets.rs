//! Facets of the task list: how many tasks there are of what, each a link that sets or removes a filter. The counts are
//! those of the board, so they cost nothing; they are shown as far as the board counts what the filters leave.

use std::cmp::Reverse;

use crate::{
    board::{Board, counts::StatusCounts},
    event::filter,
    model::{Name, Status},
    page::{Params, format},
};

/// Maximum number of values of a facet.
const SHOWN: usize = 10;

/// One facet.
pub(super) struct Facet {
    pub(super) title: &'static str,
    pub(super) values: Vec<Value>,
    /// Number of values that are not shown.
    pub(super) more: usize,
}

/// One value of a facet.
pub(super) struct Value {
    pub(super) name: String,
    /// CSS class and sign of a status.
    pub(super) look: Option<(&'static str, &'static str)>,
    /// Number of tasks, if the board counts them.
    pub(super) count: Option<u64>,
    /// Sets the filter, or removes it.
    pub(super) url: String,
    pub(super) is_chosen: bool,
}

/// Filters by which the board counts.
const COUNTED: [&str; 3] = ["status", "queue", filter::PROJECT];

/// The facets of a list.
pub(super) fn of(board: &Board, params: &Params) -> Vec<Facet> {
    let ignored = ["at", "play", "cursor", "limit"];
    let knows = params.without(&ignored).iter().all(|(name, _)| COUNTED.contains(&name.as_str()));
    let chosen = |filter: &str| filter::values(params.filter.value(filter));
    let (statuses, queues) = (chosen("status"), chosen("queue"));
    let url = |filter: &str, value: &str, is_chosen: bool| {
        let mut pairs = params.without(&[filter, "cursor"]);
        pairs.extend((!is_chosen).then(|| (filter.to_owned(), format::filter_value(value))));
        format::address("/tasks", &pairs)
    };
    let mut sum = StatusCounts::default();
    if queues.is_empty() {
        sum = board.tasks;
    }
    for queue in &queues {
        if let Some(queue) = board.queues.0.get(queue.as_str()) {
            Status::ALL.into_iter().for_each(|status| sum.add(status, queue.count(status)));
        }
    }
    let status = |status: Status| {
        let is_chosen = statuses.iter().any(|chosen| chosen == status.as_str());
        Value {
            name: status.to_string(),
            look: Some(format::status(&status)),
            count: knows.then(|| sum.get(status)),
            url: url("status", status.as_str(), is_chosen),
            is_chosen,
        }
    };
    let wanted = |counts: &StatusCounts| {
        let counted =
            counts.iter().filter(|(status, _)| statuses.is_empty() || statuses.iter().any(|s| s == status.as_str()));
        counted.map(|(_, count)| count).sum::<u64>()
    };
    let mut counted: Vec<_> = board.queues.0.iter().map(|(name, queue)| (name, wanted(&queue.tasks))).collect();
    counted.sort_by_key(|(name, count)| (!queues.iter().any(|queue| queue == name.as_str()), Reverse(*count), *name));
    let more = counted.len().saturating_sub(SHOWN);
    let queue = |(name, count): &(&Name, u64)| {
        let is_chosen = queues.iter().any(|queue| queue == name.as_str());
        Value {
            name: name.to_string(),
            look: None,
            count: knows.then_some(*count),
            url: url("queue", name.as_str(), is_chosen),
            is_chosen,
        }
    };
    let types = chosen("task_type");
    let mut known: Vec<_> = board.kinds.iter().map(|(name, _)| name.to_string()).collect();
    known.sort_by_key(|name| !types.contains(name));
    let more_types = known.len().saturating_sub(SHOWN);
    let kind = |name: &String| {
        let is_chosen = types.contains(name);
        Value { name: name.clone(), look: None, count: None, url: url("task_type", name, is_chosen), is_chosen }
    };
    let mut facets = vec![
        Facet { title: "Status", values: Status::ALL.into_iter().map(status).collect(), more: 0 },
        Facet { title: "Queue", values: counted.iter().take(SHOWN).map(queue).collect(), more },
        Facet { title: "Type", values: known.iter().take(SHOWN).map(kind).collect(), more: more_types },
    ];
    facets.retain(|facet| !facet.values.is_empty());
    facets
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::golden::{board, params};

    fn facet(given: &[(&str, &str)], title: &str) -> Facet {
        of(&board(), &params("tasks", given)).into_iter().find(|facet| facet.title == title).unwrap()
    }

    #[test]
    fn counts_are_those_of_the_board() {
        let board = board();
        for value in facet(&[], "Status").values {
            assert_eq!(value.count, Some(board.count(value.name.parse().unwrap())), "{}", value.name);
        }
        let failed = facet(&[("status", "failed")], "Queue");
        let sum: u64 = failed.values.iter().map(|value| value.count.unwrap()).sum();
        assert_eq!(sum, board.count(Status::Failed));
    }

    #[test]
    fn a_queue_narrows_the_counts_of_statuses() {
        let queue = board().queues.0.iter().max_by_key(|(_, queue)| queue.waiting()).unwrap().0.clone();
        let value = format::filter_value(queue.as_str());
        let counted: u64 = facet(&[("queue", &value)], "Status").values.iter().map(|value| value.count.unwrap()).sum();
        assert_eq!(counted, board().queues.0[&queue].tasks.iter().map(|(_, count)| count).sum::<u64>());
    }

    #[test]
    fn what_the_board_does_not_count_has_no_numbers() {
        assert!(facet(&[("q", "disk")], "Status").values.iter().all(|value| value.count.is_none()));
        assert!(facet(&[("project_id", "a")], "Status").values.iter().all(|value| value.count.is_some()));
    }

    #[test]
    fn a_chosen_value_is_removed_by_its_link_and_another_one_replaces_it() {
        let status = facet(&[("status", "failed"), ("queue", "a"), ("cursor", "x")], "Status");
        let of = |name: &str| status.values.iter().find(|value| value.name == name).unwrap();
        assert_eq!((of("failed").is_chosen, of("failed").url.as_str()), (true, "/tasks?queue=a"));
        assert_eq!((of("running").is_chosen, of("running").url.as_str()), (false, "/tasks?queue=a&status=running"));
    }
}
