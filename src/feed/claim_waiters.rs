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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn name(queue: &'static str) -> Name {
        Name::literal(queue)
    }

    fn event(kind: Kind, queue: &'static str, from: Option<Status>, to: Status) -> Event {
        let mut event = Event::new(kind, Time::UNIX_EPOCH);
        (event.queue, event.old_status, event.status) = (Some(name(queue)), from, Some(to));
        event
    }

    /// A task of a queue becomes pending.
    fn enqueued(queue: &'static str) -> Event {
        event(Kind::TaskEnqueued, queue, None, Status::Pending)
    }

    fn ended(queue: &'static str) -> Event {
        event(Kind::TaskCompleted, queue, Some(Status::Running), Status::Completed)
    }

    fn enter(waiters: &ClaimWaiters, queues: &[&'static str]) -> ClaimTicket {
        waiters.enter(&queues.iter().map(|queue| name(queue)).collect::<Vec<_>>())
    }

    /// Whether a claim was woken; it does not wait for it.
    async fn woken(ticket: &mut ClaimTicket) -> bool {
        tokio::select! {
            biased;
            () = ticket.woken() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn one_task_wakes_the_claim_that_waits_longest() {
        let waiters = ClaimWaiters::default();
        let (mut first, mut second) = (enter(&waiters, &["a"]), enter(&waiters, &["a"]));
        waiters.wake(&enqueued("a"));
        assert_eq!((woken(&mut second).await, woken(&mut first).await), (false, true));
        waiters.wake(&enqueued("a"));
        assert!(woken(&mut second).await);
    }

    #[tokio::test]
    async fn a_claim_waits_for_its_queues_only() {
        let waiters = ClaimWaiters::default();
        let mut claim = enter(&waiters, &["a", "b"]);
        waiters.wake(&enqueued("c"));
        waiters.wake(&event(Kind::TaskEnqueued, "a", None, Status::Scheduled));
        waiters.wake(&Event { queue: None, ..enqueued("a") });
        waiters.wake(&event(Kind::TaskCreated, "a", None, Status::Pending));
        assert!(!woken(&mut claim).await);
        waiters.wake(&enqueued("b"));
        assert!(woken(&mut claim).await);
    }

    #[tokio::test]
    async fn a_claim_that_one_queue_woke_is_not_counted_on_by_another() {
        let waiters = ClaimWaiters::default();
        let (mut both, mut other) = (enter(&waiters, &["a", "b"]), enter(&waiters, &["b"]));
        waiters.wake(&enqueued("a"));
        waiters.wake(&enqueued("b"));
        assert!(woken(&mut both).await && woken(&mut other).await);
    }

    #[tokio::test]
    async fn an_unused_wake_up_goes_to_the_next_claim() {
        let waiters = ClaimWaiters::default();
        let (first, mut second) = (enter(&waiters, &["a"]), enter(&waiters, &["a"]));
        waiters.wake(&enqueued("a"));
        drop(first);
        assert!(woken(&mut second).await);
    }

    #[tokio::test]
    async fn a_used_wake_up_goes_to_nobody() {
        let waiters = ClaimWaiters::default();
        let (mut first, mut second) = (enter(&waiters, &["a"]), enter(&waiters, &["a"]));
        waiters.wake(&enqueued("a"));
        assert!(woken(&mut first).await);
        drop(first);
        assert!(!woken(&mut second).await);
        drop(enter(&waiters, &["a"]));
        assert!(!woken(&mut second).await, "nor does a claim that was not woken leave one");
    }

    #[tokio::test]
    async fn an_operator_wakes_all_claims_of_a_queue() {
        for kind in [Kind::QueueResumed, Kind::OperatorAction] {
            let waiters = ClaimWaiters::default();
            waiters.are_limited(vec![name("a")]);
            let mut claims = [enter(&waiters, &["a"]), enter(&waiters, &["a"]), enter(&waiters, &["b"])];
            waiters.wake(&event(kind, "a", None, Status::Pending));
            assert!(woken(&mut claims[0]).await && woken(&mut claims[1]).await && !woken(&mut claims[2]).await);
            assert_eq!(waiters.remembered().0, 0, "the limit may be gone");
        }
    }

    #[tokio::test]
    async fn an_ended_task_makes_room_only_where_a_limit_withheld_one() {
        let waiters = ClaimWaiters::default();
        let mut claim = enter(&waiters, &["a"]);
        waiters.wake(&ended("a"));
        assert!(!woken(&mut claim).await);
        waiters.are_limited(vec![name("a"), name("a")]);
        waiters.wake(&event(Kind::TaskProgress, "a", Some(Status::Running), Status::Running));
        assert!(!woken(&mut claim).await, "it still runs");
        waiters.wake(&ended("a"));
        assert!(woken(&mut claim).await);
    }

    #[test]
    fn nothing_is_kept_of_claims_that_left() {
        let waiters = ClaimWaiters::default();
        let claims = [enter(&waiters, &["a", "b", "a"]), enter(&waiters, &["b"])];
        assert_eq!(waiters.remembered(), (0, 2));
        waiters.wake(&enqueued("a"));
        drop(claims);
        assert_eq!(waiters.remembered(), (0, 0));
        assert!(lock(&waiters.lines).waiting.is_empty());
    }
}
