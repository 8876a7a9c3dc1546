//! Rows of bulk actions.

use sqlx::{PgConnection, PgPool, types::Json as Sql};
use uuid::Uuid;

use super::values::{decode, json_text};
use crate::{
    clock::Time,
    model::{
        bulk::{Bulk, BulkAction},
        task_query::TaskQuery,
    },
};

struct Row {
    id: Uuid,
    action: Sql<BulkAction>,
    filter: Sql<TaskQuery>,
    actor: String,
    state: String,
    max_per_second: Option<i32>,
    succeeded: i64,
    failed: i64,
    before_at: Time,
    before_id: Uuid,
    next_at: Time,
    created_at: Time,
    finished_at: Option<Time>,
}

impl TryFrom<Row> for Bulk {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            action: row.action.0,
            filter: row.filter.0,
            actor: row.actor,
            state: row.state.parse().map_err(|error: String| decode(&error))?,
            max_per_second: row.max_per_second.and_then(|pace| u32::try_from(pace).ok()),
            succeeded: u64::try_from(row.succeeded).unwrap_or_default(),
            failed: u64::try_from(row.failed).unwrap_or_default(),
            before: (row.before_at, row.before_id),
            next_at: row.next_at,
            created_at: row.created_at,
            finished_at: row.finished_at,
        })
    }
}

macro_rules! select {
    ($tail:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT id, action AS "action: _", filter AS "filter: _", actor, state, max_per_second, succeeded, failed,
                   before_at, before_id, next_at, created_at, finished_at
               FROM taskwatch.bulk_actions "# + $tail
            $(, $arg)*
        )
    };
}

/// The newest bulk actions.
///
/// # Errors
/// Any error of the database.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Bulk>> {
    let rows = select!("ORDER BY created_at DESC LIMIT 100").fetch_all(pool).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

/// One bulk action.
///
/// # Errors
/// Any error of the database.
pub async fn one(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Bulk>> {
    select!("WHERE id = $1", id).fetch_optional(pool).await?.map(Bulk::try_from).transpose()
}

/// Bulk actions with a step that is due.
///
/// # Errors
/// Any error of the database.
pub async fn due(pool: &PgPool, now: Time) -> sqlx::Result<Vec<Bulk>> {
    let rows =
        select!("WHERE state = 'running' AND next_at <= $1 ORDER BY next_at LIMIT 8", now).fetch_all(pool).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

/// Locks bulk actions FOR UPDATE.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Bulk>> {
    let rows = select!("WHERE id = ANY($1) ORDER BY id FOR UPDATE", ids).fetch_all(conn).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

pub(super) async fn save(conn: &mut PgConnection, bulk: &Bulk) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.bulk_actions (id, action, filter, actor, state, max_per_second, succeeded, failed, before_at,
             before_id, next_at, created_at, finished_at)
         VALUES ($1, $2::text::json, $3::text::json, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO UPDATE
         SET state = excluded.state, succeeded = excluded.succeeded, failed = excluded.failed,
             before_at = excluded.before_at, before_id = excluded.before_id, next_at = excluded.next_at,
             finished_at = excluded.finished_at",
        bulk.id,
        json_text(&bulk.action),
        json_text(&bulk.filter),
        bulk.actor,
        bulk.state.as_str(),
        bulk.max_per_second.and_then(|pace| i32::try_from(pace).ok()),
        i64::try_from(bulk.succeeded).unwrap_or(i64::MAX),
        i64::try_from(bulk.failed).unwrap_or(i64::MAX),
        bulk.before.0,
        bulk.before.1,
        bulk.next_at,
        bulk.created_at,
        bulk.finished_at
    )
    .execute(conn)
    .await?;
    Ok(())
}
