//! Parent tasks in progress: their children counted per phase.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{edited, moved, name_or_dash};
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{
        Name, Status,
        phase::{Counts, NO_PHASE},
    },
};

/// Number of finished parents kept.
const KEEP_ENDED: usize = 20;
/// Maximum number of phases kept, including empty ones: as many as a parent may have, plus those it may declare.
const KEEP_PHASES: usize = 232;
/// Number of finish times kept for the rate and the ETA.
const KEEP_FINISHES: usize = 32;
/// Minimum number of finish times for an ETA.
const LEAST_FINISHES: usize = 5;

/// Parents in progress, and the last finished ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parents {
    /// In progress, by task ID.
    pub open: BTreeMap<Uuid, Parent>,
    /// The last finished ones, newest first.
    pub ended: VecDeque<(Uuid, Parent)>,
}

/// One parent task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// Project.
    pub project_id: Name,
    /// Task type.
    pub task_type: Name,
    /// Its queue.
    pub queue: Name,
    /// Its own parent task.
    pub parent_task_id: Option<Uuid>,
    /// Title.
    pub title: Option<String>,
    /// Its own status.
    pub status: Status,
    /// Time of creation.
    pub created_at: Time,
    /// Time of finishing.
    pub finished_at: Option<Time>,
    /// Its phases in order: declared ones first, others by first appearance.
    pub phases: Vec<Phase>,
    /// Finish times of its last children, oldest first.
    pub finishes: VecDeque<Time>,
}

/// One phase of a parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: Name,
    /// Its children by status.
    pub counts: Counts,
    /// When its first child started.
    pub started_at: Option<Time>,
    /// When all its children had finished for the first time.
    pub completed_at: Option<Time>,
}

/// Estimated time left for a parent at the recent rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eta {
    /// Lower bound, seconds.
    pub low_seconds: u64,
    /// Upper bound, seconds.
    pub high_seconds: u64,
}

impl Parents {
    pub(super) fn apply(&mut self, event: &Event) {
        if let Kind::PhaseStarted | Kind::PhaseCompleted = event.event_type {
            self.turn_phase(event);
            return;
        }
        let Some(id) = event.task_id else { return };
        self.apply_own(id, event);
        self.relocate(event);
        let Some(parent_id) = event.parent_task_id else { return };
        let Some((from, to)) = moved(event) else { return };
        if let Some(parent) = self.known(parent_id) {
            parent.count(event, from, to);
        }
    }

    fn known(&mut self, id: Uuid) -> Option<&mut Parent> {
        if self.open.contains_key(&id) {
            return self.open.get_mut(&id);
        }
        self.ended.iter_mut().find(|(ended, _)| *ended == id).map(|(_, parent)| parent)
    }

    fn turn_phase(&mut self, event: &Event) {
        let (Some(id), Some(name)) = (event.parent_task_id, &event.phase) else { return };
        let Some(parent) = self.known(id) else { return };
        let phase = parent.phase(name);
        match event.event_type {
            Kind::PhaseStarted => phase.started_at = Some(event.ts),
            _ => phase.completed_at = Some(event.ts),
        }
    }

    /// A report moved a child to another parent or phase.
    fn relocate(&mut self, event: &Event) {
        let (old_parent, old_phase) = (edited::<Uuid>(event, "parent_task_id"), edited::<Name>(event, "phase"));
        if old_parent.is_none() && old_phase.is_none() {
            return;
        }
        let Some(status) = event.status else { return };
        let was_under = old_parent.unwrap_or(event.parent_task_id);
        let was_in = old_phase.unwrap_or_else(|| event.phase.clone()).unwrap_or_else(|| Name::literal(NO_PHASE));
        if let Some(parent) = was_under.and_then(|id| self.known(id)) {
            parent.phase(&was_in).counts.remove(status);
        }
        let is_in = event.phase.clone().unwrap_or_else(|| Name::literal(NO_PHASE));
        if let Some(parent) = event.parent_task_id.and_then(|id| self.known(id)) {
            parent.phase(&is_in).counts.add(status);
        }
    }

