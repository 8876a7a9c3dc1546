//! Error groups: failures with the same fingerprint, how many, since when, where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{moved, name_or_dash};
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{
        Name, Status,
        fingerprint::{fingerprint, pattern},
    },
};

/// Maximum number of groups; groups without failed tasks are evicted first, then the least recently seen.
const MAX_GROUPS: usize = 200;
/// Maximum number of queues and of workers listed per group.
const MOST_NAMED: usize = 8;
/// Hours of a group's sparkline.
pub const HOURS: usize = 24;
/// How long a project remembers a group without failed tasks.
const CLOSED_FOR: TimeDelta = TimeDelta::days(7);
/// Maximum length of an example error, characters.
const LONGEST: usize = 1_000;

/// All error groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// By fingerprint.
    pub groups: BTreeMap<Name, Group>,
    /// More groups of failed tasks existed than are kept: the counts of a group that reappears start at that time.
    #[serde(default)]
    pub overflowed: bool,
}

/// Failures with the same fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Task type.
    pub task_type: Name,
    /// Common part of their errors.
    pub pattern: String,
    /// The latest error.
    pub error: String,
    /// The task of that error.
    pub task_id: Option<Uuid>,
    /// Currently failed tasks.
    pub open: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Failed attempts that were retried.
    pub retried: u64,
    /// Time of the first failure.
    pub first_seen_at: Time,
    /// Time of the latest failure.
    pub last_seen_at: Time,
    /// Some queues of these tasks.
    pub queues: BTreeSet<Name>,
    /// Some workers on which they failed.
    pub workers: BTreeSet<Uuid>,
    /// Hour since 1970 and number of failures, oldest first.
    pub hours: VecDeque<(i64, u64)>,
}

impl Failures {
    pub(super) fn apply(&mut self, event: &Event) {
        let told = event.data.fingerprint.as_ref();
        let was = event.data.old_fingerprint.as_ref();
        if let Kind::TaskFailed | Kind::TaskRetry = event.event_type {
            let computed = || fingerprint(&name_or_dash(event.task_type.as_ref()), event.error.as_deref());
            let key = told.cloned().unwrap_or_else(computed);
            self.groups.entry(key).or_insert_with(|| Group::new(event)).add(event);
        } else if let (Some(key), Some(_)) = (told, was) {
            self.groups.entry(key.clone()).or_insert_with(|| Group::new(event)).open += 1;
        }
        let left = match moved(event) {
            Some((Some(Status::Failed), _)) => was.or(told),
            _ => was,
        };
        if let Some(group) = left.and_then(|key| self.groups.get_mut(key)) {
            group.open = group.open.saturating_sub(1);
        }
        self.forget();
    }

    /// Sets the number of currently failed tasks of a group; `newest` replaces events that were not folded.
    pub(super) fn set_open(&mut self, fingerprint: Name, open: u64, newest: &Event) {
        let group = self.groups.entry(fingerprint).or_insert_with(|| {
            let mut group = Group::new(newest);
            group.add(newest);
            group
        });
        group.open = open;
        self.forget();
    }

    /// Groups with failed tasks, latest first.
    #[must_use]
    pub fn open(&self) -> Vec<(&Name, &Group)> {
        let mut open: Vec<_> = self.groups.iter().filter(|(_, group)| group.open > 0).collect();
        open.sort_by_key(|(_, group)| std::cmp::Reverse(group.last_seen_at));
        open
    }

    /// A failed task came from another project, or went to one: `comes` or not.
    pub(super) fn migrate(&mut self, event: &Event, comes: bool) {
        let (now, before) = (event.data.fingerprint.as_ref(), event.data.old_fingerprint.as_ref());
        let key = if comes { now } else { before.or(now) };
        let Some(key) = key.filter(|_| event.status == Some(Status::Failed)) else { return };
        if comes {
            self.groups.entry(key.clone()).or_insert_with(|| Group::new(event)).open += 1;
            self.forget();
        } else if let Some(group) = self.groups.get_mut(key) {
            group.open = group.open.saturating_sub(1);
        }
    }

    /// Removes groups without failed tasks that have not been seen for a week.
    pub(super) fn forget_closed(&mut self, now: Time) {
        self.groups.retain(|_, group| group.open > 0 || now - group.last_seen_at < CLOSED_FOR);
    }

