//! Bulk actions: on listed tasks immediately, on all tasks that match a filter in the background.

use std::collections::BTreeMap;

use axum::{
    Json as Out,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;
use uuid::Uuid;

use super::{
    families::{ChildrenOutcome, steer},
    fields::Unique,
    reports::Outcome,
};
use crate::{
    clock::Time,
    command::{Refusal, cancel_bulk::CancelBulk, create_bulk::CreateBulk},
    http::{
        caller::Caller,
        input::{Id, Json, MAX_ITEMS, Text},
        problem::Problem,
        query,
        routes::Routes,
        state::AppState,
    },
    model::{
        Name, NewName, Priority,
        access::Scope,
        bulk::{Bulk, BulkAction, BulkState},
        task_query::TaskQuery,
        whole,
    },
    store::{bulk, search},
};

/// Maximum count in a preview.
const MAX_COUNT: i64 = 100_000;

/// The action.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum BulkActionKind {
    /// Cancel unfinished tasks.
    Cancel,
    /// Retry finished tasks.
    Retry,
    /// Delete tasks.
    Delete,
    /// Change priority, queue or assignee.
    Edit,
}

/// A bulk action on tasks given by `ids` or by `filter`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BulkInput {
    action: BulkActionKind,
    /// Up to 1000 task IDs; processed immediately, with one outcome each.
    #[schema(max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// The filters of `GET /api/v1/tasks`, as in `{"status": "failed", "queue": "mail,sms"}`; at least one. Processed
    /// in the background, newest first, on the tasks that exist now.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    filter: Option<Unique<String, String>>,
    /// Only count the matching tasks.
    #[serde(default)]
    preview: bool,
    /// With `cancel`, `retry` and `delete`: also apply to all descendants, in the background. By default children are
    /// unchanged.
    #[serde(default)]
    children: bool,
    /// Rate limit in tasks per second, 1 to 10000.
    #[serde(default, deserialize_with = "whole::optional")]
    #[schema(minimum = 1, maximum = 10000)]
    max_per_second: Option<u32>,
    /// With `cancel`: reason.
    #[schema(value_type = Option<String>, max_length = 500)]
    reason: Option<Text<500>>,
    /// With `edit`: priority.
    #[schema(value_type = Option<u8>, minimum = 0, maximum = 9)]
    priority: Option<Priority>,
    /// With `edit`: queue.
    queue: Option<NewName>,
    /// With `edit`: assignee.
    #[schema(value_type = Option<String>, max_length = 128)]
    assignee: Option<Text<128>>,
}

/// Result of a preview.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Preview {
    /// Number of matching tasks.
    matched: u64,
    /// There are more, which were not counted.
    more: bool,
}

/// Outcomes for the listed tasks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct BulkResults {
    succeeded: u64,
    failed: u64,
    /// What happens to their descendants; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<ChildrenOutcome>,
    outcomes: Vec<Outcome>,
}

impl BulkResults {
    /// What happens to their descendants.
    pub(in crate::http) const fn children(&self) -> Option<ChildrenOutcome> {
        self.children
    }

    /// Numbers of successes and failures, and the reasons of the failures.
    pub(in crate::http) fn summary(self) -> (u64, u64, Vec<(Uuid, String)>) {
        let problems = self.outcomes.into_iter().filter_map(Outcome::problem).collect();
        (self.succeeded, self.failed, problems)
    }
}

/// A bulk action.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct BulkRecord {
    id: Uuid,
    /// The action.
    #[schema(value_type = Object)]
    action: BulkAction,
    /// Who requested it.
    actor: String,
    state: BulkState,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_per_second: Option<u32>,
    /// Tasks processed successfully so far.
    succeeded: u64,
    /// Tasks whose status did not allow the action.
    failed: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
}

impl From<Bulk> for BulkRecord {
    fn from(bulk: Bulk) -> Self {
        Self {
            id: bulk.id,
            action: bulk.action,
            actor: bulk.actor,
            state: bulk.state,
            max_per_second: bulk.max_per_second,
            succeeded: bulk.succeeded,
            failed: bulk.failed,
            created_at: bulk.created_at,
            finished_at: bulk.finished_at,
        }
    }
}

/// A bulk action.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct BulkResponse {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    bulk: BulkRecord,
}

/// Recent bulk actions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct BulkList {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    bulks: Vec<BulkRecord>,
}

