//! Rows of schedules.

use sqlx::{PgConnection, PgPool, types::Json as Sql};
use uuid::Uuid;

use super::values::{json_text, name};
use crate::{
    clock::Time,
    model::{Name, schedule::Schedule, task::NewTask},
};

/// Maximum number of schedules run per sweep, and listed at once.
const LIMIT: i64 = 500;

struct Row {
    name: String,
    cron: String,
    time_zone: String,
    task: Sql<NewTask>,
    paused_at: Option<Time>,
    next_run_at: Option<Time>,
    last_run_at: Option<Time>,
    last_task_id: Option<Uuid>,
    created_at: Time,
}

impl TryFrom<Row> for Schedule {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            name: name(&row.name)?,
            cron: row.cron,
            time_zone: row.time_zone,
            task: row.task.0,
            paused_at: row.paused_at,
            next_run_at: row.next_run_at,
            last_run_at: row.last_run_at,
            last_task_id: row.last_task_id,
            created_at: row.created_at,
        })
    }
}

macro_rules! select {
    ($tail:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT name, cron, time_zone, task AS "task: _", paused_at, next_run_at, last_run_at, last_task_id, created_at
               FROM taskwatch.schedules "# + $tail
            $(, $arg)*
        )
    };
}

/// Schedules by name, starting after the name `after`.
///
/// # Errors
/// Any error of the database.
pub async fn list(pool: &PgPool, after: &str) -> sqlx::Result<Vec<Schedule>> {
    let rows = select!("WHERE name > $1 ORDER BY name LIMIT $2", after, LIMIT).fetch_all(pool).await?;
    rows.into_iter().map(Schedule::try_from).collect()
}

/// One schedule.
///
/// # Errors
/// Any error of the database.
pub async fn one(pool: &PgPool, name: &Name) -> sqlx::Result<Option<Schedule>> {
    select!("WHERE name = $1", name.as_str()).fetch_optional(pool).await?.map(Schedule::try_from).transpose()
}

/// Schedules that are due.
///
/// # Errors
/// Any error of the database.
pub async fn due(pool: &PgPool, now: Time) -> sqlx::Result<Vec<Schedule>> {
    let rows = select!("WHERE paused_at IS NULL AND next_run_at <= $1 ORDER BY next_run_at LIMIT $2", now, LIMIT)
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(Schedule::try_from).collect()
}

/// Locks schedules FOR UPDATE.
pub(super) async fn lock(conn: &mut PgConnection, names: &[&str]) -> sqlx::Result<Vec<Schedule>> {
    let rows = select!("WHERE name = ANY($1) ORDER BY name FOR UPDATE", names as &[&str]).fetch_all(conn).await?;
    rows.into_iter().map(Schedule::try_from).collect()
}

pub(super) async fn save(conn: &mut PgConnection, schedule: &Schedule) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.schedules (name, cron, time_zone, task, paused_at, next_run_at, last_run_at, last_task_id,
             created_at)
         VALUES ($1, $2, $3, $4::text::json, $5, $6, $7, $8, $9)
         ON CONFLICT (name) DO UPDATE
         SET cron = excluded.cron, time_zone = excluded.time_zone, task = excluded.task, paused_at = excluded.paused_at,
             next_run_at = excluded.next_run_at, last_run_at = excluded.last_run_at, last_task_id = excluded.last_task_id",
        schedule.name.as_str(),
        schedule.cron,
        schedule.time_zone,
        json_text(&schedule.task),
        schedule.paused_at,
        schedule.next_run_at,
        schedule.last_run_at,
        schedule.last_task_id,
        schedule.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete(conn: &mut PgConnection, name: &Name) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM taskwatch.schedules WHERE name = $1", name.as_str()).execute(conn).await?;
    Ok(())
}
