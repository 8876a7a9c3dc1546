//! Ingest of reports from systems that run their own tasks, which taskwatch only observes.

pub(super) mod cloud_event;
mod native;

use axum::{
    Json as Out,
    extract::{FromRequest, Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use uuid::Uuid;

use self::{cloud_event::CloudEvent, native::NativeReport};
use utoipa_axum::routes;

use crate::{
    clock::Time,
    command::ingest::{Ingest, IngestedReport},
    http::{
        caller::Caller,
        each::Each,
        input::{at_most, body_up_to, is_lines, parse, without_mark},
        problem::Problem,
        routes::Routes,
        state::AppState,
    },
    model::access::Scope,
};

/// Maximum size of a body of reports, bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Raw reports, each validated separately.
pub(super) struct Reports {
    each: Each,
    /// The content type says CloudEvents, whatever the items look like.
    cloud: bool,
}

impl<S: Send + Sync> FromRequest<S> for Reports {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let batch = kind == "application/cloudevents-batch+json";
        let structured = batch || kind == "application/cloudevents+json";
        if !structured && cloud_event::is_binary(&headers) {
            cloud_event::check_data_is_json(&headers)?;
            let body = body_up_to(request, MAX_BODY).await?;
            let event = cloud_event::binary(&headers, without_mark(&body))?.unwrap_or_else(|| body.to_vec());
            return Ok(Self { each: Each { items: vec![event], single: true }, cloud: true });
        }
        let lines = !structured && is_lines(&headers)?;
        let body = body_up_to(request, MAX_BODY).await?;
        at_most(&body, lines)?;
        let each = Each::split(&body, lines)?;
        // A batch of CloudEvents may be empty.
        if !(batch && each.items.is_empty() && !each.single) {
            each.bounded()?;
        }
        Ok(Self { each, cloud: structured })
    }
}

/// Result of one report.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ReportResult {
    /// The task ID in taskwatch, which differs from a non-UUID ID in the reporting system.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    /// 200, or the status that a separate request would have had.
    status: u16,
    /// `recorded`, `unchanged` (no new information) or `refused`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The invalid field.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl ReportResult {
    fn refused(task_id: Option<Uuid>, problem: &Problem) -> Self {
        Self {
            task_id,
            status: problem.status().as_u16(),
            outcome: "refused",
            code: Some(problem.code.as_str()),
            detail: Some(problem.detail.clone()),
            field: problem.errors.first().map(|error| error.field.clone()),
        }
    }
}

/// One result per report, in order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ReportResults {
    outcomes: Vec<ReportResult>,
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Report, routes!(observe))]
}

/// Report events of tasks run by another system (native JSON or CloudEvents).
///
/// CloudEvents are accepted in structured, batch and binary mode. Unknown tasks and workers are created on first
/// mention. Reports may be duplicated, late or out of order: the result depends only on the set of reports, ordered by
/// their own timestamps and attempts.
#[utoipa::path(post, path = "/api/v1/events", operation_id = "reportEvents", tag = "ingest",
    request_body(content(
        (Vec<NativeReport> = "application/json"), (NativeReport = "application/x-ndjson"),
        (Object = "application/cloudevents+json"), (Vec<Object> = "application/cloudevents-batch+json"),
    )),
    responses((status = 200, description = "One result per report", body = ReportResults), (status = 409, description = "Conflict: managed task (single report)", body = Problem), (status = 422, description = "Validation error (single report)", body = Problem)))]
pub(super) async fn observe(State(state): State<AppState>, _: Caller, reports: Reports) -> Result<Response, Problem> {
    let now = state.clock.now();
    let Reports { each: Each { items, single }, cloud } = reports;
    let mut good = Vec::with_capacity(items.len());
    let take = |item: Vec<u8>| {
        let (task_id, report) = read(&item, cloud, now)?;
        good.push(report);
        Ok(task_id)
    };
    let read: Vec<Result<Option<Uuid>, Problem>> = items.into_iter().map(take).collect();
    let mut heard = match good.is_empty() {
        true => Vec::new(),
        false => state.writer.run(Ingest(good)).await?,
    }
    .into_iter();
    let mut outcomes = Vec::with_capacity(read.len());
    for one in read {
        let (task_id, problem, changed) = match one {
            Err(problem) => (None, Some(problem), false),
            Ok(task_id) => match heard.next() {
                Some(Err(error)) => (task_id, Some(Problem::from(error)), false),
                Some(Ok(changed)) => (task_id, None, changed),
                None => (task_id, None, false),
            },
        };
        if let Some(problem) = problem {
            if single {
                return Err(problem);
            }
            outcomes.push(ReportResult::refused(task_id, &problem));
            continue;
        }
        let outcome = if changed { "recorded" } else { "unchanged" };
        outcomes.push(ReportResult { task_id, status: 200, outcome, code: None, detail: None, field: None });
    }
    Ok(Out(ReportResults { outcomes }).into_response())
}

