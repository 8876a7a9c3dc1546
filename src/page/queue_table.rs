//! Queues as a table, most severe first: the same rows on the overview and on the page of queues.

use super::{format, problem_list::queue_url};
use crate::{
    board::{
        Board,
        health::{self, Health, Level, Serving, rules::label},
        queues::{Queue, QueueRates},
    },
    clock::Time,
    model::{Name, Status, priority::Band},
};

/// One queue.
#[derive(Debug)]
pub(super) struct QueueRow {
    pub(super) name: Name,
    /// URL of its page.
    pub(super) url: String,
    pub(super) health: Health,
    /// Status for people: one or two words.
    pub(super) status: &'static str,
    pub(super) pending: u64,
    /// Pending tasks by priority band.
    pub(super) bands: [(&'static str, u64); 3],
    pub(super) running: u64,
    pub(super) scheduled: u64,
    pub(super) retrying: u64,
    pub(super) blocked: u64,
    pub(super) failed: u64,
    pub(super) oldest: Option<Time>,
    pub(super) paused_at: Option<Time>,
    pub(super) paused_by: Option<String>,
    pub(super) pause_reason: Option<String>,
    /// Limits as text.
    pub(super) limit: Option<String>,
    pub(super) concurrency_limit: Option<u32>,
    pub(super) rate_limit: Option<u32>,
    pub(super) rate_period_seconds: Option<u32>,
    /// Running tasks as a percentage of the concurrency limit.
    pub(super) utilisation: Option<u64>,
    pub(super) workers: usize,
    pub(super) rates: QueueRates,
}

/// Queues of a board, most severe first.
pub(super) fn rows(board: &Board, now: Time) -> Vec<QueueRow> {
    let serving = (Serving::taking(board), Serving::online(board));
    let mut rows: Vec<_> =
        board.queues.0.iter().map(|(name, queue)| QueueRow::of(&serving, name, queue, now)).collect();
    rows.sort_by(|a, b| {
        let worse = |row: &QueueRow| (std::cmp::Reverse(row.health.status), std::cmp::Reverse(row.pending));
        worse(a).cmp(&worse(b)).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

impl QueueRow {
    pub(super) fn of((taking, online): &(Serving<'_>, Serving<'_>), name: &Name, queue: &Queue, now: Time) -> Self {
        let health = health::of_queue(taking, name, queue, now);
        Self {
            name: name.clone(),
            url: queue_url(name),
            status: status(&health, queue),
            health,
            pending: queue.waiting(),
            bands: [Band::High, Band::Normal, Band::Low].map(|band| (band_words(band), queue.depth_of(band))),
            running: queue.count(Status::Running),
            scheduled: queue.count(Status::Scheduled),
            retrying: queue.count(Status::Retrying),
            blocked: queue.count(Status::Blocked),
            failed: queue.count(Status::Failed),
            oldest: queue.oldest_enqueued_at.filter(|_| queue.waiting() > 0),
            paused_at: queue.paused_at,
            paused_by: queue.paused_by.clone(),
            pause_reason: queue.pause_reason.clone(),
            limit: limit(queue),
            concurrency_limit: queue.concurrency_limit,
            rate_limit: queue.rate_limit,
            rate_period_seconds: queue.rate_period_seconds,
            utilisation: queue.concurrency_limit.map(|most| queue.occupied() * 100 / u64::from(most.max(1))),
            workers: online.at(name),
            rates: queue.rates(now),
        }
    }

    /// Look of its status: class and sign.
    pub(super) fn look(&self) -> (&'static str, &'static str) {
        let (class, sign, _) = format::level(&self.health.status);
        if self.paused_at.is_some() { ("warn", "‖") } else { (class, sign) }
    }

    /// The p95 of wait times, as text.
    pub(super) fn wait(&self) -> String {
        self.rates.wait.map_or_else(|| "–".to_owned(), |wait| format::duration(&wait.p95_ms))
    }

    /// The p95 of run times, as text.
    pub(super) fn run(&self) -> String {
        self.rates.run.map_or_else(|| "–".to_owned(), |run| format::duration(&run.p95_ms))
    }
}

/// Status for people.
fn status(health: &Health, queue: &Queue) -> &'static str {
    if queue.paused_at.is_some() {
        return "Paused";
    }
    let label = health.reasons.first().map(|reason| label(reason.code)).filter(|label| !label.is_empty());
    label.filter(|_| health.status != Level::Ok).unwrap_or("OK")
}

const fn band_words(band: Band) -> &'static str {
    match band {
        Band::High => "high",
        Band::Normal => "normal",
        Band::Low => "low",
    }
}

/// The limits of a queue as text.
pub(super) fn limit(queue: &Queue) -> Option<String> {
    let concurrency = queue.concurrency_limit.map(|limit| format!("concurrency {limit}"));
    let rate = queue.rate_limit.map(|limit| match queue.rate_period_seconds.unwrap_or(1) {
        1 => format!("rate {limit}/s"),
        period => format!("rate {limit}/{period} s"),
    });
    let words: Vec<_> = concurrency.into_iter().chain(rate).collect();
    (!words.is_empty()).then(|| words.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::golden::{ago, now};

    fn row(queue: &Queue) -> QueueRow {
        let board = Board::default();
        QueueRow::of(&(Serving::taking(&board), Serving::online(&board)), &Name::literal("mails"), queue, now())
    }

    #[test]
    fn a_queue_is_used_by_what_runs_of_its_limit() {
        let used = |running, concurrency_limit| {
            let tasks = [(Status::Running, running)].into_iter().collect();
            row(&Queue { tasks, concurrency_limit, ..Queue::default() }).utilisation
        };
        assert_eq!(used(3, None), None);
        assert_eq!((used(0, Some(4)), used(1, Some(3)), used(4, Some(4))), (Some(0), Some(33), Some(100)));
        assert_eq!((used(5, Some(4)), used(2, Some(0))), (Some(125), Some(200)), "the limit was lowered");
    }

    #[test]
    fn bands_are_shown_from_high_to_low() {
        let bands = row(&Queue { depth: [1, 0, 0, 0, 0, 2, 0, 0, 0, 3], ..Queue::default() }).bands;
        assert_eq!(bands, [("high", 3), ("normal", 2), ("low", 1)]);
    }

    #[test]
    fn only_a_backlog_has_an_oldest_task() {
        let measured = Queue { oldest_enqueued_at: Some(ago(60)), ..Queue::default() };
        assert_eq!(row(&measured).oldest, None);
        let waiting = Queue { depth: [0, 0, 0, 0, 0, 1, 0, 0, 0, 0], ..measured };
        assert_eq!(row(&waiting).oldest, Some(ago(60)));
    }

    #[test]
    fn a_status_is_the_reason_in_two_words() {
        let pending = |queue: Queue| row(&Queue { depth: [0, 0, 0, 0, 0, 1, 0, 0, 0, 0], ..queue }).status;
        assert_eq!(row(&Queue::default()).status, "OK");
        assert_eq!(pending(Queue { waiting_since: Some(ago(60)), ..Queue::default() }), "No workers");
        assert_eq!(pending(Queue { paused_at: Some(ago(9)), ..Queue::default() }), "Paused");
        assert_eq!(row(&Queue { paused_at: Some(ago(9)), ..Queue::default() }).status, "Paused", "also an empty one");
        assert_eq!(pending(Queue { concurrency_limit: Some(0), ..Queue::default() }), "At limit");
    }

    #[test]
    fn limits_are_named_with_their_period() {
        let limited = |concurrency_limit, rate_limit, rate_period_seconds| {
            limit(&Queue { concurrency_limit, rate_limit, rate_period_seconds, ..Queue::default() })
        };
        assert_eq!(limited(None, None, Some(60)), None, "a period alone limits nothing");
        assert_eq!(limited(Some(0), None, None).as_deref(), Some("concurrency 0"));
        assert_eq!(limited(None, Some(5), None).as_deref(), Some("rate 5/s"));
        assert_eq!(limited(Some(4), Some(5), Some(60)).as_deref(), Some("concurrency 4 · rate 5/60 s"));
    }

    #[test]
    fn the_worst_queue_comes_first_and_then_the_longest() {
        let mut board = Board::default();
        for (name, waiting, paused) in [("a", 1, false), ("b", 9, false), ("c", 1, true), ("d", 1, false)] {
            let queue = board.queues.0.entry(Name::literal(name)).or_default();
            queue.depth[9] = waiting;
            queue.paused_at = paused.then(now);
        }
        let names: Vec<_> = rows(&board, now()).into_iter().map(|row| row.name.to_string()).collect();
        assert_eq!(names, ["c", "b", "a", "d"]);
    }
}
