//! The rows that commands name, known before anything is read.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::command::Command;

/// The ids that commands name.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) tasks: BTreeSet<Uuid>,
    pub(super) parents: BTreeSet<Uuid>,
    pub(super) workers: BTreeSet<Uuid>,
    pub(super) changed_workers: BTreeSet<Uuid>,
    /// Workers all of whose tasks are concerned.
    pub(super) holders: Vec<Uuid>,
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
                self.tasks.extend(new.iter().filter(|task| task.id_is_chosen).map(|task| task.id));
                self.parents.extend(new.iter().filter_map(|task| task.parent_task_id));
            }
            Command::Claim { worker_id, .. } => {
                self.workers.insert(*worker_id);
            }
            Command::Tasks { changes, .. } => {
                self.tasks.extend(changes.iter().map(|(id, _)| *id));
                self.workers.extend(changes.iter().filter_map(|(_, change)| Some(change.fence()?.worker_id)));
            }
            Command::Heartbeat { worker_id, tasks, .. } => {
                self.workers.insert(*worker_id);
                self.changed_workers.insert(*worker_id);
                match tasks {
                    Some(tasks) => self.tasks.extend(tasks.iter().map(|(id, ..)| *id)),
                    None => self.holders.push(*worker_id),
                }
            }
            Command::Leave(worker_id) | Command::Lose(worker_id) => {
                self.workers.insert(*worker_id);
                self.changed_workers.insert(*worker_id);
                self.holders.push(*worker_id);
            }
            Command::Register(_) => {}
        }
    }
}
