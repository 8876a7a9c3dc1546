//! Filters of a task list.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, Priority, Status};
use crate::clock::Time;

/// Prefix of the label filters: `label.<key>=value`.
pub const LABEL_PREFIX: &str = "label.";

/// Prefixes of the filters that look into a JSON column: `payload.order.id=ORD-1`.
const JSON_COLUMNS: [&str; 2] = ["payload", "result"];

/// The column and the path of a filter that looks into JSON: names of keys and indexes of arrays, separated by dots; `\.`
/// is a dot in a key. `None` for any other filter.
#[must_use]
pub fn json_path(name: &str) -> Option<(&'static str, Vec<String>)> {
    let (column, path) = name.split_once('.')?;
    let column = JSON_COLUMNS.into_iter().find(|known| *known == column)?;
    let mut parts = vec![String::new()];
    let mut is_escaped = false;
    for c in path.chars() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '.' if !is_escaped => parts.push(String::new()),
            _ => {
                parts.last_mut()?.push(c);
                is_escaped = false;
            }
        }
    }
    Some((column, parts))
}

/// The filter that looks into a JSON column at a path; [`json_path`] reads it.
#[must_use]
pub fn json_filter(column: &str, path: &[&str]) -> String {
    let path = path.iter().map(|part| part.replace('\\', r"\\").replace('.', r"\."));
    std::iter::once(column.to_owned()).chain(path).collect::<Vec<_>>().join(".")
}

/// Prefix of a filter that lets everything pass but its values: `-queue=mail`.
pub const EXCLUDED: char = '-';

/// The name of a filter without the prefix of exclusion, and whether it had one.
#[must_use]
pub fn without_exclusion(name: &str) -> (&str, bool) {
    name.strip_prefix(EXCLUDED).map_or((name, false), |name| (name, true))
}

/// Filters whose column has an index, so that they find few tasks by themselves; the first of them leads.
const LEADING: [&str; 5] = ["task_id", "unique_key", "external_id", "parent_task_id", "fingerprint"];

/// One end of a range of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// A time.
    At(Time),
    /// So many seconds from now; negative: ago.
    FromNow(i64),
}

impl Bound {
    /// The time that it means now.
    #[must_use]
    pub fn time(self, now: Time) -> Time {
        match self {
            Self::At(time) => time,
            Self::FromNow(seconds) => {
                let span = chrono::TimeDelta::try_seconds(seconds).unwrap_or_default();
                now.checked_add_signed(span).unwrap_or(now)
            }
        }
    }
}

/// A range of times, from its first until before its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// Where it begins, if anywhere.
    pub from: Option<Bound>,
    /// Where it ends, if anywhere.
    pub until: Option<Bound>,
}

/// The accepted values of one filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// One of these names.
    Names(BTreeSet<Name>),
    /// One of these IDs.
    Ids(BTreeSet<Uuid>),
    /// One of these statuses.
    Statuses(BTreeSet<Status>),
    /// A priority from the lowest to the highest, both included.
    Priorities(Priority, Priority),
    /// One of these texts.
    Texts(BTreeSet<String>),
    /// A name that begins with one of these texts.
    Prefixes(BTreeSet<String>),
    /// A time in this range.
    Times(TimeRange),
}

/// Filters of a task list, and the part of it to read. All conditions must hold; without any, every task matches.
/// Stored as JSON with bulk actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskQuery {
    /// Conditions by the name of their filter.
    pub conditions: BTreeMap<String, Condition>,
    /// Substring of the title, the type or the first 300 characters of the error.
    pub text: Option<String>,
    /// Only tasks older than this one (the last of the previous page).
    pub before: Option<(Time, Uuid)>,
    /// Maximum number of tasks.
    pub limit: i64,
}

impl TaskQuery {
    /// The same query with a condition.
    #[must_use]
    pub fn having(mut self, filter: &str, condition: Condition) -> Self {
        self.conditions.insert(filter.to_owned(), condition);
        self
    }

    /// The same query with a condition on the status.
    #[must_use]
    pub fn in_status(self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.having("status", Condition::Statuses(statuses.into_iter().collect()))
    }

