//! Tasks named by what people paste: a unique key, the ID in another system, the short ID of pages.

use sqlx::PgPool;
use uuid::Uuid;

/// Newest tasks searched for what has no index.
const NEWEST: i64 = 10_000;
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

/// Tasks with this unique key, or with this ID in another system, newest first.
///
/// # Errors
/// Any error of the database.
pub async fn with_key(pool: &PgPool, key: &str) -> sqlx::Result<Vec<Named>> {
    let mut found = sqlx::query_as!(
        Named,
        r#"SELECT id AS "id!", is_parent AS "is_parent!", task_type AS "task_type!", title FROM (
               (SELECT * FROM taskwatch.tasks WHERE unique_key = $1 ORDER BY created_at DESC, id DESC LIMIT $2)
               UNION ALL
               (SELECT * FROM taskwatch.tasks WHERE external_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2)
           ) AS found ORDER BY created_at DESC, id DESC LIMIT $2"#,
        key,
        MOST
    )
    .fetch_all(pool)
    .await?;
    found.dedup_by_key(|task| task.id);
    Ok(found)
}

/// Among the newest tasks those whose ID ends with these 8 digits, as pages show it; newest first.
///
/// # Errors
/// Any error of the database, including the statement timeout for searches.
pub async fn among_newest(pool: &PgPool, text: &str) -> sqlx::Result<Vec<Named>> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        Named,
        "SELECT id, is_parent, task_type, title FROM (
             SELECT id, is_parent, task_type, title FROM taskwatch.tasks ORDER BY created_at DESC, id DESC LIMIT $2
         ) AS newest
         WHERE right(id::text, 8) = lower($1) LIMIT $3",
        text,
        NEWEST,
        MOST
    )
    .fetch_all(pool)
    .await
}
