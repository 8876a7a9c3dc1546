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

/// What a list shows, as far as facets need it.
struct List<'a> {
    board: &'a Board,
    params: &'a Params,
    /// Whether the board counts what the filters leave.
    is_counted: bool,
    statuses: Vec<String>,
    queues: Vec<String>,
}

/// The facets of a list.
pub(super) fn of(board: &Board, params: &Params) -> Vec<Facet> {
    let ignored = ["at", "play", "cursor", "limit"];
    let is_counted = params.without(&ignored).iter().all(|(name, _)| COUNTED.contains(&name.as_str()));
    let chosen = |filter: &str| filter::values(params.filter.value(filter));
    let list = List { board, params, is_counted, statuses: chosen("status"), queues: chosen("queue") };
    let mut facets = vec![list.status(), list.queue(), list.task_type(&chosen("task_type"))];
    facets.retain(|facet| !facet.values.is_empty());
    facets
}

impl List<'_> {
    /// One value of a facet: its link sets the filter, or removes it.
    fn value(&self, filter: &str, name: &str, is_chosen: bool, count: Option<u64>) -> Value {
        let mut pairs = self.params.without(&[filter, "cursor"]);
        pairs.extend((!is_chosen).then(|| (filter.to_owned(), format::filter_value(name))));
        let url = format::address("/tasks", &pairs);
        Value { name: name.to_owned(), look: None, count: count.filter(|_| self.is_counted), url, is_chosen }
    }

    /// Tasks by status, of the chosen queues.
    fn status(&self) -> Facet {
        let mut sum = if self.queues.is_empty() { self.board.tasks } else { StatusCounts::default() };
        for queue in self.queues.iter().filter_map(|name| self.board.queues.0.get(name.as_str())) {
            queue.tasks.iter().for_each(|(status, count)| sum.add(status, count));
        }
        let value = |status: Status| {
            let is_chosen = self.statuses.iter().any(|chosen| chosen == status.as_str());
            let value = self.value("status", status.as_str(), is_chosen, Some(sum.get(status)));
            Value { look: Some(format::status(&status)), ..value }
        };
        Facet { title: "Status", values: Status::ALL.into_iter().map(value).collect(), more: 0 }
    }

    /// Tasks by queue, with the chosen statuses; the chosen queues first, then the largest.
    fn queue(&self) -> Facet {
        let is_wanted = |status: Status| self.statuses.is_empty() || self.statuses.iter().any(|s| s == status.as_str());
        let is_chosen = |name: &Name| self.queues.iter().any(|queue| queue == name.as_str());
        let count = |counts: &StatusCounts| {
            counts.iter().filter(|(status, _)| is_wanted(*status)).map(|(_, count)| count).sum::<u64>()
        };
        let queues = &self.board.queues.0;
        let mut counted: Vec<_> = queues.iter().map(|(name, queue)| (name, count(&queue.tasks))).collect();
        counted.sort_by_key(|(name, count)| (!is_chosen(name), Reverse(*count), *name));
        let more = counted.len().saturating_sub(SHOWN);
        let value = |(name, count): (&Name, u64)| self.value("queue", name.as_str(), is_chosen(name), Some(count));
        Facet { title: "Queue", values: counted.into_iter().take(SHOWN).map(value).collect(), more }
    }

    /// Task types, the chosen ones first. The board does not count tasks by type.
    fn task_type(&self, chosen: &[String]) -> Facet {
        let mut known: Vec<_> = self.board.kinds.iter().map(|(name, _)| name.to_string()).collect();
        known.sort_by_key(|name| !chosen.contains(name));
        let more = known.len().saturating_sub(SHOWN);
        let value = |name: &String| self.value("task_type", name, chosen.contains(name), None);
        Facet { title: "Type", values: known.iter().take(SHOWN).map(value).collect(), more }
    }
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
