//! Claims that wait for work. An event that makes a task claimable wakes one claim that waits for its queue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    event::{Event, Kind},
    model::{Name, Status},
};

/// Claims that wait, per queue, longest first.
#[derive(Debug, Clone, Default)]
pub struct Waiters {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    /// Who waits, and was not woken yet.
    waiting: HashMap<u64, Arc<Notify>>,
    /// Who stands in which line; who was woken is passed over.
    queues: HashMap<Name, VecDeque<u64>>,
    /// Queues whose limit held something back: there the end of a task lets another begin. They exist and have a limit;
    /// their number is not up to those who claim.
    limited: HashSet<Name>,
}

/// A place in the line of each queue asked for. Take it before looking for work, so that nothing falls in between.
#[derive(Debug)]
pub struct Place {
    lines: Arc<Mutex<Lines>>,
    number: u64,
    queues: Vec<Name>,
    notify: Arc<Notify>,
    /// The wake-up was used: who was woken looks for work next.
    used: bool,
}

impl Waiters {
    /// A place at the end of some lines.
    #[must_use]
    pub fn place(&self, queues: &[Name]) -> Place {
        let notify = Arc::new(Notify::new());
        let mut lines = lock(&self.lines);
        lines.next += 1;
        let number = lines.next;
        lines.waiting.insert(number, notify.clone());
        for queue in queues {
            lines.queues.entry(queue.clone()).or_default().push_back(number);
        }
        Place { lines: self.lines.clone(), number, queues: queues.to_vec(), notify, used: false }
    }

    /// These queues are at their limits.
    pub fn are_limited(&self, queues: Vec<Name>) {
        lock(&self.lines).limited.extend(queues);
    }

    /// How many queues are remembered, of those at their limits and of those waited for.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        let lines = lock(&self.lines);
        (lines.limited.len(), lines.queues.len())
    }

    fn is_limited(&self, queue: &Name) -> bool {
        lock(&self.lines).limited.contains(queue)
    }

    /// Wakes one claim when the event made a task claimable, and all of a queue when an operator opened it.
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

impl Place {
    /// Waits until there may be work.
    pub async fn woken(&mut self) {
        self.notify.notified().await;
        self.used = true;
    }
}

impl Drop for Place {
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
        // A wake-up that came while work was found otherwise, or nobody waits any more, goes to the next in line.
        if woken && !self.used {
            for queue in &self.queues {
                wake_one(&self.lines, queue);
            }
        }
    }
}

/// Wakes the first of a line; it leaves all its lines with that, so that none of them counts on it.
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
