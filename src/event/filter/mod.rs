//! The filters of the stream, the API and the pages. To add a filter, add its row in [`table`].
//!
//! [`Filter::matches`] decides for events; lists of tasks compare the same values with columns, see
//! [`Filter::conditions`].

mod table;
mod times;
mod typed;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use self::table::{Clause, parse_json, parse_label};
pub use self::{
    table::{ROWS, Row, Source, TOPICS},
    times::end as time_bound,
    typed::typed,
    values::{escaped, values},
};
use super::{Event, Kind};
use crate::model::{
    Name,
    task_query::{Condition, EXCLUDED, LABEL_PREFIX, json_path, without_exclusion},
};

/// The filter that every page and every part of the board takes.
pub const PROJECT: &str = "project_id";

/// Whether a filter has this name, or excludes by it.
#[must_use]
pub fn is_known(name: &str) -> bool {
    let (name, _) = without_exclusion(name);
    name.starts_with(LABEL_PREFIX) || json_path(name).is_some() || row(name).is_some()
}

/// What a list of filters that can be used says beside the rows of the table.
pub const FREE_NAMES: [&str; 3] = ["label.<key>", "payload.<path>", "result.<path>"];

/// Whether lists of tasks can be filtered by this name, with or without exclusion.
#[must_use]
pub fn is_of_tasks(name: &str) -> bool {
    is_known(name) && row(without_exclusion(name).0).is_none_or(|row| row.column.is_some())
}

/// The row of a filter, by its name or its shorter name; `None` for a label or an unknown name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name || row.short == name && !name.is_empty())
}

