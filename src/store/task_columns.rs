//! The columns of `taskwatch.tasks`: one table. How a task is selected, inserted, updated and compared follows from it.
//!
//! To add a column, add its row, its field in [`Task`] and its line in `TryFrom<TaskRow>`.
//!
//! Statements are built from the table at the first use, with values sent as one array per column (`UNNEST`). JSON and
//! lists are sent as text and cast by the statement: JSON is then stored byte for byte, where sqlx's own type would send
//! jsonb, and lists of different lengths fit into one array.

use std::{collections::BTreeMap, sync::LazyLock};

use sqlx::{
    AssertSqlSafe, FromRow, Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query, types::Json as Sql,
};
use uuid::Uuid;

use super::values::{decode, json_text, name, optional_name, priority, signed, status, unsigned};
use crate::{
    clock::Time,
    model::{
        Name, Task,
        lease::{Backoff, Lease},
        observation::Observed,
        report::{Json, Progress},
        task::Outcome,
    },
};

/// How a column is stored.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// As this SQL type.
    Plain(&'static str),
    /// As json, sent as text.
    Json,
    /// As json, sent as text; an update with NULL keeps the stored value.
    JsonKept,
    /// As an array of this SQL type, sent as JSON text.
    List(&'static str),
}

impl Type {
    /// The SQL type of one value as it is sent.
    const fn sent(self) -> &'static str {
        match self {
            Self::Plain(sql) => sql,
            Self::Json | Self::JsonKept | Self::List(_) => "text",
        }
    }

    /// The stored value of a sent one.
    fn cast(self, value: &str) -> String {
        match self {
            Self::Plain(_) => value.to_owned(),
            Self::Json | Self::JsonKept => format!("{value}::json"),
            Self::List(sql) => format!("ARRAY(SELECT json_array_elements_text({value}::json)::{sql})"),
        }
    }
}

/// When a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The key, by which rows are updated.
    Key,
    /// With the insert only.
    Created,
    /// By the state machine.
    State,
    /// By edits and reports.
    Description,
}

struct Column {
    name: &'static str,
    group: Group,
    kind: Type,
}