impl BulkInput {
    fn action(&self) -> Result<BulkAction, Problem> {
        let edits = self.priority.is_some() || self.queue.is_some() || self.assignee.is_some();
        match self.action {
            BulkActionKind::Edit if !edits => {
                Err(Problem::invalid_field("action", "action \"edit\" requires priority, queue or assignee"))
            }
            BulkActionKind::Cancel | BulkActionKind::Retry | BulkActionKind::Delete if edits => {
                Err(Problem::invalid_field("action", "only valid with action \"edit\": priority, queue and assignee"))
            }
            BulkActionKind::Edit if self.children => {
                Err(Problem::invalid_field("children", "not valid with action \"edit\""))
            }
            BulkActionKind::Retry | BulkActionKind::Delete | BulkActionKind::Edit if self.reason.is_some() => {
                Err(Problem::invalid_field("reason", "only valid with action \"cancel\""))
            }
            BulkActionKind::Cancel => Ok(BulkAction::Cancel { reason: self.reason.clone().map(|text| text.0) }),
            BulkActionKind::Retry => Ok(BulkAction::Retry),
            BulkActionKind::Delete => Ok(BulkAction::Delete),
            BulkActionKind::Edit => Ok(BulkAction::Edit {
                priority: self.priority,
                queue: self.queue.clone().map(Name::from),
                assignee: self.assignee.clone().map(|text| text.0),
            }),
        }
    }
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Read, routes!(list)),
        (Scope::Read, routes!(read)),
        (Scope::Operate, routes!(begin)),
        (Scope::Operate, routes!(cancel)),
    ]
}

/// Apply one action to many tasks, by ids (immediate) or by filter (background).
#[utoipa::path(post, path = "/api/v1/tasks/bulk", operation_id = "startBulkAction", tag = "tasks", request_body = BulkInput,
    responses((status = 200, description = "Per-task outcomes, or a count with `preview`", body = BulkResults), (status = 202, description = "Accepted; poll /api/v1/bulk/{id}", body = BulkResponse), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn begin(
    State(state): State<AppState>,
    caller: Caller,
    Json(input): Json<BulkInput>,
) -> Result<Response, Problem> {
    if input.preview {
        return Ok(Out(preview(&state, &input).await?).into_response());
    }
    match do_it(&state, &caller, &input).await? {
        Begun::Each(done) => Ok(Out(done).into_response()),
        Begun::Background(id) => {
            let location = [(header::LOCATION, format!("/api/v1/bulk/{id}"))];
            Ok((StatusCode::ACCEPTED, location, read(State(state), Id(id)).await?).into_response())
        }
    }
}

/// Result of a bulk request.
pub(in crate::http) enum Begun {
    /// Processed immediately.
    Each(BulkResults),
    /// Accepted, runs in the background.
    Background(Uuid),
}

/// Runs or starts a bulk action.
pub(in crate::http) async fn do_it(state: &AppState, caller: &Caller, input: &BulkInput) -> Result<Begun, Problem> {
    let action = input.action()?;
    match input.targets()? {
        Targets::Ids(ids) => to_each(state, caller, ids, &action, input.children).await.map(Begun::Each),
        Targets::Filter(query) => {
            let action = match input.children {
                true => BulkAction::WithChildren { of: Box::new(action) },
                false => action,
            };
            in_background(state, caller, *query, action, input.max_per_second).await
        }
    }
}

async fn preview(state: &AppState, input: &BulkInput) -> Result<Preview, Problem> {
    input.action()?;
    match input.targets()? {
        Targets::Ids(ids) => Ok(Preview { matched: ids.len() as u64, more: false }),
        Targets::Filter(query) => {
            let query = TaskQuery { limit: MAX_COUNT + 1, ..*query };
            let found =
                i64::try_from(search::places(state.store.read_permit(&query).await?.pool(), &query).await?.len())
                    .unwrap_or(i64::MAX);
            let matched = u64::try_from(found.min(MAX_COUNT)).unwrap_or_default();
            Ok(Preview { matched, more: found > MAX_COUNT })
        }
    }
}

/// Targets of a bulk action.
enum Targets<'a> {
    Ids(&'a [Uuid]),
    Filter(Box<TaskQuery>),
}

impl BulkInput {
    fn targets(&self) -> Result<Targets<'_>, Problem> {
        if self.max_per_second.is_some_and(|pace| !(1..=10_000).contains(&pace)) {
            return Err(Problem::invalid_field("max_per_second", "must be an integer between 1 and 10000"));
        }
        match (&self.ids, &self.filter) {
            (Some(ids), None) if ids.is_empty() || ids.len() > MAX_ITEMS => {
                Err(Problem::invalid_field("ids", "must list 1 to 1,000 tasks"))
            }
            (Some(_), None) if self.max_per_second.is_some() && !self.preview => Err(Problem::invalid_field(
                "max_per_second",
                "only valid with \"filter\"; tasks named by ids are changed immediately",
            )),
            (Some(ids), None) => Ok(Targets::Ids(ids)),
            (None, Some(filter)) => read_filter(&filter.0).map(|query| Targets::Filter(Box::new(query))),
            _ => Err(Problem::invalid_field("filter", "provide either ids or filter")),
        }
    }
}

