//! Tasks looked at again, because something that they depend on changed; and decisions about queues.

use uuid::Uuid;

use super::{Answer, Batch, transition};
use crate::{
    event::draft,
    model::{Name, phase::Counts},
    store::queues::{QueueChange, QueueState},
};

impl Batch<'_> {
    /// Each finds out by itself what it was called for.
    pub(super) fn recheck(&mut self, rows: &[(i64, Uuid)]) -> Answer {
        for (number, id) in rows {
            self.rechecked.push(*number);
            let Some(task) = self.task(*id) else { continue };
            let is_group = task.close_when_done;
            // Nothing to change is fine: someone else may have seen to it.
            let children = self.children.of(*id);
            if !children.is_empty() {
                let _ = self.decide(*id, transition::Command::BecomeParent { children }, None);
            }
            if is_group {
                let sum = self.sum_of_children(*id);
                let _ = self.decide(*id, transition::Command::Children(sum), None);
            } else {
                let _ = self.settle_dependencies(*id);
            }
            self.inherit(*id);
        }
        Answer::Done
    }

    /// All children of a parent whose counts are loaded.
    pub(super) fn sum_of_children(&self, id: Uuid) -> Counts {
        let mut sum = Counts::default();
        self.children.of(id).values().for_each(|counts| sum.add_all(counts));
        sum
    }

    pub(super) fn decide_queue(&mut self, name: &Name, change: &QueueChange, actor: &str) -> Answer {
        let now = self.now;
        let Some(entry) = self.queues.get_mut(name) else { return Answer::Queue(QueueState::new(name.clone())) };
        let changes = entry.state.change(change, now);
        entry.changed |= !changes.is_empty();
        let state = entry.state.clone();
        if !changes.is_empty() {
            self.record(draft::queue_event(&state.name, change_kind(change), changes, actor, now));
        }
        Answer::Queue(state)
    }
}

const fn change_kind(change: &QueueChange) -> crate::event::Kind {
    match change {
        QueueChange::Pause => crate::event::Kind::QueuePaused,
        QueueChange::Resume => crate::event::Kind::QueueResumed,
        QueueChange::Limit { .. } => crate::event::Kind::OperatorAction,
    }
}