impl Column {
    /// Its assignment in an UPDATE of `t` by `new`.
    fn assignment(&self) -> String {
        let (name, value) = (self.name, self.kind.cast(&format!("new.{}", self.name)));
        match self.kind {
            Type::JsonKept => format!("{name} = coalesce({value}, t.{name})"),
            Type::Plain(_) | Type::Json | Type::List(_) => format!("{name} = {value}"),
        }
    }
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Whether the value of a column differs: by its field, unless the row says otherwise.
macro_rules! differs {
    ($before:ident, $after:ident, $column:ident) => {
        $before.$column != $after.$column
    };
    ($before:ident, $after:ident, $column:ident, $rule:expr) => {
        ($rule)($before, $after)
    };
}

macro_rules! columns {
    ($($(#[$meta:meta])* $group:ident $column:ident: $row:ty = $kind:expr, $value:expr $(, if $rule:expr)?;)+) => {
        const COLUMNS: &[Column] = &[$(Column { name: stringify!($column), group: Group::$group, kind: $kind }),+];

        /// A row of `tasks` with its lease.
        pub(super) struct TaskRow {
            $($(#[$meta])* $column: $row,)+
            expires_at: Option<Time>,
            stalled: Option<bool>,
            progress: Option<Sql<Progress>>,
        }

        impl FromRow<'_, PgRow> for TaskRow {
            fn from_row(row: &PgRow) -> sqlx::Result<Self> {
                let mut indexes = 0..row.len();
                let mut next = || indexes.next().unwrap_or_default();
                // In the order of the table, as `select` lists them.
                Ok(Self {
                    $($column: row.try_get(next())?,)+
                    expires_at: row.try_get(next())?,
                    stalled: row.try_get(next())?,
                    progress: row.try_get(next())?,
                })
            }
        }

        /// Binds the columns that a statement writes, in the order of the table.
        fn bind<'q>(mut statement: Statement<'q>, tasks: &'q [&'q Task], writes: impl Fn(Group) -> bool) -> Statement<'q> {
            $(if writes(Group::$group) {
                statement = statement.bind(tasks.iter().map(|task| value(*task, $value)).collect::<Vec<_>>());
            })+
            statement
        }

        /// Whether a column of this group differs.
        pub(super) fn changed(group: Group, before: &Task, after: &Task) -> bool {
            $((group == Group::$group && differs!(before, after, $column $(, $rule)?)))||+
        }
    };
}

/// Gives the closures of the table their types.
fn value<'a, T>(task: &'a Task, value: impl FnOnce(&'a Task) -> T) -> T {
    value(task)
}

columns! {
    Key id: Uuid = Type::Plain("uuid"), |t| t.id;
    Description project_id: String = Type::Plain("text"), |t| t.project_id.as_str();
    Description task_type: String = Type::Plain("text"), |t| t.task_type.as_str();
    Description queue: String = Type::Plain("text"), |t| t.queue.as_str();
    Description parent_task_id: Option<Uuid> = Type::Plain("uuid"), |t| t.parent_task_id;
    Description phase: Option<String> = Type::Plain("text"), |t| t.phase.as_ref().map(Name::as_str);
    Description title: Option<String> = Type::Plain("text"), |t| t.title.as_deref();
    Description description: Option<String> = Type::Plain("text"), |t| t.description.as_deref();
    Description priority: i16 = Type::Plain("smallint"), |t| i16::from(t.priority.get());
    State status: String = Type::Plain("text"), |t| t.status.as_str();
    // `None` if it was not loaded.
    Description payload: Option<Sql<Json>> = Type::JsonKept, |t| t.payload.as_ref().map(Json::as_str),
        if |before: &Task, after: &Task| after.payload.is_some() && before.payload != after.payload;
    Description labels: Option<Sql<BTreeMap<Name, String>>> = Type::Json,
        |t| (!t.labels.is_empty()).then(|| json_text(&t.labels));
    Description phases: Vec<String> = Type::List("text"), |t| json_text(&t.phases);
    State is_parent: bool = Type::Plain("boolean"), |t| t.is_parent;
    Description max_attempts: i32 = Type::Plain("integer"), |t| signed(t.max_attempts);
    Description timeout_seconds: Option<i32> = Type::Plain("integer"), |t| t.timeout_seconds.map(signed);
    Created backoff_initial_seconds: i32 = Type::Plain("integer"), |t| signed(t.backoff.initial_seconds),
        if |_, _| false;
    Created backoff_max_seconds: i32 = Type::Plain("integer"), |t| signed(t.backoff.max_seconds), if |_, _| false;
    Created unique_key: Option<String> = Type::Plain("text"), |t| t.unique_key.as_deref();
    Description depends_on: Vec<Uuid> = Type::List("uuid"), |t| json_text(&t.depends_on);
    Created on_dependency_failure: String = Type::Plain("text"), |t| t.on_dependency_failure.as_str();
    State has_dependents: bool = Type::Plain("boolean"), |t| t.has_dependents;
    Created auto_complete: bool = Type::Plain("boolean"), |t| t.auto_complete;
    Description assignee: Option<String> = Type::Plain("text"), |t| t.assignee.as_deref();
    Description collaborators: Vec<String> = Type::List("text"), |t| json_text(&t.collaborators);
    Description watchers: Vec<String> = Type::List("text"), |t| json_text(&t.watchers);
    Description external_id: Option<String> = Type::Plain("text"), |t| t.external_id.as_deref();
    Description observed: Option<Sql<Box<Observed>>> = Type::Json, |t| t.observed.as_ref().map(json_text);
    // Follows from the error, and of observed tasks from what was reported; read by filters only.
    #[expect(dead_code, reason = "for filters only")]
    State fingerprint: Option<String> = Type::Plain("text"), |t| t.fingerprint().map(|name| name.to_string()),
        if |before: &Task, after: &Task| before.observed != after.observed;
    State attempt: i32 = Type::Plain("integer"), |t| signed(t.attempt);
    State retry_count: i32 = Type::Plain("integer"), |t| signed(t.retry_count);
    State outcome: Option<String> = Type::Plain("text"), |t| t.outcome.map(Outcome::as_str);
    State run_at: Option<Time> = Type::Plain("timestamptz"), |t| t.run_at;
    State worker_id: Option<Uuid> = Type::Plain("uuid"), |t| t.worker_id;
    State machine_id: Option<String> = Type::Plain("text"), |t| t.machine_id.as_ref().map(Name::as_str);
    State connector_id: Option<String> = Type::Plain("text"), |t| t.connector_id.as_ref().map(Name::as_str);
    Description created_at: Time = Type::Plain("timestamptz"), |t| t.created_at;
    State enqueued_at: Option<Time> = Type::Plain("timestamptz"), |t| t.enqueued_at;
    State started_at: Option<Time> = Type::Plain("timestamptz"), |t| t.started_at;
    State finished_at: Option<Time> = Type::Plain("timestamptz"), |t| t.finished_at;
    State result: Option<Sql<Json>> = Type::Json, |t| t.result.as_ref().map(Json::as_str);
    State error: Option<String> = Type::Plain("text"), |t| t.error.as_deref();
}

impl TryFrom<TaskRow> for Task {
    type Error = sqlx::Error;

