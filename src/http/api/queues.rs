//! Queue control by operators.

use axum::{Json as Out, extract::State};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use crate::{
    clock::Time,
    command::change_queue::ChangeQueue,
    http::{
        caller::Caller,
        input::{Json, Named, Optional, Text},
        problem::Problem,
        routes::Routes,
        state::AppState,
    },
    model::{
        Name,
        access::Scope,
        queue::{QueueChange, QueueState},
        whole,
    },
};

/// Operator settings of a queue.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct QueueSettings {
    name: Name,
    /// When it was paused; absent if active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    paused_at: Option<Time>,
    /// Concurrency limit: maximum number of running tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_limit: Option<u32>,
    /// Rate limit: maximum number of tasks started per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u32>,
    /// Period of the rate limit, seconds.
    rate_period_seconds: u32,
}

impl From<QueueState> for QueueSettings {
    fn from(queue: QueueState) -> Self {
        Self {
            name: queue.name,
            paused_at: queue.paused_at,
            concurrency_limit: queue.concurrency_limit,
            rate_limit: queue.rate_limit,
            rate_period_seconds: queue.rate_period_seconds,
        }
    }
}

/// A queue.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct QueueResponse {
    queue: QueueSettings,
}

/// New limits; absent fields stay unchanged, `null` removes a limit.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LimitQueue {
    /// Concurrency limit: maximum number of running tasks, 1 to 100000.
    #[serde(default, deserialize_with = "whole::present")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100000)]
    concurrency_limit: Option<Option<u32>>,
    /// Rate limit: maximum number of tasks started per period, 1 to 100000.
    #[serde(default, deserialize_with = "whole::present")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100000)]
    rate_limit: Option<Option<u32>>,
    /// Period of the rate limit, 1 to 86400 seconds. A sliding window: no period of this length has more starts than
    /// the limit.
    #[serde(default, deserialize_with = "whole::optional")]
    #[schema(minimum = 1, maximum = 86400, default = 1)]
    rate_period_seconds: Option<u32>,
}

impl LimitQueue {
    fn check(&self) -> Result<QueueChange, Problem> {
        let fits = |limit: Option<Option<u32>>| limit.flatten().is_none_or(|limit| (1..=100_000).contains(&limit));
        if !fits(self.concurrency_limit) {
            return Err(Problem::invalid_field(
                "concurrency_limit",
                "must be an integer between 1 and 100000, or null",
            ));
        }
        if !fits(self.rate_limit) {
            return Err(Problem::invalid_field("rate_limit", "must be an integer between 1 and 100000, or null"));
        }
        let period = self.rate_period_seconds.unwrap_or(1);
        if !(1..=86_400).contains(&period) {
            return Err(Problem::invalid_field("rate_period_seconds", "must be an integer between 1 and 86400"));
        }
        if self.rate_period_seconds.is_some() && self.rate_limit.flatten().is_none() {
            return Err(Problem::invalid_field("rate_period_seconds", "requires rate_limit"));
        }
        let rate = self.rate_limit.map(|limit| limit.map(|limit| (limit, period)));
        Ok(QueueChange::Limit { concurrency: self.concurrency_limit, rate })
    }
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Operate, routes!(limit)), (Scope::Operate, routes!(pause)), (Scope::Operate, routes!(resume))]
}

/// Options of a pause.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PauseQueue {
    /// Human-readable reason, shown wherever the queue is.
    #[schema(value_type = Option<String>, max_length = 500)]
    pub(in crate::http) reason: Option<Text<500>>,
}

/// Pause a queue: no new claims, running tasks continue.
#[utoipa::path(post, path = "/api/v1/queues/{name}/pause", operation_id = "pauseQueue", tag = "queues", params(("name" = String, Path)), request_body = Option<PauseQueue>,
    responses((status = 200, description = "OK", body = QueueResponse), (status = 400, description = "Invalid parameter", body = Problem), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
    Optional(input): Optional<PauseQueue>,
) -> Result<Out<QueueResponse>, Problem> {
    let reason = input.reason.map(|text| text.0);
    run(&state, ChangeQueue { name, change: QueueChange::Pause, reason, actor: caller.actor().to_owned() }).await
}

/// Resume a queue.
#[utoipa::path(post, path = "/api/v1/queues/{name}/resume", operation_id = "resumeQueue", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, description = "OK", body = QueueResponse), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(in crate::http) async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
) -> Result<Out<QueueResponse>, Problem> {
    decide(&state, &caller, name, QueueChange::Resume).await
}

/// Set concurrency and rate limits of a queue, which hold across all servers.
#[utoipa::path(patch, path = "/api/v1/queues/{name}", operation_id = "limitQueue", tag = "queues", params(("name" = String, Path)), request_body = LimitQueue,
    responses((status = 200, description = "OK", body = QueueResponse), (status = 400, description = "Invalid parameter", body = Problem), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn limit(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
    Json(input): Json<LimitQueue>,
) -> Result<Out<QueueResponse>, Problem> {
    decide(&state, &caller, name, input.check()?).await
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    name: Name,
    change: QueueChange,
) -> Result<Out<QueueResponse>, Problem> {
    run(state, ChangeQueue { name, change, reason: None, actor: caller.actor().to_owned() }).await
}

async fn run(state: &AppState, command: ChangeQueue) -> Result<Out<QueueResponse>, Problem> {
    Ok(Out(QueueResponse { queue: state.writer.run(command).await?.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::input::parse;

    fn read(json: &str) -> Result<QueueChange, String> {
        let limits = parse::<LimitQueue>(json.as_bytes(), "").and_then(|limits| limits.check());
        limits.map_err(|mut problem| problem.errors.remove(0).field)
    }

    #[test]
    fn a_limit_is_set_removed_or_left_alone() {
        let limit = |concurrency, rate| Ok(QueueChange::Limit { concurrency, rate });
        assert_eq!(read("{}"), limit(None, None));
        assert_eq!(read(r#"{"concurrency_limit":null,"rate_limit":null}"#), limit(Some(None), Some(None)));
        assert_eq!(read(r#"{"concurrency_limit":1}"#), limit(Some(Some(1)), None));
        assert_eq!(read(r#"{"rate_limit":100000}"#), limit(None, Some(Some((100_000, 1)))));
        let both = r#"{"concurrency_limit":100000.0,"rate_limit":1,"rate_period_seconds":86400}"#;
        assert_eq!(read(both), limit(Some(Some(100_000)), Some(Some((1, 86_400)))));
    }

    #[test]
    fn a_limit_beyond_its_bounds_is_named() {
        for (json, field) in [
            (r#"{"concurrency_limit":0}"#, "concurrency_limit"),
            (r#"{"concurrency_limit":100001}"#, "concurrency_limit"),
            (r#"{"rate_limit":0}"#, "rate_limit"),
            (r#"{"rate_limit":1.5}"#, "rate_limit"),
            (r#"{"rate_limit":5,"rate_period_seconds":0}"#, "rate_period_seconds"),
            (r#"{"rate_limit":5,"rate_period_seconds":86401}"#, "rate_period_seconds"),
            (r#"{"rate_period_seconds":60}"#, "rate_period_seconds"),
            (r#"{"rate_limit":null,"rate_period_seconds":60}"#, "rate_period_seconds"),
            (r#"{"max_per_second":5}"#, "max_per_second"),
        ] {
            assert_eq!(read(json), Err(field.to_owned()), "{json}");
        }
    }
}
