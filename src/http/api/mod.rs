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
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

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

/// The routes and their OpenAPI description.
pub fn router() -> OpenApiRouter<AppState> {
    let files = [
        tasks::routes(),
        edits::routes(),
        workers::routes(),
        claims::routes(),
        reports::routes(),
        bulk::routes(),
        schedules::routes(),
        queues::routes(),
        ingest::routes(),
        status::routes(),
        failures::routes(),
        streams::routes(),
        schemas::routes(),
        super::stream::routes(),
        super::health::routes(),
    ];
    files
        .into_iter()
        .flatten()
        .fold(OpenApiRouter::with_openapi(Document::openapi()), |all, (scope, route)| all.merge(needing(scope, route)))
}

/// Marks the operations of a route with their scope, as `x-scope`. The one place where access can be decided by route.
fn needing(scope: Scope, route: UtoipaMethodRouter<AppState>) -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::new().routes(route);
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete] {
            let Some(operation) = operation else { continue };
            let extension = Extensions::builder().add("x-scope", scope.as_str()).build();
            operation.extensions.get_or_insert_default().merge(extension);
        }
    }
    router
}
