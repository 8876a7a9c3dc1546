//! Bulk actions: a preview first, then the action.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use uuid::Uuid;

use super::{As, Fields, Sent, bulk, failure, field, fields, goes_on, input, object, plain, raw};
use crate::{
    event::filter,
    http::{
        api::families::ChildrenTold, caller::Caller, codes::ErrorCode, input::Id, problem::Problem, query, site::Site,
    },
    model::{Task, task_query::TaskQuery},
    page::format,
    store::search,
};

/// Parameters that are not filters.
const OWN: [&str; 11] = [
    "scope",
    "action",
    "ids",
    "pace_per_second",
    "reason",
    "children",
    "priority_new",
    "queue_new",
    "assignee",
    "confirm",
    "from",
];
/// Number of example tasks shown.
const EXAMPLES: i64 = 10;
/// Maximum count of tasks.
const COUNTED: i64 = 100_000;

#[derive(Template)]
#[template(path = "bulk_preview.html")]
struct Preview {
    action: String,
    verb: &'static str,
    ids: Vec<String>,
    filters: Fields,
    /// Number of tasks, as text.
    tasks: String,
    is_empty: bool,
    unfit: usize,
    examples: Vec<Task>,
}

#[derive(Template)]
#[template(path = "bulk_done.html")]
struct Done {
    succeeded: u64,
    /// Number of tasks that could not be processed.
    failed: Option<u64>,
    children: Option<ChildrenTold>,
    problems: Vec<(Uuid, String)>,
}

fn verb(action: &str) -> Result<&'static str, Problem> {
    match action {
        "retry" => Ok("Run again"),
        "cancel" => Ok("Cancel"),
        "delete" => Ok("Delete"),
        "edit" => Ok("Change"),
        _ => {
            let detail = "must be one of retry, cancel, edit, delete";
            Err(Problem::invalid_field("action", detail))
        }
    }
}

fn in_words(matched: usize, more: bool) -> String {
    let count = format::count(&(matched as u64));
    match (matched, more) {
        (1, false) => "1 task".to_owned(),
        (_, false) => format!("{count} tasks"),
        (_, true) => format!("{count} and more tasks"),
    }
}

/// The filters of the form, without empty ones.
fn filters(fields: &Fields) -> Fields {
    let is_filter = |name: &str| !OWN.contains(&name) && name != "cursor" && name != "limit";
    fields.iter().filter(|(name, value)| is_filter(name) && !value.trim().is_empty()).cloned().collect()
}

fn ids(fields: &Fields) -> Result<Vec<Uuid>, Problem> {
    let texts = fields.iter().filter(|(name, _)| name == "ids").map(|(_, value)| value);
    texts
        .map(|text| Uuid::parse_str(text))
        .collect::<Result<_, _>>()
        .map_err(|_| Problem::invalid_field("ids", "must be task IDs"))
}

/// Whether the status of a task allows an action.
fn fits(action: &str, task: &Task) -> bool {
    match action {
        "retry" => task.status.is_finished() && task.observed.is_none() && !task.close_when_done,
        "cancel" => !task.status.is_finished() && task.observed.is_none(),
        _ => true,
    }
}

pub(super) async fn preview(State(site): State<Site>, headers: HeaderMap, Query(pairs): Query<Fields>) -> Response {
    match try_preview(&site, &pairs).await {
        Ok(page) => plain(&site, &headers, &format!("{}: preview", page.verb), &page),
        Err(problem) => failure(&site, &headers, &problem, Some(("Tasks", "/tasks".to_owned()))),
    }
}

async fn try_preview(site: &Site, pairs: &Fields) -> Result<Preview, Problem> {
    let action = field(pairs, "action").unwrap_or_default().to_owned();
    let (verb, mut ids, mut filters) = (verb(&action)?, ids(pairs)?, filters(pairs));
    match field(pairs, "scope") {
        Some("selected") => filters.clear(),
        Some("filter") => ids.clear(),
        _ => {}
    }
    let (matched, more, examples, filters) = if !ids.is_empty() {
        let tasks = search::some(site.store.pool(), &ids).await?;
        (tasks.len(), false, tasks, Vec::new())
    } else if !filters.is_empty() {
        let query = TaskQuery { limit: COUNTED + 1, ..query::tasks(&filters)? };
        let turn = site.store.turn(&query).await?;
        let found = search::places(turn.pool(), &query).await?.len();
        let examples = search::tasks(turn.pool(), &TaskQuery { limit: EXAMPLES, ..query }).await?;
        let most = usize::try_from(COUNTED).unwrap_or(usize::MAX);
        (found.min(most), found > most, examples, filters)
    } else {
        let detail = "Select tasks or set a filter first. Bulk actions never apply to all tasks.";
        return Err(Problem::new(ErrorCode::InvalidField, detail));
    };
    let unfit = examples.iter().filter(|task| !fits(&action, task)).count();
    Ok(Preview {
        verb,
        ids: ids.iter().map(Uuid::to_string).collect(),
        filters,
        tasks: in_words(matched, more),
        is_empty: matched == 0,
        unfit,
        examples: examples.into_iter().take(usize::try_from(EXAMPLES).unwrap_or_default()).collect(),
        action,
    })
}

pub(super) async fn begin(State(site): State<Site>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    match try_begin(&site, &caller, sent).await {
        Ok(bulk::Begun::Each(done)) => {
            let children = done.children();
            let (succeeded, failed, problems) = done.told();
            let failed = Some(failed).filter(|failed| *failed > 0);
            plain(&site, &headers, "Done", &Done { succeeded, failed, children, problems })
        }
        Ok(bulk::Begun::Background(id)) => goes_on(&site, &format!("/bulk/{id}")).await,
        Err(problem) => failure(&site, &headers, &problem, Some(("Tasks", "/tasks".to_owned()))),
    }
}

async fn try_begin(site: &Site, caller: &Caller, sent: Sent) -> Result<bulk::Begun, Problem> {
    let fields = fields(sent)?;
    let action = field(&fields, "action").unwrap_or_default();
    verb(action)?;
    if action == "delete" && field(&fields, "confirm") != Some("delete") {
        let detail = "type \"delete\" to confirm; deletion cannot be undone";
        return Err(Problem::invalid_field("confirm", detail));
    }
    let mut wanted = object(&fields, &[("action", As::Text), ("reason", As::Text), ("assignee", As::Text)], false)?;
    for (ours, theirs, kind) in [("priority_new", "priority", As::Number), ("queue_new", "queue", As::Text)] {
        if let Some(value) = object(&fields, &[(ours, kind)], false)?.remove(ours) {
            wanted.insert(theirs.to_owned(), value);
        }
    }
    if field(&fields, "children") == Some("true") {
        wanted.insert("children".to_owned(), raw(&true));
    }
    let ids = ids(&fields)?;
    if ids.is_empty() {
        // A repeated filter has the values of all its occurrences.
        let filter = filter::merged(&filters(&fields), &[]).map_err(Problem::from)?;
        wanted.insert("filter".to_owned(), raw(&filter.into_iter().collect::<BTreeMap<_, _>>()));
        wanted.extend(object(&fields, &[("pace_per_second", As::Number)], false)?);
    } else {
        wanted.insert("ids".to_owned(), raw(&ids));
    }
    bulk::do_it(site, caller, &input::<bulk::BulkInput>(&wanted)?.0).await
}

pub(super) async fn stop(State(site): State<Site>, headers: HeaderMap, caller: Caller, Id(id): Id) -> Response {
    let done = bulk::cancel(State(site.clone()), caller, Id(id)).await;
    super::then(&site, &headers, done, &format!("/bulk/{id}")).await
}
