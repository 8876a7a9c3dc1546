//! Dependencies between tasks.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::{Status, words::words};

words! {
    /// What happens to a blocked task when one of its dependencies fails, is cancelled or is deleted.
    #[derive(Default)]
    DependencyPolicy {
        /// The task fails too.
        #[default]
        Fail = "fail",
        /// The task is cancelled.
        Cancel = "cancel",
        /// The task continues as if the dependency had completed.
        Ignore = "ignore",
    }
}

/// Combined status of the dependencies of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    /// At least one has not finished.
    Open,
    /// All are satisfied.
    Done,
    /// A dependency ended without completing.
    Broken(Uuid, &'static str),
}

impl Dependencies {
    /// Combines dependencies; a deleted one has no status.
    pub fn sum(policy: DependencyPolicy, all: impl IntoIterator<Item = (Uuid, Option<Status>)>) -> Self {
        let mut sum = Self::Done;
        for (id, status) in all {
            let broken = match status {
                Some(Status::Completed) => continue,
                Some(Status::Failed) => "failed",
                Some(Status::Cancelled) => "was cancelled",
                None => "was deleted",
                Some(_) => {
                    sum = Self::Open;
                    continue;
                }
            };
            if policy != DependencyPolicy::Ignore {
                return Self::Broken(id, broken);
            }
        }
        sum
    }
}

/// Finds a cycle through one of `starts`: the IDs along it, with the first one repeated at the end. `next` returns the
/// edges of a task and is called once per task, whatever the number of starts.
pub fn cycle(starts: &[Uuid], next: impl Fn(Uuid) -> Vec<Uuid>) -> Option<Vec<Uuid>> {
    let mut search = Search::default();
    for start in starts {
        search.visit(*start, &next);
    }
    // All tasks of a cycle lead to one another, and so they are in one component.
    let of = |id: &Uuid| search.seen.get(id).map(|task| task.component);
    starts.iter().find_map(|start| {
        let mut came_from: HashMap<Uuid, Uuid> = HashMap::new();
        let mut waiting = VecDeque::from([*start]);
        while let Some(id) = waiting.pop_front() {
            for further in search.edges.get(&id).into_iter().flatten().filter(|further| of(further) == of(start)) {
                if further == start {
                    let back = std::iter::successors(Some(id), |id| came_from.get(id).copied());
                    let mut ring: Vec<_> = std::iter::once(*start).chain(back).collect();
                    ring.reverse();
                    return Some(ring);
                }
                if !came_from.contains_key(further) {
                    came_from.insert(*further, id);
                    waiting.push_back(*further);
                }
            }
        }
        None
    })
}

/// Finds the strongly connected components of a graph (Tarjan's algorithm, without recursion).
#[derive(Default)]
struct Search {
    edges: HashMap<Uuid, Vec<Uuid>>,
    seen: HashMap<Uuid, Seen>,
    /// Tasks whose component is not known yet, in the order in which they were seen.
    open: Vec<Uuid>,
    /// Number of components found.
    components: usize,
}

struct Seen {
    number: usize,
    /// The lowest number that it leads to.
    lowest: usize,
    /// `None` until it is known.
    component: Option<usize>,
}

impl Search {
    fn visit(&mut self, start: Uuid, next: &impl Fn(Uuid) -> Vec<Uuid>) {
        if self.seen.contains_key(&start) {
            return;
        }
        // The current path, with the number of edges visited of each task on it.
        let mut path = vec![(start, 0)];
        self.enter(start, next);
        while let Some((id, visited)) = path.last_mut() {
            let id = *id;
            let Some(further) = self.edges[&id].get(*visited).copied() else {
                path.pop();
                self.leave(id, path.last().map(|(before, _)| *before));
                continue;
            };
            *visited += 1;
            match self.seen.get(&further) {
                None => {
                    self.enter(further, next);
                    path.push((further, 0));
                }
                Some(seen) if seen.component.is_none() => self.leads_to(id, seen.number),
                Some(_) => {}
            }
        }
    }

    fn enter(&mut self, id: Uuid, next: &impl Fn(Uuid) -> Vec<Uuid>) {
        let number = self.seen.len();
        self.seen.insert(id, Seen { number, lowest: number, component: None });
        self.edges.insert(id, next(id));
        self.open.push(id);
    }

    /// All edges of a task have been visited.
    fn leave(&mut self, id: Uuid, before: Option<Uuid>) {
        let Seen { number, lowest, .. } = self.seen[&id];
        if let Some(before) = before {
            self.leads_to(before, lowest);
        }
        if number == lowest {
            let component = self.components;
            self.components += 1;
            while let Some(member) = self.open.pop() {
                self.seen.entry(member).and_modify(|seen| seen.component = Some(component));
                if member == id {
                    break;
                }
            }
        }
    }

