//! Queues: tasks by status, and the backlog by priority.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{counts::StatusCounts, durations::Durations, edited, ended::Ended, growth::Growth, moved};
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{
        Name, Status,
        priority::{Band, Priority},
    },
};

/// Window of wait and run times, seconds: percentiles cover the last five to ten minutes.
pub const WINDOW: i64 = 300;
/// Window of throughput, seconds.
const ENDED_WINDOW: i64 = 60;
/// Window of what is usual, seconds.
const USUAL_WINDOW: i64 = 43_200;
/// Fewer waits do not tell what is usual.
const LEAST_USUAL: u64 = 20;
/// A backlog is late if its oldest task is pending for this multiple of the usual wait,
const LATE_FACTOR: i32 = 10;
/// and for at least this long.
const LATE_AT_LEAST: TimeDelta = TimeDelta::seconds(60);

/// Every queue with tasks or with operator settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queues(pub BTreeMap<Name, Queue>);

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its tasks by status.
    pub tasks: StatusCounts,
    /// Pending tasks by priority 0–9.
    pub depth: [u64; 10],
    /// When it was paused; `None` if it is active.
    pub paused_at: Option<Time>,
    /// Who paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// Why it was paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
    /// Concurrency limit: maximum number of running tasks.
    pub concurrency_limit: Option<u32>,
    /// Rate limit: maximum number of tasks started per period.
    pub rate_limit: Option<u32>,
    /// Period of the rate limit, seconds; `None` means one second.
    pub rate_period_seconds: Option<u32>,
    /// Wait times: from pending to claimed.
    pub waits: Durations,
    /// Run times of attempts.
    pub runs: Durations,
    /// Wait times of the last 12 to 24 hours: what is usual.
    pub usual_waits: Durations,
    /// Whether the backlog grows.
    pub growth: Growth,
    /// Completed tasks and failed attempts, in windows of a minute.
    pub ended: Ended,
    /// Since when the backlog has not been empty; `None` if it is empty.
    pub waiting_since: Option<Time>,
    /// When a task was last claimed.
    pub taken_at: Option<Time>,
    /// When its oldest pending task was enqueued; measured, not folded.
    #[serde(skip)]
    pub oldest_enqueued_at: Option<Time>,
    /// Running tasks of projects that the board does not show; they count for the concurrency limit.
    #[serde(skip)]
    pub running_elsewhere: u64,
}

/// Percentiles of a duration, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Percentiles {
    /// Median.
    pub p50_ms: u64,
    /// 95th percentile.
    pub p95_ms: u64,
    /// 99th percentile.
    pub p99_ms: u64,
}

/// Recent throughput and latency of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct QueueRates {
    /// Tasks completed per second, over one to two minutes.
    pub completed_per_second: f64,
    /// Attempts failed per second, over one to two minutes.
    pub failed_per_second: f64,
    /// Wait time until claimed, over the last five to ten minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Percentiles>,
    /// Run time of attempts, over the last five to ten minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Percentiles>,
}

impl Queue {
    /// Recent throughput and latency.
    #[must_use]
    pub fn rates(&self, now: Time) -> QueueRates {
        let percentiles = |durations: &Durations| {
            let at = |percent| durations.percentile(percent, now, WINDOW);
            Some(Percentiles { p50_ms: at(50)?, p95_ms: at(95)?, p99_ms: at(99)? })
        };
        let (completed_per_second, failed_per_second) = self.ended.per_second(now, ENDED_WINDOW);
        QueueRates {
            completed_per_second,
            failed_per_second,
            wait: percentiles(&self.waits),
            run: percentiles(&self.runs),
        }
    }

