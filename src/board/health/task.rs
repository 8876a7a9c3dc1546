//! Health of one task: why it makes no progress.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Health, Level, Reason, Serving, of_queue, rules, running_reasons, worker_reasons};
use crate::{
    board::Board,
    clock::Time,
    event::envelope::rfc3339,
    model::{Status, Task},
};

/// Maximum number of dependencies listed in a reason.
const MAX_NAMED: usize = 5;

/// Why one task makes no progress; `open` are its unfinished dependencies.
#[must_use]
pub fn of_task(board: &Board, task: &Task, open: &[Uuid], quiet: TimeDelta, now: Time) -> Health {
    let because =
        |code, text| Health::of(vec![Reason { task_id: Some(task.id), ..Reason::new(code, Level::Ok, text) }]);
    if let Some(found) = board.stuck.iter().find(|stuck| stuck.task_id == task.id && !task.status.is_finished()) {
        return Health::of(rules::stuck_reason(found).into_iter().collect());
    }
    match task.status {
        Status::Blocked if task.auto_complete => {
            because("waits_for_children", "Blocked: starts when its first child starts".to_owned())
        }
        Status::Blocked => {
            let ids: Vec<_> = open.iter().take(MAX_NAMED).map(Uuid::to_string).collect();
            let more = open.len().saturating_sub(ids.len());
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            because("blocked_by", format!("Blocked by {}{rest}", ids.join(", ")))
        }
        Status::Scheduled | Status::Retrying => {
            let at = task.run_at.map(rfc3339).unwrap_or_default();
            let (attempt, all) = (task.attempt + 1, task.attempts_allowed());
            match task.status {
                Status::Scheduled => because("waits_for_time", format!("Scheduled to run at {at}")),
                _ => because("waits_to_retry", format!("Next attempt at {at} (attempt {attempt} of {all})")),
            }
        }
        Status::Pending => {
            let queue = board.queues.0.get(&task.queue);
            let health = queue.map(|queue| of_queue(&Serving::taking(board), &task.queue, queue, now));
            let in_line = || because("waits_in_line", format!("Pending in queue {}", task.queue));
            health.filter(|health| !health.reasons.is_empty()).unwrap_or_else(in_line)
        }
        Status::Running => {
            let worker = task.worker_id.map(|id| worker_reasons(board, id, quiet, now));
            Health::of(worker.unwrap_or_default().into_iter().chain(running_reasons(board, task.id, now)).collect())
        }
        Status::Completed | Status::Failed | Status::Cancelled => Health::of(Vec::new()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::board::samples;
    use crate::{
        board::running::RunningTask,
        model::{
            Name, NewTask,
            stuck::{Stuck, StuckReason},
            worker::WorkerStatus,
        },
    };

    const QUIET: TimeDelta = TimeDelta::seconds(25);

    fn start() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Task 1 in queue `mails`.
    fn task(status: Status) -> Task {
        let new = NewTask::plain(id(1), Name::literal("mail"), Name::literal("mails"));
        Task { status, ..new.into_task(None, false, start()) }
    }

    fn health(board: &Board, task: &Task, open: &[Uuid], seconds: i64) -> Health {
        of_task(board, task, open, QUIET, start() + TimeDelta::seconds(seconds))
    }

    /// The only reason: its code, severity and text.
    fn reason(board: &Board, task: &Task, open: &[Uuid]) -> (&'static str, Level, String) {
        let mut found = health(board, task, open, 3_600);
        assert_eq!(found.reasons.len(), 1, "{found:?}");
        let reason = found.reasons.remove(0);
        assert_eq!(reason.severity, found.status);
        (reason.code, reason.severity, reason.text)
    }

    #[test]
    fn a_finished_task_needs_no_reason() {
        for status in [Status::Completed, Status::Failed, Status::Cancelled] {
            assert_eq!(health(&Board::default(), &task(status), &[id(2)], 3_600), Health::of(Vec::new()), "{status}");
        }
    }

    #[test]
    fn a_blocked_task_names_five_that_it_waits_for_and_counts_the_others() {
        let open: Vec<_> = (2..9).map(id).collect();
        let listed = |count: usize| open[..count].iter().map(Uuid::to_string).collect::<Vec<_>>().join(", ");
        for (count, rest) in [(1, ""), (5, ""), (6, " and 1 more"), (7, " and 2 more")] {
            let (code, severity, text) = reason(&Board::default(), &task(Status::Blocked), &open[..count]);
            assert_eq!((code, severity), ("blocked_by", Level::Ok), "waiting is no illness");
            assert_eq!(text, format!("Blocked by {}{rest}", listed(count.min(5))));
        }
    }

    #[test]
    fn a_parent_that_follows_its_children_waits_for_the_first() {
        let parent = Task { auto_complete: true, ..task(Status::Blocked) };
        let (code, _, text) = reason(&Board::default(), &parent, &[]);
        assert_eq!((code, text.as_str()), ("waits_for_children", "Blocked: starts when its first child starts"));
    }

    #[test]
    fn a_scheduled_task_and_one_that_is_retried_say_when() {
        for (status, code, expected) in [
            (Status::Scheduled, "waits_for_time", "Scheduled to run at 2027-01-15T08:00:00.000000Z"),
            (Status::Retrying, "waits_to_retry", "Next attempt at 2027-01-15T08:00:00.000000Z (attempt 1 of 1)"),
        ] {
            let later = Task { run_at: Some(start()), ..task(status) };
            let (found, severity, text) = reason(&Board::default(), &later, &[]);
            assert_eq!((found, severity), (code, Level::Ok));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_pending_task_is_as_healthy_as_its_queue() {
        let mut board = Board::default();
        let (code, severity, text) = reason(&board, &task(Status::Pending), &[]);
        assert_eq!((code, severity), ("waits_in_line", Level::Ok));
        assert_eq!(text, "Pending in queue mails");
        let queue = board.queues.0.entry(Name::literal("mails")).or_default();
        (queue.depth[5], queue.waiting_since) = (1, Some(start()));
        let (code, severity, _) = reason(&board, &task(Status::Pending), &[]);
        assert_eq!((code, severity), ("no_worker", Level::Stalled));
    }

    #[test]
    fn a_running_task_suffers_with_its_worker() {
        let mut board = Board::default();
        let stalled = Some("the lease expired".to_owned());
        let running = RunningTask { worker_id: Some(id(9)), stalled, ..samples::running() };
        let worker = samples::worker(WorkerStatus::Active);
        board.running.0.insert(id(1), running);
        board.workers.0.insert(id(9), worker);
        let codes = |task: &Task, seconds| {
            health(&board, task, &[], seconds).reasons.iter().map(|reason| reason.code).collect::<Vec<_>>()
        };
        let mine = Task { worker_id: Some(id(9)), ..task(Status::Running) };
        assert_eq!(codes(&mine, 24), ["task_stalled"]);
        assert_eq!(codes(&mine, 25), ["worker_quiet", "task_stalled"]);
        let of_another = Task { worker_id: Some(id(8)), ..task(Status::Running) };
        assert_eq!(codes(&of_another, 25), ["task_stalled"], "a worker that is not known has no illness");
    }

    #[test]
    fn a_stuck_task_is_that_first_unless_it_has_finished() {
        let stuck = |on| Stuck {
            task_id: id(on),
            project_id: None,
            task_type: Name::literal("mail"),
            reason: StuckReason::Waits,
            on: None,
        };
        let board = Board { stuck: vec![stuck(2), stuck(1)], stuck_total: 2, ..Board::default() };
        for status in Status::ALL {
            let found = health(&board, &task(status), &[], 3_600);
            let is_stuck = found.reasons.first().is_some_and(|reason| reason.code == "blocked_forever");
            assert_eq!(is_stuck, !status.is_finished(), "{status}");
        }
        assert_eq!(reason(&board, &Task { id: id(3), ..task(Status::Blocked) }, &[id(1)]).0, "blocked_by");
    }
}