    fn try_from(row: TaskRow) -> sqlx::Result<Self> {
        let progress = row.progress.map(|progress| progress.0);
        Ok(Self {
            id: row.id,
            project_id: name(&row.project_id)?,
            task_type: name(&row.task_type)?,
            queue: name(&row.queue)?,
            parent_task_id: row.parent_task_id,
            phase: optional_name(row.phase)?,
            title: row.title,
            description: row.description,
            priority: priority(row.priority)?,
            status: status(&row.status)?,
            payload: row.payload.map(|json| json.0),
            labels: row.labels.map(|json| json.0).unwrap_or_default(),
            phases: row.phases.iter().map(|text| name(text)).collect::<sqlx::Result<_>>()?,
            is_parent: row.is_parent,
            max_attempts: unsigned(row.max_attempts)?,
            timeout_seconds: row.timeout_seconds.map(unsigned).transpose()?,
            backoff: Backoff {
                initial_seconds: unsigned(row.backoff_initial_seconds)?,
                max_seconds: unsigned(row.backoff_max_seconds)?,
            },
            unique_key: row.unique_key,
            depends_on: row.depends_on,
            on_dependency_failure: row.on_dependency_failure.parse().map_err(|error: String| decode(&error))?,
            has_dependents: row.has_dependents,
            auto_complete: row.auto_complete,
            assignee: row.assignee,
            collaborators: row.collaborators,
            watchers: row.watchers,
            external_id: row.external_id,
            observed: row.observed.map(|json| json.0),
            attempt: unsigned(row.attempt)?,
            retry_count: unsigned(row.retry_count)?,
            outcome: row.outcome.as_deref().and_then(|word| word.parse().ok()),
            run_at: row.run_at,
            worker_id: row.worker_id,
            machine_id: optional_name(row.machine_id)?,
            connector_id: optional_name(row.connector_id)?,
            created_at: row.created_at,
            enqueued_at: row.enqueued_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            result: row.result.map(|json| json.0),
            error: row.error,
            lease: row.stalled.map(|stalled| Lease { expires_at: row.expires_at, progress, stalled }),
        })
    }
}

/// Which payloads a `SELECT` reads; they can be large.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload {
    /// None.
    Omitted,
    /// All.
    Included,
}

/// `SELECT` of [`TaskRow`]s with an expression for the payload. The trailing clauses name the tables `t` (tasks) and `l`
/// (leases).
fn select_with(payload: &str) -> String {
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|column| if column.name == "payload" { payload.to_owned() } else { format!("t.{}", column.name) })
        .collect();
    format!(
        "SELECT {}, l.expires_at, l.stalled, l.progress FROM taskwatch.tasks t \
         LEFT JOIN taskwatch.leases l ON l.task_id = t.id ",
        columns.join(", ")
    )
}