    /// Adds the groups of another project.
    pub(super) fn merge(&mut self, other: &Self) {
        self.overflowed |= other.overflowed;
        for (fingerprint, group) in &other.groups {
            match self.groups.get_mut(fingerprint) {
                Some(known) => known.merge(group),
                None => {
                    self.groups.insert(fingerprint.clone(), group.clone());
                }
            }
            self.forget();
        }
    }

    fn forget(&mut self) {
        if self.groups.len() <= MAX_GROUPS {
            return;
        }
        let least = self.groups.iter().min_by_key(|(_, group)| (group.open > 0, group.last_seen_at));
        if let Some(group) = least.map(|(key, _)| key.clone()).and_then(|key| self.groups.remove(&key)) {
            self.overflowed |= group.open > 0;
        }
    }
}

impl Group {
    fn new(event: &Event) -> Self {
        Self {
            task_type: name_or_dash(event.task_type.as_ref()),
            pattern: pattern(event.error.as_deref().unwrap_or_default()),
            error: String::new(),
            task_id: None,
            open: 0,
            failed: 0,
            retried: 0,
            first_seen_at: event.ts,
            last_seen_at: event.ts,
            queues: BTreeSet::new(),
            workers: BTreeSet::new(),
            hours: VecDeque::new(),
        }
    }

    fn add(&mut self, event: &Event) {
        let anew = matches!(moved(event), Some((_, Some(Status::Failed))))
            || event.data.old_fingerprint.is_some() && event.status == Some(Status::Failed);
        self.open += u64::from(anew);
        match event.event_type {
            Kind::TaskFailed => self.failed += 1,
            _ => self.retried += 1,
        }
        self.error = event.error.iter().flat_map(|error| error.chars()).take(LONGEST).collect();
        self.task_id = event.task_id;
        self.last_seen_at = event.ts;
        if let Some(queue) = event.queue.as_ref().filter(|_| self.queues.len() < MOST_NAMED) {
            self.queues.insert(queue.clone());
        }
        if let Some(worker) = event.worker_id.filter(|_| self.workers.len() < MOST_NAMED) {
            self.workers.insert(worker);
        }
        let hour = event.ts.timestamp().div_euclid(3_600);
        match self.hours.back_mut() {
            // Clocks of several servers may differ slightly: a late event counts for the newest hour.
            Some((last, count)) if *last >= hour => *count += 1,
            _ => self.hours.push_back((hour, 1)),
        }
        while self.hours.front().is_some_and(|(first, _)| *first <= hour - HOURS as i64) {
            self.hours.pop_front();
        }
    }

    /// Adds the failures of the same kind in another project.
    fn merge(&mut self, other: &Self) {
        self.open += other.open;
        self.failed += other.failed;
        self.retried += other.retried;
        self.first_seen_at = self.first_seen_at.min(other.first_seen_at);
        if other.last_seen_at > self.last_seen_at {
            self.last_seen_at = other.last_seen_at;
            self.error.clone_from(&other.error);
            self.task_id = other.task_id;
        }
        let queues = other.queues.iter().take(MOST_NAMED.saturating_sub(self.queues.len()));
        self.queues.extend(queues.cloned());
        self.workers.extend(other.workers.iter().take(MOST_NAMED.saturating_sub(self.workers.len())));
        let mut hours: BTreeMap<i64, u64> = BTreeMap::new();
        for (hour, count) in self.hours.iter().chain(&other.hours) {
            *hours.entry(*hour).or_default() += count;
        }
        let newest = hours.last_key_value().map_or(0, |(hour, _)| *hour);
        self.hours = hours.into_iter().filter(|(hour, _)| *hour > newest - HOURS as i64).collect();
    }

