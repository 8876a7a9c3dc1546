//! Bulk actions: a preview first, then the action.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use uuid::Uuid;

use super::{As, Fields, Sent, failure, field, fields, input, object, plain, raw, redirect_after_write};
use crate::{
    event::filter,
    http::{
        api::{bulk, families::ChildrenOutcome},
        caller::Caller,
        codes::ErrorCode,
        input::Id,
        problem::Problem,
        query,
        state::AppState,
    },
    model::{Task, task_query::TaskQuery},
    page::format,
    store::search,
};

/// Parameters that are not filters. A filter must not have one of these names: it would be left out, and the action
/// would reach more tasks than were previewed.
const OWN: [&str; 11] = [
    "scope",
    "action",
    "ids",
    "max_per_second",
    "reason",
    "children",
    "priority_new",
    "queue_new",
    "assignee_new",
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
    children: Option<ChildrenOutcome>,
    problems: Vec<(Uuid, String)>,
}

fn verb(action: &str) -> Result<&'static str, Problem> {
    match action {
        "retry" => Ok("Retry"),
        "cancel" => Ok("Cancel"),
        "delete" => Ok("Delete"),
        "edit" => Ok("Edit"),
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
        (_, true) => format!("more than {count} tasks"),
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
        "retry" => task.status.is_finished() && task.observed.is_none() && !task.auto_complete,
        "cancel" => !task.status.is_finished() && task.observed.is_none(),
        _ => true,
    }
}

pub(super) async fn preview(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(pairs): Query<Fields>,
) -> Response {
    match try_preview(&state, &pairs).await {
        Ok(page) => plain(&state, &headers, &format!("{}: preview", page.verb), &page),
        Err(problem) => failure(&state, &headers, &problem, Some(("Tasks", "/tasks".to_owned()))),
    }
}

async fn try_preview(state: &AppState, pairs: &Fields) -> Result<Preview, Problem> {
    let action = field(pairs, "action").unwrap_or_default().to_owned();
    let (verb, mut ids, mut filters) = (verb(&action)?, ids(pairs)?, filters(pairs));
    match field(pairs, "scope") {
        Some("selected") => filters.clear(),
        Some("filter") => ids.clear(),
        _ => {}
    }
    let (matched, more, examples, filters) = if !ids.is_empty() {
        let tasks = search::some(state.store.pool(), &ids).await?;
        (tasks.len(), false, tasks, Vec::new())
    } else if !filters.is_empty() {
        let query = TaskQuery { limit: COUNTED + 1, ..query::tasks(&filters)? };
        let turn = state.store.read_permit(&query).await?;
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

pub(super) async fn begin(State(state): State<AppState>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    match try_begin(&state, &caller, sent).await {
        Ok(bulk::Begun::Each(done)) => {
            let children = done.children();
            let (succeeded, failed, problems) = done.summary();
            let failed = Some(failed).filter(|failed| *failed > 0);
            plain(&state, &headers, "Done", &Done { succeeded, failed, children, problems })
        }
        Ok(bulk::Begun::Background(id)) => redirect_after_write(&state, &format!("/bulk/{id}")).await,
        Err(problem) => failure(&state, &headers, &problem, Some(("Tasks", "/tasks".to_owned()))),
    }
}

async fn try_begin(state: &AppState, caller: &Caller, sent: Sent) -> Result<bulk::Begun, Problem> {
    let fields = fields(sent)?;
    let action = field(&fields, "action").unwrap_or_default();
    verb(action)?;
    if action == "delete" && field(&fields, "confirm") != Some("delete") {
        let detail = "type \"delete\" to confirm; deletion cannot be undone";
        return Err(Problem::invalid_field("confirm", detail));
    }
    let mut wanted = object(&fields, &[("action", As::Text), ("reason", As::Text)], false)?;
    let edits = [
        ("priority_new", "priority", As::Number),
        ("queue_new", "queue", As::Text),
        ("assignee_new", "assignee", As::Text),
    ];
    for (ours, theirs, kind) in edits {
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
        wanted.extend(object(&fields, &[("max_per_second", As::Number)], false)?);
    } else {
        wanted.insert("ids".to_owned(), raw(&ids));
    }
    bulk::do_it(state, caller, &input::<bulk::BulkInput>(&wanted)?.0).await
}

pub(super) async fn stop(State(state): State<AppState>, headers: HeaderMap, caller: Caller, Id(id): Id) -> Response {
    let done = bulk::cancel(State(state.clone()), caller, Id(id)).await;
    super::redirect_or_error(&state, &headers, done, (None, &format!("/bulk/{id}"))).await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{Name, NewTask, Status};

    #[test]
    fn no_filter_is_taken_for_a_parameter_of_the_form() {
        let taken: Vec<_> = OWN.iter().filter(|name| filter::is_known(name)).collect();
        assert!(taken.is_empty(), "{taken:?}");
    }

    fn form(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_left_of_a_form_are_its_filters() {
        let all = form(&[
            ("action", "retry"),
            ("queue", "mail"),
            ("status", " "),
            ("cursor", "x"),
            ("limit", "5"),
            ("q", "a"),
        ]);
        assert_eq!(filters(&all), form(&[("queue", "mail"), ("q", "a")]));
        let own: Vec<_> = OWN.iter().map(|name| (*name, "x")).collect();
        assert_eq!(filters(&form(&own)), form(&[]));
    }

    #[test]
    fn a_number_of_tasks_is_said_in_words() {
        assert_eq!(in_words(0, false), "0 tasks");
        assert_eq!(in_words(1, false), "1 task");
        assert_eq!(in_words(2, false), "2 tasks");
        assert_eq!(in_words(100_000, true), "more than 100,000 tasks");
    }

    #[test]
    fn all_ids_of_a_form_are_ids() {
        let id = Uuid::from_u128(7).to_string();
        assert_eq!(ids(&form(&[("ids", &id), ("queue", "x"), ("ids", &id)])).unwrap().len(), 2);
        assert!(ids(&form(&[])).unwrap().is_empty());
        assert_eq!(ids(&form(&[("ids", &id), ("ids", "")])).unwrap_err().errors[0].field, "ids");
    }

    #[test]
    fn only_known_actions_have_a_verb() {
        assert!(["retry", "cancel", "edit", "delete"].iter().all(|action| verb(action).is_ok()));
        assert_eq!(verb("").unwrap_err().detail, "action: must be one of retry, cancel, edit, delete");
    }

    #[test]
    fn tasks_that_an_action_cannot_change_are_told_beforehand() {
        let task = NewTask::plain(Uuid::nil(), Name::literal("t"), Name::literal("q"));
        let task = task.into_task(None, false, crate::clock::Time::UNIX_EPOCH);
        for status in Status::ALL {
            let task = Task { status, ..task.clone() };
            assert_eq!(fits("retry", &task), status.is_finished(), "{status}");
            assert_eq!(fits("cancel", &task), !status.is_finished(), "{status}");
            assert!(fits("delete", &task) && fits("edit", &task));
            let observed = Task { observed: Some(Box::default()), ..task };
            assert!(!fits("retry", &observed) && !fits("cancel", &observed));
        }
        let parent = Task { auto_complete: true, status: Status::Failed, ..task };
        assert!(!fits("retry", &parent), "its children are retried");
    }
}