static OMITTED: LazyLock<String> = LazyLock::new(|| select_with("NULL::json"));
static INCLUDED: LazyLock<String> = LazyLock::new(|| select_with("t.payload"));
static LOAD: LazyLock<String> =
    LazyLock::new(|| select_with("CASE WHEN t.id = ANY($2) THEN t.payload END") + "WHERE t.id = ANY($1)");

/// `SELECT` of [`TaskRow`]s without its trailing clauses.
pub(super) fn select(payload: Payload) -> &'static str {
    match payload {
        Payload::Omitted => &OMITTED,
        Payload::Included => &INCLUDED,
    }
}

/// The query of tasks by a trailing clause.
pub(super) fn query(payload: Payload, tail: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe([select(payload), tail].concat())
}

/// The query of tasks by ID ($1), with the payloads of some of them ($2).
pub(super) fn load() -> &'static str {
    &LOAD
}

/// `FROM UNNEST($1::uuid[], …) AS new (id, …)`.
fn unnest(columns: &[&Column]) -> String {
    let arrays: Vec<_> =
        columns.iter().enumerate().map(|(at, column)| format!("${}::{}[]", at + 1, column.kind.sent())).collect();
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    format!("FROM UNNEST({}) AS new ({})", arrays.join(", "), names.join(", "))
}

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<_> = COLUMNS.iter().collect();
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    let values: Vec<_> = columns.iter().map(|column| column.kind.cast(column.name)).collect();
    format!("INSERT INTO taskwatch.tasks ({}) SELECT {} {}", names.join(", "), values.join(", "), unnest(&columns))
});
static UPDATE_STATE: LazyLock<String> = LazyLock::new(|| update(Group::State));
static UPDATE_DESCRIPTION: LazyLock<String> = LazyLock::new(|| update(Group::Description));

/// `UPDATE` of one group of columns.
fn update(group: Group) -> String {
    let columns: Vec<_> = COLUMNS.iter().filter(|column| [Group::Key, group].contains(&column.group)).collect();
    let written = columns.iter().filter(|column| column.group == group);
    let assignments: Vec<_> = written.map(|column| column.assignment()).collect();
    format!("UPDATE taskwatch.tasks t SET {} {} WHERE t.id = new.id", assignments.join(", "), unnest(&columns))
}

