//! Checkpoints of the board, so that a start only has to fold the events since the newest one.

use sqlx::{PgConnection, PgExecutor};

use crate::{clock::Time, event::envelope::Epoch};

/// Number of newest checkpoints kept.
const KEPT_CHECKPOINTS: i64 = 4;
/// Distance in positions between older checkpoints that are kept for time travel.
pub const SPACING: i64 = 100_000;

/// An encoded board and its position.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The last event folded in.
    pub position: i64,
    /// The board as JSON.
    pub body: String,
}

/// The newest checkpoint of an encoding version at or before a position.
///
/// # Errors
/// Any error of the database.
pub async fn newest(db: impl PgExecutor<'_>, version: i32, position: i64) -> sqlx::Result<Option<Checkpoint>> {
    sqlx::query_as!(
        Checkpoint,
        "SELECT position, body FROM taskwatch.checkpoints WHERE version = $1 AND position <= $2
         ORDER BY position DESC LIMIT 1",
        version,
        position
    )
    .fetch_optional(db)
    .await
}

/// The oldest checkpoint of an encoding version at or after a position.
///
/// # Errors
/// Any error of the database.
pub async fn oldest_since(conn: impl PgExecutor<'_>, version: i32, position: i64) -> sqlx::Result<Option<Checkpoint>> {
    sqlx::query_as!(
        Checkpoint,
        "SELECT position, body FROM taskwatch.checkpoints WHERE version = $1 AND position >= $2 ORDER BY position LIMIT 1",
        version,
        position
    )
    .fetch_optional(conn)
    .await
}

/// Stores a checkpoint and prunes others. Kept are the newest few and, for time travel, the first of each [`SPACING`]
/// positions and of each six hours that are still in the log. Does nothing if the epoch of the log is no longer that of
/// the board.
///
/// # Errors
/// Any error of the database.
pub async fn save(
    conn: &mut PgConnection,
    checkpoint: &Checkpoint,
    version: i32,
    (epoch, now): (Epoch, Time),
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.checkpoints (position, version, at, body)
         SELECT $1, $2, $3, $4 FROM taskwatch.log WHERE epoch = $5
             AND EXISTS (SELECT 1 FROM taskwatch.events e WHERE e.position = $1)
         ON CONFLICT (position) DO UPDATE SET version = excluded.version, at = excluded.at, body = excluded.body",
        checkpoint.position,
        version,
        now,
        checkpoint.body,
        epoch.to_string()
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM taskwatch.checkpoints c
         WHERE c.position < (SELECT min(position) FROM
                 (SELECT position FROM taskwatch.checkpoints ORDER BY position DESC LIMIT $1) newest)
             AND (c.version <> $2 OR c.position < (SELECT oldest - 1 FROM taskwatch.log)
                 OR EXISTS (SELECT 1 FROM taskwatch.checkpoints e WHERE e.version = c.version
                     AND e.position < c.position AND e.position / $3 = c.position / $3
                     AND date_bin('6 hours', e.at, 'epoch') = date_bin('6 hours', c.at, 'epoch')))",
        KEPT_CHECKPOINTS,
        version,
        SPACING
    )
    .execute(conn)
    .await?;
    Ok(())
}
