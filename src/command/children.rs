//! Children of parent tasks, counted per phase and status, and the phases that start and complete by them.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::{
    clock::Time,
    event::{Event, Kind, draft},
    model::{
        Name, Task,
        phase::{Counts, NO_PHASE},
    },
};

/// Most phases of a parent; further children count among those without one.
const MAX_PHASES: usize = 200;

/// What a batch changes about the children of parents.
#[derive(Debug, Default)]
pub struct ChildCounts {
    /// Counts before the batch, of those parents that it needs to know.
    stored: HashMap<Uuid, BTreeMap<Name, Counts>>,
    deltas: BTreeMap<(Uuid, Name), CountsDelta>,
}

/// By how much a batch changes the counts of one phase.
#[derive(Debug, Default)]
pub struct CountsDelta {
    added: Counts,
    removed: Counts,
    /// The project of the children, which the phase's events name.
    project_id: Option<Name>,
}

/// A phase that started or completed, or whose parent may have to follow.
#[derive(Debug)]
pub struct PhaseChange {
    /// The parent task.
    pub parent_task_id: Uuid,
    /// The phase.
    pub name: Name,
    project_id: Option<Name>,
    counts: Counts,
    /// A child began, for the first time.
    pub starts: bool,
    /// All known children have finished, for the first time.
    pub completes: bool,
    started_at: Option<Time>,
    /// A parent that follows its children may start, complete or reopen.
    pub concerns_parent: bool,
}

/// The counts of a phase as they are stored after the batch.
#[derive(Debug)]
pub struct StoredPhase {
    /// The parent task.
    pub parent_task_id: Uuid,
    /// The phase.
    pub name: Name,
    /// Its children by status.
    pub counts: Counts,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it completed.
    pub completed_at: Option<Time>,
}

impl ChildCounts {
    /// Takes in the counts of a phase as they are stored.
    pub fn load(&mut self, parent: Uuid, phase: Name, counts: Counts) {
        self.stored.entry(parent).or_default().insert(phase, counts);
    }

    /// Records that a child has another status or another parent than before.
    pub fn record(&mut self, before: Option<&Task>, after: Option<&Task>) {
        let place = |task: &Task| Some((task.parent_task_id?, task.phase.clone(), task.status));
        if before.and_then(place) == after.and_then(place) {
            return;
        }
        for (task, is_added) in [(before, false), (after, true)] {
            let Some(task) = task else { continue };
            let Some(parent) = task.parent_task_id else { continue };
            let phase = task.phase.clone().unwrap_or_else(|| Name::literal(NO_PHASE));
            let delta = self.deltas.entry((parent, phase)).or_default();
            if is_added {
                delta.added.add(task.status)
            } else {
                delta.removed.add(task.status)
            }
            delta.project_id = Some(task.project_id.clone());
        }
    }

    /// The children of a parent by phase, with what the batch did so far. The stored counts must be loaded.
    #[must_use]
    pub fn of(&self, parent: Uuid) -> BTreeMap<Name, Counts> {
        let mut counts = self.stored.get(&parent).cloned().unwrap_or_default();
        let all = (parent, Name::literal("\u{20}"))..;
        for ((_, phase), delta) in self.deltas.range(all).take_while(|((id, _), _)| *id == parent) {
            let counts = counts.entry(phase.clone()).or_default();
            *counts = shifted(counts, delta.by_status());
        }
        counts.retain(|_, counts| counts.total() > 0);
        counts
    }

    /// A parent has this phase already, or may get one more. The stored counts must be loaded.
    #[must_use]
    pub fn has_room_for(&self, parent: Uuid, phase: &Name) -> bool {
        let stored = self.stored.get(&parent);
        if self.deltas.contains_key(&(parent, phase.clone())) || stored.is_some_and(|names| names.contains_key(phase)) {
            return true;
        }
        let all = (parent, Name::literal("\u{20}"))..;
        let new = self.deltas.range(all).take_while(|((id, _), _)| *id == parent);
        let new = new.filter(|((_, name), _)| stored.is_none_or(|names| !names.contains_key(name)));
        stored.map_or(0, BTreeMap::len) + new.count() < MAX_PHASES
    }

    /// What the batch changes, in the order of parents and phases.
    #[must_use]
    pub fn deltas(&self) -> Vec<(&Uuid, &Name, &CountsDelta)> {
        let changed = self.deltas.iter().filter(|(_, delta)| delta.by_status().iter().any(|by| *by != 0));
        changed.map(|((parent, phase), delta)| (parent, phase, delta)).collect()
    }

