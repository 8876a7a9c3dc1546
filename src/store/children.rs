//! Children counted per phase, in the transaction that changes them.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::tasks::name;
use crate::{
    clock::Time,
    model::{Name, Status, Task, phase::Counts},
};

/// Phases of a parent; further children count among those without one.
const MOST_PHASES: usize = 200;

/// Children that name no phase.
pub(super) const NO_PHASE: &str = "-";

/// What a batch changes about the children of parents.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Counts before the batch, of those parents that it needs to know.
    pub(super) stored: HashMap<Uuid, BTreeMap<Name, Counts>>,
    deltas: BTreeMap<(Uuid, Name), Delta>,
}

#[derive(Debug, Default)]
struct Delta {
    pending: i64,
    running: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
    /// The project of the children, which the phase's events name.
    project_id: Option<Name>,
}

impl Delta {
    const fn slot(&mut self, status: Status) -> &mut i64 {
        match status {
            Status::Scheduled | Status::Blocked | Status::Pending | Status::Retrying => &mut self.pending,
            Status::Running => &mut self.running,
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Cancelled => &mut self.cancelled,
        }
    }
}

/// A phase that began or ended.
pub(super) struct Turn {
    pub(super) parent_task_id: Uuid,
    pub(super) name: Name,
    pub(super) project_id: Option<Name>,
    pub(super) counts: Counts,
    /// The first child left the line, for the first time.
    pub(super) starts: bool,
    /// All children known are finished, for the first time.
    pub(super) completes: bool,
    pub(super) started_at: Option<Time>,
    /// Its group may start, close or open again.
    pub(super) concerns_group: bool,
}

impl Children {
    /// A child is in one state after another, or under another parent.
    pub(super) fn moves(&mut self, before: Option<&Task>, after: Option<&Task>) {
        let place = |task: &Task| Some((task.parent_task_id?, task.phase.clone(), task.status));
        if before.and_then(place) == after.and_then(place) {
            return;
        }
        for (task, by) in [(before, -1), (after, 1)] {
            let Some(task) = task else { continue };
            let Some(parent) = task.parent_task_id else { continue };
            let phase = task.phase.clone().unwrap_or_else(|| Name::literal(NO_PHASE));
            let delta = self.deltas.entry((parent, phase)).or_default();
            *delta.slot(task.status) += by;
            delta.project_id = Some(task.project_id.clone());
        }
    }

    /// The children of a parent by phase, with what the batch did so far. The stored counts must be loaded.
    pub(super) fn of(&self, parent: Uuid) -> BTreeMap<Name, Counts> {
        let mut counts = self.stored.get(&parent).cloned().unwrap_or_default();
        let all = (parent, Name::literal("\u{20}"))..;
        for ((_, phase), delta) in self.deltas.range(all).take_while(|((id, _), _)| *id == parent) {
            let counts = counts.entry(phase.clone()).or_default();
            let add = |count: &mut u64, by: i64| *count = count.saturating_add_signed(by);
            add(&mut counts.pending, delta.pending);
            add(&mut counts.running, delta.running);
            add(&mut counts.completed, delta.completed);
            add(&mut counts.failed, delta.failed);
            add(&mut counts.cancelled, delta.cancelled);
        }
        counts.retain(|_, counts| counts.total() > 0);
        counts
    }

    /// A parent has this phase already, or may get one more. The stored counts must be loaded.
    pub(super) fn has_room_for(&self, parent: Uuid, phase: &Name) -> bool {
        let stored = self.stored.get(&parent);
        if self.deltas.contains_key(&(parent, phase.clone())) || stored.is_some_and(|names| names.contains_key(phase)) {
            return true;
        }
        let all = (parent, Name::literal("\u{20}"))..;
        let new = self.deltas.range(all).take_while(|((id, _), _)| *id == parent);
        let new = new.filter(|((_, name), _)| stored.is_none_or(|names| !names.contains_key(name)));
        stored.map_or(0, BTreeMap::len) + new.count() < MOST_PHASES
    }

    /// Reads the counts of some parents.
    pub(super) async fn load(&mut self, conn: &mut PgConnection, parents: &[Uuid]) -> sqlx::Result<()> {
        let rows = sqlx::query!(
            "SELECT parent_task_id, name, pending, running, completed, failed, cancelled FROM taskwatch.phases
             WHERE parent_task_id = ANY($1)",
            parents
        )
        .fetch_all(conn)
        .await?;
        for row in rows {
            let counts = counts([row.pending, row.running, row.completed, row.failed, row.cancelled]);
            self.stored.entry(row.parent_task_id).or_default().insert(name(&row.name)?, counts);
        }
        Ok(())
    }

