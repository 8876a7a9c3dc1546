//! Periodic work: ONE table, one file for each job with its own state. A job looks for something and asks the writer, or
//! tells the feed; it changes nothing by itself.
//!
//! To add a job, add its file and its row.

mod bulk_actions;
mod checkpoint;
mod connectors;
mod due_tasks;
mod env;
mod gauges;
mod heartbeats;
mod liveness;
mod log_room;
mod old_events;
mod old_tasks;
mod reevaluation;
mod saved_boards;
mod schedules;
mod silent_tasks;
mod stuck_tasks;

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, time::Duration};

use futures_util::FutureExt;

pub use env::{Env, Reachable, Retention};
pub use saved_boards::Checkpoints;

/// Longest time of one run of a job.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);

/// A run of a job.
type Run<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// A job with what it remembers from run to run.
trait Job: Send {
    /// Does what is due now.
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a>;
}

/// Jobs of one lane run one after the other, so that slow ones do not hold up those that have to be on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// On time.
    Prompt,
    /// May take a while.
    Slow,
}

/// One row.
pub struct Row {
    /// Its name in logs.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its lane.
    pub lane: Lane,
    /// Time between two runs.
    pub every: Duration,
    job: fn() -> Box<dyn Job>,
}

macro_rules! jobs {
    ($($name:literal, $lane:ident, $millis:literal ms, $job:path, $about:literal;)+) => {
        /// The table.
        pub const JOBS: &[Row] = &[$(Row {
            name: $name,
            about: $about,
            lane: Lane::$lane,
            every: Duration::from_millis($millis),
            job: || Box::<$job>::default(),
        }),+];
    };
}

jobs! {
    "due_tasks", Prompt, 250 ms, due_tasks::DueTasks, "Enqueues scheduled and retrying tasks whose time has come.";
    "reevaluation", Prompt, 100 ms, reevaluation::Reevaluation,
        "Evaluates tasks again whose dependencies, children or parent changed.";
    "connectors", Prompt, 1_000 ms, connectors::Connectors, "Sets unreported connectors to unknown.";
    "schedules", Prompt, 500 ms, schedules::Schedules, "Runs schedules whose time has come.";
    "bulk_actions", Slow, 100 ms, bulk_actions::BulkActions, "Runs the next step of each bulk action.";
    "old_tasks", Slow, 1_000 ms, old_tasks::OldTasks, "Deletes tasks and stopped workers after their retention.";
    "old_events", Slow, 10_000 ms, old_events::OldEvents, "Removes events after their retention.";
    "liveness", Prompt, 1_000 ms, liveness::Liveness, "Finds lost workers, expired leases and attempts that timed out.";
    "stuck_tasks", Slow, 2_000 ms, stuck_tasks::StuckTasks,
        "Reports tasks that wait for what cannot come, as an ephemeral event, on every server alike.";
    "silent_tasks", Slow, 5_000 ms, silent_tasks::SilentTasks, "Ends observed tasks without further reports.";
    "heartbeats", Prompt, 2_000 ms, heartbeats::Heartbeats,
        "Publishes heartbeats of workers as ephemeral events, on every server alike.";
    "gauges", Prompt, 5_000 ms, gauges::Gauges,
        "Publishes backlogs that changed and the statistics, as ephemeral events.";
    "checkpoint", Slow, 30_000 ms, checkpoint::Checkpoint, "Saves the board, so that the next start is fast.";
    "log_room", Prompt, 5_000 ms, log_room::LogRoom, "Makes partitions for the log to grow into.";
}

/// Runs every job of a lane at its interval, forever, one after the other; a failure is logged and the job runs again.
pub async fn run(env: Env, lane: Lane) {
    let rows: Vec<_> = JOBS.iter().filter(|row| row.lane == lane).collect();
    let mut jobs: Vec<_> = rows.iter().map(|row| (row.job)()).collect();
    let mut due: Vec<_> = rows.iter().map(|row| tokio::time::Instant::now() + row.every).collect();
    loop {
        let Some((index, at)) = due.iter().copied().enumerate().min_by_key(|(_, at)| *at) else { return };
        tokio::time::sleep_until(at).await;
        let run = tokio::time::timeout(JOB_TIMEOUT, jobs[index].run(&env));
        let done = AssertUnwindSafe(run).catch_unwind().await;
        let done = done.unwrap_or_else(|_| Ok(Err(anyhow::anyhow!("panicked"))));
        if let Err(error) = done.unwrap_or_else(|_| Err(anyhow::anyhow!("timed out after {JOB_TIMEOUT:?}"))) {
            tracing::warn!(job = rows[index].name, error = format!("{error:#}"), "periodic job failed; will retry");
        }
        due[index] = tokio::time::Instant::now() + rows[index].every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_lane_has_work() {
        let mut names: Vec<_> = JOBS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), JOBS.len());
        for lane in [Lane::Prompt, Lane::Slow] {
            assert!(JOBS.iter().any(|row| row.lane == lane));
        }
    }
}
