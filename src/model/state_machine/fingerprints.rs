//! Error groups of task events.

use crate::model::{
    Name, Status, Task,
    fingerprint::fingerprint,
    step::{FingerprintChange, TaskEvent},
};

impl Task {
    /// The error group of a failed task.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Name> {
        (self.status == Status::Failed).then(|| fingerprint(&self.task_type, self.error.as_deref()))
    }

    /// The error groups concerned by an event that changes this task to `after`.
    pub(super) fn fingerprint_change(&self, after: &Self, event: &TaskEvent) -> FingerprintChange {
        let (before, now) = (self.fingerprint(), after.fingerprint());
        match event {
            TaskEvent::RetryScheduled { .. } => {
                let current = Some(fingerprint(&after.task_type, after.error.as_deref()));
                FingerprintChange { previous: before.filter(|before| current.as_ref() != Some(before)), current }
            }
            TaskEvent::Deleted => FingerprintChange { current: before, previous: None },
            _ if now.is_none() => FingerprintChange { current: before, previous: None },
            TaskEvent::Failed { .. } => {
                FingerprintChange { previous: before.filter(|before| now.as_ref() != Some(before)), current: now }
            }
            _ if before.is_some() && before != now => FingerprintChange { current: now, previous: before },
            _ => FingerprintChange::default(),
        }
    }
}
