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

use utoipa::{OpenApi, openapi::extensions::Extensions};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AppState;
use crate::model::access::Scope;
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

/// The routes and their OpenAPI description, each operation with the scope that it needs.
pub fn router() -> OpenApiRouter<AppState> {
    let groups =
        [(Scope::Public, public()), (Scope::Read, read()), (Scope::Report, report()), (Scope::Operate, operate())];
    groups.into_iter().fold(OpenApiRouter::with_openapi(Document::openapi()), |all, (scope, routes)| {
        all.merge(needing(scope, routes))
    })
}

/// Marks the operations of routes with their scope, as `x-scope`. The one place where access can be decided by route.
fn needing(scope: Scope, mut routes: OpenApiRouter<AppState>) -> OpenApiRouter<AppState> {
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete] {
            let Some(operation) = operation else { continue };
            let extension = Extensions::builder().add("x-scope", scope.as_str()).build();
            operation.extensions.get_or_insert_default().merge(extension);
        }
    }
    routes
}

/// Routes for everyone.
fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(super::health::healthz)).routes(routes!(super::health::readyz))
}

/// Routes that read.
fn read() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::read))
        .routes(routes!(tasks::events))
        .routes(routes!(workers::list))
        .routes(routes!(workers::read))
        .routes(routes!(bulk::list))
        .routes(routes!(bulk::read))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::read))
        .routes(routes!(status::queue))
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
}

/// Routes of workers, and of systems that report their own tasks.
fn report() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(workers::register))
        .routes(routes!(workers::leave))
        .routes(routes!(workers::heartbeat))
        .routes(routes!(claims::claim))
        .routes(routes!(reports::progress))
        .routes(routes!(reports::complete))
        .routes(routes!(reports::fail))
        .routes(routes!(reports::release))
        .routes(routes!(reports::many))
        .routes(routes!(ingest::observe))
}

/// Routes that create and change tasks, queues and schedules.
fn operate() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(tasks::create))
        .routes(routes!(tasks::delete, edits::edit))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(bulk::begin))
        .routes(routes!(bulk::cancel))
        .routes(routes!(schedules::put, schedules::delete))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(queues::limit))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
}