    /// What the new counts of a phase mean; `None` when nothing follows from them.
    #[must_use]
    pub fn phase_change(&self, phase: StoredPhase) -> Option<PhaseChange> {
        let StoredPhase { parent_task_id, name, counts, started_at, completed_at } = phase;
        let delta = self.deltas.get(&(parent_task_id, name.clone()))?;
        let change = PhaseChange {
            parent_task_id,
            name,
            project_id: delta.project_id.clone(),
            counts,
            starts: has_begun(&counts) && started_at.is_none(),
            completes: is_complete(&counts) && completed_at.is_none(),
            started_at,
            concerns_parent: standing(&counts) != standing(&delta.before(&counts)),
        };
        (change.starts || change.completes || change.concerns_parent).then_some(change)
    }
}

impl CountsDelta {
    /// By how much each count changes, in the order of [`Counts::numbers`].
    #[must_use]
    pub fn by_status(&self) -> [i64; 5] {
        let (added, removed) = (self.added.numbers(), self.removed.numbers());
        std::array::from_fn(|status| added[status].cast_signed() - removed[status].cast_signed())
    }

    /// The counts before the batch.
    fn before(&self, after: &Counts) -> Counts {
        shifted(after, self.by_status().map(i64::wrapping_neg))
    }
}

/// Counts that changed, never below zero.
fn shifted(counts: &Counts, by: [i64; 5]) -> Counts {
    let numbers = counts.numbers();
    Counts::from_numbers(std::array::from_fn(|status| numbers[status].saturating_add_signed(by[status])))
}

impl PhaseChange {
    /// The events that tell it.
    pub fn events(&self, now: Time) -> impl Iterator<Item = Event> {
        let kinds = [(self.starts, Kind::PhaseStarted), (self.completes, Kind::PhaseCompleted)];
        kinds.into_iter().filter(|(is_so, _)| *is_so).map(move |(_, kind)| {
            let phase = (self.parent_task_id, &self.name, self.project_id.as_ref());
            draft::phase_event(kind, phase, self.counts, self.started_at, now)
        })
    }
}

const fn has_begun(counts: &Counts) -> bool {
    counts.running + counts.finished() > 0
}

const fn is_complete(counts: &Counts) -> bool {
    counts.total() > 0 && counts.finished() == counts.total()
}