    /// Counts of all descendants of a parent: children that are parents are replaced by their own children. `None` if
    /// it has no parents below it.
    #[must_use]
    pub fn rolled_up(&self, id: Uuid) -> Option<Counts> {
        self.get(id)?;
        RollUp::of(self).sum(id)
    }

    /// The same for every parent in progress that has parents below it, computed once per parent.
    #[must_use]
    pub fn all_rolled_up(&self) -> BTreeMap<Uuid, Counts> {
        let mut roll_up = RollUp::of(self);
        self.open.keys().filter_map(|id| Some((*id, roll_up.sum(*id)?))).collect()
    }

    /// Applies an event of a task that is a parent or becomes one: with its first child, or when it starts and has
    /// declared phases. A pending parent is not kept, so that a backlog of parents costs nothing.
    fn apply_own(&mut self, id: Uuid, event: &Event) {
        let starts = event.event_type == Kind::TaskStarted && event.data.phases.is_some();
        let becomes = event.data.changes.as_ref().is_some_and(|changes| changes.contains_key("is_parent"));
        let ended = self.ended.iter().position(|(ended, _)| *ended == id);
        let again = event.status.is_some_and(|status| !status.is_finished()) && event.event_type != Kind::TaskDeleted;
        if let Some((_, mut parent)) = ended.filter(|_| again).and_then(|index| self.ended.remove(index)) {
            parent.finished_at = None;
            self.open.insert(id, parent);
        }
        if (starts || becomes) && !self.open.contains_key(&id) {
            self.open.insert(id, Parent::new(event));
        }
        if let Some(parent) = self.open.get_mut(&id).filter(|_| becomes) {
            // Children reported before their parent.
            for (name, counts) in event.data.children.iter().flatten() {
                parent.phase(name).counts = *counts;
            }
        }
        let Some(parent) = self.open.get_mut(&id) else { return };
        if let Some(project) = event.project_id.as_ref().filter(|_| event.data.changes.is_some()) {
            parent.project_id.clone_from(project);
        }
        parent.status = event.status.unwrap_or(parent.status);
        if event.event_type == Kind::TaskDeleted {
            self.open.remove(&id);
        } else if parent.status.is_finished() {
            parent.finished_at = Some(event.ts);
            if let Some(parent) = self.open.remove(&id) {
                self.ended.push_front((id, parent));
                self.ended.truncate(KEEP_ENDED);
            }
        }
    }

    /// A parent in progress, or one of the last finished ones.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<&Parent> {
        self.open.get(&id).or_else(|| self.ended.iter().find(|(ended, _)| *ended == id).map(|(_, parent)| parent))
    }
}

/// Parents grouped by their own parent, and the sums computed so far.
struct RollUp<'a> {
    parents: BTreeMap<Uuid, &'a Parent>,
    below: BTreeMap<Uuid, Vec<Uuid>>,
    sums: BTreeMap<Uuid, Counts>,
}

impl<'a> RollUp<'a> {
    fn of(all: &'a Parents) -> Self {
        // A parent in progress takes precedence over its finished entry.
        let ended = all.ended.iter().map(|(id, parent)| (*id, parent));
        let parents: BTreeMap<_, _> = ended.chain(all.open.iter().map(|(id, parent)| (*id, parent))).collect();
        let mut below: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (id, parent) in &parents {
            if let Some(above) = parent.parent_task_id {
                below.entry(above).or_default().push(*id);
            }
        }
        Self { parents, below, sums: BTreeMap::new() }
    }

