//! The filters of the stream, the API and the pages: ONE table.
//!
//! To add a filter, add its row. [`Filter::matches`] decides; SQL may only narrow, so history and live cannot disagree.

use std::{collections::BTreeSet, ops::RangeInclusive};

use uuid::Uuid;

use super::{Event, Kind, kind::Topic};
use crate::model::{Name, Priority, Status};

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The query parameter.
    pub name: &'static str,
    /// What it takes, for people.
    pub help: &'static str,
    parse: fn(&str) -> Result<Clause, String>,
}

/// There is a filter of that name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    name.starts_with(LABEL_PREFIX) || ROWS.iter().any(|row| row.name == name)
}

/// The words of `topics`.
pub const TOPICS: [(&str, &[Topic]); 10] = [
    ("tasks", &[Topic::TasksStatus, Topic::TasksProgress, Topic::TasksEdits]),
    ("tasks:status", &[Topic::TasksStatus]),
    ("tasks:progress", &[Topic::TasksProgress]),
    ("tasks:edits", &[Topic::TasksEdits]),
    ("workers", &[Topic::Workers]),
    ("connectors", &[Topic::Connectors]),
    ("phases", &[Topic::Phases]),
    ("queues", &[Topic::Queues]),
    ("stats", &[Topic::Stats]),
    (
        "all",
        &[
            Topic::TasksStatus,
            Topic::TasksProgress,
            Topic::TasksEdits,
            Topic::Workers,
            Topic::Connectors,
            Topic::Phases,
            Topic::Queues,
            Topic::Stats,
        ],
    ),
];

/// Every filter but `label.<key>`.
pub const ROWS: [Row; 15] = [
    Row {
        name: "topics",
        help: "event topics: tasks, tasks:status, tasks:progress, tasks:edits, workers, connectors, phases, queues, stats, all",
        parse: topics,
    },
    Row { name: "types", help: "event types; * matches any suffix, e.g. task_*", parse: types },
    Row { name: "project_id", help: "projects", parse: |text| names(text, |e| e.project_id.as_ref()) },
    Row { name: "parent_task_id", help: "parent task IDs", parse: |text| ids(text, |e| e.parent_task_id) },
    Row { name: "task_id", help: "task IDs", parse: |text| ids(text, |e| e.task_id) },
    Row { name: "task_type", help: "task types", parse: |text| names(text, |e| e.task_type.as_ref()) },
    Row { name: "phase", help: "phases", parse: |text| names(text, |e| e.phase.as_ref()) },
    Row { name: "queue", help: "queues", parse: |text| names(text, |e| e.queue.as_ref()) },
    Row { name: "worker_id", help: "worker IDs", parse: |text| ids(text, |e| e.worker_id) },
    Row { name: "machine_id", help: "machines", parse: |text| names(text, |e| e.machine_id.as_ref()) },
    Row { name: "connector_id", help: "connectors", parse: |text| names(text, |e| e.connector_id.as_ref()) },
    Row {
        name: "status",
        help: "task status after the event: scheduled, blocked, pending, running, retrying, completed, failed, cancelled",
        parse: statuses,
    },
    Row {
        name: "fingerprint",
        help: "error group (16 hex digits)",
        parse: |text| names(text, |e| e.data.fingerprint.as_ref()),
    },
    Row { name: "priority", help: "priority 0–9 or a range, e.g. 3..7", parse: priorities },
    Row { name: "stats_only", help: "true = metrics only, no individual events", parse: stats_only },
];

/// Prefix of the label filters: `label.<key>=value`.
pub const LABEL_PREFIX: &str = "label.";
/// Filters that have one value.
const SINGLE: [&str; 2] = ["priority", "stats_only"];
/// Most values in one field.
const MAX_VALUES: usize = 100;

#[derive(Debug, Clone)]
enum Clause {
    Kinds(BTreeSet<Kind>),
    Names(BTreeSet<Name>, fn(&Event) -> Option<&Name>),
    Ids(BTreeSet<Uuid>, fn(&Event) -> Option<Uuid>),
    Statuses(BTreeSet<Status>),
    Priorities(RangeInclusive<u8>),
    Label(Name, BTreeSet<String>),
    Everything,
}

