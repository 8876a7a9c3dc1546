//! Old events and tasks leave: events by whole partitions, the rest in small steps, never under a long lock.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::{Store, checkpoints, log};
use crate::clock::Time;

/// Events removed in one statement, where a whole partition cannot go yet.
const STEP: i64 = 2_000;
/// Such statements in one round.
const STEPS: usize = 10;
/// Tasks removed in one command.
const TASKS: i64 = 200;
/// How long the catalogue change of a partition may wait for its lock; it is tried again in the next round.
const LOCK: &str = "SET lock_timeout = '2s'";
/// Pause between statements, so that others come first.
const BREATH: Duration = Duration::from_millis(20);

/// Finished tasks that may go, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn old_tasks(pool: &PgPool, before: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.tasks
         t WHERE created_at < $1 AND finished_at < $1 AND status IN ('completed', 'failed', 'cancelled')
             -- What others still wait for, or are counted with, stays as long as they do.
             AND NOT EXISTS (SELECT 1 FROM taskwatch.dependents d WHERE d.depends_on = t.id)
             AND NOT EXISTS (SELECT 1 FROM taskwatch.tasks p
                 WHERE p.id = t.parent_task_id AND p.close_when_done AND p.finished_at IS NULL)
         ORDER BY created_at, id LIMIT $2",
        before,
        TASKS
    )
    .fetch_all(pool)
    .await
}

/// Removes workers that left long ago, and what is known of actions that were over by then.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(pool: &PgPool, before: Time) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM taskwatch.workers w WHERE status IN ('stopped', 'lost') AND stopped_at < $1
         AND NOT EXISTS (SELECT 1 FROM taskwatch.leases l WHERE l.worker_id = w.id)",
        before
    )
    .execute(pool)
    .await?;
    sqlx::query!("DELETE FROM taskwatch.bulk_actions WHERE state <> 'running' AND finished_at < $1", before)
        .execute(pool)
        .await?;
    Ok(())
}

/// One round: removes the events that the round before announced to go, then announces those older than `before`. Whoever
/// reads learns the oldest position kept in between. Nothing is announced that the newest checkpoint of the board does not
/// cover, nor the newest event. True when a newer checkpoint would let more go.
///
/// # Errors
/// When the database does not answer, or a lock was not free in time.
pub async fn events(store: &Store, before: Time, version: i32) -> sqlx::Result<bool> {
    let mut conn = store.connect().await?;
    // One server at a time; the others have nothing to add.
    let alone = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(2954718240671830551) AS "alone!""#)
        .fetch_one(&mut conn)
        .await?;
    let done = if alone { round(&mut conn, store.pool(), before, version).await } else { Ok(false) };
    conn.close().await?;
    done
}

async fn round(conn: &mut PgConnection, pool: &PgPool, before: Time, version: i32) -> sqlx::Result<bool> {
    let ends = log::ends(&mut *conn).await?;
    sqlx::query(LOCK).execute(&mut *conn).await?;
    remove(conn, ends).await?;
    let covered = checkpoints::newest(pool, version, i64::MAX).await?.map_or(0, |checkpoint| checkpoint.position + 1);
    let old = first_since(conn, ends, before).await?.min(ends.head);
    let wanted = old.min(covered);
    if wanted > ends.oldest {
        sqlx::query!("UPDATE taskwatch.log SET oldest = $1 WHERE oldest < $1", wanted).execute(conn).await?;
    }
    Ok(covered < old)
}

/// The first position whose event is not older than a moment, found by halving: times rise with positions.
async fn first_since(conn: &mut PgConnection, ends: log::Ends, before: Time) -> sqlx::Result<i64> {
    let (mut low, mut high) = (ends.oldest, ends.head + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = sqlx::query_scalar!("SELECT at FROM taskwatch.events WHERE position = $1", middle)
            .fetch_optional(&mut *conn)
            .await?;
        if at.is_some_and(|at| at >= before) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Removes what lies below the oldest position kept.
async fn remove(conn: &mut PgConnection, ends: log::Ends) -> sqlx::Result<()> {
    let partitions = sqlx::query!(
        r#"SELECT c.relname::text AS "name!",
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''?(\d+)')::bigint AS "first!",
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''?(\d+)')::bigint AS "end!",
               i.inhdetachpending AS "leaving!"
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = 'taskwatch.events'::regclass ORDER BY 2"#
    )
    .fetch_all(&mut *conn)
    .await?;
    for partition in partitions {
        if partition.end <= ends.oldest {
            // Beside the writers: neither waits for the other. A round that was cut off between the two is finished here.
            let how = if partition.leaving { "FINALIZE" } else { "CONCURRENTLY" };
            let detach = format!("ALTER TABLE taskwatch.events DETACH PARTITION taskwatch.{} {how}", partition.name);
            sqlx::raw_sql(sqlx::AssertSqlSafe(detach)).execute(&mut *conn).await?;
            let drop = format!("DROP TABLE taskwatch.{}", partition.name);
            sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut *conn).await?;
            tracing::info!(partition = partition.name, "old events were removed");
        } else if partition.first < ends.oldest {
            return trim(conn, partition.first, ends.oldest).await;
        }
    }
    Ok(())
}

/// Removes the beginning of a partition, in small steps.
async fn trim(conn: &mut PgConnection, first: i64, oldest: i64) -> sqlx::Result<()> {
    for _ in 0..STEPS {
        let done = sqlx::query!(
            "DELETE FROM taskwatch.events WHERE position >= $1 AND position < $2 AND position < $3 +
                 (SELECT min(position) FROM taskwatch.events WHERE position >= $1 AND position < $2)",
            first,
            oldest,
            STEP
        )
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            break;
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}