fn read_filter(filter: &BTreeMap<String, String>) -> Result<TaskQuery, Problem> {
    let pairs: Vec<_> = filter.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if pairs.iter().all(|(_, value)| value.trim().is_empty()) {
        return Err(Problem::invalid_field("filter", "at least one filter is required"));
    }
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name == "limit" || name == "cursor") {
        return Err(Problem::invalid_field(format!("filter.{name}"), "unknown filter"));
    }
    // An empty value would be no filter: more tasks would be changed than were meant.
    if let Some((name, _)) = pairs.iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(Problem::invalid_field(format!("filter.{name}"), "must not be empty"));
    }
    query::tasks(&pairs).map_err(|problem| problem.below("filter"))
}

async fn to_each(
    state: &AppState,
    caller: &Caller,
    ids: &[Uuid],
    action: &BulkAction,
    with_children: bool,
) -> Result<BulkResults, Problem> {
    let command = if with_children { action.for_family() } else { action.clone() };
    let changes = ids.iter().map(|id| (*id, command.transition())).collect();
    let (outcomes, children) = steer(state, caller, changes, action, with_children).await?;
    let outcomes = outcomes.into_iter().zip(ids);
    let outcomes: Vec<_> =
        outcomes.map(|(outcome, id)| Outcome::new(*id, outcome.map(|_| ()).map_err(Problem::from))).collect();
    let failed = outcomes.iter().filter(|outcome| !outcome.is_done()).count() as u64;
    Ok(BulkResults { succeeded: outcomes.len() as u64 - failed, failed, children, outcomes })
}

async fn in_background(
    state: &AppState,
    caller: &Caller,
    query: TaskQuery,
    action: BulkAction,
    max_per_second: Option<u32>,
) -> Result<Begun, Problem> {
    let now = state.clock.now();
    // What "an hour ago" means is settled now, however long the action takes.
    let bulk = Bulk::new(Uuid::now_v7(), action, query.frozen(now), caller.actor().to_owned(), now);
    let bulk = Bulk { max_per_second, ..bulk };
    let id = bulk.id;
    state.writer.run(CreateBulk(Box::new(bulk))).await?;
    Ok(Begun::Background(id))
}

/// List recent bulk actions.
#[utoipa::path(get, path = "/api/v1/bulk", operation_id = "listBulkActions", tag = "tasks",
    responses((status = 200, description = "OK", body = BulkList)))]
pub(in crate::http) async fn list(State(state): State<AppState>) -> Result<Out<BulkList>, Problem> {
    let event_id = state.event_id();
    let bulks = bulk::list(state.store.pool()).await?;
    Ok(Out(BulkList { event_id, bulks: bulks.into_iter().map(BulkRecord::from).collect() }))
}

/// Get a bulk action and its progress.
#[utoipa::path(get, path = "/api/v1/bulk/{id}", operation_id = "getBulkAction", tag = "tasks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "OK", body = BulkResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn read(State(state): State<AppState>, Id(id): Id) -> Result<Out<BulkResponse>, Problem> {
    let event_id = Some(state.event_id());
    let bulk = bulk::one(state.store.pool(), id).await?.ok_or(Refusal::NoBulk(id))?;
    Ok(Out(BulkResponse { event_id, bulk: bulk.into() }))
}