/// The statement that inserts tasks.
pub(super) fn insert<'q>(tasks: &'q [&'q Task]) -> Statement<'q> {
    bind(sqlx::query(INSERT.as_str()), tasks, |_| true)
}

/// The statement that writes the columns of the state machine.
pub(super) fn update_state<'q>(tasks: &'q [&'q Task]) -> Statement<'q> {
    bind(sqlx::query(UPDATE_STATE.as_str()), tasks, |group| matches!(group, Group::Key | Group::State))
}

/// The statement that writes descriptive columns.
pub(super) fn update_description<'q>(tasks: &'q [&'q Task]) -> Statement<'q> {
    bind(sqlx::query(UPDATE_DESCRIPTION.as_str()), tasks, |group| matches!(group, Group::Key | Group::Description))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::model::{NewTask, Status};

    fn task() -> Task {
        NewTask::plain(Uuid::nil(), Name::literal("t"), Name::literal("q")).into_task(None, false, Time::UNIX_EPOCH)
    }

    fn columns(groups: &[Group]) -> Vec<&'static str> {
        COLUMNS.iter().filter(|column| groups.contains(&column.group)).map(|column| column.name).collect()
    }

    /// The numbers of the placeholders of a statement, in order.
    fn placeholders(sql: &str) -> Vec<usize> {
        let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        sql.split('$').skip(1).filter_map(number).collect()
    }

    /// The names between `AS new (` and the next `)`.
    fn sent(sql: &str) -> Vec<&str> {
        let list = sql.split("AS new (").nth(1).unwrap().split(')').next().unwrap();
        list.split(", ").collect()
    }

    #[test]
    fn every_column_is_there_once() {
        let names: BTreeSet<_> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
        assert_eq!(columns(&[Group::Key]), ["id"]);
    }

    #[test]
    fn an_insert_sends_every_column_and_stores_it_under_its_name() {
        let all: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        let stored = INSERT.split(['(', ')']).nth(1).unwrap();
        assert_eq!(stored.split(", ").collect::<Vec<_>>(), all);
        assert_eq!(sent(&INSERT), all);
        assert_eq!(placeholders(&INSERT), (1..=all.len()).collect::<Vec<_>>());
    }

    #[test]
    fn an_update_writes_its_group_by_the_key() {
        for (sql, group) in [(&*UPDATE_STATE, Group::State), (&*UPDATE_DESCRIPTION, Group::Description)] {
            let (assigned, _) = sql.split_once(" FROM UNNEST").unwrap();
            let names = columns(&[group]);
            for name in &names {
                assert_eq!(assigned.matches(&format!(" {name} = ")).count(), 1, "{name}: {assigned}");
            }
            assert_eq!(assigned.matches(" = ").count(), names.len());
            let with_key = columns(&[Group::Key, group]);
            assert_eq!(sent(sql), with_key);
            assert_eq!(placeholders(sql), (1..=with_key.len()).collect::<Vec<_>>());
            assert!(sql.ends_with("WHERE t.id = new.id"), "{sql}");
        }
        let fixed = columns(&[Group::Created]);
        assert!(
            fixed.iter().all(|name| !UPDATE_STATE.contains(name) && !UPDATE_DESCRIPTION.contains(name)),
            "{fixed:?}"
        );
    }

    #[test]
    fn a_payload_that_was_not_loaded_is_kept() {
        assert!(UPDATE_DESCRIPTION.contains("payload = coalesce(new.payload::json, t.payload)"));
        let json = |text: &str| serde_json::from_str(text).ok();
        let (with, without) = (Task { payload: json("1"), ..task() }, task());
        assert!(!changed(Group::Description, &with, &without), "it was not loaded");
        assert!(changed(Group::Description, &without, &with));
        assert!(changed(Group::Description, &with, &Task { payload: json("2"), ..task() }));
        assert!(select(Payload::Omitted).contains("NULL::json") && select(Payload::Included).contains("t.payload"));
        assert_eq!(placeholders(load()), [2, 1]);
    }

    #[test]
    fn json_and_lists_are_sent_as_text() {
        assert_eq!(Type::Plain("uuid").cast("new.id"), "new.id");
        assert_eq!(Type::Json.cast("new.labels"), "new.labels::json");
        let list = "ARRAY(SELECT json_array_elements_text(new.watchers::json)::text)";
        assert_eq!(Type::List("text").cast("new.watchers"), list);
        assert_eq!(
            [Type::Plain("uuid").sent(), Type::JsonKept.sent(), Type::List("uuid").sent()],
            ["uuid", "text", "text"]
        );
    }

    #[test]
    fn a_change_is_written_with_its_group_only() {
        let before = task();
        let state = Task { status: Status::Running, attempt: 1, ..task() };
        let description = Task { title: Some("x".to_owned()), ..task() };
        let lease = Task { lease: Some(Lease { expires_at: None, progress: None, stalled: false }), ..task() };
        let groups = |after: &Task| [Group::State, Group::Description].map(|group| changed(group, &before, after));
        assert_eq!(groups(&before), [false, false]);
        assert_eq!(groups(&state), [true, false]);
        assert_eq!(groups(&description), [false, true]);
        assert_eq!(groups(&lease), [false, false], "leases have a table of their own");
        let observed = Task { observed: Some(Box::default()), ..task() };
        assert_eq!(groups(&observed), [true, true], "its error group may have changed");
    }
}
