//! Locks and loads the rows that a batch of commands needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{bulk, children, dependencies, queues, ready_queue::ScanStart, schedules, tasks, workers, writer::Pending};
use crate::{
    clock::Time,
    command::{LockSet, Workspace, WriterPolicy, claim_tasks::Allowance, lock_set::ClaimRequest},
    model::{Name, Task, worker::Worker},
};

/// Locks and loads the rows that the commands need. Lock order, against deadlocks: tasks by ID, workers by ID, queues
/// by name; claimed tasks last, with SKIP LOCKED.
pub(super) async fn load(
    conn: &mut PgConnection,
    scan: &mut ScanStart,
    policy: WriterPolicy,
    commands: &[Box<dyn Pending>],
    now: Time,
) -> sqlx::Result<Workspace> {
    let mut workspace = Workspace::new(policy, now);
    let mut locks = LockSet::default();
    commands.iter().for_each(|command| command.locks(&mut locks));
    load_retried(conn, &mut locks).await?;
    if !locks.holders.is_empty() {
        workspace.load_held(workers::held(conn, &locks.holders).await?);
    }
    load_tasks(conn, &locks, &mut workspace).await?;
    load_nesting(conn, &locks, &mut workspace).await?;
    load_waiters(conn, commands, &mut workspace).await?;
    load_workers(conn, &locks, &mut workspace).await?;
    load_operators(conn, &locks, &mut workspace).await?;
    load_queues(conn, &locks, &mut workspace).await?;
    let claimed = take(conn, scan, &locks.claims, &mut workspace).await?;
    if !claimed.is_empty() {
        workspace.load_tasks(tasks::load(conn, &claimed, &claimed).await?);
    }
    Ok(workspace)
}

/// Locks what retried tasks depend on: their ancestors, which may be reopened with them, and their dependencies. Locks
/// the dependency graph if it may change.
async fn load_retried(conn: &mut PgConnection, locks: &mut LockSet) -> sqlx::Result<()> {
    if !locks.retried.is_empty() {
        locks.tasks.extend(tasks::ancestors(conn, &locks.retried).await?.into_values());
    }
    if !locks.graph && !locks.retried.is_empty() {
        locks.graph = !tasks::dependencies(conn, &locks.retried).await?.is_empty();
    }
    if locks.graph {
        dependencies::lock_graph(conn).await?;
        locks.tasks.extend(tasks::dependencies(conn, &locks.retried).await?);
    }
    Ok(())
}

async fn load_tasks(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    let mut locked: BTreeSet<_> = locks.tasks.iter().copied().chain(workspace.held()).collect();
    if !locks.keys.is_empty() {
        locked.extend(tasks::with_keys(conn, &locks.keys).await?);
    }
    if !locks.reevaluated.is_empty() {
        locked.extend(tasks::waited_for(conn, &locks.reevaluated).await?);
    }
    if !locks.parents.is_empty() {
        let parents: Vec<_> = locks.parents.iter().copied().collect();
        locked.extend(tasks::not_yet_parents(conn, &parents).await?);
    }
    let locked: Vec<_> = locked.into_iter().collect();
    if !locked.is_empty() {
        tasks::lock(conn, &locked).await?;
    }
    // With the payload where a repeated request has to be compared with the stored task.
    let with_payload: Vec<_> = locks.observed.union(&locks.created).copied().collect();
    let ids: BTreeSet<_> = locked.into_iter().chain(locks.parents.iter().copied()).collect();
    if !ids.is_empty() {
        workspace.load_tasks(tasks::load(conn, &ids.iter().copied().collect::<Vec<_>>(), &with_payload).await?);
    }
    load_related(conn, &ids, workspace).await?;
    load_counts(conn, locks, workspace).await
}

/// Loads unfinished tasks that hold the unique keys of finished ones, which may be retried; and the parents of observed
/// tasks, whose project they may inherit.
async fn load_related(conn: &mut PgConnection, loaded: &BTreeSet<Uuid>, workspace: &mut Workspace) -> sqlx::Result<()> {
    let finished = |task: &&Task| task.status.is_finished();
    let keys: Vec<_> = workspace.living().filter(finished).filter_map(|task| task.unique_key.clone()).collect();
    if !keys.is_empty() {
        let mut holders = tasks::with_keys(conn, &keys).await?;
        holders.retain(|id| !workspace.has_task(*id));
        workspace.load_tasks(tasks::load(conn, &holders, &[]).await?);
    }
    let parents = workspace.living().filter_map(|task| task.parent_task_id.filter(|_| task.inherits()));
    let missing: BTreeSet<_> = parents.filter(|id| !loaded.contains(id)).collect();
    if !missing.is_empty() {
        workspace.load_tasks(tasks::load(conn, &missing.into_iter().collect::<Vec<_>>(), &[]).await?);
    }
    Ok(())
}

/// Loads counts of children: of `auto_complete` parents, of requested parents, and of tasks that become parents now
/// and may already have children that were enqueued or reported earlier, or left by a deleted task of the same id.
async fn load_counts(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    let following = workspace.living().filter(|task| task.auto_complete).map(|task| task.id);
    let observed = workspace.living().filter(|task| locks.observed.contains(&task.id));
    let counted = following.chain(observed.filter_map(|task| task.parent_task_id));
    let counted = counted.chain(locks.observed.iter().copied()).chain(locks.parents.iter().copied());
    let counted: BTreeSet<_> = counted.chain(locks.created.iter().copied()).collect();
    let counted: Vec<_> = counted.into_iter().chain(locks.reevaluated.iter().copied()).collect();
    if counted.is_empty() {
        return Ok(());
    }
    children::load(conn, &counted, workspace.children()).await
}

