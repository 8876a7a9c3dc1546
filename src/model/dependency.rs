//! Tasks that wait for others.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Status, Task,
    step::{Decision, TaskEvent},
};
use crate::clock::Time;

/// What becomes of a blocked task when one of its dependencies fails, is cancelled or deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependencyPolicy {
    /// It fails too.
    #[default]
    Fail,
    /// It is cancelled.
    Cancel,
    /// It goes on as if the dependency had completed.
    Ignore,
}

impl DependencyPolicy {
    /// The word used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Cancel => "cancel",
            Self::Ignore => "ignore",
        }
    }

    /// The policy behind a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Fail, Self::Cancel, Self::Ignore].into_iter().find(|policy| policy.as_str() == word)
    }
}

/// Where the dependencies of a task stand, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    /// One has not finished.
    Open,
    /// All that matter are done.
    Done,
    /// This one did not complete.
    Broken(Uuid, &'static str),
}

impl Dependencies {
    /// Sums up dependencies; one that does not exist any more has no status.
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

impl Task {
    /// A blocked task learns where its dependencies stand.
    pub(super) fn depend(&self, dependencies: Dependencies, now: Time) -> Decision {
        if self.status != Status::Blocked || self.close_when_done {
            return Ok(self.unchanged());
        }
        match dependencies {
            Dependencies::Open => Ok(self.unchanged()),
            Dependencies::Done if self.run_at.is_some_and(|run_at| run_at > now) => {
                Ok(self.step(TaskEvent::Turned { reason: "unblocked" }, |task| task.status = Status::Scheduled))
            }
            Dependencies::Done => {
                Ok(self.step(TaskEvent::Enqueued { reason: Some("unblocked") }, |task| task.enqueue(now)))
            }
            Dependencies::Broken(id, how) if self.on_dependency_failure == DependencyPolicy::Cancel => {
                let reason = Some(format!("task {id}, on which it depends, {how}"));
                Ok(self.step(TaskEvent::Cancelled { reason }, |task| {
                    task.status = Status::Cancelled;
                    task.finished_at = Some(now);
                }))
            }
            Dependencies::Broken(id, how) => {
                let error = format!("task {id}, on which it depends, {how}");
                Ok(self.step(TaskEvent::Failed { duration_ms: 0, error: error.clone() }, |task| {
                    task.status = Status::Failed;
                    task.finished_at = Some(now);
                    task.error = Some(error);
                }))
            }
        }
    }
}

/// Finds a ring among tasks that depend on each other: the ids along it, the first again at the end.
pub fn cycle<'a>(start: Uuid, depends_on: impl Fn(Uuid) -> &'a [Uuid]) -> Option<Vec<Uuid>> {
    // Depth first without recursion: the path so far, with what is left to visit of each task on it.
    let mut seen = std::collections::HashSet::from([start]);
    let mut path = vec![(start, depends_on(start).iter())];
    while let Some((_, rest)) = path.last_mut() {
        match rest.next() {
            None => {
                path.pop();
            }
            Some(next) if *next == start => {
                return Some(path.iter().map(|(id, _)| *id).chain([start]).collect());
            }
            Some(next) => {
                if seen.insert(*next) {
                    path.push((*next, depends_on(*next).iter()));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_found_and_diamonds_are_not() {
        let [a, b, c, d] = [1, 2, 3, 4].map(Uuid::from_u128);
        let graph = std::collections::HashMap::from([(a, vec![b, c]), (b, vec![d]), (c, vec![d]), (d, vec![])]);
        let none: &[Uuid] = &[];
        assert_eq!(cycle(a, |id| graph.get(&id).map_or(none, Vec::as_slice)), None);
        let ring = std::collections::HashMap::from([(a, vec![b]), (b, vec![c]), (c, vec![d, a]), (d, vec![])]);
        assert_eq!(cycle(a, |id| ring.get(&id).map_or(none, Vec::as_slice)), Some(vec![a, b, c, a]));
        assert_eq!(cycle(a, |id| if id == a { std::slice::from_ref(&a) } else { none }), Some(vec![a, a]));
    }
}
