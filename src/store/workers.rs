//! Rows of workers: reading and writing.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor, types::Json as Sql};
use uuid::Uuid;

use super::values::{decode, json_text, name};
use crate::{
    clock::Time,
    model::{
        Name,
        worker::{Connector, Worker},
    },
};

struct WorkerRow {
    id: Uuid,
    name: String,
    machine_id: String,
    queues: Vec<String>,
    capabilities: Vec<String>,
    version: Option<String>,
    status: String,
    connectors: Sql<BTreeMap<Name, Connector>>,
    started_at: Time,
    last_seen_at: Time,
    stopped_at: Option<Time>,
    observed: bool,
}

impl TryFrom<WorkerRow> for Worker {
    type Error = sqlx::Error;

    fn try_from(row: WorkerRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            name: name(&row.name)?,
            machine_id: name(&row.machine_id)?,
            queues: row.queues.iter().map(|text| name(text)).collect::<sqlx::Result<_>>()?,
            capabilities: row.capabilities.iter().map(|text| name(text)).collect::<sqlx::Result<_>>()?,
            version: row.version,
            status: row.status.parse().map_err(|e: String| decode(&e))?,
            connectors: row.connectors.0,
            started_at: row.started_at,
            last_seen_at: row.last_seen_at,
            stopped_at: row.stopped_at,
            observed: row.observed,
        })
    }
}

pub(super) async fn load(db: impl PgExecutor<'_>, ids: &[Uuid]) -> sqlx::Result<Vec<Worker>> {
    let rows = sqlx::query_as!(
        WorkerRow,
        r#"SELECT id, name, machine_id, queues, capabilities, version, status, connectors AS "connectors: _", started_at,
               last_seen_at, stopped_at, observed
           FROM taskwatch.workers WHERE id = ANY($1)"#,
        ids
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Worker::try_from).collect()
}

/// All workers; unreadable rows are logged and omitted.
pub(super) async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Worker>> {
    let rows = sqlx::query_as!(
        WorkerRow,
        r#"SELECT id, name, machine_id, queues, capabilities, version, status, connectors AS "connectors: _", started_at,
               last_seen_at, stopped_at, observed
           FROM taskwatch.workers"#
    )
    .fetch_all(db)
    .await?;
    let read = |row: WorkerRow| {
        let id = row.id;
        Worker::try_from(row).inspect_err(|error| tracing::error!(%error, worker = %id, "unreadable row")).ok()
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Locks workers in ID order; always after tasks.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query_scalar!("SELECT id FROM taskwatch.workers WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", ids)
        .fetch_all(conn)
        .await?;
    Ok(())
}

pub(super) async fn save(conn: &mut PgConnection, workers: &[&Worker]) -> sqlx::Result<()> {
    for chunk in workers.chunks(200) {
        sqlx::query!(
            "INSERT INTO taskwatch.workers (id, name, machine_id, queues, capabilities, version, status, connectors,
                 started_at, last_seen_at, stopped_at, observed, unreported_since)
             SELECT id, name, machine_id, ARRAY(SELECT json_array_elements_text(queues::json)),
                 ARRAY(SELECT json_array_elements_text(capabilities::json)), version, status, connectors::json, started_at,
                 last_seen_at, stopped_at, observed, unreported_since
             FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::boolean[], $13::timestamptz[])
                 AS new (id, name, machine_id, queues, capabilities, version, status, connectors, started_at,
                 last_seen_at, stopped_at, observed, unreported_since)
             ON CONFLICT (id) DO UPDATE
             SET status = excluded.status, connectors = excluded.connectors, last_seen_at = excluded.last_seen_at,
                 stopped_at = excluded.stopped_at, unreported_since = excluded.unreported_since",
            &chunk.iter().map(|w| w.id).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.name.as_str()).collect::<Vec<_>>() as &[&str],
            &chunk.iter().map(|w| w.machine_id.as_str()).collect::<Vec<_>>() as &[&str],
            &chunk.iter().map(|w| json_text(&w.queues)).collect::<Vec<_>>(),
            &chunk.iter().map(|w| json_text(&w.capabilities)).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.version.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
            &chunk.iter().map(|w| w.status.as_str()).collect::<Vec<_>>() as &[&str],
            &chunk.iter().map(|w| json_text(&w.connectors)).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.started_at).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.last_seen_at).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.stopped_at).collect::<Vec<_>>() as &[Option<Time>],
            &chunk.iter().map(|w| w.observed).collect::<Vec<_>>(),
            &chunk.iter().map(|w| w.unreported_since()).collect::<Vec<_>>() as &[Option<Time>],
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// The leases that workers hold.
pub(super) async fn held(conn: &mut PgConnection, worker_ids: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        r#"SELECT worker_id AS "worker_id!", task_id FROM taskwatch.leases WHERE worker_id = ANY($1)"#,
        worker_ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.worker_id, row.task_id)).collect())
}