/// What a parent that follows its children goes by: some began, all have finished, some are open.
const fn standing(counts: &Counts) -> (bool, bool, bool) {
    (has_begun(counts), is_complete(counts), counts.finished() < counts.total())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::Status;
    use proptest::prelude::*;

    fn stored(pending: u64, completed: u64) -> StoredPhase {
        StoredPhase {
            parent_task_id: Uuid::from_u128(1),
            name: Name::literal("load"),
            counts: Counts { pending, completed, ..Counts::default() },
            started_at: None,
            completed_at: None,
        }
    }

    fn child(status: Status) -> Task {
        let new = crate::model::NewTask {
            parent_task_id: Some(Uuid::from_u128(1)),
            phase: Some(Name::literal("load")),
            ..crate::model::NewTask::plain(Uuid::from_u128(2), Name::literal("t"), Name::literal("q"))
        };
        Task { status, ..new.into_task(None, false, Time::UNIX_EPOCH) }
    }

    #[test]
    fn a_phase_starts_and_completes_once() {
        let mut children = ChildCounts::default();
        children.record(Some(&child(Status::Pending)), Some(&child(Status::Completed)));
        let first = children.phase_change(stored(1, 1)).unwrap();
        assert!(first.starts && !first.completes && first.concerns_parent);
        let last = children.phase_change(stored(0, 2)).unwrap();
        assert!(last.starts && last.completes);
        assert_eq!(last.events(Time::UNIX_EPOCH).count(), 2);
        let marked =
            StoredPhase { started_at: Some(Time::UNIX_EPOCH), completed_at: Some(Time::UNIX_EPOCH), ..stored(0, 2) };
        let again = children.phase_change(marked).unwrap();
        assert!(!again.starts && !again.completes && again.concerns_parent);
    }

    #[test]
    fn nothing_follows_from_one_of_many() {
        let mut children = ChildCounts::default();
        children.record(Some(&child(Status::Pending)), Some(&child(Status::Completed)));
        let started = StoredPhase { started_at: Some(Time::UNIX_EPOCH), ..stored(5, 6) };
        assert!(children.phase_change(started).is_none());
    }

    #[test]
    fn a_child_that_goes_and_comes_back_changes_no_count() {
        let mut children = ChildCounts::default();
        children.record(Some(&child(Status::Pending)), Some(&child(Status::Running)));
        children.record(Some(&child(Status::Running)), Some(&child(Status::Pending)));
        assert!(children.deltas().is_empty());
    }

    fn in_phase(number: u128, parent: u128, phase: Option<&str>, status: Status) -> Task {
        let new = crate::model::NewTask {
            parent_task_id: Some(Uuid::from_u128(parent)),
            phase: phase.map(|phase| Name::new(phase).unwrap()),
            ..crate::model::NewTask::plain(Uuid::from_u128(number), Name::literal("t"), Name::literal("q"))
        };
        Task { status, ..new.into_task(None, false, Time::UNIX_EPOCH) }
    }

    #[test]
    fn what_is_stored_and_what_the_batch_did_make_the_counts() {
        let parent = Uuid::from_u128(1);
        let mut children = ChildCounts::default();
        children.load(parent, Name::literal("load"), Counts { pending: 2, ..Counts::default() });
        children.record(Some(&child(Status::Pending)), Some(&child(Status::Failed)));
        children.record(None, Some(&in_phase(3, 1, None, Status::Running)));
        children.record(None, Some(&in_phase(4, 9, None, Status::Running)));
        let counts = children.of(parent);
        let right = [
            (Name::literal(NO_PHASE), Counts { running: 1, ..Counts::default() }),
            (Name::literal("load"), Counts { pending: 1, failed: 1, ..Counts::default() }),
        ];
        assert_eq!(counts, right.into());
    }

    #[test]
    fn an_emptied_phase_is_no_phase() {
        let parent = Uuid::from_u128(1);
        let mut children = ChildCounts::default();
        children.load(parent, Name::literal("load"), Counts { pending: 1, ..Counts::default() });
        children.record(Some(&child(Status::Pending)), None);
        assert!(children.of(parent).is_empty());
        assert_eq!(children.deltas().len(), 1, "but it was changed");
        children.record(Some(&child(Status::Pending)), None);
        assert!(children.of(parent).is_empty(), "counts that were wrong do not go below zero");
    }

    #[test]
    fn a_change_within_a_status_and_a_task_without_a_parent_count_nothing() {
        let mut children = ChildCounts::default();
        let (one, mut other) = (child(Status::Running), child(Status::Running));
        other.title = Some("renamed".to_owned());
        children.record(Some(&one), Some(&other));
        let alone = Task { parent_task_id: None, ..child(Status::Running) };
        children.record(None, Some(&alone));
        children.record(Some(&alone), Some(&Task { status: Status::Failed, ..alone.clone() }));
        assert!(children.deltas.is_empty());
    }

    #[test]
    fn a_parent_has_room_for_two_hundred_phases() {
        let parent = Uuid::from_u128(1);
        let name = |number: usize| Name::new(&format!("phase-{number}")).unwrap();
        let mut children = ChildCounts::default();
        for number in 0..MAX_PHASES - 1 {
            children.load(parent, name(number), Counts { pending: 1, ..Counts::default() });
        }
        assert!(children.has_room_for(parent, &name(500)));
        children.record(None, Some(&in_phase(2, 1, Some("phase-500"), Status::Pending)));
        assert!(!children.has_room_for(parent, &name(501)), "one of them is new in this batch");
        assert!(children.has_room_for(parent, &name(500)) && children.has_room_for(parent, &name(0)));
        assert!(children.has_room_for(Uuid::from_u128(2), &name(501)));
    }

    #[test]
    fn a_phase_that_was_reopened_concerns_its_parent() {
        let mut children = ChildCounts::default();
        children.record(Some(&child(Status::Failed)), Some(&child(Status::Pending)));
        let marked =
            StoredPhase { started_at: Some(Time::UNIX_EPOCH), completed_at: Some(Time::UNIX_EPOCH), ..stored(1, 4) };
        let change = children.phase_change(marked).unwrap();
        assert!(change.concerns_parent && !change.starts && !change.completes);
        assert_eq!(change.events(Time::UNIX_EPOCH).count(), 0);
        let other = StoredPhase { name: Name::literal("other"), ..stored(1, 4) };
        assert!(children.phase_change(other).is_none(), "the batch did nothing to it");
    }

    proptest! {
        /// However children come, change, move and go: the counts are those of the children that there are.
        #[test]
        fn counts_follow_the_children(
            moves in proptest::collection::vec(
                (0_u128..4, proptest::option::of((1_u128..3, proptest::option::of("[ab]"), 0_usize..8))),
                0..30,
            )
        ) {
            let mut children = ChildCounts::default();
            let mut tasks: BTreeMap<u128, Task> = BTreeMap::new();
            for (number, to) in moves {
                let after = to.map(|(parent, phase, status)| {
                    in_phase(number, parent, phase.as_deref(), Status::ALL[status])
                });
                children.record(tasks.get(&number), after.as_ref());
                match after {
                    Some(task) => tasks.insert(number, task),
                    None => tasks.remove(&number),
                };
            }
            for parent in [1, 2].map(Uuid::from_u128) {
                let mut right: BTreeMap<Name, Counts> = BTreeMap::new();
                for task in tasks.values().filter(|task| task.parent_task_id == Some(parent)) {
                    let phase = task.phase.clone().unwrap_or_else(|| Name::literal(NO_PHASE));
                    right.entry(phase).or_default().add(task.status);
                }
                prop_assert_eq!(children.of(parent), right);
            }
        }
    }
}
