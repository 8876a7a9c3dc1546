//! Finds tasks that can never make progress; runs periodically. Reads only.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use sqlx::PgPool;
use uuid::Uuid;

use super::values::name;
use crate::{
    clock::Time,
    model::{
        Name,
        stuck::{self, Stuck},
    },
};

/// Dependency rows examined, oldest first: enough to find long-blocked tasks, and bounded.
const RELATIONS: i64 = 100_000;
/// Parents examined.
const GROUPS: i64 = 1_000;
/// Grace period for a parent without children: they are created after it.
const NO_CHILDREN_GRACE: TimeDelta = TimeDelta::seconds(60);

/// Result of a search for stuck tasks.
#[derive(Debug, Default)]
pub struct Found {
    /// Tasks that need an operator; root causes first, truncated to the requested number.
    pub stuck: Vec<Stuck>,
    /// Total number of them.
    pub total: usize,
    /// Tasks that only need re-evaluation.
    pub forgotten: Vec<Uuid>,
}

/// Finds tasks that can never make progress, and tasks whose re-evaluation was missed.
///
/// # Errors
/// Any error of the database.
pub async fn find(pool: &PgPool, now: Time, most: usize) -> sqlx::Result<Found> {
    let groups = idle_groups(pool).await?;
    let waits = waits(pool).await?;
    let childless = groups.iter().filter(|group| !group.had_children && group.created_at <= now - NO_CHILDREN_GRACE);
    let childless: HashSet<_> = childless.map(|group| group.id).collect();
    let emptied = groups.iter().filter(|group| group.may_go_on).map(|group| group.id);
    let mut forgotten: Vec<_> = emptied.collect();
    forgotten.extend(dangling(pool).await?);
    let mut all = stuck::stuck(&waits, &childless);
    let total = all.len();
    all.truncate(most);
    let ids: Vec<_> = all.iter().map(|(id, ..)| *id).collect();
    let mut names = names(pool, &ids).await?;
    let named = all.into_iter().filter_map(|(task_id, reason, on)| {
        let (task_type, project_id) = names.remove(&task_id)?;
        Some(Stuck { task_id, project_id: Some(project_id), task_type, reason, on })
    });
    Ok(Found { stuck: named.collect(), total, forgotten })
}

struct Group {
    id: Uuid,
    created_at: Time,
    had_children: bool,
    may_go_on: bool,
}

/// `auto_complete` parents in progress without unfinished children.
async fn idle_groups(pool: &PgPool) -> sqlx::Result<Vec<Group>> {
    sqlx::query_as!(
        Group,
        r#"SELECT p.id, p.created_at, p.is_parent AS had_children,
               p.is_parent AND NOT EXISTS (SELECT 1 FROM taskwatch.rechecks r WHERE r.task_id = p.id)
                   -- An action in the background may be about to run its children again.
                   AND NOT EXISTS (SELECT 1 FROM taskwatch.bulk_actions WHERE state = 'running') AS "may_go_on!"
           FROM taskwatch.tasks p
           WHERE p.auto_complete AND p.status IN ('blocked', 'running') AND NOT EXISTS
               (SELECT 1 FROM taskwatch.phases f WHERE f.parent_task_id = p.id AND f.pending + f.running > 0)
           ORDER BY p.created_at LIMIT $1"#,
        GROUPS
    )
    .fetch_all(pool)
    .await
}

/// Wait-for graph of blocked tasks and parents, limited to nodes that are waiting themselves.
async fn waits(pool: &PgPool) -> sqlx::Result<HashMap<Uuid, Vec<Uuid>>> {
    let rows = sqlx::query!(
        r#"WITH relations AS (SELECT d.task_id, d.depends_on FROM taskwatch.dependents d LIMIT $1)
           SELECT d.task_id AS "waiter!", d.depends_on AS "awaited!"
           FROM relations d JOIN taskwatch.tasks t ON t.id = d.depends_on
           WHERE t.status = 'blocked' OR t.auto_complete AND t.status = 'running'
           UNION
           SELECT p.id, t.id FROM relations d
               JOIN taskwatch.tasks t ON t.id = d.task_id JOIN taskwatch.tasks p ON p.id = t.parent_task_id
           WHERE p.auto_complete AND p.status IN ('blocked', 'running')
           UNION
           SELECT p.id, t.id FROM (SELECT g.id, g.parent_task_id FROM taskwatch.tasks g
                   WHERE g.auto_complete AND g.status IN ('blocked', 'running') LIMIT $1) AS t
               JOIN taskwatch.tasks p ON p.id = t.parent_task_id
           WHERE p.auto_complete AND p.status IN ('blocked', 'running')"#,
        RELATIONS
    )
    .fetch_all(pool)
    .await?;
    let mut waits: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        waits.entry(row.waiter).or_default().push(row.awaited);
    }
    Ok(waits)
}

/// Blocked tasks with a dependency that was deleted or did not complete.
async fn dangling(pool: &PgPool) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT d.task_id AS "id!" FROM (SELECT * FROM taskwatch.dependents LIMIT $1) AS d
           JOIN taskwatch.tasks w ON w.id = d.task_id LEFT JOIN taskwatch.tasks t ON t.id = d.depends_on
           WHERE w.on_dependency_failure <> 'ignore' AND (t.id IS NULL OR t.status IN ('failed', 'cancelled'))
               AND NOT EXISTS (SELECT 1 FROM taskwatch.rechecks r WHERE r.task_id = d.task_id)
           LIMIT 500"#,
        RELATIONS
    )
    .fetch_all(pool)
    .await
}

/// Task type and project of each task.
async fn names(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, (Name, Name)>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!("SELECT id, task_type, project_id FROM taskwatch.tasks WHERE id = ANY($1)", ids);
    let rows = rows.fetch_all(pool).await?;
    rows.into_iter().map(|row| Ok((row.id, (name(&row.task_type)?, name(&row.project_id)?)))).collect()
}