    fn leads_to(&mut self, id: Uuid, number: usize) {
        self.seen.entry(id).and_modify(|seen| seen.lowest = seen.lowest.min(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn ring(graph: &HashMap<Uuid, Vec<Uuid>>, starts: &[Uuid]) -> Option<Vec<Uuid>> {
        cycle(starts, |id| graph.get(&id).cloned().unwrap_or_default())
    }

    #[test]
    fn a_ring_is_found_also_behind_another_one() {
        let [one, two, three, seven] = [1, 2, 3, 7].map(Uuid::from_u128);
        let graph = HashMap::from([(three, vec![one]), (one, vec![two, seven]), (two, vec![one]), (seven, vec![two])]);
        assert_eq!(ring(&graph, &[three, seven]), Some(vec![seven, two, one, seven]));
        assert_eq!(ring(&graph, &[three]), None);
    }

    #[test]
    fn rings_are_found_and_diamonds_are_not() {
        let [a, b, c, d] = [1, 2, 3, 4].map(Uuid::from_u128);
        let diamond = HashMap::from([(a, vec![b, c]), (b, vec![d]), (c, vec![d]), (d, vec![])]);
        assert_eq!(ring(&diamond, &[a]), None);
        assert_eq!(ring(&diamond, &[d, c, b, a]), None);
        let long = HashMap::from([(a, vec![b]), (b, vec![c]), (c, vec![d, a]), (d, vec![])]);
        assert_eq!(ring(&long, &[a]), Some(vec![a, b, c, a]));
        assert_eq!(ring(&HashMap::from([(a, vec![a])]), &[a]), Some(vec![a, a]));
        // A cycle that is reachable from a start but does not contain it is ignored.
        let beside = HashMap::from([(a, vec![b]), (b, vec![c]), (c, vec![b])]);
        assert_eq!(ring(&beside, &[a]), None);
        assert_eq!(ring(&beside, &[a, c]), Some(vec![c, b, c]));
    }

    #[test]
    fn a_wide_graph_is_walked_once() {
        // Ten layers, each task linked to all of the next layer: the number of paths is astronomical.
        let layer = |n: u128| (0..100).map(move |i| Uuid::from_u128(n * 1_000 + i));
        let graph: HashMap<_, Vec<_>> =
            (1..10).flat_map(|n| layer(n).map(move |id| (id, layer(n + 1).collect()))).collect();
        assert_eq!(ring(&graph, &layer(1).collect::<Vec<_>>()), None);
    }

    fn sum(policy: DependencyPolicy, statuses: &[Option<Status>]) -> Dependencies {
        Dependencies::sum(
            policy,
            statuses.iter().enumerate().map(|(at, status)| (Uuid::from_u128(at as u128), *status)),
        )
    }

    #[test]
    fn dependencies_are_done_when_all_completed() {
        let [done, open] = [Some(Status::Completed), Some(Status::Running)];
        assert_eq!(sum(DependencyPolicy::Fail, &[]), Dependencies::Done);
        assert_eq!(sum(DependencyPolicy::Fail, &[done, done]), Dependencies::Done);
        assert_eq!(sum(DependencyPolicy::Fail, &[done, open, done]), Dependencies::Open);
        for status in Status::ALL.into_iter().filter(|status| !status.is_finished()) {
            assert_eq!(sum(DependencyPolicy::Ignore, &[Some(status)]), Dependencies::Open, "{status}");
        }
    }

    #[test]
    fn a_broken_dependency_counts_although_others_are_open() {
        let open = Some(Status::Pending);
        for (status, how) in
            [(Some(Status::Failed), "failed"), (Some(Status::Cancelled), "was cancelled"), (None, "was deleted")]
        {
            for policy in [DependencyPolicy::Fail, DependencyPolicy::Cancel] {
                assert_eq!(sum(policy, &[open, status, open]), Dependencies::Broken(Uuid::from_u128(1), how));
            }
            assert_eq!(sum(DependencyPolicy::Ignore, &[status]), Dependencies::Done, "as if it had completed");
            assert_eq!(sum(DependencyPolicy::Ignore, &[status, open]), Dependencies::Open);
        }
    }

    proptest! {
        /// A cycle that is found is one, through a task that was asked for; where none is found, none can be walked.
        #[test]
        fn a_cycle_is_found_if_and_only_if_there_is_one(
            edges in proptest::collection::vec((0_u128..8, 0_u128..8), 0..16),
            starts in proptest::collection::btree_set(0_u128..8, 1..4),
        ) {
            let mut graph: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
            for (from, to) in &edges {
                graph.entry(Uuid::from_u128(*from)).or_default().push(Uuid::from_u128(*to));
            }
            let starts: Vec<_> = starts.into_iter().map(Uuid::from_u128).collect();
            let comes_back = |start: &Uuid| {
                let (mut seen, mut next) = (HashSet::new(), graph.get(start).cloned().unwrap_or_default());
                while let Some(id) = next.pop() {
                    if seen.insert(id) {
                        next.extend(graph.get(&id).into_iter().flatten());
                    }
                }
                seen.contains(start)
            };
            match ring(&graph, &starts) {
                None => prop_assert!(!starts.iter().any(comes_back)),
                Some(found) => {
                    prop_assert!(found.len() > 1 && found.first() == found.last());
                    prop_assert!(found.windows(2).all(|pair| graph[&pair[0]].contains(&pair[1])));
                    prop_assert!(found.iter().any(|id| starts.contains(id)));
                }
            }
        }
    }
}
