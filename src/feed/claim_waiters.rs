//! Long-polling claims. An event that makes a task pending wakes one claim that waits for its queue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    event::{Event, Kind},
    model::{Name, Status},
};

/// Waiting claims per queue, longest wait first.
#[derive(Debug, Clone, Default)]
pub struct ClaimWaiters {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    /// Waiting claims that have not been woken yet.
    waiting: HashMap<u64, Arc<Notify>>,
    /// Waiting claims of each queue in order of arrival; those already woken are skipped.
    queues: HashMap<Name, VecDeque<u64>>,
    /// Queues whose limit withheld a task: there, a finished task makes room for another. Bounded: only existing queues
    /// with a limit are inserted, not arbitrary names from claims.
    limited: HashSet<Name>,
}

/// A claim's entry in each requested queue. Create it before looking for tasks, so that no wake-up is missed in
/// between.
#[derive(Debug)]
pub struct ClaimTicket {
    lines: Arc<Mutex<Lines>>,
    number: u64,
    queues: Vec<Name>,
    notify: Arc<Notify>,
    /// The wake-up was consumed: the woken claim looks for tasks next.
    used: bool,
}

impl ClaimWaiters {
    /// Appends a claim to the given queues.
    #[must_use]
    pub fn enter(&self, queues: &[Name]) -> ClaimTicket {
        let notify = Arc::new(Notify::new());
        let mut lines = lock(&self.lines);
        lines.next += 1;
        let number = lines.next;
        lines.waiting.insert(number, notify.clone());
        for queue in queues {
            lines.queues.entry(queue.clone()).or_default().push_back(number);
        }
        ClaimTicket { lines: self.lines.clone(), number, queues: queues.to_vec(), notify, used: false }
    }

    /// Marks these queues as at their limits.
    pub fn are_limited(&self, queues: Vec<Name>) {
        lock(&self.lines).limited.extend(queues);
    }

    /// Sizes, for tests: queues at their limits, and queues with waiting claims.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        let lines = lock(&self.lines);
        (lines.limited.len(), lines.queues.len())
    }

    fn is_limited(&self, queue: &Name) -> bool {
        lock(&self.lines).limited.contains(queue)
    }

    /// Wakes one claim if the event made a task pending, and all claims of a queue that an operator resumed or changed.
    pub fn wake(&self, event: &Event) {
        let Some(queue) = &event.queue else { return };
        match event.event_type {
            Kind::TaskEnqueued if event.status == Some(Status::Pending) => {
                wake_one(&self.lines, queue);
            }
            Kind::QueueResumed | Kind::OperatorAction => {
                lock(&self.lines).limited.remove(queue);
                while wake_one(&self.lines, queue) {}
            }
            _ if event.old_status == Some(Status::Running)
                && event.status != Some(Status::Running)
                && self.is_limited(queue) =>
            {
                wake_one(&self.lines, queue);
            }
            _ => {}
        }
    }
}

impl ClaimTicket {
    /// Waits for a wake-up.
    pub async fn woken(&mut self) {
        self.notify.notified().await;
        self.used = true;
    }
}

impl Drop for ClaimTicket {
    fn drop(&mut self) {
        let woken = {
            let mut lines = lock(&self.lines);
            for queue in &self.queues {
                if let Some(line) = lines.queues.get_mut(queue) {
                    line.retain(|number| *number != self.number);
                    if line.is_empty() {
                        lines.queues.remove(queue);
                    }
                }
            }
            lines.waiting.remove(&self.number).is_none()
        };
        // If the wake-up arrived while tasks were found anyway, or the claim was abandoned, pass it to the next waiting
        // claim.
        if woken && !self.used {
            for queue in &self.queues {
                wake_one(&self.lines, queue);
            }
        }
    }
}

/// Wakes the first claim of a queue and removes it from all its queues, so that no other queue counts on it.
fn wake_one(lines: &Mutex<Lines>, queue: &Name) -> bool {
    let mut lines = lock(lines);
    let Lines { waiting, queues, .. } = &mut *lines;
    let Some(line) = queues.get_mut(queue) else { return false };
    let woken = std::iter::from_fn(|| line.pop_front()).find_map(|number| waiting.remove(&number));
    if let Some(notify) = &woken {
        notify.notify_one();
    }
    woken.is_some()
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