    /// Number of tasks with a status.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        self.tasks.get(status)
    }

    /// Pending tasks in a priority band.
    #[must_use]
    pub fn depth_of(&self, band: Band) -> u64 {
        let of_band =
            (0..=i64::from(Priority::MAX)).filter_map(Priority::new).filter(|priority| priority.band() == band);
        of_band.map(|priority| self.depth[usize::from(priority.get())]).sum()
    }

    /// Number of pending tasks.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.depth.iter().sum()
    }

    /// Since when tasks are pending and none has been claimed.
    #[must_use]
    pub fn untaken_since(&self) -> Option<Time> {
        self.waiting_since.map(|since| self.taken_at.map_or(since, |taken| taken.max(since)))
    }

    /// Since when its backlog is late: its oldest task is pending for much longer than usual.
    #[must_use]
    pub fn late_since(&self, now: Time) -> Option<Time> {
        let oldest = self.oldest_enqueued_at.filter(|_| self.waiting() > 0)?;
        let usual = self.usual_waits.median_ms(now, USUAL_WINDOW, LEAST_USUAL);
        let usual = usual.and_then(|ms| TimeDelta::try_milliseconds(i64::try_from(ms).ok()?));
        let target = usual.map_or(LATE_AT_LEAST, |usual| (usual * LATE_FACTOR).max(LATE_AT_LEAST));
        let since = oldest.checked_add_signed(target)?;
        (since <= now).then_some(since)
    }

    /// Number of running tasks of the whole queue, as its concurrency limit counts them.
    #[must_use]
    pub fn occupied(&self) -> u64 {
        self.count(Status::Running) + self.running_elsewhere
    }

    /// Takes over what belongs to the queue as a whole, whoever's tasks are shown of it.
    pub(super) fn share(&mut self, whole: &Self) {
        self.paused_at = whole.paused_at;
        (self.paused_by, self.pause_reason) = (whole.paused_by.clone(), whole.pause_reason.clone());
        self.concurrency_limit = whole.concurrency_limit;
        self.rate_limit = whole.rate_limit;
        self.rate_period_seconds = whole.rate_period_seconds;
        self.taken_at = whole.taken_at;
        self.running_elsewhere = whole.count(Status::Running).saturating_sub(self.count(Status::Running));
        // The oldest of all is the oldest of these, too, unless their backlog began later.
        self.oldest_enqueued_at = whole.oldest_enqueued_at.max(self.waiting_since).filter(|_| self.waiting() > 0);
    }

    /// Adds the tasks of the same queue in another project.
    pub(super) fn merge(&mut self, other: &Self) {
        self.tasks.merge(&other.tasks);
        for (depth, more) in self.depth.iter_mut().zip(other.depth) {
            *depth += more;
        }
        self.waits.merge(&other.waits);
        self.runs.merge(&other.runs);
        self.usual_waits.merge(&other.usual_waits);
        self.ended.merge(other.ended);
        self.waiting_since = self.waiting_since.into_iter().chain(other.waiting_since).min();
    }

    /// Updates the start of the backlog.
    fn waits(&mut self, ts: Time) {
        let waiting = self.waiting();
        self.waiting_since = if waiting == 0 { None } else { self.waiting_since.or(Some(ts)) };
        self.growth.note(ts, waiting);
    }
}

impl Queue {
    /// Applies operator settings.
    fn decide(&mut self, event: &Event) {
        let new = |field: &str| Some(event.data.changes.as_ref()?.get(field)?[1].clone());
        if let Some(paused_at) = new("paused_at") {
            self.paused_at = serde_json::from_value(paused_at).unwrap_or_default();
            let paused = self.paused_at.is_some();
            self.paused_by = event.actor.clone().filter(|_| paused);
            self.pause_reason = event.data.reason.clone().filter(|_| paused);
            // Time spent paused does not count as time without a claim.
            self.waiting_since = self.waiting_since.map(|_| event.ts);
        }
        for (field, slot) in [
            ("concurrency_limit", &mut self.concurrency_limit),
            ("rate_limit", &mut self.rate_limit),
            ("rate_period_seconds", &mut self.rate_period_seconds),
        ] {
            if let Some(value) = new(field) {
                *slot = serde_json::from_value(value).unwrap_or_default();
            }
        }
    }

    /// A task comes to it.
    fn take(&mut self, status: Status, priority: Priority, ts: Time) {
        self.tasks.add(status, 1);
        self.depth[usize::from(priority.get())] += u64::from(status == Status::Pending);
        self.waits(ts);
    }

