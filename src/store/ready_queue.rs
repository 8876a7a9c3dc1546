//! Claims: takes the first tasks of queues without waiting for locks.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use uuid::Uuid;

/// Upper bound on the duration of a transaction that inserts into `ready`: the writer's own timeouts.
const LONGEST_INSERT: Duration = Duration::from_secs(60);
/// Interval of measuring the scan start.
const FLOOR_EVERY: Duration = Duration::from_secs(5);

/// The lowest ticket that may still be in `ready`. Claims start there instead of scanning the dead index entries of all
/// earlier claims, which cannot be vacuumed while an old snapshot is open.
///
/// A ticket is assigned before its row becomes visible, so a measured value is used only once it is older than
/// [`LONGEST_INSERT`].
#[derive(Debug, Default)]
pub(super) struct ScanStart {
    ticket: i64,
    measured: VecDeque<(Instant, i64)>,
}

impl ScanStart {
    /// Takes the first `limit` tasks of the queues: by priority, then oldest first.
    pub(super) async fn take(
        &mut self,
        conn: &mut PgConnection,
        queues: &[&str],
        limit: i64,
    ) -> sqlx::Result<Vec<Uuid>> {
        self.measure(conn).await?;
        let rows = sqlx::query!(
            r#"
            -- The heads of the lines, highest priority first, twice as many as wanted: another server may have its
            -- hands on the first. Nothing is locked yet.
            WITH candidates AS MATERIALIZED (
                SELECT line.task_id, p.priority, line.ticket
                FROM generate_series(9, 0, -1) AS p (priority)
                CROSS JOIN LATERAL (
                    SELECT head.task_id, head.ticket
                    FROM unnest($1::text[]) AS q (queue)
                    CROSS JOIN LATERAL (
                        SELECT r.task_id, r.ticket FROM taskwatch.ready r
                        WHERE r.queue = q.queue AND r.priority = p.priority AND r.ticket >= $3
                        ORDER BY r.ticket LIMIT 2 * $2::bigint
                    ) head
                    ORDER BY head.ticket LIMIT 2 * $2::bigint
                ) line
                LIMIT 2 * $2::bigint
            ), chosen AS MATERIALIZED (
                SELECT r.task_id
                FROM candidates c
                JOIN taskwatch.ready r ON r.task_id = c.task_id
                JOIN taskwatch.tasks t ON t.id = c.task_id
                ORDER BY c.priority DESC, c.ticket
                LIMIT $2::bigint
                -- What another transaction holds is about to go, or comes back later: never wait for it.
                FOR NO KEY UPDATE OF r, t SKIP LOCKED
            )
            DELETE FROM taskwatch.ready USING chosen WHERE ready.task_id = chosen.task_id
            RETURNING ready.task_id, ready.priority, ready.ticket
            "#,
            queues as &[&str],
            limit,
            self.ticket
        )
        .fetch_all(conn)
        .await?;
        let mut rows: Vec<_> = rows.into_iter().map(|row| (-row.priority, row.ticket, row.task_id)).collect();
        rows.sort_unstable();
        Ok(rows.into_iter().map(|(.., id)| id).collect())
    }

    /// Like [`ScanStart::take`], with a maximum per queue: for lists with limited queues. The rows of limited queues
    /// are locked exclusively, so no other claim competes for these tasks.
    pub(super) async fn take_within(
        &mut self,
        conn: &mut PgConnection,
        rooms: &[(&str, i64)],
        limit: i64,
    ) -> sqlx::Result<Vec<(Uuid, String)>> {
        self.measure(conn).await?;
        let (queues, most): (Vec<_>, Vec<_>) = rooms.iter().copied().unzip();
        let heads = sqlx::query!(
            r#"SELECT head.task_id, head.queue FROM unnest($1::text[], $2::bigint[]) AS q (queue, room)
               CROSS JOIN generate_series(0, 9) AS p (priority)
               CROSS JOIN LATERAL (
                   SELECT r.task_id, r.queue, r.priority, r.ticket FROM taskwatch.ready r
                   WHERE r.queue = q.queue AND r.priority = p.priority AND r.ticket >= $3
                   ORDER BY r.ticket LIMIT 2 * q.room
               ) head
               ORDER BY head.priority DESC, head.ticket"#,
            &queues as &[&str],
            &most,
            self.ticket
        )
        .fetch_all(&mut *conn)
        .await?;
        let mut room: HashMap<&str, i64> = rooms.iter().copied().collect();
        let mut chosen = Vec::new();
        for head in heads {
            if let Some(room) = room.get_mut(head.queue.as_str()).filter(|room| **room > 0) {
                *room -= 1;
                chosen.push(head.task_id);
            }
        }
        chosen.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut taken = sqlx::query!(
            "WITH chosen AS MATERIALIZED (
                 SELECT r.task_id FROM taskwatch.ready r JOIN taskwatch.tasks t ON t.id = r.task_id
                 WHERE r.task_id = ANY($1) FOR NO KEY UPDATE OF r, t SKIP LOCKED
             )
             DELETE FROM taskwatch.ready USING chosen WHERE ready.task_id = chosen.task_id
             RETURNING ready.task_id, ready.queue",
            &chosen
        )
        .fetch_all(conn)
        .await?;
        let order: HashMap<_, _> = chosen.iter().enumerate().map(|(index, id)| (*id, index)).collect();
        taken.sort_by_key(|row| order.get(&row.task_id).copied());
        Ok(taken.into_iter().map(|row| (row.task_id, row.queue)).collect())
    }

    async fn measure(&mut self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let now = Instant::now();
        if self.measured.back().is_some_and(|(at, _)| now - *at < FLOOR_EVERY) {
            return Ok(());
        }
        let row = sqlx::query!(
            r#"
            -- The first ticket of each line, jumping from line to line along the index.
            WITH RECURSIVE line AS (
                (SELECT queue, priority, ticket FROM taskwatch.ready ORDER BY queue, priority, ticket LIMIT 1)
                UNION ALL
                SELECT next.* FROM line CROSS JOIN LATERAL (
                    SELECT r.queue, r.priority, r.ticket FROM taskwatch.ready r
                    WHERE (r.queue, r.priority) > (line.queue, line.priority)
                    ORDER BY r.queue, r.priority, r.ticket LIMIT 1
                ) next
            )
            SELECT min(ticket) AS lowest,
                   coalesce(pg_sequence_last_value('taskwatch.ready_ticket_seq'), 0) AS "last!"
            FROM line
            "#
        )
        .fetch_one(conn)
        .await?;
        self.measured.push_back((now, row.last));
        while self.measured.get(1).is_some_and(|(at, _)| now - *at >= LONGEST_INSERT) {
            self.measured.pop_front();
        }
        if let Some((at, last)) = self.measured.front()
            && now - *at >= LONGEST_INSERT
        {
            self.ticket = row.lowest.unwrap_or(i64::MAX).min(last + 1);
        }
        Ok(())
    }
}