/// The full name of a filter; others stay as they are.
#[must_use]
pub fn full_name(name: &str) -> String {
    match name.strip_prefix(EXCLUDED) {
        Some(inner) => format!("{EXCLUDED}{}", full_name(inner)),
        None => row(name).map_or(name, |row| row.name).to_owned(),
    }
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
        let (name, is_excluded) = without_exclusion(field);
        let parsed = if value.is_empty() && is_known(field) {
            return Ok(true);
        } else if let Some(key) = name.strip_prefix(LABEL_PREFIX) {
            parse_label(key, value)
        } else if let Some((_, path)) = json_path(name) {
            parse_json(name, &path, value)
        } else if let Some(row) = row(name) {
            row.parse(value)
        } else {
            return Ok(false);
        };
        let clause = match parsed.map_err(bad)? {
            Clause::Everything if is_excluded => return Err(bad("cannot be excluded".to_owned())),
            clause if is_excluded => Clause::Not(Box::new(clause)),
            clause => clause,
        };
        self.pairs.push((field.to_owned(), value.to_owned()));
        if !matches!(clause, Clause::Everything) {
            self.clauses.push(clause);
        }
        Ok(true)
    }

    /// Reads all parameters of a query; `own` are names that mean something else there. A filter that is repeated
    /// (`queue=a&queue=b`) has all of its values, as `queue=a,b` has.
    ///
    /// # Errors
    /// [`BadFilter`] for an unknown name or a bad value.
    pub fn from_query(pairs: &[(String, String)], own: &[&str]) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        for (field, value) in &merged(pairs, own)? {
            if filter.add(field, value)? {
                continue;
            }
            let valid: Vec<_> = ROWS.iter().map(|row| row.name).chain(FREE_NAMES).chain(own.iter().copied()).collect();
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
        self.clauses.iter().all(|clause| clause.matches(event))
    }

    /// The projects that it names; empty if it lets all pass.
    #[must_use]
    pub fn projects(&self) -> BTreeSet<Name> {
        let named = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Field(row, Condition::Names(names)) if row.name == PROJECT => Some(names),
            _ => None,
        });
        named.flatten().cloned().collect()
    }

    /// The kinds of events that it lets pass; `None` if it names none.
    #[must_use]
    pub fn kinds(&self) -> Option<BTreeSet<Kind>> {
        let named = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Kinds(kinds) => Some(kinds.clone()),
            _ => None,
        });
        named.reduce(|a, b| &a & &b)
    }

    /// Conditions on the columns that the log has beside its events.
    #[must_use]
    pub fn event_columns(&self) -> Vec<(&'static str, &Condition)> {
        const COLUMNS: [&str; 5] = [PROJECT, "parent_task_id", "task_id", "queue", "worker_id"];
        let columns = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Field(row, condition) if COLUMNS.contains(&row.name) => Some((row.name, condition)),
            _ => None,
        });
        columns.collect()
    }

    /// The same as conditions on tasks, by the name of the filter. Filters that tasks do not have are left out.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        fn condition(clause: &Clause) -> Option<(String, Condition)> {
            match clause {
                Clause::Field(row, condition) => row.column.map(|_| (row.name.to_owned(), condition.clone())),
                Clause::Label(key, values) => Some((format!("{LABEL_PREFIX}{key}"), Condition::Texts(values.clone()))),
                Clause::Json(name, values) => Some((name.clone(), Condition::Texts(values.clone()))),
                Clause::Not(clause) => condition(clause).map(|(name, inner)| (format!("{EXCLUDED}{name}"), inner)),
                Clause::Kinds(_) | Clause::Everything => None,
            }
        }
        self.clauses.iter().filter_map(condition).collect()
    }

    /// Refuses filters of tasks: events do not have what they compare.
    ///
    /// # Errors
    /// [`BadFilter`] for the first of them.
    pub fn of_events(self) -> Result<Self, BadFilter> {
        let of_tasks = |(name, _): &&(String, String)| {
            let (name, _) = without_exclusion(name);
            json_path(name).is_some() || row(name).is_some_and(Row::is_of_tasks_only)
        };
        match self.pairs.iter().find(of_tasks) {
            Some((field, _)) => {
                let detail = "filters tasks, not events; use from and until for times".to_owned();
                Err(BadFilter { field: field.clone(), detail })
            }
            None => Ok(self),
        }
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
        let pairs: BTreeMap<_, BTreeSet<_>> =
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
pub fn merged(pairs: &[(String, String)], own: &[&str]) -> Result<Vec<(String, String)>, BadFilter> {
    let mut merged: Vec<(String, String)> = Vec::new();
    let given = pairs.iter().filter(|(field, _)| !own.contains(&field.as_str()));
    for (field, value) in given.map(|(field, value)| (full_name(field), value)) {
        match merged.iter_mut().find(|(name, _)| *name == field) {
            Some((_, before)) if before.is_empty() => before.clone_from(value),
            Some((_, before)) if value.is_empty() || before == value => {}
            Some(_) if row(&field).is_some_and(Row::is_single) => {
                return Err(BadFilter { field, detail: "given more than once".to_owned() });
            }
            Some((_, before)) => {
                // Value by value: a backslash at the end of one would escape the comma after it.
                let both = [values(before), values(value)].concat();
                *before = both.iter().map(|value| escaped(value)).collect::<Vec<_>>().join(",");
            }
            None => merged.push((field, value.clone())),
        }
    }
    Ok(merged)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::Time,
        event::Kind,
        model::{Name, Priority, Status},
    };

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
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

    fn filter(given: &[(&str, &str)]) -> Filter {
        Filter::from_query(&pairs(given), &[]).unwrap()
    }

    fn refused(field: &str, value: &str) -> BadFilter {
        Filter::from_query(&pairs(&[(field, value)]), &["limit"]).unwrap_err()
    }

    fn event() -> Event {
        let mut event = Event::new(Kind::TaskFailed, Time::UNIX_EPOCH);
        event.queue = Some(Name::literal("mails"));
        event.task_id = Some(Uuid::from_u128(1));
        event.priority = Priority::new(5);
        event.status = Some(Status::Failed);
        event.labels = Some([(Name::literal("env"), "prod".to_owned())].into());
        event
    }

    /// A good value of each filter, and a bad one.
    fn values_of(row: &Row) -> (&'static str, &'static str) {
        match row.source {
            Source::Name(_) => ("mails", "a\u{7}b"),
            Source::Id(_) => ("00000000-0000-0000-0000-000000000001", "17"),
            Source::Status => ("failed", "done"),
            Source::Priority => ("3..7", "7..3"),
            Source::Topics => ("tasks", "weather"),
            Source::Types => ("task_*", "task"),
            Source::StatsOnly => ("true", "yes"),
            Source::TaskText => ("order/4711", "a\u{7}b"),
            Source::TaskTime => ("-1h..", "yesterday"),
        }
    }

    #[test]
    fn every_filter_takes_its_values_and_names_itself_when_it_refuses() {
        for row in &ROWS {
            let (good, bad) = values_of(row);
            assert!(Filter::from_query(&pairs(&[(row.name, good)]), &[]).is_ok(), "{}", row.name);
            let error = refused(row.name, bad);
            assert_eq!(error.field, row.name);
            assert!(error.to_string().starts_with(&format!("{}: ", row.name)), "{error}");
            assert!(is_known(row.name));
        }
        let error = refused("label.env", "a\u{1}");
        assert_eq!(error.to_string(), "label.env: must not contain control characters");
        for name in ["label.env", "unique_key", "external_id", "-unique_key", "payload.order.id"] {
            let bytes = |count: usize| pairs(&[(name, &format!("{},b", "a".repeat(count)))]);
            assert!(Filter::from_query(&bytes(256), &[]).is_ok(), "{name}");
            let error = Filter::from_query(&bytes(257), &[]).unwrap_err();
            assert_eq!(error.to_string(), format!("{name}: each value must be at most 256 bytes long"));
        }
        assert_eq!(refused("label.", "x").to_string(), "label.: must not be empty");
    }

    #[test]
    fn an_unknown_filter_is_told_what_there_is() {
        let error = refused("colour", "red");
        assert_eq!(error.field, "colour");
        for row in &ROWS {
            assert!(error.detail.contains(row.name), "{}", error.detail);
        }
        assert!(error.detail.contains("label.<key>") && error.detail.contains("limit"), "{}", error.detail);
        assert!(!is_known("colour") && is_known("label.x") && row("label.x").is_none());
    }

    #[test]
    fn an_empty_filter_lets_everything_through() {
        for given in [&[][..], &[("queue", ""), ("status", ""), ("label.k", "")], &[("stats_only", "false")]] {
            let filter = filter(given);
            assert!(filter.is_empty() && filter.matches(&event()), "{given:?}");
        }
    }

    #[test]
    fn a_filter_that_is_repeated_has_each_value_as_it_was_given() {
        let pair = |value: &str| ("queue".to_owned(), value.to_owned());
        let merged = merged(&[pair(r"a\"), pair(r"b\,c"), pair("")], &[]).unwrap();
        assert_eq!(values(&merged[0].1), [r"a\", "b,c"].map(|value| value.replace(r"\\", r"\")));
        let one = Filter::from_query(&[pair("\\"), pair("a")], &[]).unwrap();
        assert_eq!(values(one.value("queue")), ["\\", "a"]);
    }

    #[test]
    fn separators_alone_are_no_value() {
        for value in [",", " ", " , ,", "\t"] {
            assert_eq!(refused("queue", value).to_string(), "queue: must not be empty", "{value:?}");
        }
    }

    #[test]
    fn a_filter_takes_a_hundred_values() {
        let list = |count: u32| (0..count).map(|number| format!("q{number}")).collect::<Vec<_>>().join(",");
        assert!(Filter::from_query(&pairs(&[("queue", &list(100))]), &[]).is_ok());
        assert_eq!(refused("queue", &list(101)).detail, "too many values (max 100)");
        assert_eq!(refused("label.k", &list(101)).detail, "too many values (max 100)");
    }

    #[test]
    fn all_filters_must_match_and_one_value_of_each() {
        let id = Uuid::from_u128(1).to_string();
        for (given, expected) in [
            (&[("queue", "mails")][..], true),
            (&[("queue", "sms,mails")], true),
            (&[("queue", "mail")], false),
            (&[("queue", "mails"), ("status", "failed,completed")], true),
            (&[("queue", "mails"), ("status", "completed")], false),
            (&[("task_id", &id)], true),
            (&[("parent_task_id", &id)], false),
            (&[("label.env", "test,prod")], true),
            (&[("label.env", "prod"), ("label.team", "a")], false),
            (&[("label.env", "PROD")], false),
            (&[("stats_only", "1")], false),
        ] {
            assert_eq!(filter(given).matches(&event()), expected, "{given:?}");
        }
    }

    #[test]
    fn an_event_without_the_field_does_not_match() {
        let bare = Event::new(Kind::StatsSnapshot, Time::UNIX_EPOCH);
        for row in &ROWS {
            let matches = filter(&[(row.name, values_of(row).0)]).matches(&bare);
            assert_eq!(matches, row.name == "stats_only", "{}", row.name);
        }
        assert!(!filter(&[("label.env", "prod")]).matches(&bare));
    }

    #[test]
    fn a_priority_is_one_number_or_a_range_with_both_ends() {
        let matching = |text: &str| {
            let filter = filter(&[("priority", text)]);
            let with = |number| Event { priority: Priority::new(number), ..event() };
            (0..=9).filter(|number| filter.matches(&with(*number))).collect::<Vec<_>>()
        };
        assert_eq!((matching("0"), matching("9"), matching("5..5")), (vec![0], vec![9], vec![5]));
        assert_eq!((matching("3..7"), matching(" 8 .. 9 ")), (vec![3, 4, 5, 6, 7], vec![8, 9]));
        for bad in ["10", "-1", "3..", "..3", "..", "1..2..3", "a", "1.5", "3...7", "0..10", "3,4"] {
            let error = refused("priority", bad);
            assert_eq!(error.detail, format!("invalid priority '{bad}'; expected 0–9 or a range such as 3..7"));
        }
    }

    #[test]
    fn a_type_ends_in_a_star_or_is_exact() {
        let types = |text: &str| {
            let filter = filter(&[("types", text)]);
            let kinds = Kind::ALL.iter().copied();
            kinds.filter(|kind| filter.matches(&Event::new(*kind, Time::UNIX_EPOCH))).collect::<Vec<_>>()
        };
        assert_eq!(types("*"), Kind::ALL);
        assert_eq!(types("queue_p*,queue_r*,queue_paused"), [Kind::QueuePaused, Kind::QueueResumed]);
        assert_eq!(types("stats_snapshot"), [Kind::StatsSnapshot]);
        for bad in ["task", "*_created", "task_*x", "nothing*", "TASK_*"] {
            assert!(refused("types", bad).detail.starts_with(&format!("unknown event type '{bad}'")), "{bad}");
        }
    }

    #[test]
    fn all_topics_together_are_all_types() {
        let kinds = |text: &str| {
            let filter = filter(&[("topics", text)]);
            Kind::ALL.iter().filter(|kind| filter.matches(&Event::new(**kind, Time::UNIX_EPOCH))).count()
        };
        assert_eq!(kinds("all"), Kind::ALL.len());
        assert_eq!(kinds("tasks,workers,connectors,phases,queues,stats"), Kind::ALL.len());
        assert_eq!(kinds("tasks:status,tasks:progress,tasks:edits"), kinds("tasks"));
        assert!(refused("topics", "task").detail.ends_with("queues, stats, all"));
    }

    #[test]
    fn lists_of_tasks_compare_what_tasks_have() {
        let all: Vec<_> = ROWS.iter().map(|row| (row.name, values_of(row).0)).chain([("label.env", "a,b")]).collect();
        let conditions = filter(&all).conditions();
        let expected = ROWS.iter().filter(|row| row.column.is_some()).map(|row| row.name).chain(["label.env"]);
        assert_eq!(conditions.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected.collect());
        assert_eq!(conditions["label.env"], Condition::Texts(["a".to_owned(), "b".to_owned()].into()));
        assert_eq!(conditions["priority"], Condition::Priorities(Priority::new(3).unwrap(), Priority::new(7).unwrap()));
    }

    #[test]
    fn a_parameter_that_means_something_else_is_left_out_even_twice() {
        let given = pairs(&[("limit", "1"), ("queue", "a"), ("limit", "2")]);
        let filter = Filter::from_query(&given, &["limit"]).unwrap();
        assert_eq!(filter.pairs(), pairs(&[("queue", "a")]));
        assert_eq!((filter.value("limit"), filter.value("queue"), filter.value("status")), ("", "a", ""));
    }

    #[test]
    fn a_repeated_single_value_may_only_say_the_same() {
        assert!(Filter::from_query(&pairs(&[("priority", "3"), ("priority", ""), ("priority", "3")]), &[]).is_ok());
        let twice = Filter::from_query(&pairs(&[("stats_only", "true"), ("stats_only", "1")]), &[]);
        assert_eq!(twice.unwrap_err().to_string(), "stats_only: given more than once");
    }

    /// Parameters as a client may write them.
    fn query() -> impl Strategy<Value = Vec<(String, String)>> {
        let field = prop_oneof![
            prop::sample::select(ROWS.iter().map(|row| row.name.to_owned()).collect::<Vec<_>>()),
            prop::sample::select(vec!["label.env".to_owned(), "label.größe".to_owned()]),
        ];
        let value = prop_oneof![
            "([a-z0-9, ]|\\\\[,\\\\ ]){0,8}",
            prop::sample::select(vec!["failed", "pending,failed", "3..7", "5", "tasks", "task_*", "true"])
                .prop_map(str::to_owned),
            Just("00000000-0000-0000-0000-000000000001".to_owned()),
        ];
        prop::collection::vec((field, value), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// The spelling does not matter: order, repetitions and what a filter was read from.
        #[test]
        fn a_filter_is_read_back_from_its_parameters(query in query()) {
            let Ok(filter) = Filter::from_query(&query, &[]) else { return Ok(()) };
            let again = Filter::from_query(filter.pairs(), &[]).unwrap();
            prop_assert_eq!(again.canonical(), filter.canonical());
            prop_assert_eq!(again.conditions(), filter.conditions());
            let reversed: Vec<_> = query.iter().rev().cloned().collect();
            let reversed = Filter::from_query(&reversed, &[]).unwrap();
            prop_assert_eq!(reversed.canonical(), filter.canonical());
            prop_assert_eq!(reversed.matches(&event()), filter.matches(&event()));
        }

        /// Bytes of any kind are read or refused by name.
        #[test]
        fn no_query_stops_a_server(field in "\\PC{0,10}|label\\.\\PC{0,140}", value in "\\PC{0,20}|[\\x00-\\x20,\\\\]{0,10}") {
            if let Err(error) = Filter::from_query(&[(field.clone(), value)], &[]) {
                prop_assert_eq!(&error.field, &field);
                prop_assert!(!error.detail.is_empty());
            }
        }

        #[test]
        fn no_value_stops_a_filter(row in 0..ROWS.len(), value in "\\PC{0,20}|[\\x00-\\x20,.*\\\\0-9]{0,10}") {
            let field = ROWS[row].name;
            match Filter::from_query(&pairs(&[(field, &value)]), &[]) {
                Ok(filter) => { let _ = filter.matches(&event()); }
                Err(error) => prop_assert_eq!(&error.field, field),
            }
        }
    }
}
