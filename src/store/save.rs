//! Writes the changes of a batch of commands.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{bulk, children, dependencies, difference::Difference, queues, schedules, workers};
use crate::{command::Workspace, event::Draft, model::Name};

/// Output of saving a batch.
pub(super) struct Saved {
    /// Events to append.
    pub(super) drafts: Vec<Draft>,
    /// Queues that have a row once the transaction is committed.
    pub(super) queues: Vec<Name>,
}

/// Writes every changed row and returns the events to append. `known_queues` already have a row.
pub(super) async fn save(
    conn: &mut PgConnection,
    mut workspace: Workspace,
    known_queues: &HashSet<Name>,
) -> sqlx::Result<Saved> {
    let now = workspace.now();
    let phases = children::save(conn, workspace.children(), now).await?;
    for event in phases.iter().flat_map(|phase| phase.events(now)) {
        workspace.record(event);
    }
    children::recheck_parents(conn, &phases).await?;
    let named = workspace.queues_named();
    let queues: Vec<_> = named.into_iter().filter(|name| !known_queues.contains(*name)).cloned().collect();
    if !queues.is_empty() {
        queues::add(conn, &queues.iter().map(Name::as_str).collect::<Vec<_>>()).await?;
    }
    Difference::of(&workspace).write(conn, now).await?;
    for queue in workspace.changed_queues() {
        queues::save(conn, queue).await?;
    }
    let changed: Vec<_> = workspace.changed_workers().collect();
    if !changed.is_empty() {
        workers::save(conn, &changed).await?;
    }
    for (name, schedule) in workspace.changed_schedules() {
        match schedule {
            Some(schedule) => schedules::save(conn, schedule).await?,
            None => schedules::delete(conn, name).await?,
        }
    }
    for bulk in workspace.changed_bulks() {
        bulk::save(conn, bulk).await?;
    }
    if !workspace.reevaluated().is_empty() {
        dependencies::rechecked(conn, workspace.reevaluated()).await?;
    }
    Ok(Saved { drafts: workspace.into_drafts(), queues })
}