/// A conjunction of clauses; empty lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    clauses: Vec<Clause>,
    pairs: Vec<(String, String)>,
}

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct BadFilter {
    /// The query parameter.
    pub field: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Filter {
    /// Adds one query parameter, which must not have been added before; an empty value says nothing. `Ok(false)` when the
    /// name is no filter.
    fn add(&mut self, field: &str, value: &str) -> Result<bool, BadFilter> {
        let bad = |detail: String| BadFilter { field: field.to_owned(), detail };
        let parsed = if let Some(key) = field.strip_prefix(LABEL_PREFIX) {
            label(key, value)
        } else if let Some(row) = ROWS.iter().find(|row| row.name == field) {
            if value.is_empty() {
                return Ok(true);
            }
            (row.parse)(value)
        } else {
            return Ok(false);
        };
        let clause = parsed.map_err(bad)?;
        self.pairs.push((field.to_owned(), value.to_owned()));
        if !matches!(clause, Clause::Everything) {
            self.clauses.push(clause);
        }
        Ok(true)
    }

    /// Reads all parameters of a query; `others` are names that mean something else there. A filter that is repeated
    /// (`queue=a&queue=b`) has all of its values, as `queue=a,b` has.
    ///
    /// # Errors
    /// [`BadFilter`] for an unknown name or a bad value.
    pub fn from_query(pairs: &[(String, String)], others: &[&str]) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        for (field, value) in &merged(pairs, others)? {
            if filter.add(field, value)? {
                continue;
            }
            let valid: Vec<_> =
                ROWS.iter().map(|row| row.name).chain(["label.<key>"]).chain(others.iter().copied()).collect();
            return Err(BadFilter {
                field: field.clone(),
                detail: format!("unknown filter; supported: {}", valid.join(", ")),
            });
        }
        Ok(filter)
    }

    /// True when the event passes every clause.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.clauses.iter().all(|clause| match clause {
            Clause::Kinds(kinds) => kinds.contains(&event.event_type),
            Clause::Names(names, field) => field(event).is_some_and(|name| names.contains(name)),
            Clause::Ids(ids, field) => field(event).is_some_and(|id| ids.contains(&id)),
            Clause::Statuses(statuses) => event.status.is_some_and(|status| statuses.contains(&status)),
            Clause::Priorities(range) => event.priority.is_some_and(|priority| range.contains(&priority.get())),
            Clause::Label(key, values) => {
                event.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|value| values.contains(value))
            }
            Clause::Everything => true,
        })
    }

    /// True when everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// The parameters as given: equal pairs are equal filters.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// One spelling for all filters that mean the same: parameters and their values in order, without repetitions.
    #[must_use]
    pub fn canonical(&self) -> String {
        let pairs: std::collections::BTreeMap<_, BTreeSet<_>> =
            self.pairs.iter().map(|(field, value)| (field, values(value).into_iter().collect())).collect();
        serde_json::to_string(&pairs).expect("texts are JSON")
    }

    /// The value given for a parameter, for forms; empty when it was not given.
    #[must_use]
    pub fn value(&self, field: &str) -> &str {
        self.pairs.iter().find(|(name, _)| name == field).map_or("", |(_, value)| value)
    }
}

/// One pair for each filter, with the values of all that were given; other parameters are left out.
///
/// # Errors
/// [`BadFilter`] when a filter of one value is given twice.
pub fn merged(pairs: &[(String, String)], others: &[&str]) -> Result<Vec<(String, String)>, BadFilter> {
    let mut merged: Vec<(String, String)> = Vec::new();
    for (field, value) in pairs.iter().filter(|(field, _)| !others.contains(&field.as_str())) {
        match merged.iter_mut().find(|(name, _)| name == field) {
            Some((_, before)) if before.is_empty() => before.clone_from(value),
            Some((_, before)) if value.is_empty() || before == value => {}
            Some(_) if SINGLE.contains(&field.as_str()) => {
                return Err(BadFilter { field: field.clone(), detail: "given more than once".to_owned() });
            }
            Some((_, before)) => {
                before.push(',');
                before.push_str(value);
            }
            None => merged.push((field.clone(), value.clone())),
        }
    }
    Ok(merged)
}

/// The values in a parameter: separated by commas, without white space around them. A backslash makes a comma, a white
/// space or another backslash part of the value; in front of anything else it stands for itself.
#[must_use]
pub fn values(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    // What is kept of the present value: up to the last character that is no white space, or is escaped.
    let (mut value, mut kept) = (String::new(), 0);
    let mut chars = text.chars().peekable();
    let mut finish = |value: &mut String, kept: &mut usize| {
        value.truncate(std::mem::take(kept));
        if !value.is_empty() {
            values.push(std::mem::take(value));
        }
        value.clear();
    };
    while let Some(c) = chars.next() {
        match c {
            ',' => finish(&mut value, &mut kept),
            '\\' if chars.peek().is_some_and(|next| is_special(*next)) => {
                value.extend(chars.next());
                kept = value.len();
            }
            c if c.is_whitespace() => {
                if kept > 0 {
                    value.push(c);
                }
            }
            c => {
                value.push(c);
                kept = value.len();
            }
        }
    }
    finish(&mut value, &mut kept);
    values
}