fn read(item: &[u8], cloud: bool, now: Time) -> Result<(Option<Uuid>, IngestedReport), Problem> {
    #[derive(serde::Deserialize)]
    struct Peek {
        specversion: Option<serde::de::IgnoredAny>,
    }
    let wrong = |(field, detail): (&'static str, String)| Problem::invalid_field(field, detail);
    let is_cloud = cloud || parse::<Peek>(item, "").is_ok_and(|peek| peek.specversion.is_some());
    let report: NativeReport = if is_cloud {
        let cloud: CloudEvent = parse(item, "")?;
        parse(cloud.unwrapped().map_err(wrong)?.as_bytes(), "")?
    } else {
        parse(item, "")?
    };
    report.check(now).map_err(wrong)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use axum::body::Body;

    const NOW: Time = Time::UNIX_EPOCH;

    async fn reports(headers: &[(&str, &str)], body: &str) -> Result<Reports, Problem> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reports::from_request(request.body(Body::from(body.to_owned())).unwrap(), &()).await
    }

    /// How many reports there are, whether they are one, and whether all are CloudEvents.
    async fn shape(kind: &str, body: &str) -> Result<(usize, bool, bool), u16> {
        let read = reports(&[("content-type", kind)], body).await;
        read.map(|read| (read.each.items.len(), read.each.single, read.cloud))
            .map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn the_content_type_says_what_reports_are() {
        assert_eq!(shape("application/json", "{}").await, Ok((1, true, false)));
        assert_eq!(shape("application/json", "[{},{}]").await, Ok((2, false, false)));
        assert_eq!(shape("application/x-ndjson", "{}\n{}\n").await, Ok((2, false, false)));
        assert_eq!(shape("application/cloudevents+json; charset=utf-8", "{}").await, Ok((1, true, true)));
        assert_eq!(shape("application/cloudevents-batch+json", "[{},{}]").await, Ok((2, false, true)));
        assert_eq!(
            shape("application/cloudevents-batch+json", "[]").await,
            Ok((0, false, true)),
            "a batch may be empty"
        );
        assert_eq!(shape("application/json", "[]").await, Err(422));
        assert_eq!(shape("text/plain", "{}").await, Err(415));
        let many = format!("[{}]", vec!["{}"; 1_001].join(","));
        assert_eq!(shape("application/cloudevents-batch+json", &many).await, Err(422));
    }

    #[tokio::test]
    async fn an_event_may_come_in_the_headers() {
        let required =
            [("ce-specversion", "1.0"), ("ce-type", "task_started"), ("ce-source", "/cron"), ("ce-id", "e-1")];
        let with = |kind| [&required[..], &[("content-type", kind)]].concat();
        let read = reports(&with("application/json"), r#"{"task_id":7}"#).await.unwrap();
        assert!(read.cloud && read.each.single);
        let (task_id, _) = super::read(&read.each.items[0], true, NOW).unwrap();
        assert!(task_id.is_some());
        let refused = reports(&with("text/plain"), "x").await.map(|_| ()).unwrap_err();
        assert_eq!(refused.status().as_u16(), 415);
        let structured = reports(&with("application/cloudevents+json"), "{}").await.unwrap();
        assert_eq!(structured.each.items, [b"{}"], "the content type decides");
    }

    #[test]
    fn an_item_is_a_cloud_event_if_it_says_so() {
        let native = r#"{"event_type":"task_created","task_id":"a","source":"/cron"}"#;
        let cloud = r#"{"specversion":"1.0","type":"x.task_created","source":"/cron","id":"1","subject":"a"}"#;
        let read = |item: &str, cloud| super::read(item.as_bytes(), cloud, NOW).map(|(id, _)| id);
        assert_eq!(read(native, false).unwrap(), read(cloud, false).unwrap(), "it is the same task");
        assert_eq!(read(cloud, true).unwrap(), read(cloud, false).unwrap());
        assert_eq!(read(native, true).unwrap_err().errors[0].field, "specversion");
        let null = r#"{"specversion":null,"event_type":"task_created","task_id":"a"}"#;
        assert_eq!(read(null, false).unwrap_err().errors[0].field, "specversion", "unknown in a native report");
    }

    #[test]
    fn the_outcome_of_a_report_names_what_was_refused() {
        let problem = super::read(br#"{"event_type":"task_created"}"#, false, NOW).map(|_| ()).unwrap_err();
        let json = serde_json::to_value(ReportResult::refused(None, &problem)).unwrap();
        let right = serde_json::json!({
            "status": 422,
            "outcome": "refused",
            "code": "invalid_field",
            "field": "task_id",
            "detail": "task_id: required for task events",
        });
        assert_eq!(json, right);
    }
}