    /// The accepted statuses; `None` if there is no condition on the status.
    #[must_use]
    pub fn statuses(&self) -> Option<&BTreeSet<Status>> {
        match self.conditions.get("status") {
            Some(Condition::Statuses(statuses)) => Some(statuses),
            _ => None,
        }
    }

    /// Whether a filter is the one by which an index finds the tasks.
    #[must_use]
    pub fn is_led_by(&self, filter: &str) -> bool {
        match LEADING.iter().find(|leading| self.conditions.contains_key(**leading)) {
            Some(leading) => *leading == filter,
            None => filter == "status" && self.led_statuses().is_some(),
        }
    }

    /// The statuses by which an index finds the tasks: any but that of most tasks.
    #[must_use]
    pub fn led_statuses(&self) -> Option<&BTreeSet<Status>> {
        let is_led = LEADING.iter().any(|leading| self.conditions.contains_key(*leading));
        self.statuses().filter(|statuses| !is_led && !statuses.contains(&Status::Completed))
    }

    /// Whether something has to be compared with each task that an index finds.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.text.is_some() || self.conditions.keys().any(|filter| !self.is_led_by(filter))
    }

    /// Whether an index finds few tasks only for the query: all of it leads, or a filter that few tasks have.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        let is_led = LEADING.iter().any(|leading| self.conditions.contains_key(*leading));
        self.text.is_some() || self.is_compared() && !is_led
    }

    /// The same query with times instead of times from now.
    #[must_use]
    pub fn frozen(mut self, now: Time) -> Self {
        let at = |bound: Bound| Bound::At(bound.time(now));
        for condition in self.conditions.values_mut() {
            if let Condition::Times(range) = condition {
                *range = TimeRange { from: range.from.map(at), until: range.until.map(at) };
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_compared_and_wide_unless_an_index_leads() {
        let all = TaskQuery::default;
        let told = |query: TaskQuery| (query.is_compared(), query.is_wide());
        let queue = || Condition::Names([Name::literal("q")].into());
        assert_eq!(told(all()), (false, false), "the newest tasks are read by their index");
        assert_eq!(told(all().having("queue", queue())), (true, true));
        assert_eq!(told(all().in_status([Status::Completed])), (true, true));
        assert_eq!(told(all().in_status([Status::Failed, Status::Cancelled])), (false, false));
        assert_eq!(told(all().in_status([Status::Failed]).having("queue", queue())), (true, true));
        let below = all().having("parent_task_id", Condition::Ids([Uuid::nil()].into()));
        assert_eq!(told(below.clone()), (false, false));
        assert_eq!(told(below.clone().having("queue", queue())), (true, false));
        assert_eq!(told(TaskQuery { text: Some("disk".to_owned()), ..below.clone() }), (true, true));
        let keyed = below.having("unique_key", Condition::Texts(["k".to_owned()].into()));
        assert!(keyed.is_led_by("unique_key") && !keyed.is_led_by("parent_task_id"), "one index only");
    }

    #[test]
    fn a_path_into_json_is_read_as_it_was_written() {
        let path = |name: &str| json_path(name).map(|(column, path)| (column, path.join("|")));
        assert_eq!(path("payload.order.id"), Some(("payload", "order|id".to_owned())));
        assert_eq!(path(r"result.a\.b.0.c\\d"), Some(("result", r"a.b|0|c\d".to_owned())));
        assert_eq!((path("payload"), path("label.a"), path("payloads.a")), (None, None, None));
        for parts in [&["a"][..], &["a.b", "c"], &[r"\", r"\.", "..", "é"], &["", "a"]] {
            let owned = parts.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(json_path(&json_filter("result", parts)), Some(("result", owned)));
        }
    }

    #[test]
    fn a_frozen_query_has_times_in_place_of_times_from_now() {
        let range = TimeRange { from: Some(Bound::FromNow(-60)), until: None };
        let query = TaskQuery::default().having("finished", Condition::Times(range)).frozen(Time::UNIX_EPOCH);
        let from = Time::UNIX_EPOCH - chrono::TimeDelta::seconds(60);
        let expected = TimeRange { from: Some(Bound::At(from)), until: None };
        assert_eq!(query.conditions["finished"], Condition::Times(expected));
    }
}