    /// A task leaves it.
    fn give(&mut self, status: Status, priority: Priority, ts: Time) {
        self.tasks.remove_one(status);
        let line = &mut self.depth[usize::from(priority.get())];
        *line = line.saturating_sub(u64::from(status == Status::Pending));
        self.waits(ts);
    }

    /// It has no tasks and no operator settings.
    fn is_gone(&self) -> bool {
        self.tasks.is_zero()
            && self.paused_at.is_none()
            && self.concurrency_limit.is_none()
            && self.rate_limit.is_none()
    }

    /// Applies a status change of a task.
    fn take_in(&mut self, event: &Event) {
        self.time(event);
        let Some((from, to)) = moved(event) else { return };
        let line = event.priority.map(|priority| &mut self.depth[usize::from(priority.get())]);
        if let Some(line) = line {
            if from == Some(Status::Pending) {
                *line = line.saturating_sub(1);
            }
            if to == Some(Status::Pending) {
                *line += 1;
            }
        }
        self.waits(event.ts);
        self.tasks.apply(event);
    }

    /// Records a wait time or a run time.
    fn time(&mut self, event: &Event) {
        match event.event_type {
            Kind::TaskStarted => {
                self.taken_at = self.taken_at.max(Some(event.ts));
                if let Some(ms) = event.data.wait_ms {
                    self.waits.add(ms, event.ts, WINDOW);
                    self.usual_waits.add(ms, event.ts, USUAL_WINDOW);
                }
            }
            Kind::TaskCompleted | Kind::TaskFailed | Kind::TaskRetry => {
                if let Some(ms) = event.duration_ms {
                    self.runs.add(ms, event.ts, WINDOW);
                }
                self.ended.add(event.event_type == Kind::TaskCompleted, event.ts, ENDED_WINDOW);
            }
            _ => {}
        }
    }
}

impl Queues {
    /// An edit moved a task to another queue or changed its priority. Returns the queue that it left.
    fn relocate(&mut self, name: &Name, event: &Event) -> Option<Name> {
        let (Some(status), Some(priority), Some(_)) = (event.status, event.priority, &event.data.changes) else {
            return None;
        };
        let (old_queue, old_priority) = (edited(event, "queue").flatten(), edited(event, "priority").flatten());
        if old_queue.is_none() && old_priority.is_none() {
            return None;
        }
        self.queue(old_queue.as_ref().unwrap_or(name)).give(status, old_priority.unwrap_or(priority), event.ts);
        self.queue(name).take(status, priority, event.ts);
        old_queue
    }

    /// The task of an event came from another project, or went to one: `comes` or not.
    pub(super) fn migrate(&mut self, event: &Event, comes: bool) {
        let (Some(name), Some(status), Some(priority)) = (&event.queue, event.status, event.priority) else { return };
        if comes {
            self.queue(name).take(status, priority, event.ts);
            return;
        }
        let name = edited(event, "queue").flatten().unwrap_or_else(|| name.clone());
        let queue = self.queue(&name);
        queue.give(status, edited(event, "priority").flatten().unwrap_or(priority), event.ts);
        if queue.is_gone() {
            self.0.remove(&name);
        }
    }

