//! The rows that commands name, known before anything is read.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::rings::may_close_a_ring;
use crate::{
    model::{Name, transition},
    store::command::{Command, Report},
};

/// The ids that commands name.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) tasks: BTreeSet<Uuid>,
    pub(super) parents: BTreeSet<Uuid>,
    pub(super) workers: BTreeSet<Uuid>,
    pub(super) changed_workers: BTreeSet<Uuid>,
    /// Workers all of whose tasks are concerned.
    pub(super) holders: Vec<Uuid>,
    /// Unique keys of tasks to create.
    pub(super) keys: Vec<String>,
    /// Queues that operators decide about.
    pub(super) queues: BTreeSet<Name>,
    /// Tasks to look at again.
    pub(super) rechecked: Vec<Uuid>,
    /// Tasks that other systems report.
    pub(super) observed: BTreeSet<Uuid>,
    /// Tasks that may run again, and may have to wait for others first.
    pub(super) retried: Vec<Uuid>,
    /// Tasks to create under ids of their clients, which may exist already.
    pub(super) created: BTreeSet<Uuid>,
    /// Dependencies may change, or tasks appear whose relations are not known.
    pub(super) graph: bool,
}

impl Touched {
    pub(super) fn by(commands: &[&Command]) -> Self {
        let mut touched = Self::default();
        for command in commands {
            touched.add(command);
        }
        touched
    }

    fn add(&mut self, command: &Command) {
        match command {
            Command::Create(new) => {
                self.graph |= may_close_a_ring(new);
                self.created.extend(new.iter().filter(|task| task.id_is_chosen).map(|task| task.id));
                self.tasks.extend(new.iter().filter(|task| task.id_is_chosen).map(|task| task.id));
                self.tasks.extend(new.iter().flat_map(|task| &task.depends_on));
                self.parents.extend(new.iter().filter_map(|task| task.parent_task_id));
                self.keys.extend(new.iter().filter_map(|task| task.unique_key.clone()));
            }
            Command::Claim { worker_id, connector_id, .. } => {
                self.workers.insert(*worker_id);
                if connector_id.is_some() {
                    self.changed_workers.insert(*worker_id);
                }
            }
            Command::Tasks { changes, .. } | Command::Steer { changes, .. } => self.add_changes(changes),
            Command::Observe(reports) => {
                self.graph = true;
                for report in reports {
                    self.add_report(report);
                }
            }
            Command::Recheck(rows) => {
                self.graph = true;
                self.tasks.extend(rows.iter().map(|(_, id)| *id));
                self.rechecked.extend(rows.iter().map(|(_, id)| *id));
            }
            Command::Queue { name, .. } => {
                self.queues.insert(name.clone());
            }
            Command::Heartbeat { worker_id, tasks, .. } => {
                self.workers.insert(*worker_id);
                self.changed_workers.insert(*worker_id);
                self.tasks.extend(tasks.iter().flatten().map(|(id, ..)| *id));
            }
            Command::Doubt(worker_id) => {
                self.workers.insert(*worker_id);
                self.changed_workers.insert(*worker_id);
            }
            Command::Leave(worker_id) | Command::Lose(worker_id) => {
                self.workers.insert(*worker_id);
                self.changed_workers.insert(*worker_id);
                self.holders.push(*worker_id);
            }
            Command::Fire { relations: (parent, key), .. } => {
                self.parents.extend(*parent);
                self.keys.extend(key.clone());
            }
            Command::StepBulk(step) => {
                self.tasks.extend(&step.ids);
                self.retried.extend(step.ids.iter().filter(|_| step.retries));
            }
            Command::Register(_) | Command::Schedule { .. } | Command::BeginBulk(_) | Command::CancelBulk { .. } => {}
        }
    }

    fn add_changes(&mut self, changes: &[(Uuid, transition::Command)]) {
        self.tasks.extend(changes.iter().map(|(id, _)| *id));
        self.workers.extend(changes.iter().filter_map(|(_, change)| Some(change.fence()?.worker_id)));
        let again =
            |change: &transition::Command| matches!(change, transition::Command::Retry | transition::Command::Reopen);
        self.retried.extend(changes.iter().filter(|(_, change)| again(change)).map(|(id, _)| *id));
        for (_, change) in changes {
            if let transition::Command::Edit(edit) = change
                && let Some(depends_on) = &edit.depends_on
            {
                self.graph = true;
                self.tasks.extend(depends_on);
            }
        }
    }

    fn add_report(&mut self, report: &Report) {
        let note = match report {
            Report::Task(id, told, note) => {
                self.tasks.insert(*id);
                self.observed.insert(*id);
                self.parents.extend(told.facts.parent_task_id);
                note.as_deref()
            }
            Report::Worker(note) => Some(&**note),
        };
        self.holders.extend(note.filter(|note| note.stops).map(|note| note.id));
        self.workers.extend(note.map(|note| note.id));
        self.changed_workers.extend(note.map(|note| note.id));
    }
}