/// A value as [`values`] reads it back, for links.
#[must_use]
pub fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let inner = value.trim();
    let start = value.len() - value.trim_start().len();
    for (at, c) in value.char_indices() {
        let is_outer = c.is_whitespace() && !(start..start + inner.len()).contains(&at);
        if matches!(c, ',' | '\\') || is_outer {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn is_special(c: char) -> bool {
    c == ',' || c == '\\' || c.is_whitespace()
}

fn split<T: Ord>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<BTreeSet<T>, String> {
    let parts = values(text);
    if parts.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if parts.len() > MAX_VALUES {
        return Err(format!("too many values (max {MAX_VALUES})"));
    }
    parts.iter().map(|part| parse(part)).collect()
}

fn topics(text: &str) -> Result<Clause, String> {
    let chosen = split(text, |word| {
        let found = TOPICS.iter().position(|(name, _)| *name == word);
        found.ok_or_else(|| {
            let valid: Vec<_> = TOPICS.iter().map(|(name, _)| *name).collect();
            format!("unknown topic '{word}'; supported: {}", valid.join(", "))
        })
    })?;
    let topics: Vec<_> = chosen.into_iter().flat_map(|index| TOPICS[index].1).collect();
    Ok(Clause::Kinds(Kind::ALL.iter().copied().filter(|kind| topics.contains(&&kind.row().topic)).collect()))
}

fn types(text: &str) -> Result<Clause, String> {
    let sets = split(text, |word| {
        let matching: BTreeSet<_> = match word.strip_suffix('*') {
            Some(prefix) => Kind::ALL.iter().copied().filter(|kind| kind.name().starts_with(prefix)).collect(),
            None => word.parse().into_iter().collect(),
        };
        if matching.is_empty() {
            let valid: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            return Err(format!("unknown event type '{word}'; supported: {}", valid.join(", ")));
        }
        Ok(matching)
    })?;
    Ok(Clause::Kinds(sets.into_iter().flatten().collect()))
}

fn names(text: &str, field: fn(&Event) -> Option<&Name>) -> Result<Clause, String> {
    split(text, |word| Name::new(word).map_err(|e| e.to_string())).map(|names| Clause::Names(names, field))
}

fn ids(text: &str, field: fn(&Event) -> Option<Uuid>) -> Result<Clause, String> {
    let parse = |word: &str| Uuid::parse_str(word).map_err(|_| format!("'{word}' is not a valid UUID"));
    split(text, parse).map(|ids| Clause::Ids(ids, field))
}

fn statuses(text: &str) -> Result<Clause, String> {
    split(text, |word| word.parse::<Status>().map_err(|e| e.to_string())).map(Clause::Statuses)
}

fn priorities(text: &str) -> Result<Clause, String> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let one = |word: &str| word.trim().parse().ok().and_then(Priority::new).map(Priority::get);
    match (one(low), one(high)) {
        (Some(low), Some(high)) if low <= high => Ok(Clause::Priorities(low..=high)),
        _ => Err(format!("invalid priority '{text}'; expected 0–9 or a range such as 3..7")),
    }
}

fn label(key: &str, value: &str) -> Result<Clause, String> {
    let key = Name::new(key).map_err(|e| e.to_string())?;
    let plain = |word: &str| {
        let is_plain = !word.chars().any(char::is_control);
        if is_plain { Ok(word.to_owned()) } else { Err("must not contain control characters".to_owned()) }
    };
    split(value, plain).map(|values| Clause::Label(key, values))
}

fn stats_only(text: &str) -> Result<Clause, String> {
    match text {
        "true" | "1" => Ok(Clause::Kinds([Kind::StatsSnapshot].into())),
        "false" | "0" => Ok(Clause::Everything),
        other => Err(format!("expected true or false, not '{other}'")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_backslash_makes_a_comma_part_of_a_value() {
        assert_eq!(values("a,b"), ["a", "b"]);
        assert_eq!(values(" a , b c ,, "), ["a", "b c"]);
        assert_eq!(values(r"a\,b,c"), ["a,b", "c"]);
        assert_eq!(values(r"rack\7\\,x\"), [r"rack\7\", r"x\"]);
        assert_eq!(values(r"\ a\ ,b"), [" a ", "b"]);
        assert_eq!(values(""), Vec::<String>::new());
    }

    #[test]
    fn repeated_filters_have_all_values() {
        let twice =
            Filter::from_query(&pairs(&[("queue", "a"), ("limit", "1"), ("queue", r"b\,c")]), &["limit"]).unwrap();
        let once = Filter::from_query(&pairs(&[("queue", r"b\,c,a,a")]), &[]).unwrap();
        assert_eq!(twice.canonical(), once.canonical());
        assert_eq!(twice.value("queue"), r"a,b\,c");
        let labels = Filter::from_query(&pairs(&[("label.k", "a"), ("label.k", "b")]), &[]).unwrap();
        assert_eq!(labels.value("label.k"), "a,b");
        let twice = Filter::from_query(&pairs(&[("priority", "1"), ("priority", "2")]), &[]);
        assert_eq!(twice.unwrap_err().field, "priority");
    }

    proptest! {
        #[test]
        fn every_value_can_be_named(given in proptest::collection::vec("[ab,\\\\ \t\u{a0}]{1,6}|\\PC{1,8}", 1..4)) {
            let text = given.iter().map(|value| escaped(value)).collect::<Vec<_>>().join(",");
            prop_assert_eq!(values(&text), given);
        }
    }
}