/// Stop a bulk action; tasks already processed are not reverted.
#[utoipa::path(post, path = "/api/v1/bulk/{id}/cancel", operation_id = "cancelBulkAction", tag = "tasks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "OK", body = BulkResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
) -> Result<Out<BulkResponse>, Problem> {
    let bulk = state.writer.run(CancelBulk { id, actor: caller.actor().to_owned() }).await?;
    Ok(Out(BulkResponse { event_id: None, bulk: bulk.into() }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{http::input::parse, model::Status};

    fn read(json: &str) -> BulkInput {
        parse(json.as_bytes(), "").unwrap()
    }

    fn action(json: &str) -> Result<BulkAction, String> {
        read(json).action().map_err(|mut problem| problem.errors.remove(0).field)
    }

    fn targets(json: &str) -> Result<usize, String> {
        match read(json).targets() {
            Ok(Targets::Ids(ids)) => Ok(ids.len()),
            Ok(Targets::Filter(query)) => Ok(query.conditions.len()),
            Err(mut problem) => Err(problem.errors.remove(0).field),
        }
    }

    #[test]
    fn each_action_takes_its_own_fields_only() {
        let reason = Some("old".to_owned());
        assert_eq!(action(r#"{"action":"cancel","reason":"old"}"#), Ok(BulkAction::Cancel { reason }));
        assert_eq!(action(r#"{"action":"retry","children":true}"#), Ok(BulkAction::Retry));
        assert_eq!(action(r#"{"action":"delete"}"#), Ok(BulkAction::Delete));
        let edit = BulkAction::Edit { priority: Priority::new(0), queue: None, assignee: Some(String::new()) };
        assert_eq!(action(r#"{"action":"edit","priority":0,"assignee":""}"#), Ok(edit));
        for (json, field) in [
            (r#"{"action":"edit"}"#, "action"),
            (r#"{"action":"cancel","priority":1}"#, "action"),
            (r#"{"action":"delete","queue":"q"}"#, "action"),
            (r#"{"action":"retry","reason":"x"}"#, "reason"),
            (r#"{"action":"edit","priority":1,"reason":"x"}"#, "reason"),
            (r#"{"action":"edit","priority":1,"children":true}"#, "children"),
        ] {
            assert_eq!(action(json), Err(field.to_owned()), "{json}");
        }
    }

    #[test]
    fn the_tasks_are_listed_or_filtered_never_all_or_both() {
        let ids = |count: u128| {
            let ids: Vec<_> = (0..count).map(Uuid::from_u128).collect();
            serde_json::json!({ "action": "retry", "ids": ids }).to_string()
        };
        assert_eq!([targets(&ids(1)), targets(&ids(1_000))], [Ok(1), Ok(1_000)]);
        assert_eq!([targets(&ids(0)), targets(&ids(1_001))], [Err("ids".to_owned()), Err("ids".to_owned())]);
        for json in [r#"{"action":"retry"}"#, r#"{"action":"retry","ids":[],"filter":{"queue":"q"}}"#] {
            assert_eq!(targets(json), Err("filter".to_owned()), "{json}");
        }
    }

    #[test]
    fn a_filter_of_nothing_is_not_everything() {
        let with = |filter: &str| targets(&format!(r#"{{"action":"delete","filter":{filter}}}"#));
        for nothing in ["{}", r#"{"queue":""}"#, r#"{"queue":" ","q":"\t"}"#] {
            assert_eq!(with(nothing), Err("filter".to_owned()), "{nothing}");
        }
        assert_eq!(with(r#"{"queue":"mail,sms","status":"failed"}"#), Ok(2));
        assert_eq!(with(r#"{"queue":"","status":"failed"}"#), Err("filter.queue".to_owned()));
        assert_eq!(with(r#"{"label.tenant":" ","status":"failed"}"#), Err("filter.label.tenant".to_owned()));
        assert_eq!(with(r#"{"qeue":"q"}"#), Err("filter.qeue".to_owned()));
        assert_eq!(with(r#"{"status":"lost"}"#), Err("filter.status".to_owned()));
        assert_eq!(with(r#"{"limit":"5","queue":"q"}"#), Err("filter.limit".to_owned()));
        assert_eq!(with(r#"{"cursor":"5","queue":"q"}"#), Err("filter.cursor".to_owned()));
        assert!(with(r#"{"qeue":"q"}"#).is_err());
        let BulkInput { filter, .. } = read(r#"{"action":"delete","filter":{"q":"disk"}}"#);
        assert_eq!(read_filter(&filter.unwrap().0).unwrap().text.as_deref(), Some("disk"), "a search is a filter");
    }

    #[test]
    fn a_pace_is_for_actions_in_the_background() {
        let with = |rest: &str| targets(&format!(r#"{{"action":"retry",{rest}}}"#));
        let pace = Err("max_per_second".to_owned());
        assert_eq!(with(r#""filter":{"queue":"q"},"max_per_second":10000"#), Ok(1));
        for wrong in ["0", "10001"] {
            assert_eq!(with(&format!(r#""filter":{{"queue":"q"}},"max_per_second":{wrong}"#)), pace, "{wrong}");
        }
        let id = Uuid::nil();
        assert_eq!(with(&format!(r#""ids":["{id}"],"max_per_second":5"#)), pace);
        assert_eq!(with(&format!(r#""ids":["{id}"],"max_per_second":5,"preview":true"#)), Ok(1));
    }

    #[test]
    fn a_record_shows_how_far_an_action_is() {
        let query = TaskQuery::default().in_status([Status::Failed]);
        let action = BulkAction::Cancel { reason: None };
        let bulk = Bulk::new(Uuid::nil(), action, query, "ops".to_owned(), Time::UNIX_EPOCH);
        let json = serde_json::to_value(BulkRecord::from(Bulk { succeeded: 3, failed: 1, ..bulk })).unwrap();
        let right = serde_json::json!({
            "id": Uuid::nil(),
            "action": { "action": "cancel" },
            "actor": "ops",
            "state": "running",
            "succeeded": 3,
            "failed": 1,
            "created_at": "1970-01-01T00:00:00Z",
        });
        assert_eq!(json, right);
    }
}
