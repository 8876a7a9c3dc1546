//! The filters: one table. The stream, the API, the pages, the API document and `docs/stream.md` are made from it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{times, values::values};
use crate::{
    event::{Event, Kind, kind::Topic},
    model::{Name, Priority, Status, task_query::Condition},
};

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The query parameter.
    pub name: &'static str,
    /// A shorter name of it, which means the same; empty if there is none.
    pub short: &'static str,
    /// What it takes, for people.
    pub help: &'static str,
    /// What is compared in an event, and thereby the type of its values.
    pub source: Source,
    /// The column of tasks that is compared in lists of tasks; `None`: it filters events only.
    pub column: Option<&'static str>,
    /// Label of its field among the additional filters of the tasks page; `None`: it is not among these.
    pub label: Option<&'static str>,
}

/// What a filter compares in an event.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// A name.
    Name(fn(&Event) -> Option<&Name>),
    /// An ID.
    Id(fn(&Event) -> Option<Uuid>),
    /// The status of the task after the event.
    Status,
    /// The priority; one value or a range.
    Priority,
    /// The event type, by topic.
    Topics,
    /// The event type, by name or prefix.
    Types,
    /// A switch: metrics only.
    StatsOnly,
    /// Nothing of an event: a text of tasks.
    TaskText,
    /// Nothing of an event: a time of tasks.
    TaskTime,
}

impl Row {
    const fn new(name: &'static str, help: &'static str, source: Source) -> Self {
        Self { name, short: "", help, source, column: None, label: None }
    }

    /// Has a shorter name.
    const fn or(self, short: &'static str) -> Self {
        Self { short, ..self }
    }

    /// Filters lists of tasks by a column of another name.
    const fn of_column(self, column: &'static str) -> Self {
        Self { column: Some(column), ..self }
    }

    /// Whether it filters lists of tasks only.
    #[must_use]
    pub const fn is_of_tasks_only(&self) -> bool {
        matches!(self.source, Source::TaskText | Source::TaskTime)
    }

    /// Also filters lists of tasks, by the column of the same name.
    const fn of_tasks(self) -> Self {
        Self { column: Some(self.name), ..self }
    }

    /// Also has a field among the additional filters of the tasks page.
    const fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Whether the parameter takes one value only.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        matches!(self.source, Source::Priority | Source::StatsOnly | Source::TaskTime)
    }
}

/// What a filter of times takes.
const TIMES: &str = "time range, e.g. -1h.., -2d..-1d or 2026-11-27T03:00Z..2026-11-27T03:05Z";

/// Every filter but those of [`super::FREE_NAMES`].
pub const ROWS: [Row; 21] = [
    Row::new(
        "topics",
        "event topics: tasks, tasks:status, tasks:progress, tasks:edits, workers, connectors, phases, queues, stats, all",
        Source::Topics,
    ),
    Row::new("types", "event types; * matches any suffix, e.g. task_*", Source::Types),
    Row::new(super::PROJECT, "projects", Source::Name(|event| event.project_id.as_ref()))
        .or("project")
        .of_tasks()
        .labelled("Project"),
    Row::new("parent_task_id", "parent task IDs", Source::Id(|event| event.parent_task_id))
        .or("parent")
        .of_tasks()
        .labelled("Parent"),
    Row::new("task_id", "task IDs", Source::Id(|event| event.task_id)).or("id").of_column("id").labelled("Task ID"),
    Row::new(
        "task_type",
        "task types; * matches any suffix, e.g. send-*",
        Source::Name(|event| event.task_type.as_ref()),
    )
    .or("type")
    .of_tasks(),
    Row::new("phase", "phases", Source::Name(|event| event.phase.as_ref())).of_tasks().labelled("Phase"),
    Row::new("queue", "queues", Source::Name(|event| event.queue.as_ref())).of_tasks(),
    Row::new("worker_id", "worker IDs", Source::Id(|event| event.worker_id)).or("worker").of_tasks().labelled("Worker"),
    Row::new("machine_id", "machines", Source::Name(|event| event.machine_id.as_ref()))
        .or("machine")
        .of_tasks()
        .labelled("Machine"),
    Row::new("connector_id", "connectors", Source::Name(|event| event.connector_id.as_ref()))
        .or("connector")
        .of_tasks()
        .labelled("Connector"),
    Row::new(
        "status",
        "task status after the event: scheduled, blocked, pending, running, retrying, completed, failed, cancelled",
        Source::Status,
    )
    .of_tasks(),
    Row::new("fingerprint", "error group (16 hex digits)", Source::Name(|event| event.data.fingerprint.as_ref()))
        .or("group")
        .of_tasks()
        .labelled("Error group"),
    Row::new("priority", "priority 0–9 or a range, e.g. 3..7", Source::Priority).of_tasks().labelled("Priority"),
    Row::new("unique_key", "unique keys", Source::TaskText).or("key").of_tasks().labelled("Unique key"),
    Row::new("external_id", "IDs in the reporting system", Source::TaskText)
        .or("external")
        .of_tasks()
        .labelled("External ID"),
    Row::new("created", TIMES, Source::TaskTime).of_column("created_at").labelled("Created"),
    Row::new("started", TIMES, Source::TaskTime).of_column("started_at").labelled("Started"),
    Row::new("finished", TIMES, Source::TaskTime).of_column("finished_at").labelled("Finished"),
    Row::new("due", TIMES, Source::TaskTime).of_column("run_at").labelled("Due"),
    Row::new("stats_only", "true = metrics only, no individual events", Source::StatsOnly),
];

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