    /// Writes the counts, and tells which phases began or ended by that. Each is told once: the row remembers it.
    pub(super) async fn save(mut self, conn: &mut PgConnection, now: Time) -> sqlx::Result<Vec<Turn>> {
        self.deltas.retain(|_, d| [d.pending, d.running, d.completed, d.failed, d.cancelled].iter().any(|by| *by != 0));
        if self.deltas.is_empty() {
            return Ok(Vec::new());
        }
        let column = |of: fn(&Delta) -> i64| self.deltas.values().map(of).collect::<Vec<_>>();
        let (parents, names): (Vec<_>, Vec<_>) = self.deltas.keys().map(|(id, name)| (*id, name.as_str())).unzip();
        // In the order of the keys, so that two writers never wait for each other in a ring.
        let rows = sqlx::query!(
            r#"INSERT INTO taskwatch.phases AS old (parent_task_id, name, pending, running, completed, failed, cancelled)
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                   $7::bigint[])
               ON CONFLICT (parent_task_id, name) DO UPDATE
               SET pending = old.pending + excluded.pending, running = old.running + excluded.running,
                   completed = old.completed + excluded.completed, failed = old.failed + excluded.failed,
                   cancelled = old.cancelled + excluded.cancelled
               RETURNING parent_task_id, name, pending, running, completed, failed, cancelled, started_at, completed_at"#,
            &parents,
            &names as &[&str],
            &column(|d| d.pending),
            &column(|d| d.running),
            &column(|d| d.completed),
            &column(|d| d.failed),
            &column(|d| d.cancelled),
        )
        .fetch_all(&mut *conn)
        .await?;
        let (mut turns, mut left) = (Vec::new(), false);
        for row in rows {
            let name = name(&row.name)?;
            let Some(delta) = self.deltas.get(&(row.parent_task_id, name.clone())) else { continue };
            let counts = counts([row.pending, row.running, row.completed, row.failed, row.cancelled]);
            let old = self::counts([
                row.pending - delta.pending,
                row.running - delta.running,
                row.completed - delta.completed,
                row.failed - delta.failed,
                row.cancelled - delta.cancelled,
            ]);
            left |= counts.total() == 0;
            let turn = Turn {
                parent_task_id: row.parent_task_id,
                name,
                project_id: delta.project_id.clone(),
                counts,
                starts: has_begun(&counts) && row.started_at.is_none(),
                completes: is_done(&counts) && row.completed_at.is_none(),
                started_at: row.started_at,
                concerns_group: sides(&counts) != sides(&old),
            };
            if turn.starts || turn.completes || turn.concerns_group {
                turns.push(turn);
            }
        }
        mark(conn, &turns, now).await?;
        if left {
            forget(conn, &self.deltas).await?;
        }
        Ok(turns)
    }
}

/// Counts as a row has them: pending, running, completed, failed, cancelled.
pub(super) fn counts(row: [i64; 5]) -> Counts {
    let [pending, running, completed, failed, cancelled] = row.map(|number| u64::try_from(number).unwrap_or_default());
    Counts { pending, running, completed, failed, cancelled }
}

const fn has_begun(counts: &Counts) -> bool {
    counts.running + counts.finished() > 0
}

/// What a group goes by: some began, all are done, some are open.
const fn sides(counts: &Counts) -> (bool, bool, bool) {
    (has_begun(counts), is_done(counts), counts.finished() < counts.total())
}

const fn is_done(counts: &Counts) -> bool {
    counts.total() > 0 && counts.finished() == counts.total()
}

/// Forgets phases whose last child was deleted.
async fn forget(conn: &mut PgConnection, deltas: &BTreeMap<(Uuid, Name), Delta>) -> sqlx::Result<()> {
    let (parents, names): (Vec<_>, Vec<_>) = deltas.keys().map(|(id, name)| (*id, name.as_str())).unzip();
    sqlx::query!(
        "DELETE FROM taskwatch.phases p USING unnest($1::uuid[], $2::text[]) AS left_by (parent_task_id, name)
         WHERE p.parent_task_id = left_by.parent_task_id AND p.name = left_by.name
             AND p.pending + p.running + p.completed + p.failed + p.cancelled = 0",
        &parents,
        &names as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn mark(conn: &mut PgConnection, turns: &[Turn], now: Time) -> sqlx::Result<()> {
    let told: Vec<_> = turns.iter().filter(|turn| turn.starts || turn.completes).collect();
    if told.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE taskwatch.phases p
         SET started_at = CASE WHEN new.starts THEN $5 ELSE p.started_at END,
             completed_at = CASE WHEN new.completes THEN $5 ELSE p.completed_at END
         FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::boolean[]) AS new (parent_task_id, name, starts, completes)
         WHERE p.parent_task_id = new.parent_task_id AND p.name = new.name",
        &told.iter().map(|turn| turn.parent_task_id).collect::<Vec<_>>(),
        &told.iter().map(|turn| turn.name.as_str()).collect::<Vec<_>>() as &[&str],
        &told.iter().map(|turn| turn.starts).collect::<Vec<_>>(),
        &told.iter().map(|turn| turn.completes).collect::<Vec<_>>(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Has groups looked at again whose children began, ended or began anew.
pub(super) async fn recheck_groups(conn: &mut PgConnection, turns: &[Turn]) -> sqlx::Result<()> {
    let parents: Vec<_> = turns.iter().filter(|turn| turn.concerns_group).map(|turn| turn.parent_task_id).collect();
    if parents.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO taskwatch.rechecks (task_id)
         SELECT id FROM taskwatch.tasks WHERE id = ANY($1) AND close_when_done",
        &parents
    )
    .execute(conn)
    .await?;
    Ok(())
}
