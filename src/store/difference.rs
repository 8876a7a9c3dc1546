//! The difference between tasks before and after a batch, grouped by the tables to write.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    dependencies,
    task_columns::{self, Group},
    task_write,
};
use crate::{
    clock::Time,
    command::{Workspace, workspace::TaskEntry},
    model::{Status, Task, lease::Lease},
};

/// Rows to write, by table.
#[derive(Default)]
pub(super) struct Difference<'a> {
    inserted: Vec<&'a Task>,
    updated: Vec<&'a Task>,
    described: Vec<&'a Task>,
    deleted: Vec<Uuid>,
    ready: Vec<&'a Task>,
    unready: Vec<Uuid>,
    leased: Vec<(&'a Task, &'a Lease)>,
    unleased: Vec<Uuid>,
    /// Tasks that became blocked, or whose dependencies changed.
    waiting: Vec<&'a Task>,
    /// Tasks that are no longer blocked, or whose dependencies changed.
    unblocked: Vec<Uuid>,
    /// Finished or deleted tasks that block others.
    ended: Vec<Uuid>,
    /// Observed tasks whose project may be inherited by their children.
    project_changed: Vec<Uuid>,
}

impl<'a> Difference<'a> {
    /// Computes the difference of a batch.
    pub(super) fn of(workspace: &'a Workspace) -> Self {
        let mut difference = Self::default();
        for (id, entry, taken) in workspace.tasks() {
            difference.sort(id, entry, taken);
        }
        difference
    }

    /// Adds one task; `taken`: a claim has already deleted its row from `ready`.
    fn sort(&mut self, id: Uuid, entry: &'a TaskEntry, taken: bool) {
        match (&entry.before, &entry.after) {
            (None, Some(after)) => self.inserted.push(after),
            (Some(before), Some(after)) => {
                if task_columns::changed(Group::State, before, after) {
                    self.updated.push(after);
                }
                if task_columns::changed(Group::Description, before, after) {
                    self.described.push(after);
                }
            }
            (Some(_), None) => self.deleted.push(id),
            (None, None) => {}
        }
        self.sort_ready(id, entry, taken);
        self.sort_lease(id, entry);
        self.sort_waiting(id, entry);
    }

    /// `ready` contains the pending tasks, except observed ones.
    fn sort_ready(&mut self, id: Uuid, entry: &'a TaskEntry, taken: bool) {
        let was_in = entry.before.as_ref().filter(|task| is_claimable(task) && !taken);
        let is_in = entry.after.as_ref().filter(|task| is_claimable(task));
        match (was_in, is_in) {
            (Some(before), Some(after)) if before.queue == after.queue && before.priority == after.priority => {}
            (was, is) => {
                self.unready.extend(was.map(|_| id));
                self.ready.extend(is);
            }
        }
    }

    fn sort_lease(&mut self, id: Uuid, entry: &'a TaskEntry) {
        let held = entry.before.as_ref().and_then(|task| Some((task, task.lease.as_ref()?)));
        let holds = entry.after.as_ref().and_then(|task| Some((task, task.lease.as_ref()?)));
        match (held, holds) {
            (Some((before, old)), Some((after, new)))
                if before.attempt == after.attempt && before.worker_id == after.worker_id && old == new => {}
            (_, Some(holds)) => self.leased.push(holds),
            (Some(_), None) => self.unleased.push(id),
            (None, None) => {}
        }
    }

    fn sort_waiting(&mut self, id: Uuid, entry: &'a TaskEntry) {
        let is_waiting = |task: &&Task| task.status == Status::Blocked && !task.depends_on.is_empty();
        let before = entry.before.as_ref().filter(is_waiting);
        let after = entry.after.as_ref().filter(is_waiting);
        if before.map(|task| &task.depends_on) != after.map(|task| &task.depends_on) {
            self.unblocked.extend(before.map(|_| id));
            self.waiting.extend(after);
        }
        let is_over = |task: &Option<Task>| task.as_ref().is_none_or(|task| task.status.is_finished());
        let awaited = entry.before.as_ref().or(entry.after.as_ref()).is_some_and(|task| task.has_dependents)
            || entry.after.as_ref().is_some_and(|task| task.has_dependents);
        if awaited && is_over(&entry.after) && !(entry.before.is_some() && is_over(&entry.before)) {
            self.ended.push(id);
        }
        if let Some(after) = entry.after.as_ref().filter(|task| task.observed.is_some())
            && entry.before.as_ref().is_none_or(|before| before.project_id != after.project_id)
        {
            self.project_changed.push(id);
        }
    }
}

impl Difference<'_> {
    /// Writes all rows.
    pub(super) async fn write(mut self, conn: &mut PgConnection, now: Time) -> sqlx::Result<()> {
        macro_rules! each {
            ($($rows:ident by $write:path;)+) => {
                $(if !self.$rows.is_empty() {
                    $write(conn, &self.$rows).await?;
                })+
            };
        }
        // `ready` keeps the order of the commands.
        self.ready.sort_unstable_by_key(|task| (task.enqueued_at, task.created_at, task.id));
        each! {
            inserted by task_write::insert;
            updated by task_write::update_state;
            described by task_write::update_description;
            deleted by task_write::delete;
            unready by task_write::unready;
        }
        if !self.ready.is_empty() {
            task_write::make_ready(conn, &self.ready, now).await?;
        }
        each! {
            unleased by task_write::unlease;
            leased by task_write::lease;
            unblocked by dependencies::unblock;
            waiting by dependencies::wait;
            ended by dependencies::request_reevaluation;
            project_changed by dependencies::inherit_project;
        }
        Ok(())
    }
}

fn is_claimable(task: &Task) -> bool {
    task.status == Status::Pending && task.observed.is_none()
}
