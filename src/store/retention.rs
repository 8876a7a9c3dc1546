//! Retention of events and tasks: events are removed by partition, everything else in small steps, never under a long
//! lock.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::{Store, checkpoints, log};
use crate::clock::Time;

/// Events removed per statement where a partition cannot be dropped as a whole yet.
const STEP: i64 = 2_000;
/// Maximum number of such statements per round.
const STEPS: usize = 10;
/// Tasks removed per command.
const TASKS: i64 = 200;
/// Lock timeout for detaching a partition; the next round retries.
const LOCK: &str = "SET lock_timeout = '2s'";
/// Pause between statements, to give way to other work.
const BREATH: Duration = Duration::from_millis(20);

/// Finished tasks older than `before`, oldest first.
///
/// # Errors
/// Any error of the database.
pub async fn old_tasks(pool: &PgPool, before: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.tasks
         t WHERE created_at < $1 AND finished_at < $1 AND status IN ('completed', 'failed', 'cancelled')
             -- What others still wait for, or are counted with, stays as long as they do.
             AND NOT EXISTS (SELECT 1 FROM taskwatch.dependents d WHERE d.depends_on = t.id)
             AND NOT EXISTS (SELECT 1 FROM taskwatch.tasks p
                 WHERE p.id = t.parent_task_id AND p.auto_complete AND p.finished_at IS NULL)
         ORDER BY created_at, id LIMIT $2",
        before,
        TASKS
    )
    .fetch_all(pool)
    .await
}

/// Removes workers that stopped before a time, and bulk actions that finished before it.
///
/// # Errors
/// Any error of the database.
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

/// One round: removes the events announced by the previous round, then announces those older than `before`. In between,
/// readers learn the new oldest position. Events not covered by the newest checkpoint of the board are not announced,
/// nor is the newest event. Returns true if a newer checkpoint would allow more to be removed.
///
/// # Errors
/// Any error of the database, including a lock timeout.
pub async fn events(store: &Store, before: Time, version: i32) -> sqlx::Result<bool> {
    let mut conn = store.connect().await?;
    // One server at a time; others have nothing to do.
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

/// The first position whose event is not older than a time. Binary search: times increase with positions.
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

/// Removes events below the oldest position.
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
            // Concurrently with the writers: neither blocks the other. FINALIZE completes a detach that an earlier
            // round started.
            let how = if partition.leaving { "FINALIZE" } else { "CONCURRENTLY" };
            let detach = format!("ALTER TABLE taskwatch.events DETACH PARTITION taskwatch.{} {how}", partition.name);
            sqlx::raw_sql(sqlx::AssertSqlSafe(detach)).execute(&mut *conn).await?;
            let drop = format!("DROP TABLE taskwatch.{}", partition.name);
            sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut *conn).await?;
            tracing::info!(partition = partition.name, "dropped expired event partition");
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