    /// A queue, new if it is not known.
    fn queue(&mut self, name: &Name) -> &mut Queue {
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), Queue::default());
        }
        self.0.get_mut(name).expect("it is there, or was put there")
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let Some(name) = &event.queue else { return };
        if event.event_type == Kind::QueueDepthUpdate {
            if let Some(queue) = self.0.get_mut(name) {
                queue.oldest_enqueued_at = event.data.oldest_enqueued_at;
            }
            return;
        }
        let decides = matches!(event.event_type, Kind::QueuePaused | Kind::QueueResumed | Kind::OperatorAction);
        let left = if decides { None } else { self.relocate(name, event) };
        let queue = self.queue(name);
        if decides {
            queue.decide(event);
        } else {
            queue.take_in(event);
        }
        if queue.is_gone() {
            self.0.remove(name);
        }
        if let Some(left) = left.filter(|left| self.0.get(left).is_some_and(Queue::is_gone)) {
            self.0.remove(&left);
        }
    }

    /// Removes wait and run times that no percentile looks at any more.
    pub(super) fn forget(&mut self, now: Time) {
        for queue in self.0.values_mut() {
            queue.waits.forget(now, WINDOW);
            queue.runs.forget(now, WINDOW);
            queue.usual_waits.forget(now, USUAL_WINDOW);
        }
    }

    /// Adds the tasks of another project, queue by queue.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, queue) in &other.0 {
            self.0.entry(name.clone()).or_default().merge(queue);
        }
    }

    /// Leaves the settings and times only.
    pub(super) fn clear_tasks(&mut self) {
        for queue in self.0.values_mut() {
            queue.tasks = StatusCounts::default();
            (queue.depth, queue.waiting_since) = ([0; 10], None);
        }
    }

    /// Leaves the tasks only.
    pub(super) fn forget_settings(&mut self) {
        for queue in self.0.values_mut() {
            (queue.paused_at, queue.paused_by, queue.pause_reason) = (None, None, None);
            (queue.concurrency_limit, queue.rate_limit, queue.rate_period_seconds) = (None, None, None);
        }
        self.0.retain(|_, queue| !queue.is_gone());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::board::samples::at;
    use crate::event::envelope::Data;

    fn event(kind: Kind, queue: &'static str, old: Option<Status>, status: Option<Status>) -> Event {
        let mut event = Event::new(kind, Time::from_timestamp(1_000, 0).unwrap());
        event.queue = Some(Name::literal(queue));
        event.task_id = Some(Uuid::nil());
        event.priority = Priority::new(5);
        (event.old_status, event.status) = (old, status);
        event
    }

    #[test]
    fn a_queue_leaves_with_its_last_task_unless_someone_decided_about_it() {
        let mut queues = Queues::default();
        let pending = Some(Status::Pending);
        let names = |queues: &Queues| queues.0.keys().map(ToString::to_string).collect::<Vec<_>>();
        queues.apply(&event(Kind::TaskCreated, "a", None, pending));
        let mut moved = event(Kind::TaskUpdated, "b", pending, pending);
        moved.data.changes = Some([("queue".to_owned(), ["a".into(), "b".into()])].into());
        queues.apply(&moved);
        assert_eq!(names(&queues), ["b"]);
        let change = |kind, old: serde_json::Value, new: serde_json::Value| {
            let mut change = event(kind, "b", None, None);
            change.task_id = None;
            change.data.changes = Some([("paused_at".to_owned(), [old, new])].into());
            change
        };
        let at = serde_json::json!("2026-11-20T16:05:00Z");
        queues.apply(&change(Kind::QueuePaused, serde_json::Value::Null, at.clone()));
        queues.apply(&event(Kind::TaskDeleted, "b", pending, pending));
        assert_eq!(names(&queues), ["b"]);
        queues.apply(&change(Kind::QueueResumed, at, serde_json::Value::Null));
        assert!(names(&queues).is_empty());
    }

    fn name(text: &'static str) -> Name {
        Name::literal(text)
    }

    /// A task of queue `a` with priority 5 moves at a time.
    fn moves(kind: Kind, from: Option<Status>, to: Option<Status>, seconds: i64) -> Event {
        Event { ts: at(seconds), ..event(kind, "a", from, to) }
    }

    fn created(seconds: i64) -> Event {
        moves(Kind::TaskCreated, None, Some(Status::Pending), seconds)
    }

    fn started(seconds: i64) -> Event {
        moves(Kind::TaskStarted, Some(Status::Pending), Some(Status::Running), seconds)
    }

    fn ended(kind: Kind, seconds: i64) -> Event {
        let to = if kind == Kind::TaskCompleted { Status::Completed } else { Status::Failed };
        moves(kind, Some(Status::Running), Some(to), seconds)
    }

    fn decided(kind: Kind, field: &str, value: serde_json::Value, seconds: i64) -> Event {
        let mut event = moves(kind, None, None, seconds);
        event.task_id = None;
        event.data.changes = Some([(field.to_owned(), [serde_json::Value::Null, value])].into());
        event
    }

    /// An edit of a pending task that is now in queue `a` with priority 5.
    fn edited(field: &str, old: serde_json::Value, status: Status) -> Event {
        let mut event = moves(Kind::TaskUpdated, Some(status), Some(status), 0);
        event.data.changes = Some([(field.to_owned(), [old, serde_json::Value::Null])].into());
        event
    }

    fn after(events: impl IntoIterator<Item = Event>) -> Queues {
        let mut queues = Queues::default();
        events.into_iter().for_each(|event| queues.apply(&event));
        queues
    }

    #[test]
    fn bands_are_low_to_three_normal_to_six_and_high_above() {
        let queue = Queue { depth: [1, 10, 100, 1_000, 2, 20, 200, 3, 30, 300], ..Queue::default() };
        assert_eq!([Band::Low, Band::Normal, Band::High].map(|band| queue.depth_of(band)), [1_111, 222, 333]);
        assert_eq!(queue.waiting(), 1_666);
    }

    #[test]
    fn a_backlog_is_as_old_as_the_moment_it_was_last_empty() {
        let queues = after([created(0), created(5), started(9)]);
        assert_eq!(queues.0["a"].waiting_since, Some(at(0)), "one still waits");
        let queues = after([created(0), started(3)]);
        assert_eq!(queues.0["a"].waiting_since, None);
        let queues = after([created(0), started(3), created(8)]);
        assert_eq!(queues.0["a"].waiting_since, Some(at(8)));
    }

    #[test]
    fn a_backlog_is_untaken_since_the_last_claim_within_it() {
        let queues = after([created(0), created(1), started(9)]);
        assert_eq!(queues.0["a"].untaken_since(), Some(at(9)));
        let queues = after([created(0), started(3), created(8)]);
        assert_eq!(queues.0["a"].untaken_since(), Some(at(8)), "an earlier claim was of another backlog");
        assert_eq!(after([created(0), started(3)]).0["a"].untaken_since(), None);
    }

    #[test]
    fn a_claim_that_arrives_late_does_not_turn_time_back() {
        let queues = after([created(0), created(0), created(0), started(9), started(4)]);
        assert_eq!(queues.0["a"].taken_at, Some(at(9)));
    }

    #[test]
    fn time_spent_paused_is_no_time_without_a_claim() {
        let pause = decided(Kind::QueuePaused, "paused_at", serde_json::json!(at(10)), 10);
        let resume = decided(Kind::QueueResumed, "paused_at", serde_json::Value::Null, 500);
        let queues = after([created(0), pause.clone(), resume.clone()]);
        assert_eq!(queues.0["a"].untaken_since(), Some(at(500)));
        let queues = after([created(0), started(1), pause, resume]);
        assert_eq!(queues.0["a"].untaken_since(), None, "an empty queue stays empty");
    }

    #[test]
    fn limits_come_and_go_one_by_one() {
        let limit = |field: &str, value| decided(Kind::OperatorAction, field, value, 0);
        let set = [
            limit("concurrency_limit", serde_json::json!(4)),
            limit("rate_limit", serde_json::json!(9)),
            limit("rate_period_seconds", serde_json::json!(60)),
        ];
        let mut queues = after(set);
        let limits = |queues: &Queues| {
            queues.0.get("a").map(|queue| (queue.concurrency_limit, queue.rate_limit, queue.rate_period_seconds))
        };
        assert_eq!(limits(&queues), Some((Some(4), Some(9), Some(60))));
        queues.apply(&limit("concurrency_limit", serde_json::Value::Null));
        assert_eq!(limits(&queues), Some((None, Some(9), Some(60))));
        queues.apply(&limit("rate_limit", serde_json::Value::Null));
        assert_eq!(limits(&queues), None, "a queue without tasks and limits is gone");
    }

    #[test]
    fn a_limit_that_is_no_number_is_none() {
        for odd in [serde_json::json!(-1), serde_json::json!("4"), serde_json::json!(4_294_967_296_u64)] {
            let set = decided(Kind::OperatorAction, "concurrency_limit", serde_json::json!(4), 0);
            let queues = after([created(0), set, decided(Kind::OperatorAction, "concurrency_limit", odd.clone(), 0)]);
            assert_eq!(queues.0["a"].concurrency_limit, None, "{odd}");
        }
    }

    #[test]
    fn a_pending_task_takes_its_place_in_line_along() {
        let mut urgent = created(0);
        urgent.priority = Priority::new(9);
        let queues = after([urgent, edited("priority", 9.into(), Status::Pending)]);
        assert_eq!((queues.0["a"].depth[5], queues.0["a"].depth[9], queues.0["a"].waiting()), (1, 0, 1));
        let queues = after([created(0), started(0), edited("priority", 9.into(), Status::Running)]);
        assert_eq!((queues.0["a"].waiting(), queues.0["a"].count(Status::Running)), (0, 1), "a running one has none");
    }

    #[test]
    fn a_backlog_that_was_moved_away_leaves_no_age() {
        let there = Event { queue: Some(name("b")), ..created(0) };
        let other = Event { queue: Some(name("b")), ..moves(Kind::TaskCreated, None, Some(Status::Running), 1) };
        let queues = after([there, other, edited("queue", "b".into(), Status::Pending)]);
        assert_eq!((queues.0["b"].waiting_since, queues.0["b"].waiting()), (None, 0));
        assert_eq!(queues.0["a"].waiting_since, Some(at(0)), "there it begins with the move");
    }

    #[test]
    fn an_edit_of_something_else_moves_nothing() {
        let before = after([created(0)]);
        let queues = after([created(0), edited("title", "x".into(), Status::Pending)]);
        assert_eq!(queues, before);
    }

    #[test]
    fn the_age_of_the_oldest_is_kept_only_for_known_queues() {
        let mut depth = moves(Kind::QueueDepthUpdate, None, None, 9);
        depth.data.oldest_enqueued_at = Some(at(2));
        let queues = after([depth.clone()]);
        assert!(queues.0.is_empty());
        let queues = after([created(0), depth]);
        assert_eq!(queues.0["a"].oldest_enqueued_at, Some(at(2)));
    }

    #[test]
    fn counts_never_fall_below_zero() {
        let mut queues = after([created(0)]);
        for _ in 0..3 {
            queues.apply(&started(1));
        }
        assert_eq!((queues.0["a"].waiting(), queues.0["a"].count(Status::Pending)), (0, 0));
        assert_eq!(queues.0["a"].count(Status::Running), 3);
    }

    #[test]
    fn a_backlog_is_late_after_ten_times_the_usual_wait_and_a_minute_at_least() {
        let mut queue = Queue { oldest_enqueued_at: Some(at(0)), ..Queue::default() };
        assert_eq!(queue.late_since(at(9_000)), None, "there is none");
        queue.depth[5] = 1;
        assert_eq!((queue.late_since(at(59)), queue.late_since(at(60))), (None, Some(at(60))));
        (0..20).for_each(|_| queue.usual_waits.add(1_000, at(0), USUAL_WINDOW));
        assert_eq!(queue.late_since(at(60)), Some(at(60)), "ten times a second is less than a minute");
        (0..200).for_each(|_| queue.usual_waits.add(60_000, at(0), USUAL_WINDOW));
        let late = (queue.late_since(at(599)), queue.late_since(at(800)));
        assert!(late.0.is_none() && late.1.is_some(), "{late:?}");
    }

    #[test]
    fn rates_are_of_ended_attempts_and_unknown_times_of_none() {
        let queues = after([created(0), started(0), ended(Kind::TaskCompleted, 0), ended(Kind::TaskRetry, 1)]);
        let rates = queues.0["a"].rates(at(1));
        assert!(
            rates.completed_per_second > 0.0 && (rates.completed_per_second - rates.failed_per_second).abs() < 1e-9
        );
        assert_eq!((rates.wait, rates.run), (None, None));
        let timed = [
            Event { data: Data { wait_ms: Some(0), ..Data::default() }, ..started(0) },
            Event { duration_ms: Some(1_000), ..ended(Kind::TaskFailed, 1) },
        ];
        let rates = after([created(0)].into_iter().chain(timed)).0["a"].rates(at(1));
        let (wait, run) = (rates.wait.unwrap(), rates.run.unwrap());
        assert!(wait.p99_ms <= 1, "{wait:?}");
        assert!((1_000..=1_301).contains(&run.p50_ms) && run.p50_ms == run.p99_ms, "{run:?}");
    }
}
