//! Pausing, resuming and limiting a queue.

use super::{Command, LockSet, Refusal, Workspace};
use crate::{
    event::{Kind, draft},
    model::{
        Name,
        queue::{QueueChange, QueueState},
    },
};

/// An operator pauses, resumes or limits a queue.
#[derive(Debug, Clone)]
pub struct ChangeQueue {
    /// The queue.
    pub name: Name,
    /// How it is changed.
    pub change: QueueChange,
    /// Why, if it is paused.
    pub reason: Option<String>,
    /// Who asked.
    pub actor: String,
}

impl Command for ChangeQueue {
    /// The queue as it is now.
    type Answer = QueueState;

    fn locks(&self, locks: &mut LockSet) {
        locks.queues.insert(self.name.clone());
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<QueueState, Refusal> {
        let now = workspace.now;
        let Some(entry) = workspace.queues.get_mut(&self.name) else { return Ok(QueueState::new(self.name.clone())) };
        let changes = entry.row.change(&self.change, now);
        entry.changed |= !changes.is_empty();
        let state = entry.row.clone();
        if !changes.is_empty() {
            let mut event = draft::queue_event(&state.name, kind(&self.change), changes, &self.actor, now);
            event.data.reason.clone_from(&self.reason);
            workspace.record(event);
        }
        Ok(state)
    }
}

const fn kind(change: &QueueChange) -> Kind {
    match change {
        QueueChange::Pause => Kind::QueuePaused,
        QueueChange::Resume => Kind::QueueResumed,
        QueueChange::Limit { .. } => Kind::OperatorAction,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::command::rows::Rows;

    fn change(rows: &mut Rows, change: QueueChange) -> QueueState {
        rows.run(&ChangeQueue { name: Name::literal("q"), change, reason: None, actor: "ops".to_owned() }).unwrap()
    }

    #[test]
    fn a_pause_says_why() {
        let mut rows = Rows::new();
        let reason = Some("provider is down".to_owned());
        let pause = ChangeQueue {
            name: Name::literal("q"),
            change: QueueChange::Pause,
            reason: reason.clone(),
            actor: "ops".to_owned(),
        };
        rows.run(&pause).unwrap();
        assert_eq!(rows.events[0].data.reason, reason);
    }

    #[test]
    fn each_change_is_one_event_and_no_change_is_none() {
        let mut rows = Rows::new();
        assert!(change(&mut rows, QueueChange::Pause).paused_at.is_some());
        assert_eq!(rows.kinds(), ["queue_paused"]);
        change(&mut rows, QueueChange::Pause);
        assert!(rows.events.is_empty());
        change(&mut rows, QueueChange::Resume);
        assert_eq!(rows.kinds(), ["queue_resumed"]);
        let limits = QueueChange::Limit { concurrency: Some(Some(3)), rate: None };
        assert_eq!(change(&mut rows, limits).concurrency_limit, Some(3));
        assert_eq!(rows.events[0].actor.as_deref(), Some("ops"));
    }
}