    /// Post-order without recursion; a node visited again, in a cycle, counts once.
    fn sum(&mut self, id: Uuid) -> Option<Counts> {
        let nested = self.below.contains_key(&id);
        let mut path = vec![(id, false)];
        let mut seen = BTreeSet::new();
        while let Some((next, is_down)) = path.pop() {
            if self.sums.contains_key(&next) {
                continue;
            }
            let below = self.below.get(&next).map_or(&[][..], Vec::as_slice);
            if is_down {
                let mut sum = self.parents.get(&next).map(|parent| parent.total()).unwrap_or_default();
                for child in below {
                    if let (Some(parent), Some(lower)) = (self.parents.get(child), self.sums.get(child)) {
                        sum.remove(parent.status);
                        sum.add_all(lower);
                    }
                }
                self.sums.insert(next, sum);
            } else if seen.insert(next) {
                path.push((next, true));
                path.extend(below.iter().filter(|child| !seen.contains(child)).map(|child| (*child, false)));
            }
        }
        self.sums.get(&id).filter(|_| nested).copied()
    }
}

impl Phase {
    fn new(name: Name) -> Self {
        Self { name, counts: Counts::default(), started_at: None, completed_at: None }
    }
}

impl Parent {
    fn new(event: &Event) -> Self {
        let phase = |name: &Name| Phase::new(name.clone());
        Self {
            project_id: name_or_dash(event.project_id.as_ref()),
            task_type: name_or_dash(event.task_type.as_ref()),
            queue: name_or_dash(event.queue.as_ref()),
            parent_task_id: event.parent_task_id,
            title: event.data.title.clone(),
            status: event.status.unwrap_or(Status::Pending),
            created_at: event.ts,
            finished_at: None,
            phases: event.data.phases.iter().flatten().map(phase).collect(),
            finishes: VecDeque::new(),
        }
    }

    fn count(&mut self, event: &Event, from: Option<Status>, to: Option<Status>) {
        let name = event.phase.clone().unwrap_or_else(|| Name::literal(NO_PHASE));
        let counts = &mut self.phase(&name).counts;
        if let Some(from) = from {
            counts.remove(from);
        }
        if let Some(to) = to {
            counts.add(to);
        }
        if to.is_some_and(Status::is_finished) {
            if self.finishes.len() == KEEP_FINISHES {
                self.finishes.pop_front();
            }
            self.finishes.push_back(event.ts);
        }
    }

    pub(super) fn phase(&mut self, name: &Name) -> &mut Phase {
        let index = self.phases.iter().position(|phase| phase.name == *name).unwrap_or_else(|| {
            if self.phases.len() >= KEEP_PHASES {
                // At the limit, an empty phase makes room.
                let empty = self.phases.iter().rposition(|phase| phase.counts.total() == 0);
                empty.map(|index| self.phases.remove(index));
            }
            self.phases.push(Phase::new(name.clone()));
            self.phases.len() - 1
        });
        &mut self.phases[index]
    }

