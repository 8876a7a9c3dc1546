//! Tasks that can never make progress: in a dependency cycle, blocked by a `auto_complete` parent without children,
//! or blocked by such a task.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::PartialSchema;
use uuid::Uuid;

use super::{Name, words::words};

words! {
    /// Why a task cannot make progress without an operator.
    StuckReason {
        /// It is part of a dependency cycle.
        Ring = "ring",
        /// It is blocked by a task that cannot make progress.
        Waits = "waits",
        /// It is a parent without children.
        NoChildren = "no_children",
    }
}

/// A task that cannot make progress without an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stuck {
    /// Task ID.
    pub task_id: Uuid,
    /// Project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<Name>,
    /// Task type.
    #[schema(value_type = String)]
    pub task_type: Name,
    /// Reason.
    // Inlined with a description, it would have to be an object as well (utoipa 5).
    #[schema(schema_with = StuckReason::schema)]
    pub reason: StuckReason,
    /// The stuck task that it is blocked by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Uuid>,
}

/// Finds the tasks of a wait-for graph that can never make progress, each with the reason and what it waits for.
/// `childless` parents wait for nothing. Tasks that are not keys of `waits` are assumed to make progress.
#[must_use]
pub fn stuck(waits: &HashMap<Uuid, Vec<Uuid>>, childless: &HashSet<Uuid>) -> Vec<(Uuid, StuckReason, Option<Uuid>)> {
    let mut waiters: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    let mut open: HashMap<Uuid, usize> = HashMap::new();
    for (waiter, awaited) in waits {
        let unsure = awaited.iter().filter(|id| waits.contains_key(*id) || childless.contains(*id));
        for id in unsure.clone() {
            waiters.entry(*id).or_default().push(*waiter);
        }
        open.insert(*waiter, unsure.count());
    }
    // Repeatedly remove tasks whose dependencies all make progress.
    let mut free: Vec<_> = open.iter().filter(|(_, open)| **open == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        open.remove(&id);
        for waiter in waiters.get(&id).into_iter().flatten() {
            if let Some(left) = open.get_mut(waiter) {
                *left -= 1;
                if *left == 0 {
                    free.push(*waiter);
                }
            }
        }
    }
    let cannot = |id: &Uuid| childless.contains(id) || open.contains_key(id);
    let on: HashMap<Uuid, Uuid> = open
        .keys()
        .filter_map(|id| Some((*id, *waits.get(id)?.iter().filter(|awaited| cannot(awaited)).min()?)))
        .collect();
    let rings = rings(&on);
    let mut all: Vec<_> = childless.iter().map(|id| (*id, StuckReason::NoChildren, None)).collect();
    all.extend(
        on.iter()
            .map(|(id, on)| (*id, if rings.contains(id) { StuckReason::Ring } else { StuckReason::Waits }, Some(*on))),
    );
    // Root causes first.
    all.sort_by_key(|(id, reason, _)| (*reason == StuckReason::Waits, *id));
    all
}

/// Nodes on cycles: each node has at most one outgoing edge.
fn rings(on: &HashMap<Uuid, Uuid>) -> HashSet<Uuid> {
    let (mut rings, mut seen) = (HashSet::new(), HashSet::new());
    for start in on.keys() {
        let mut path = Vec::new();
        let mut next = Some(*start);
        while let Some(id) = next.filter(|id| seen.insert(*id)) {
            path.push(id);
            next = on.get(&id).copied();
        }
        if let Some(met) = next {
            rings.extend(path.into_iter().skip_while(|id| *id != met));
        }
    }
    rings
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rings_childless_groups_and_those_that_wait_for_them_are_stuck() {
        let [a, b, c, d, e, g, h, x] = [1, 2, 3, 4, 5, 6, 7, 8].map(Uuid::from_u128);
        let waits =
            HashMap::from([(a, vec![b]), (b, vec![c, x]), (c, vec![a]), (d, vec![x, a]), (e, vec![x]), (h, vec![g])]);
        let found = stuck(&waits, &HashSet::from([g]));
        let of = |id| found.iter().find(|(found, ..)| *found == id).map(|(_, reason, on)| (*reason, *on));
        for (id, on) in [(a, b), (b, c), (c, a)] {
            assert_eq!(of(id), Some((StuckReason::Ring, Some(on))));
        }
        assert_eq!(of(d), Some((StuckReason::Waits, Some(a))));
        assert_eq!(of(h), Some((StuckReason::Waits, Some(g))));
        assert_eq!(of(g), Some((StuckReason::NoChildren, None)));
        assert_eq!((of(e), of(x)), (None, None));
        assert_eq!(found.last().map(|(_, reason, _)| *reason), Some(StuckReason::Waits));
        assert_eq!(stuck(&HashMap::from([(a, vec![a])]), &HashSet::new()), [(a, StuckReason::Ring, Some(a))]);
    }

    #[test]
    fn nothing_is_stuck_that_waits_for_work() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(stuck(&HashMap::new(), &HashSet::new()), []);
        let chain = HashMap::from([(a, vec![b]), (b, vec![c]), (c, vec![])]);
        assert_eq!(stuck(&chain, &HashSet::new()), []);
        assert_eq!(stuck(&HashMap::from([(a, vec![b, b])]), &HashSet::new()), [], "named twice");
    }

    #[test]
    fn causes_come_before_those_that_wait_for_them() {
        let [a, b, parent] = [1, 2, 9].map(Uuid::from_u128);
        let found = stuck(&HashMap::from([(a, vec![b]), (b, vec![parent])]), &HashSet::from([parent]));
        assert_eq!(
            found,
            [
                (parent, StuckReason::NoChildren, None),
                (a, StuckReason::Waits, Some(b)),
                (b, StuckReason::Waits, Some(parent)),
            ]
        );
    }

    proptest! {
        /// Tasks that are not reported can be worked off one after the other, and each reported one waits for another.
        #[test]
        fn what_is_not_stuck_can_be_worked_off(
            edges in proptest::collection::vec((0_u128..10, 0_u128..12), 0..20),
            childless in proptest::collection::hash_set((8_u128..12).prop_map(Uuid::from_u128), 0..2),
        ) {
            let mut waits: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
            for (from, to) in edges.into_iter().filter(|(from, _)| !childless.contains(&Uuid::from_u128(*from))) {
                waits.entry(Uuid::from_u128(from)).or_default().push(Uuid::from_u128(to));
            }
            let found: HashMap<_, _> =
                stuck(&waits, &childless).into_iter().map(|(id, reason, on)| (id, (reason, on))).collect();
            let mut left: HashSet<_> = waits.keys().copied().collect();
            loop {
                let free: Vec<_> = left
                    .iter()
                    .filter(|id| waits[*id].iter().all(|on| !left.contains(on) && !childless.contains(on)))
                    .copied()
                    .collect();
                if free.is_empty() {
                    break;
                }
                left.retain(|id| !free.contains(id));
            }
            left.extend(&childless);
            prop_assert_eq!(&found.keys().copied().collect::<HashSet<_>>(), &left);
            for (id, (reason, on)) in &found {
                prop_assert_eq!(*reason == StuckReason::NoChildren, childless.contains(id));
                prop_assert!(on.is_none_or(|on| waits[id].contains(&on) && found.contains_key(&on)));
            }
        }
    }
}
