//! Tasks named by what people paste: a unique key, the ID in another system, the short ID of pages.

use sqlx::PgPool;
use uuid::Uuid;

/// Newest tasks searched for what has no index.
const NEWEST: i64 = 50_000;
/// Maximum number of tasks found.
const MOST: i64 = 20;

/// A task that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The task.
    pub id: Uuid,
    /// It has a page as a parent.
    pub is_parent: bool,
    /// Its task type.
    pub task_type: String,
    /// Its title.
    pub title: Option<String>,
}

/// Unfinished tasks with a unique key.
///
/// # Errors
/// Any error of the database.
pub async fn with_key(pool: &PgPool, key: &str) -> sqlx::Result<Vec<Named>> {
    sqlx::query_as!(
        Named,
        "SELECT id, is_parent, task_type, title FROM taskwatch.tasks
         WHERE unique_key = $1 AND status NOT IN ('completed', 'failed', 'cancelled') LIMIT $2",
        key,
        MOST
    )
    .fetch_all(pool)
    .await
}

/// Among the newest tasks those with this unique key, this ID in another system, or whose ID ends with these 8 digits;
/// newest first.
///
/// # Errors
/// Any error of the database, including the statement timeout for searches.
pub async fn among_newest(pool: &PgPool, text: &str) -> sqlx::Result<Vec<Named>> {
    sqlx::query_as!(
        Named,
        "SELECT id, is_parent, task_type, title FROM (
             SELECT id, is_parent, task_type, title, unique_key, external_id FROM taskwatch.tasks
             ORDER BY created_at DESC, id DESC LIMIT $2) AS newest
         WHERE unique_key = $1 OR external_id = $1 OR right(id::text, 8) = lower($1) LIMIT $3",
        text,
        NEWEST,
        MOST
    )
    .fetch_all(pool)
    .await
}
