//! Rows of actions on many tasks.

use sqlx::{PgConnection, PgPool, types::Json as Sql};
use uuid::Uuid;

use super::{
    search::TaskQuery,
    tasks::{decode, json_text},
};
use crate::{
    clock::Time,
    model::{Status, bulk::BulkAction},
};

/// How an action on many tasks stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkState {
    /// Worked on.
    Running,
    /// Over.
    Done,
    /// Stopped by someone; what was done stays done.
    Cancelled,
}

impl BulkState {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Running, "running"), (Self::Done, "done"), (Self::Cancelled, "cancelled")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

/// A place in a list of tasks, newest first: what was created before it is left.
pub type Place = (Time, Uuid);

/// An action on all tasks that a filter finds.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Identity.
    pub id: Uuid,
    /// What is done to each.
    pub action: BulkAction,
    /// To which.
    pub filter: TaskQuery,
    /// Who asked.
    pub actor: String,
    /// How it stands.
    pub state: BulkState,
    /// Tasks per second at the most.
    pub pace_per_second: Option<u32>,
    /// Tasks that it was done to.
    pub succeeded: u64,
    /// Tasks that it could not be done to.
    pub failed: u64,
    /// Where the next step begins.
    pub before: Place,
    /// When the next step may be done.
    pub next_at: Time,
    /// When it was asked for.
    pub created_at: Time,
    /// When it was over.
    pub finished_at: Option<Time>,
}

impl Bulk {
    /// An action that begins now.
    #[must_use]
    pub fn new(id: Uuid, action: BulkAction, filter: TaskQuery, actor: String, now: Time) -> Self {
        Self {
            id,
            action,
            filter,
            actor,
            state: BulkState::Running,
            pace_per_second: None,
            succeeded: 0,
            failed: 0,
            before: (now, Uuid::max()),
            next_at: now,
            created_at: now,
            finished_at: None,
        }
    }

    /// The same done to the tasks below some parents.
    #[must_use]
    pub fn of_family(id: Uuid, action: &BulkAction, parents: Vec<Uuid>, actor: String, now: Time) -> Self {
        let action = action.for_family();
        let statuses = match action {
            BulkAction::Cancel { .. } => Status::ALL.into_iter().filter(|status| !status.is_finished()).collect(),
            BulkAction::RetryFamily => vec![Status::Failed, Status::Cancelled],
            _ => Vec::new(),
        };
        Self::new(id, action, TaskQuery { parents, statuses, ..TaskQuery::default() }, actor, now)
    }
}

/// One step of an action, found by any server; done only if the action is still at the place it begins with.
#[derive(Debug, Clone)]
pub struct BulkStep {
    /// Of which action.
    pub id: Uuid,
    /// Where it begins.
    pub from: Place,
    /// The tasks found.
    pub ids: Vec<Uuid>,
    /// They are to run again, and may have to wait for others first.
    pub retries: bool,
    /// What is done to the tasks below them, when that was asked for.
    pub family: Option<Box<Bulk>>,
    /// Where the next begins; nothing when this is the last.
    pub to: Option<Place>,
}

struct Row {
    id: Uuid,
    action: Sql<BulkAction>,
    filter: Sql<TaskQuery>,
    actor: String,
    state: String,
    pace_per_second: Option<i32>,
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
        let state = BulkState::ALL.into_iter().find(|(_, word)| *word == row.state);
        Ok(Self {
            id: row.id,
            action: row.action.0,
            filter: row.filter.0,
            actor: row.actor,
            state: state.map(|(state, _)| state).ok_or_else(|| decode("unknown state of a bulk action"))?,
            pace_per_second: row.pace_per_second.and_then(|pace| u32::try_from(pace).ok()),
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
            r#"SELECT id, action AS "action: _", filter AS "filter: _", actor, state, pace_per_second, succeeded, failed,
                   before_at, before_id, next_at, created_at, finished_at
               FROM taskwatch.bulk_actions "# + $tail
            $(, $arg)*
        )
    };
}

/// The newest actions.
///
/// # Errors
/// When the database does not answer.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Bulk>> {
    let rows = select!("ORDER BY created_at DESC LIMIT 100").fetch_all(pool).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

/// One action.
///
/// # Errors
/// When the database does not answer.
pub async fn one(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Bulk>> {
    select!("WHERE id = $1", id).fetch_optional(pool).await?.map(Bulk::try_from).transpose()
}

/// Actions with a step to be done.
///
/// # Errors
/// When the database does not answer.
pub async fn due(pool: &PgPool, now: Time) -> sqlx::Result<Vec<Bulk>> {
    let rows =
        select!("WHERE state = 'running' AND next_at <= $1 ORDER BY next_at LIMIT 8", now).fetch_all(pool).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

/// Actions to change, held alone.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Bulk>> {
    let rows = select!("WHERE id = ANY($1) ORDER BY id FOR UPDATE", ids).fetch_all(conn).await?;
    rows.into_iter().map(Bulk::try_from).collect()
}

pub(super) async fn save(conn: &mut PgConnection, bulk: &Bulk) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.bulk_actions (id, action, filter, actor, state, pace_per_second, succeeded, failed, before_at,
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
        bulk.state.word(),
        bulk.pace_per_second.and_then(|pace| i32::try_from(pace).ok()),
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