/// Maximum number of parts of a path into JSON.
const MAX_PATH: usize = 16;

/// Maximum number of values of one filter.
const MAX_VALUES: usize = 100;

/// Longest text of a task that a filter compares as a whole, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// What a filter with its values demands.
#[derive(Debug, Clone)]
pub(super) enum Clause {
    /// One of these event types.
    Kinds(BTreeSet<Kind>),
    /// A condition on a field that events and tasks have.
    Field(&'static Row, Condition),
    /// A label with one of these values.
    Label(Name, BTreeSet<String>),
    /// A value in the payload or the result of a task with one of these texts; events have neither. By the whole name.
    Json(String, BTreeSet<String>),
    /// Whatever another one does not let through.
    Not(Box<Self>),
    /// Nothing.
    Everything,
}

impl Clause {
    pub(super) fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Kinds(kinds) => kinds.contains(&event.event_type),
            Self::Field(row, condition) => match (row.source, condition) {
                (Source::Name(field), Condition::Names(names)) => field(event).is_some_and(|name| names.contains(name)),
                (Source::Name(field), Condition::Prefixes(prefixes)) => field(event)
                    .is_some_and(|name| prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))),
                (Source::Id(field), Condition::Ids(ids)) => field(event).is_some_and(|id| ids.contains(&id)),
                (Source::Status, Condition::Statuses(all)) => event.status.is_some_and(|status| all.contains(&status)),
                (Source::Priority, Condition::Priorities(low, high)) => {
                    event.priority.is_some_and(|priority| (*low..=*high).contains(&priority))
                }
                _ => false,
            },
            Self::Label(key, values) => {
                event.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|value| values.contains(value))
            }
            Self::Not(clause) => !clause.matches(event),
            Self::Json(..) => false,
            Self::Everything => true,
        }
    }
}

impl Row {
    /// Parses the values of this filter.
    pub(super) fn parse(&'static self, text: &str) -> Result<Clause, String> {
        let condition = match self.source {
            Source::Topics => return topics(text),
            Source::Types => return types(text),
            Source::StatsOnly => return stats_only(text),
            Source::Name(_) => names(text)?,
            Source::Id(_) => Condition::Ids(split(text, |word| {
                Uuid::parse_str(word).map_err(|_| format!("'{word}' is not a valid UUID"))
            })?),
            Source::Status => {
                Condition::Statuses(split(text, |word| word.parse::<Status>().map_err(|e| e.to_string()))?)
            }
            Source::Priority => priorities(text)?,
            Source::TaskText => Condition::Texts(split(text, plain)?),
            Source::TaskTime => Condition::Times(times::range(text)?),
        };
        Ok(Clause::Field(self, condition))
    }
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

/// Names, or beginnings of names: with a star at the end, `send-*`. Both together are beginnings.
fn names(text: &str) -> Result<Condition, String> {
    let name = |word: &str| Name::new(word).map_err(|e| e.to_string());
    if !values(text).iter().any(|word| word.ends_with('*')) {
        return Ok(Condition::Names(split(text, name)?));
    }
    let prefix = |word: &str| match word.strip_suffix('*') {
        Some("") => Ok(String::new()),
        Some(prefix) => name(prefix).map(|name| name.to_string()),
        None => Err(format!("'{word}' must end with * as the others do")),
    };
    Ok(Condition::Prefixes(split(text, prefix)?))
}

/// A key, an external ID or the value of a label: none is longer or has control characters.
fn plain(word: &str) -> Result<String, String> {
    if word.len() > MAX_TEXT_BYTES {
        return Err(format!("each value must be at most {MAX_TEXT_BYTES} bytes long"));
    }
    let is_plain = !word.chars().any(char::is_control);
    if is_plain { Ok(word.to_owned()) } else { Err("must not contain control characters".to_owned()) }
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

fn priorities(text: &str) -> Result<Condition, String> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let one = |word: &str| word.trim().parse().ok().and_then(Priority::new);
    match (one(low), one(high)) {
        (Some(low), Some(high)) if low <= high => Ok(Condition::Priorities(low, high)),
        _ => Err(format!("invalid priority '{text}'; expected 0–9 or a range such as 3..7")),
    }
}

fn stats_only(text: &str) -> Result<Clause, String> {
    match text {
        "true" | "1" => Ok(Clause::Kinds([Kind::StatsSnapshot].into())),
        "false" | "0" => Ok(Clause::Everything),
        other => Err(format!("expected true or false, not '{other}'")),
    }
}

/// Parses the key and the values of `label.<key>`.
pub(super) fn parse_label(key: &str, value: &str) -> Result<Clause, String> {
    let key = Name::new(key).map_err(|e| e.to_string())?;
    split(value, plain).map(|values| Clause::Label(key, values))
}

/// Parses the values of a filter that looks into JSON at a path.
pub(super) fn parse_json(name: &str, path: &[String], value: &str) -> Result<Clause, String> {
    if path.len() > MAX_PATH || path.iter().any(|part| part.is_empty() || part.contains('\0')) {
        return Err(format!("must be a path of 1 to {MAX_PATH} keys separated by dots, e.g. payload.order.id"));
    }
    split(value, plain).map(|values| Clause::Json(name.to_owned(), values))
}
