//! Queues, most severe first: why tasks are pending, latency, pause and limits.

use askama::Template;

use super::overview::limit;
use crate::page::{Content, PageError, Params, View};
use crate::{
    board::{
        health::{self, Health, Level, Serving},
        queues::{Queue, QueueRates},
    },
    clock::Time,
    feed,
    model::{Name, Status, priority::Band},
};

/// Maximum number of queues shown; thousands would make the page useless.
const SHOWN: usize = 100;

#[derive(Template)]
#[template(path = "queues.html")]
struct Queues {
    queues: Vec<Row>,
    more: usize,
    is_past: bool,
}

struct Row {
    name: Name,
    health: Health,
    waiting: u64,
    bands: [(&'static str, u64); 3],
    running: u64,
    scheduled: u64,
    retrying: u64,
    blocked: u64,
    failed: u64,
    oldest: Option<Time>,
    paused_at: Option<Time>,
    limit: Option<String>,
    concurrency_limit: Option<u32>,
    rate_limit: Option<u32>,
    rate_period_seconds: Option<u32>,
    /// Running tasks as a percentage of the concurrency limit.
    utilisation: Option<u64>,
    workers: usize,
    rates: QueueRates,
}

impl Row {
    fn of((taking, online): &(Serving<'_>, Serving<'_>), name: &Name, queue: &Queue, now: Time) -> Self {
        let running = queue.count(Status::Running);
        Self {
            name: name.clone(),
            health: health::of_queue(taking, name, queue, now),
            waiting: queue.waiting(),
            bands: [Band::High, Band::Normal, Band::Low].map(|band| (band_words(band), queue.depth_of(band))),
            running,
            scheduled: queue.count(Status::Scheduled),
            retrying: queue.count(Status::Retrying),
            blocked: queue.count(Status::Blocked),
            failed: queue.count(Status::Failed),
            oldest: queue.oldest_enqueued_at.filter(|_| queue.waiting() > 0),
            paused_at: queue.paused_at,
            limit: limit(queue),
            concurrency_limit: queue.concurrency_limit,
            rate_limit: queue.rate_limit,
            rate_period_seconds: queue.rate_period_seconds,
            utilisation: queue.concurrency_limit.map(|most| queue.occupied() * 100 / u64::from(most.max(1))),
            workers: online.at(name),
            rates: queue.rates(now),
        }
    }
}

const fn band_words(band: Band) -> &'static str {
    match band {
        Band::High => "high",
        Band::Normal => "normal",
        Band::Low => "low",
    }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let mut queues: Vec<_> = {
        let board = feed::read(&view.board);
        let serving = (Serving::taking(&board), Serving::online(&board));
        board.queues.0.iter().map(|(name, queue)| Row::of(&serving, name, queue, now)).collect()
    };
    queues.sort_by(|a, b| {
        let worse = |row: &Row| (std::cmp::Reverse(row.health.status), std::cmp::Reverse(row.waiting));
        worse(a).cmp(&worse(b)).then_with(|| a.name.cmp(&b.name))
    });
    let bad = queues.iter().filter(|row| row.health.status != Level::Ok).count();
    let more = queues.len().saturating_sub(SHOWN);
    queues.truncate(SHOWN);
    let title = if bad > 0 { format!("({bad} in trouble) Queues") } else { "Queues".to_owned() };
    Content::new(title, &Queues { queues, more, is_past: params.at.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        board::Board,
        page::golden::{ago, now},
    };

    fn row(queue: &Queue) -> Row {
        let board = Board::default();
        Row::of(&(Serving::taking(&board), Serving::online(&board)), &Name::literal("mails"), queue, now())
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
}