/// Loads the ancestors of the requested parents, and the levels below observed tasks that may get another parent.
async fn load_nesting(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    if locks.parents.is_empty() {
        return Ok(());
    }
    let parents = workspace.living().filter_map(|task| task.parent_task_id);
    let above: BTreeSet<_> = parents.filter(|id| !workspace.has_task(*id)).collect();
    if !above.is_empty() {
        let parents = tasks::ancestors(conn, &above.into_iter().collect::<Vec<_>>()).await?;
        workspace.nesting().load_parents(parents);
    }
    let mut below: Vec<_> = locks.observed.iter().copied().collect();
    below.retain(|id| !workspace.children().of(*id).is_empty());
    if !below.is_empty() {
        let levels = tasks::levels_below(conn, &below).await?;
        workspace.nesting().load_levels_below(levels);
    }
    Ok(())
}

/// Loads the tasks blocked by those whose dependencies are about to change; the graph lock keeps this stable.
async fn load_waiters(
    conn: &mut PgConnection,
    commands: &[Box<dyn Pending>],
    workspace: &mut Workspace,
) -> sqlx::Result<()> {
    let roots: Vec<Vec<Uuid>> = commands.iter().map(|command| command.dependency_roots(workspace)).collect();
    let all: HashSet<_> = roots.iter().flatten().copied().collect();
    if all.is_empty() {
        return Ok(());
    }
    if let Some(stored) = dependencies::waiters(conn, &all.into_iter().collect::<Vec<_>>()).await? {
        workspace.waiters().load(stored);
        return Ok(());
    }
    // One of them exceeds the limit; the others must not be refused for that.
    for roots in roots.iter().filter(|roots| !roots.is_empty()) {
        match dependencies::waiters(conn, roots).await? {
            Some(stored) => workspace.waiters().load(stored),
            None => workspace.waiters().load_endless(roots),
        }
    }
    Ok(())
}

async fn load_workers(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    // A connector is released together with its task.
    let busy = |task: &Task| task.worker_id.filter(|_| task.lease.is_some() && task.connector_id.is_some());
    let busy: BTreeSet<_> = workspace.living().filter_map(busy).collect();
    let ids: BTreeSet<_> = locks.workers.union(&busy).copied().collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut loaded = workers::load(&mut *conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    let may_change = |worker: &&Worker| {
        locks.changed_workers.contains(&worker.id) || busy.contains(&worker.id) || workspace.is_stale(worker)
    };
    let changing: Vec<_> = loaded.iter().filter(may_change).map(|worker| worker.id).collect();
    if !changing.is_empty() {
        workers::lock(conn, &changing).await?;
        loaded.retain(|worker| !changing.contains(&worker.id));
        loaded.extend(workers::load(conn, &changing).await?);
    }
    workspace.load_workers(loaded);
    Ok(())
}

async fn load_operators(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    if !locks.schedules.is_empty() {
        let names: Vec<_> = locks.schedules.iter().map(Name::as_str).collect();
        workspace.load_schedules(schedules::lock(conn, &names).await?);
    }
    if !locks.bulks.is_empty() {
        workspace.load_bulks(bulk::lock(conn, &locks.bulks.iter().copied().collect::<Vec<_>>()).await?);
    }
    Ok(())
}

async fn load_queues(conn: &mut PgConnection, locks: &LockSet, workspace: &mut Workspace) -> sqlx::Result<()> {
    if !locks.queues.is_empty() {
        let names: Vec<_> = locks.queues.iter().map(Name::as_str).collect();
        workspace.load_queues(queues::lock(conn, &names).await?);
    }
    let claimed = locks.claims.iter().flat_map(|claim| &claim.queues);
    let claimed: BTreeSet<_> = claimed.filter(|name| !workspace.has_queue(name)).map(Name::as_str).collect();
    if !claimed.is_empty() {
        let names: Vec<_> = claimed.into_iter().collect();
        workspace.load_queues(queues::claimed_from(conn, &names).await?);
    }
    Ok(())
}

/// Claims for all claim requests together, with one statement per distinct list of queues.
async fn take(
    conn: &mut PgConnection,
    scan: &mut ScanStart,
    claims: &[ClaimRequest],
    workspace: &mut Workspace,
) -> sqlx::Result<Vec<Uuid>> {
    let mut wanted: BTreeMap<&[Name], i64> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| workspace.may_claim(claim)) {
        *wanted.entry(&claim.queues).or_default() += i64::from(claim.limit);
    }
    let mut all = Vec::new();
    for (queues, limit) in wanted {
        let ids = take_from(conn, scan, queues, limit, workspace).await?;
        all.extend(&ids);
        workspace.load_taken(queues, ids);
    }
    Ok(all)
}

async fn take_from(
    conn: &mut PgConnection,
    scan: &mut ScanStart,
    queues: &[Name],
    limit: i64,
    workspace: &mut Workspace,
) -> sqlx::Result<Vec<Uuid>> {
    match workspace.allowance(queues) {
        Allowance::Nothing => Ok(Vec::new()),
        Allowance::Unlimited(names) => {
            scan.take(conn, &names.iter().map(Name::as_str).collect::<Vec<_>>(), limit).await
        }
        Allowance::Limited(rooms) => {
            let rooms: Vec<_> = rooms.iter().map(|(name, room)| (name.as_str(), i64::from(*room).min(limit))).collect();
            let taken = scan.take_within(conn, &rooms, limit).await?;
            taken.iter().for_each(|(_, queue)| workspace.count_start(queue));
            Ok(taken.into_iter().map(|(id, _)| id).collect())
        }
    }
}
