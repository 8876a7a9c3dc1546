//! The board at some positions, so that a start needs only the events since.

use sqlx::{PgConnection, PgPool};

use crate::clock::Time;

/// Checkpoints kept.
const KEEP: i64 = 4;

/// A board's encoding and the position it stands for.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The last event folded in.
    pub position: i64,
    /// The board as JSON.
    pub body: String,
}

/// The newest checkpoint of an encoding version.
///
/// # Errors
/// When the database does not answer.
pub async fn newest(pool: &PgPool, version: i32) -> sqlx::Result<Option<Checkpoint>> {
    sqlx::query_as!(
        Checkpoint,
        "SELECT position, body FROM taskwatch.checkpoints WHERE version = $1 ORDER BY position DESC LIMIT 1",
        version
    )
    .fetch_optional(pool)
    .await
}

/// The oldest checkpoint of an encoding version at or behind a position.
pub(super) async fn oldest_since(
    conn: &mut PgConnection,
    version: i32,
    position: i64,
) -> sqlx::Result<Option<Checkpoint>> {
    sqlx::query_as!(
        Checkpoint,
        "SELECT position, body FROM taskwatch.checkpoints WHERE version = $1 AND position >= $2 ORDER BY position LIMIT 1",
        version,
        position
    )
    .fetch_optional(conn)
    .await
}

/// Stores a checkpoint and removes all but the newest few.
///
/// # Errors
/// When the database does not answer.
pub async fn save(pool: &PgPool, checkpoint: &Checkpoint, version: i32, now: Time) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.checkpoints (position, version, at, body) VALUES ($1, $2, $3, $4)
         ON CONFLICT (position) DO UPDATE SET version = excluded.version, at = excluded.at, body = excluded.body",
        checkpoint.position,
        version,
        now,
        checkpoint.body
    )
    .execute(pool)
    .await?;
    sqlx::query!(
        "DELETE FROM taskwatch.checkpoints
         WHERE position < (SELECT min(position) FROM
             (SELECT position FROM taskwatch.checkpoints ORDER BY position DESC LIMIT $1) newest)",
        KEEP
    )
    .execute(pool)
    .await?;
    Ok(())
}
