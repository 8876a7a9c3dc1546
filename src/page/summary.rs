//! What the frame of every page tells, whatever the page is about: health, and how much needs attention.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use serde::Serialize;

use super::project_choices::Projects;
use crate::{
    board::{
        Board,
        health::{self, Level},
    },
    clock::Time,
    model::{Name, worker::WorkerStatus},
};

/// An error group counts as active for so long after its last failure.
const ACTIVE: TimeDelta = TimeDelta::minutes(15);
/// How long a summary is shared before it is made anew.
const SHARED: Duration = Duration::from_millis(500);

/// Health, and the numbers beside the names of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Health of the whole system.
    pub level: Level,
    /// Error groups that failed within the last 15 minutes and have failed tasks.
    pub failures: usize,
    /// Queues with a problem: paused, without workers, stalled.
    pub queues: usize,
    /// Lost workers.
    pub workers: usize,
}

impl Default for Summary {
    fn default() -> Self {
        Self { level: Level::Ok, failures: 0, queues: 0, workers: 0 }
    }
}

impl Summary {
    /// The summary of a board. A worker without a heartbeat for `quiet` is a problem before it is lost.
    #[must_use]
    pub fn of(board: &Board, quiet: TimeDelta, now: Time) -> Self {
        let health = health::overall(board, quiet, now);
        let groups = board.failures.groups.values();
        Self {
            level: health.status,
            failures: groups.filter(|group| group.open > 0 && group.last_seen_at > now - ACTIVE).count(),
            queues: health.reasons.iter().filter(|reason| reason.queue.is_some()).count(),
            workers: board.workers.0.values().filter(|seen| seen.status == WorkerStatus::Lost).count(),
        }
    }

    /// As it is sent to open pages.
    #[must_use]
    pub fn json(self) -> String {
        serde_json::to_string(&self).expect("numbers and a word are JSON")
    }
}

/// What the frame of a page needs to know of the board.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Health and numbers of the projects shown.
    pub summary: Summary,
    /// The projects to choose from.
    pub projects: Arc<Projects>,
}

/// The present state for the frames of pages, made at most twice a second for all pages of the same projects together.
#[derive(Debug, Default)]
pub struct Frames(Mutex<HashMap<BTreeSet<Name>, (Instant, Frame)>>);

impl Frames {
    /// The state of some projects, made by `make` if the last one is too old.
    pub fn get(&self, projects: &BTreeSet<Name>, make: impl FnOnce() -> Frame) -> Frame {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = known.get(projects).filter(|(at, _)| at.elapsed() < SHARED) {
            return frame.clone();
        }
        // Projects without viewers keep no summary.
        known.retain(|_, (at, _)| at.elapsed() < SHARED);
        let frame = make();
        known.insert(projects.clone(), (Instant::now(), frame.clone()));
        frame
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_board_without_anything_is_well() {
        let now = Time::from_timestamp(1_000_000, 0).unwrap();
        let summary = Summary::of(&Board::default(), TimeDelta::seconds(25), now);
        assert_eq!(summary, Summary::default());
        assert_eq!(summary.json(), r#"{"level":"ok","failures":0,"queues":0,"workers":0}"#);
    }

    #[test]
    fn all_pages_of_the_same_projects_share_one_summary_for_a_while() {
        let frames = Frames::default();
        let failures = |project: &[&'static str], failures| {
            let summary = Summary { failures, ..Summary::default() };
            let projects = project.iter().map(|name| Name::literal(name)).collect();
            frames.get(&projects, || Frame { summary, ..Frame::default() }).summary.failures
        };
        assert_eq!(
            (failures(&[], 1), failures(&[], 2), failures(&["atlas"], 3), failures(&["atlas"], 4)),
            (1, 1, 3, 3)
        );
        let old = Instant::now().checked_sub(SHARED).unwrap();
        frames.0.lock().unwrap().values_mut().for_each(|(at, _)| *at = old);
        assert_eq!(failures(&[], 5), 5);
        assert_eq!(frames.0.lock().unwrap().len(), 1, "the other one is forgotten");
    }
}
