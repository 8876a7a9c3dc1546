//! Searches of the whole log, newest first, each bounded.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{log, recorded::recorded};
use crate::{
    event::{Event, Filter, Kind, envelope::Epoch},
    model::{Name, task_query::Condition},
};

/// Kinds that people cause: those of the audit. A retry of a task is a `task_enqueued` with an actor.
pub const AUDITED: [Kind; 12] = [
    Kind::TaskCancelled,
    Kind::TaskDeleted,
    Kind::TaskUpdated,
    Kind::TaskPriorityChanged,
    Kind::TaskAssigned,
    Kind::TaskCollaboratorsUpdated,
    Kind::TaskWatchersUpdated,
    Kind::TaskDependencyAdded,
    Kind::TaskDependencyRemoved,
    Kind::QueuePaused,
    Kind::QueueResumed,
    Kind::OperatorAction,
];
/// Whether the index `events_rare` has the events of a kind.
fn is_rare(kind: Kind) -> bool {
    AUDITED.contains(&kind) || matches!(kind, Kind::TaskStalled | Kind::WorkerStarted | Kind::WorkerStopped)
}

/// Number of positions looked at in one step where no index helps.
const STEP: i64 = 20_000;
/// Number of positions of the first step where an index helps; a step that was quick is followed by one twice as long.
const LED_STEP: i64 = 200_000;
/// A step that took no longer was quick.
const QUICK: Duration = Duration::from_millis(20);
/// Maximum number of events read at once.
const BATCH: i64 = 1_000;
/// No further step begins after this time.
const BUDGET: Duration = Duration::from_millis(400);

/// A part of the log to search.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Only events from this position.
    pub from: i64,
    /// Only events before this position.
    pub before: i64,
    /// Maximum number of events.
    pub limit: usize,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The events, newest first.
    pub events: Vec<Arc<Event>>,
    /// The position before which the search goes on; `None` at its end.
    pub next: Option<i64>,
    /// The search ended before it had found enough.
    pub is_cut: bool,
}

/// How rows are found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By an index of all that may match.
    Led,
    /// What people did, by the indexes of it.
    Audit,
    /// By going back through the log.
    Steps,
}

/// Events that pass a filter and a test.
pub(super) async fn search(
    pool: &PgPool,
    epoch: Epoch,
    filter: &Filter,
    range: Range,
    test: impl Fn(&Event) -> bool,
) -> sqlx::Result<Found> {
    // The log has no ephemeral events, which belong to topics as the others do.
    let kinds: Option<BTreeSet<_>> =
        filter.kinds().map(|kinds| kinds.into_iter().filter(|kind| kind.row().durable).collect());
    let is_led = kinds.as_ref().is_some_and(|kinds| kinds.iter().all(|kind| is_rare(*kind)));
    let is_of_tasks = filter.event_columns().iter().any(|(column, _)| *column == "task_id");
    let way = if is_led || is_of_tasks { Way::Led } else { Way::Steps };
    look(pool, epoch, (filter, kinds.filter(|_| !is_of_tasks || is_led)), (way, range), test).await
}

/// What people did: events of [`AUDITED`] kinds and retries, as far as an actor is named.
pub(super) async fn audit(
    pool: &PgPool,
    epoch: Epoch,
    (filter, kinds): (&Filter, Option<&[Kind]>),
    range: Range,
    test: impl Fn(&Event) -> bool,
) -> sqlx::Result<Found> {
    // A retry is pending again, or blocked if it has to wait.
    let all = || AUDITED.into_iter().chain([Kind::TaskEnqueued]).collect();
    let kinds = Some(kinds.map_or_else(all, |kinds| kinds.iter().copied().collect()));
    look(pool, epoch, (filter, kinds), (Way::Audit, range), |event| event.actor.is_some() && test(event)).await
}

async fn look(
    pool: &PgPool,
    epoch: Epoch,
    (filter, kinds): (&Filter, Option<BTreeSet<Kind>>),
    (way, range): (Way, Range),
    test: impl Fn(&Event) -> bool,
) -> sqlx::Result<Found> {
    if kinds.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok(Found { events: Vec::new(), next: None, is_cut: false });
    }
    let ends = log::ends(pool).await?;
    let (from, mut below) = (range.from.max(ends.oldest), range.before.min(ends.head + 1));
    let (began, mut events) = (Instant::now(), Vec::new());
    let mut step = if way == Way::Steps { STEP } else { LED_STEP };
    while below > from {
        let low = from.max(below - step);
        let step_began = Instant::now();
        let mut statement = QueryBuilder::new("");
        select(&mut statement, (filter, kinds.as_ref()), way, (low, below));
        let rows: Vec<(i64, String)> = statement.build_query_as().fetch_all(pool).await?;
        if way != Way::Steps && step_began.elapsed() < QUICK {
            step = step.saturating_mul(2);
        }
        let is_full = rows.len() >= usize::try_from(BATCH).unwrap_or_default();
        let last = rows.last().map_or(low, |(position, _)| *position);
        for (position, body) in rows {
            let event = recorded(epoch, position, body).event;
            if filter.matches(&event) && test(&event) {
                events.push(event);
            }
            if events.len() >= range.limit {
                let next = Some(position).filter(|position| *position > from);
                return Ok(Found { events, next, is_cut: false });
            }
        }
        below = if is_full { last } else { low };
        if below > from && began.elapsed() > BUDGET {
            return Ok(Found { events, next: Some(below), is_cut: true });
        }
    }
    Ok(Found { events, next: None, is_cut: false })
}