    /// Counts of all children.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.phases.iter().for_each(|phase| total.add_all(&phase.counts));
        total
    }

    /// The current phase: the first started one with unfinished children, else the first with unfinished children.
    #[must_use]
    pub fn current_phase(&self) -> Option<&Phase> {
        let open = || self.phases.iter().filter(|phase| phase.counts.finished() < phase.counts.total());
        open().find(|phase| phase.counts.running + phase.counts.finished() > 0).or_else(|| open().next())
    }

    /// Recent rate of finished children per second; `None` with too few samples.
    #[must_use]
    pub fn rate(&self, now: Time) -> Option<f64> {
        let first = self.finishes.front().filter(|_| self.finishes.len() >= LEAST_FINISHES)?;
        let seconds = (now - *first).num_milliseconds().max(1) as f64 / 1_000.0;
        Some((self.finishes.len() - 1) as f64 / seconds)
    }

    /// Estimated time left for the known children; `None` with too few samples.
    #[must_use]
    pub fn eta(&self, now: Time) -> Option<Eta> {
        let total = self.total();
        let left = total.total() - total.finished();
        let rate = self.rate(now).filter(|rate| left > 0 && *rate > 0.0)?;
        let seconds = left as f64 / rate;
        // The standard deviation of a count of n is about its square root.
        let spread = 1.0 / (self.finishes.len() as f64).sqrt();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
        let whole = |seconds: f64| seconds.ceil() as u64;
        Some(Eta { low_seconds: whole(seconds * (1.0 - spread)), high_seconds: whole(seconds * (1.0 + spread)) })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::board::samples::at;

    fn parent(above: Option<u128>, running: u64) -> Parent {
        let mut event = Event::new(Kind::TaskStarted, Time::from_timestamp(1_000, 0).unwrap());
        event.parent_task_id = above.map(Uuid::from_u128);
        event.status = Some(Status::Running);
        let mut parent = Parent::new(&event);
        parent.phase(&Name::literal(NO_PHASE)).counts.running = running;
        parent
    }

    #[test]
    fn sums_go_up_once_however_deep_and_end_in_rings() {
        // Each level contains the next one and one task beside it.
        let depth = 3_000;
        let chain = (0..depth).map(|n| {
            let own = if n + 1 < depth { 2 } else { 1 };
            (Uuid::from_u128(n), parent(n.checked_sub(1), own))
        });
        let mut parents = Parents { open: chain.collect(), ..Parents::default() };
        let all = parents.all_rolled_up();
        assert_eq!(all.len() as u128, depth - 1);
        assert_eq!(all[&Uuid::nil()].running as u128, depth);
        assert_eq!(parents.rolled_up(Uuid::from_u128(depth - 2)).unwrap().running, 2);
        assert_eq!(parents.rolled_up(Uuid::from_u128(depth - 1)), None);
        parents.open.get_mut(&Uuid::nil()).unwrap().parent_task_id = Some(Uuid::from_u128(depth - 1));
        assert_eq!(parents.all_rolled_up().len() as u128, depth);
    }

    #[test]
    fn phases_that_come_and_go_do_not_pile_up() {
        let mut parent = parent(None, 1);
        for n in 0..10_000 {
            let name = Name::new(&format!("p{n}")).unwrap();
            parent.phase(&name).counts.add(Status::Pending);
            parent.phase(&name).counts.remove(Status::Pending);
        }
        assert!(parent.phases.len() <= KEEP_PHASES);
        assert_eq!(parent.total().running, 1);
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn event(kind: Kind, number: u128, from: Option<Status>, to: Option<Status>) -> Event {
        let mut event = Event::new(kind, at(0));
        event.task_id = Some(id(number));
        (event.old_status, event.status) = (from, to);
        event
    }

    /// Task 1 starts with two declared phases.
    fn starts() -> Event {
        let mut event = event(Kind::TaskStarted, 1, Some(Status::Pending), Some(Status::Running));
        event.data.phases = Some(vec![Name::literal("load"), Name::literal("send")]);
        event
    }

    /// A child of task 1 changes its status.
    fn child(number: u128, phase: &'static str, from: Option<Status>, to: Option<Status>) -> Event {
        let kind = if from.is_none() { Kind::TaskCreated } else { Kind::TaskUpdated };
        let mut event = event(kind, number, from, to);
        (event.parent_task_id, event.phase) = (Some(id(1)), Some(Name::literal(phase)));
        event
    }

    fn after(events: impl IntoIterator<Item = Event>) -> Parents {
        let mut parents = Parents::default();
        events.into_iter().for_each(|event| parents.apply(&event));
        parents
    }

    fn ends(number: u128) -> Event {
        event(Kind::TaskCompleted, number, Some(Status::Running), Some(Status::Completed))
    }

    fn phases(parent: &Parent) -> Vec<(&str, u64)> {
        parent.phases.iter().map(|phase| (phase.name.as_str(), phase.counts.total())).collect()
    }

    const PENDING: Option<Status> = Some(Status::Pending);
    const RUNNING: Option<Status> = Some(Status::Running);
    const DONE: Option<Status> = Some(Status::Completed);

    #[test]
    fn a_pending_parent_is_not_kept() {
        let mut created = event(Kind::TaskCreated, 1, None, PENDING);
        created.data.phases = Some(vec![Name::literal("load")]);
        assert_eq!(after([created, child(2, "load", None, PENDING)]), Parents::default());
    }

    #[test]
    fn declared_phases_come_first_and_others_as_they_appear() {
        let parents = after([
            starts(),
            child(2, "late", None, PENDING),
            child(3, "send", None, PENDING),
            Event { phase: None, ..child(4, "x", None, PENDING) },
        ]);
        assert_eq!(phases(&parents.open[&id(1)]), [("load", 0), ("send", 1), ("late", 1), (NO_PHASE, 1)]);
    }

    #[test]
    fn a_task_becomes_a_parent_with_the_children_that_came_before() {
        let mut becomes = event(Kind::TaskUpdated, 1, RUNNING, RUNNING);
        becomes.data.changes = Some([("is_parent".to_owned(), [false.into(), true.into()])].into());
        let counts = Counts { pending: 3, completed: 2, ..Counts::default() };
        becomes.data.children = Some([(Name::literal("load"), counts)].into());
        let parents = after([becomes, child(9, "load", PENDING, RUNNING)]);
        assert_eq!(parents.open[&id(1)].total().numbers(), [2, 1, 2, 0, 0]);
    }

    #[test]
    fn a_finished_parent_is_the_newest_of_twenty() {
        let mut events = Vec::new();
        for number in 1..=21 {
            events.push(Event { task_id: Some(id(number)), ..starts() });
            events.push(ends(number));
        }
        let parents = after(events);
        assert!(parents.open.is_empty());
        let ended: Vec<_> = parents.ended.iter().map(|(id, _)| id.as_u128()).collect();
        assert_eq!(ended, (2..=21).rev().collect::<Vec<_>>());
        assert_eq!((parents.get(id(1)), parents.get(id(2)).map(|parent| parent.status)), (None, DONE));
    }

    #[test]
    fn children_of_a_finished_parent_are_still_counted() {
        let parents = after([starts(), child(2, "load", None, RUNNING), ends(1), child(2, "load", RUNNING, DONE)]);
        assert_eq!(parents.get(id(1)).unwrap().total().numbers(), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_reopened_parent_is_in_progress_again_with_its_children() {
        let reopened = event(Kind::TaskUpdated, 1, DONE, RUNNING);
        let parents = after([starts(), child(2, "load", None, DONE), ends(1), reopened]);
        let parent = &parents.open[&id(1)];
        assert!(parents.ended.is_empty());
        assert_eq!((parent.status, parent.finished_at, parent.total().completed), (Status::Running, None, 1));
    }

    #[test]
    fn a_deleted_parent_leaves_at_once() {
        let deleted = |status| event(Kind::TaskDeleted, 1, status, status);
        assert_eq!(after([starts(), deleted(RUNNING)]), Parents::default());
        let parents = after([starts(), ends(1), deleted(DONE)]);
        assert!(parents.open.is_empty(), "one that had finished is not reopened by its deletion");
    }

    #[test]
    fn a_child_that_changes_its_phase_is_counted_once() {
        let mut moved = child(2, "send", PENDING, PENDING);
        moved.data.changes = Some([("phase".to_owned(), ["load".into(), "send".into()])].into());
        let parents = after([starts(), child(2, "load", None, PENDING), moved.clone()]);
        assert_eq!(phases(&parents.open[&id(1)]), [("load", 0), ("send", 1)]);
        moved.data.changes = Some([("phase".to_owned(), [serde_json::Value::Null, "send".into()])].into());
        let parents = after([starts(), Event { phase: None, ..child(2, "x", None, PENDING) }, moved]);
        assert_eq!(phases(&parents.open[&id(1)]), [("load", 0), ("send", 1), (NO_PHASE, 0)]);
    }

    #[test]
    fn a_child_that_changes_its_parent_leaves_the_old_one() {
        let other = Event { task_id: Some(id(8)), ..starts() };
        let mut moved = Event { parent_task_id: Some(id(8)), ..child(2, "load", RUNNING, RUNNING) };
        let old = serde_json::to_value(id(1)).unwrap();
        moved.data.changes = Some([("parent_task_id".to_owned(), [old, serde_json::Value::Null])].into());
        let parents = after([starts(), other, child(2, "load", None, RUNNING), moved]);
        let totals = [1, 8].map(|number| parents.open[&id(number)].total().running);
        assert_eq!(totals, [0, 1]);
    }

    #[test]
    fn phases_turn_for_known_parents_only() {
        let turn = |kind, seconds| {
            let mut event = Event::new(kind, at(seconds));
            (event.parent_task_id, event.phase) = (Some(id(1)), Some(Name::literal("send")));
            event
        };
        let began_and_ended = [turn(Kind::PhaseStarted, 3), turn(Kind::PhaseCompleted, 8)];
        assert_eq!(after(began_and_ended.clone()), Parents::default());
        let parents = after([starts()].into_iter().chain(began_and_ended));
        let phase = &parents.open[&id(1)].phases[1];
        assert_eq!((phase.started_at, phase.completed_at), (Some(at(3)), Some(at(8))));
    }

    #[test]
    fn the_current_phase_is_the_first_that_has_begun_and_is_not_over() {
        let current = |events: Vec<Event>| {
            let parents = after([starts()].into_iter().chain(events));
            parents.open[&id(1)].current_phase().map(|phase| phase.name.to_string())
        };
        assert_eq!(current(vec![]), None);
        let waits = |number, phase| child(number, phase, None, PENDING);
        assert_eq!(current(vec![waits(2, "load"), waits(3, "send")]).as_deref(), Some("load"));
        let runs = child(3, "send", None, RUNNING);
        assert_eq!(current(vec![waits(2, "load"), runs]).as_deref(), Some("send"), "it has begun");
        let over = child(2, "load", None, DONE);
        assert_eq!(current(vec![over.clone(), waits(3, "send")]).as_deref(), Some("send"));
        assert_eq!(current(vec![over, child(3, "send", None, DONE)]), None);
    }

    /// A parent of which a child finished at each of these seconds, and others wait.
    fn finishing(seconds: impl IntoIterator<Item = i64>, left: u64) -> Parent {
        let mut parent = parent(None, left);
        for (number, second) in (100..).zip(seconds) {
            let done = Event { ts: at(second), ..child(number, "load", None, DONE) };
            parent.count(&done, None, DONE);
        }
        parent
    }

    #[test]
    fn nobody_estimates_from_four_children() {
        assert_eq!(finishing([0, 1, 2, 3], 4).eta(at(4)), None);
        assert!(finishing([0, 1, 2, 3, 4], 4).eta(at(4)).is_some());
        assert_eq!(finishing([0, 1, 2, 3, 4], 0).eta(at(4)), None, "none is left");
    }

    #[test]
    fn an_estimate_covers_the_truth_of_a_steady_pace() {
        let parent = finishing((0..32).map(|number| number * 10), 20);
        let eta = parent.eta(at(310)).unwrap();
        assert!(eta.low_seconds < 200 && 200 < eta.high_seconds, "{eta:?}");
        let stalled = parent.eta(at(3_100)).unwrap();
        assert!(stalled.low_seconds > eta.high_seconds, "it grows while nothing finishes");
    }

    #[test]
    fn the_pace_is_that_of_the_last_thirty_two() {
        let slow_then_fast = (0..100).map(|number| number * 1_000).chain((0..32).map(|number| 200_000 + number));
        let rate = finishing(slow_then_fast, 1).rate(at(200_031)).unwrap();
        assert!((rate - 1.0).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn children_that_finish_at_one_moment_make_no_infinite_pace() {
        let parent = finishing([5; 8], 3);
        let rate = parent.rate(at(5)).unwrap();
        assert!(rate.is_finite() && rate > 0.0);
        assert_eq!(parent.eta(at(5)).map(|eta| eta.high_seconds), Some(1));
        assert!(parent.rate(at(-60)).unwrap().is_finite(), "also by a clock that is behind");
    }
}
