//! Error groups: failures with the same fingerprint, how many, since when, where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
