//! `/api/v1`: JSON requests and responses, errors as problem+json. The OpenAPI document is generated from these
//! handlers.

pub(super) mod bulk;
pub(super) mod claims;
pub mod document;
pub(super) mod edits;
mod failures;
pub(super) mod families;
mod fields;
mod ingest;
mod new_task;
pub(super) mod queues;
mod records;
pub(super) mod reports;
pub(super) mod schedules;
mod schemas;
pub mod snapshot;
mod status;
mod streams;
pub(super) mod tasks;
pub(super) mod workers;

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AppState;
pub use document::document;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "taskwatch",
        description = "taskwatch API. Errors are RFC 9457 problem details with a stable `code`."
    ),
    components(schemas(bulk::Preview)),
    tags(
        (name = "tasks", description = "Create, query and manage tasks."),
        (name = "workers", description = "Worker protocol: register, claim, heartbeat, report."),
        (name = "ingest", description = "Report tasks run by another system."),
        (name = "queues", description = "Queue control: pause, resume, limits."),
        (name = "schedules", description = "Cron schedules."),
        (name = "monitoring", description = "Metrics, health, snapshot and event stream."),
    )
)]
struct Document;

/// The routes and their OpenAPI description.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tasks::create, tasks::list))
        .routes(routes!(tasks::read, tasks::delete, edits::edit))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(tasks::events))
        .routes(routes!(workers::register, workers::list))
        .routes(routes!(workers::read, workers::leave))
        .routes(routes!(workers::heartbeat))
        .routes(routes!(claims::claim))
        .routes(routes!(reports::progress))
        .routes(routes!(reports::complete))
        .routes(routes!(reports::fail))
        .routes(routes!(reports::release))
        .routes(routes!(reports::many))
        .routes(routes!(bulk::begin))
        .routes(routes!(bulk::list))
        .routes(routes!(bulk::read))
        .routes(routes!(bulk::cancel))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::read, schedules::put, schedules::delete))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(status::queue, queues::limit))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
        .routes(routes!(ingest::observe))
        .routes(routes!(status::event))
        .routes(routes!(status::snapshot))
        .routes(routes!(status::queues))
        .routes(routes!(status::stats))
        .routes(routes!(status::overall))
        .routes(routes!(failures::failures))
        .routes(routes!(failures::history))
        .routes(routes!(super::stream::events))
        .routes(routes!(streams::streams))
        .routes(routes!(schemas::schemas))
        .routes(routes!(schemas::schema))
        .routes(routes!(super::health::healthz))
        .routes(routes!(super::health::readyz))
}
