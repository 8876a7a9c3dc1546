//! The filters of the stream, the API and the pages. To add a filter, add its row in [`table`].
//!
//! [`Filter::matches`] decides for events; lists of tasks compare the same values with columns, see
//! [`Filter::conditions`].

mod table;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use self::table::{Clause, parse_label};
pub use self::{
    table::{ROWS, Row, Source, TOPICS},
    values::{escaped, values},
};
use super::Event;
use crate::model::task_query::{Condition, LABEL_PREFIX};

/// Whether a filter has this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    name.starts_with(LABEL_PREFIX) || row(name).is_some()
}

/// The row of a filter; `None` for a label or an unknown name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
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
            parse_label(key, value)
        } else if let Some(row) = row(field) {
            if value.is_empty() {
                return Ok(true);
            }
            row.parse(value)
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
            let valid: Vec<_> =
                ROWS.iter().map(|row| row.name).chain(["label.<key>"]).chain(own.iter().copied()).collect();
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

    /// The same as conditions on tasks, by the name of the filter. Filters that tasks do not have are left out.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        let conditions = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Field(row, condition) => row.column.map(|_| (row.name.to_owned(), condition.clone())),
            Clause::Label(key, values) => Some((format!("{LABEL_PREFIX}{key}"), Condition::Texts(values.clone()))),
            Clause::Kinds(_) | Clause::Everything => None,
        });
        conditions.collect()
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
    for (field, value) in pairs.iter().filter(|(field, _)| !own.contains(&field.as_str())) {
        match merged.iter_mut().find(|(name, _)| name == field) {
            Some((_, before)) if before.is_empty() => before.clone_from(value),
            Some((_, before)) if value.is_empty() || before == value => {}
            Some(_) if row(field).is_some_and(Row::is_single) => {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

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
}