    /// Number of failures in each of the last hours, oldest first.
    #[must_use]
    pub fn last_hours(&self, now: Time) -> [u64; HOURS] {
        let mut counts = [0; HOURS];
        let present = now.timestamp().div_euclid(3_600);
        for (hour, count) in &self.hours {
            if let Ok(age) = usize::try_from((present - hour).max(0))
                && age < HOURS
            {
                counts[HOURS - 1 - age] += count;
            }
        }
        counts
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::board::samples::{START, at};

    fn event(kind: Kind, fingerprint: &str, from: Status, to: Status, seconds: i64) -> Event {
        let mut event = Event::new(kind, at(seconds));
        event.task_id = Some(Uuid::nil());
        event.task_type = Some(Name::literal("mail"));
        event.data.fingerprint = Some(Name::new(fingerprint).unwrap());
        (event.old_status, event.status) = (Some(from), Some(to));
        event
    }

    fn fails(fingerprint: &str, seconds: i64) -> Event {
        event(Kind::TaskFailed, fingerprint, Status::Running, Status::Failed, seconds)
    }

    fn is_retried(fingerprint: &str, seconds: i64) -> Event {
        event(Kind::TaskRetry, fingerprint, Status::Running, Status::Retrying, seconds)
    }

    fn after(events: impl IntoIterator<Item = Event>) -> Failures {
        let mut failures = Failures::default();
        events.into_iter().for_each(|event| failures.apply(&event));
        failures
    }

    fn open(failures: &Failures) -> Vec<(&str, u64)> {
        failures.open().into_iter().map(|(key, group)| (key.as_str(), group.open)).collect()
    }

    #[test]
    fn a_group_is_open_until_its_last_failed_task_moves_on() {
        for (kind, to) in [
            (Kind::TaskEnqueued, Some(Status::Pending)),
            (Kind::TaskDeleted, None),
            (Kind::TaskUpdated, Some(Status::Running)),
        ] {
            let mut gone = event(kind, "f", Status::Failed, Status::Pending, 2);
            gone.status = to;
            let mut failures = after([fails("f", 0), fails("f", 1), gone.clone()]);
            assert_eq!(open(&failures), [("f", 1)], "{kind}");
            failures.apply(&gone);
            assert_eq!(open(&failures), [], "{kind}");
            assert_eq!(failures.groups["f"].failed, 2, "what has failed has failed");
            failures.apply(&gone);
            assert_eq!(failures.groups["f"].open, 0, "never below zero");
        }
    }

    #[test]
    fn another_failure_of_a_failed_task_moves_it_to_another_group() {
        let mut other = event(Kind::TaskFailed, "new", Status::Failed, Status::Failed, 1);
        other.data.old_fingerprint = Some(Name::literal("old"));
        let failures = after([fails("old", 0), other.clone()]);
        assert_eq!(open(&failures), [("new", 1)]);
        let edited = Event { event_type: Kind::TaskUpdated, ..other };
        let failures = after([fails("old", 0), edited]);
        assert_eq!((open(&failures), failures.groups["new"].failed), (vec![("new", 1)], 0), "an edit is no failure");
    }

    #[test]
    fn without_a_fingerprint_it_is_computed_from_type_and_error() {
        let failed = |error: &str| {
            let mut event = fails("x", 0);
            (event.data.fingerprint, event.error) = (None, Some(error.to_owned()));
            event
        };
        let failures = after([failed("timeout after 3 s"), failed("timeout after 4 s"), failed("disk full")]);
        assert_eq!(failures.groups.values().map(|group| group.open).max(), Some(2));
        assert_eq!(failures.groups.len(), 2);
        let key = fingerprint(&Name::literal("mail"), Some("disk full"));
        assert_eq!(failures.groups[&key].pattern, "disk full");
    }

    #[test]
    fn the_example_is_the_latest_error_cut_at_a_thousand_characters() {
        let with = |error: String, seconds| Event { error: Some(error), ..fails("f", seconds) };
        let failures = after([with("first".to_owned(), 0), with("ä".repeat(1_001), 1)]);
        let group = &failures.groups["f"];
        assert_eq!((group.error.chars().count(), group.pattern.as_str()), (1_000, "first"));
        let failures = after([with("first".to_owned(), 0), Event { error: None, ..fails("f", 1) }]);
        assert_eq!(failures.groups["f"].error, "", "an old error is not that of the latest task");
    }

    #[test]
    fn eight_queues_and_eight_workers_are_named() {
        let failures = after((0..20_u128).map(|number| {
            let mut event = fails("f", 0);
            event.queue = Some(Name::new(&format!("q{number:02}")).unwrap());
            event.worker_id = Some(Uuid::from_u128(number));
            event
        }));
        let group = &failures.groups["f"];
        assert_eq!((group.queues.len(), group.workers.len()), (8, 8));
        assert!(group.queues.contains("q00") && group.workers.contains(&Uuid::nil()), "the first ones");
    }

    #[test]
    fn an_hour_counts_until_a_day_later() {
        let failures = after([fails("f", 0), fails("f", 3_599), is_retried("f", 3_600)]);
        let group = &failures.groups["f"];
        let hours = group.last_hours(at(3_600));
        assert_eq!((hours[HOURS - 2], hours[HOURS - 1]), (2, 1));
        let hours = group.last_hours(at(23 * 3_600));
        assert_eq!((hours[0], hours[1]), (2, 1));
        let hours = group.last_hours(at(24 * 3_600));
        assert_eq!((hours[0], hours.iter().sum::<u64>()), (1, 1));
        assert_eq!(group.last_hours(at(-3_600))[HOURS - 1], 3, "a reader's clock may be behind");
    }

    #[test]
    fn a_late_failure_of_another_clock_counts_for_the_newest_hour() {
        let failures = after([fails("f", 3_600), fails("f", 3_599)]);
        assert_eq!(failures.groups["f"].hours, [(START / 3_600 + 1, 2)]);
    }

    #[test]
    fn a_day_of_hours_is_kept() {
        let failures = after((0..100).map(|hour| fails("f", hour * 3_600)));
        assert_eq!(failures.groups["f"].hours.len(), HOURS);
        assert_eq!(failures.groups["f"].last_hours(at(99 * 3_600)), [1; HOURS]);
    }

    #[test]
    fn open_groups_are_listed_by_their_latest_failure() {
        let failures = after([fails("a", 0), fails("b", 1), fails("a", 2), is_retried("c", 3)]);
        assert_eq!(open(&failures), [("a", 2), ("b", 1)]);
    }

    #[test]
    fn counts_of_the_tables_replace_those_of_the_events() {
        let mut failures = after([fails("a", 0), fails("a", 1)]);
        failures.set_open(Name::literal("a"), 7, &fails("a", 9));
        failures.set_open(Name::literal("b"), 3, &fails("b", 9));
        assert_eq!(open(&failures), [("b", 3), ("a", 7)]);
        let known = &failures.groups["a"];
        assert_eq!((known.failed, known.last_seen_at), (2, at(1)), "its events were folded already");
        assert_eq!((failures.groups["b"].failed, failures.groups["b"].last_seen_at), (1, at(9)));
    }

    #[test]
    fn the_group_that_was_seen_least_recently_goes_first() {
        let mut events: Vec<_> = (0..200).map(|number| is_retried(&format!("f{number:03}"), number)).collect();
        events.push(is_retried("f000", 500));
        events.push(is_retried("new", 501));
        let failures = after(events);
        assert_eq!(failures.groups.len(), 200);
        assert!(failures.groups.contains_key("f000") && !failures.groups.contains_key("f001"));
        assert!(!failures.overflowed, "no failed task was forgotten");
    }

    proptest! {
        /// Failing and moving on in any order: the open tasks of all groups are the failed tasks.
        #[test]
        fn every_failed_task_is_in_one_group(steps in prop::collection::vec((0_usize..6, 0_usize..3), 0..80)) {
            let keys = ["a", "b", "c"];
            let mut failed: Vec<Option<&str>> = vec![None; 6];
            let mut failures = Failures::default();
            for (task, key) in steps {
                let key = keys[key];
                let next = match failed[task] {
                    None => fails(key, 0),
                    Some(old) if old == key => event(Kind::TaskEnqueued, old, Status::Failed, Status::Pending, 0),
                    Some(old) => {
                        let mut again = event(Kind::TaskFailed, key, Status::Failed, Status::Failed, 0);
                        again.data.old_fingerprint = Some(Name::new(old).unwrap());
                        again
                    }
                };
                failed[task] = (next.status == Some(Status::Failed)).then_some(key);
                failures.apply(&next);
                for key in keys {
                    let expected = failed.iter().filter(|of| **of == Some(key)).count() as u64;
                    prop_assert_eq!(failures.groups.get(key).map_or(0, |group| group.open), expected);
                }
            }
        }
    }
}