/// Appends the statement: positions and bodies from `low` until before `below`, newest first, at most [`BATCH`].
fn select(
    statement: &mut QueryBuilder<Postgres>,
    (filter, kinds): (&Filter, Option<&BTreeSet<Kind>>),
    way: Way,
    (low, below): (i64, i64),
) {
    // One kind is one range of its index; several are merged. Their names are words of ours, and no arguments: only so
    // can the planner see that a partial index has them.
    let parts: Vec<Option<String>> = match kinds {
        Some(kinds) if way != Way::Steps => {
            let part = |kind: &Kind| match kind {
                Kind::TaskEnqueued => format!("event_type = '{}' AND strpos(body, '\"actor\":') > 0", kind.name()),
                _ => format!("event_type = '{}'", kind.name()),
            };
            kinds.iter().map(|kind| Some(part(kind))).collect()
        }
        _ => vec![None],
    };
    for (place, part) in parts.iter().enumerate() {
        statement.push(if place == 0 { "SELECT * FROM ((" } else { ") UNION ALL (" });
        statement.push("SELECT position, body FROM taskwatch.events WHERE position >= ").push_bind(low);
        statement.push(" AND position < ").push_bind(below);
        if let Some(part) = part {
            statement.push(" AND ").push(part);
        } else if let Some(kinds) = kinds {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name().to_owned()).collect();
            statement.push(" AND event_type = ANY(").push_bind(names).push(")");
        }
        for (column, condition) in filter.event_columns() {
            compare(statement, column, condition);
        }
        statement.push(" ORDER BY position DESC LIMIT ").push_bind(BATCH);
    }
    statement.push(")) e ORDER BY position DESC LIMIT ").push_bind(BATCH);
}

fn compare(statement: &mut QueryBuilder<Postgres>, column: &'static str, condition: &Condition) {
    match condition {
        Condition::Names(names) => {
            let names: Vec<_> = names.iter().map(Name::to_string).collect();
            statement.push(" AND ").push(column).push(" = ANY(").push_bind(names).push(")");
        }
        Condition::Ids(ids) => {
            let ids: Vec<_> = ids.iter().copied().collect();
            statement.push(" AND ").push(column).push(" = ANY(").push_bind(ids).push(")");
        }
        // The events themselves are compared afterwards.
        _ => {}
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn filter(pairs: &[(&str, &str)]) -> Filter {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Filter::from_query(&pairs, &[]).unwrap()
    }

    fn statement(given: &[(&str, &str)], way: Way) -> String {
        let filter = filter(given);
        let mut statement = QueryBuilder::new("");
        select(&mut statement, (&filter, filter.kinds().as_ref()), way, (1, 9));
        statement.sql().as_str().to_owned()
    }

    #[test]
    fn the_index_has_the_rare_kinds_and_the_audit_asks_for_no_others() {
        let migration = include_str!("../../migrations/0013_rare_events.sql");
        let index = migration.split_once("IN (").unwrap().1.split(')').next().unwrap();
        let named: BTreeSet<_> = index.split('\'').skip(1).step_by(2).collect();
        assert_eq!(named, Kind::ALL.iter().filter(|kind| is_rare(**kind)).map(|kind| kind.name()).collect());
        assert!(AUDITED.iter().all(|kind| is_rare(*kind)));
    }

    #[test]
    fn columns_of_the_log_narrow_the_rows_and_nothing_typed_is_a_part_of_the_statement() {
        let sql =
            statement(&[("queue", "a'b"), ("worker_id", &uuid::Uuid::nil().to_string()), ("label.x", "y")], Way::Steps);
        assert!(sql.contains("position < $2 AND queue = ANY($3) AND worker_id = ANY($4) ORDER BY"), "{sql}");
        assert!(!sql.contains("a'b") && !sql.contains("label"), "{sql}");
        let excluded = statement(&[("-queue", "a")], Way::Steps);
        assert!(!excluded.contains("queue ="), "{excluded}");
    }

    #[test]
    fn each_rare_kind_is_a_range_of_its_index() {
        let sql = statement(&[("types", "queue_*")], Way::Led);
        assert_eq!(sql.matches("event_type = 'queue_").count(), 3, "{sql}");
        let sql = statement(&[("types", "queue_*")], Way::Steps);
        assert!(sql.contains("event_type = ANY($3)"), "{sql}");
    }
}
