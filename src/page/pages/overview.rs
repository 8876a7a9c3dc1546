//! The overview: health with reasons, key metrics, queues, parent tasks in progress, recent failures.

use askama::Template;

use crate::page::{Content, PageError, Params, View, chart::Sparkline, format};
use crate::{
    board::{
        Board,
        health::{self, Health},
        parents::Parent,
    },
    clock::Time,
    event::envelope::Stats,
    feed,
    model::{Name, phase::Counts, priority::Band},
};

/// Maximum number of parents, failures and queues shown.
const SHOWN: usize = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    url: String,
    is_empty: bool,
    health: Health,
    stats: Stats,
    offline: usize,
    throughput: Sparkline,
    errors: Sparkline,
    queues: Vec<QueueRow>,
    more_queues: usize,
    parents: Vec<ParentCard>,
    more_parents: usize,
    failures: Vec<FailureRow>,
    open_groups: usize,
    slider: Option<Slider>,
}

/// Range of positions of the time travel slider.
struct Slider {
    oldest: i64,
    head: i64,
    at: i64,
}

struct QueueRow {
    name: Name,
    high: u64,
    normal: u64,
    low: u64,
    waiting: u64,
    running: u64,
    oldest: Option<Time>,
    paused: bool,
    level: health::Level,
    limit: Option<String>,
}

/// Maximum number of phases shown on a card.
const PHASES: usize = 6;

/// Card of a parent task.
pub(super) struct ParentCard {
    pub(super) id: uuid::Uuid,
    pub(super) title: String,
    pub(super) total: Counts,
    pub(super) phases: Vec<(Name, Counts)>,
    pub(super) more_phases: usize,
    pub(super) rate: Option<f64>,
    pub(super) eta: String,
}

struct FailureRow {
    position: i64,
    task_id: Option<uuid::Uuid>,
    task_type: String,
    error: String,
    at: Time,
}

impl ParentCard {
    /// A card with at most `most` phases.
    pub(super) fn new(id: uuid::Uuid, parent: &Parent, most: usize, now: Time) -> Self {
        let total = parent.total();
        Self {
            id,
            title: format::clip(parent.title.as_deref().unwrap_or(parent.task_type.as_str()), 80),
            total,
            phases: parent.phases.iter().take(most).map(|phase| (phase.name.clone(), phase.counts)).collect(),
            more_phases: parent.phases.len().saturating_sub(most),
            rate: parent.rate(now),
            eta: eta(parent, now),
        }
    }
}

pub(super) fn eta(parent: &Parent, now: Time) -> String {
    let total = parent.total();
    if total.total() > 0 && total.finished() == total.total() {
        return "all known children are done".to_owned();
    }
    match parent.eta(now) {
        Some(eta) if eta.low_seconds == eta.high_seconds => format!("about {} left", format::seconds(eta.low_seconds)),
        Some(eta) => format!("{} to {} left", format::seconds(eta.low_seconds), format::seconds(eta.high_seconds)),
        None => "time left unknown".to_owned(),
    }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let mut page = {
        let board = feed::read(&view.board);
        Overview::of(&board, view.quiet, now, view.url.clone())
    };
    let (oldest, head) = (view.subscriptions.oldest(), view.subscriptions.head());
    // Rounded, so that it does not change with every event.
    let head = if params.at.is_some() { head } else { head - head % 1_000 + 1_000 };
    page.slider = (!page.is_empty).then(|| Slider { oldest, head, at: params.at.map_or(head, |at| at.position) });
    let title = match (page.health.status, page.stats.failed) {
        (health::Level::Stalled, _) => "(stalled) Overview".to_owned(),
        (_, 0) => "Overview".to_owned(),
        (_, failed) => format!("({failed} failed) Overview"),
    };
    Content::new(title, &page)
}

impl Overview {
    fn of(board: &Board, quiet: chrono::TimeDelta, now: Time, url: String) -> Self {
        let queues = queues(board, now);
        let mut parents: Vec<_> = board.parents.open.iter().collect();
        parents.sort_by_key(|(id, parent)| (std::cmp::Reverse(parent.created_at), **id));
        let failures = board.recent.failed.iter().take(SHOWN).map(|event| FailureRow {
            position: event.position.unwrap_or_default(),
            task_id: event.task_id,
            task_type: event.task_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            error: format::clip(event.error.as_deref().unwrap_or("no error given"), 160),
            at: event.ts,
        });
        Self {
            url,
            is_empty: board.position == 0,
            health: health::overall(board, quiet, now),
            stats: board.stats(now),
            offline: board.workers.0.len() - board.workers.online(),
            throughput: Sparkline::of_hour(board, now, "tasks completed", |tally| tally.completed),
            errors: Sparkline::of_hour(board, now, "attempts failed", |tally| tally.failed + tally.retried),
            more_queues: queues.len().saturating_sub(SHOWN),
            queues: queues.into_iter().take(SHOWN).collect(),
            more_parents: parents.len().saturating_sub(SHOWN),
            parents: parents
                .into_iter()
                .take(SHOWN)
                .map(|(id, parent)| ParentCard::new(*id, parent, PHASES, now))
                .collect(),
            failures: failures.collect(),
            open_groups: board.failures.open().len(),
            slider: None,
        }
    }
}

/// Queues, most severe first.
fn queues(board: &Board, now: Time) -> Vec<QueueRow> {
    let serving = health::Serving::taking(board);
    let row = |(name, queue): (&Name, &crate::board::queues::Queue)| QueueRow {
        level: health::of_queue(&serving, name, queue, now).status,
        name: name.clone(),
        high: queue.depth_of(Band::High),
        normal: queue.depth_of(Band::Normal),
        low: queue.depth_of(Band::Low),
        waiting: queue.waiting(),
        running: queue.count(crate::model::Status::Running),
        oldest: queue.oldest_enqueued_at.filter(|_| queue.waiting() > 0),
        paused: queue.paused_at.is_some(),
        limit: limit(queue),
    };
    let mut queues: Vec<_> = board.queues.0.iter().map(row).collect();
    queues.sort_by(|a, b| {
        let worse = |row: &QueueRow| (std::cmp::Reverse(row.level), std::cmp::Reverse(row.waiting));
        worse(a).cmp(&worse(b)).then_with(|| a.name.cmp(&b.name))
    });
    queues
}

/// The limits of a queue as text.
pub(super) fn limit(queue: &crate::board::queues::Queue) -> Option<String> {
    let concurrency = queue.concurrency_limit.map(|limit| format!("at most {limit} at once"));
    let rate = queue.rate_limit.map(|limit| match queue.rate_period_seconds.unwrap_or(1) {
        1 => format!("{limit} per s"),
        period => format!("{limit} in {period} s"),
    });
    let words: Vec<_> = concurrency.into_iter().chain(rate).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{
        board::queues::Queue,
        page::golden::{ago, board, id, now},
    };

    fn limited(
        concurrency_limit: Option<u32>,
        rate_limit: Option<u32>,
        rate_period_seconds: Option<u32>,
    ) -> Option<String> {
        limit(&Queue { concurrency_limit, rate_limit, rate_period_seconds, ..Queue::default() })
    }

    #[test]
    fn limits_are_named_with_their_period() {
        assert_eq!(limited(None, None, Some(60)), None, "a period alone limits nothing");
        assert_eq!(limited(Some(0), None, None).as_deref(), Some("at most 0 at once"));
        assert_eq!(limited(None, Some(5), None).as_deref(), Some("5 per s"));
        assert_eq!(limited(None, Some(5), Some(1)).as_deref(), Some("5 per s"));
        assert_eq!(limited(Some(4), Some(5), Some(60)).as_deref(), Some("at most 4 at once, 5 in 60 s"));
    }

    /// The parent of the fixed board, of which children finished at these seconds ago.
    fn parent(finishes: &[i64], counts: Counts) -> Parent {
        let mut parent = board().parents.open[&id(20)].clone();
        parent.phases.truncate(1);
        parent.phases[0].counts = counts;
        parent.finishes = finishes.iter().map(|seconds| ago(*seconds)).collect::<VecDeque<_>>();
        parent
    }

    #[test]
    fn time_left_is_told_as_far_as_it_is_known() {
        let steady: Vec<_> = (0..32).rev().map(|number| number * 10).collect();
        let left = |pending, finishes: &[i64]| {
            eta(&parent(finishes, Counts { pending, completed: 32, ..Counts::default() }), now())
        };
        assert_eq!(left(0, &steady), "all known children are done");
        assert_eq!(left(5, &[]), "time left unknown");
        assert_eq!(left(20, &steady), "2 min to 3 min left");
        assert_eq!(left(1, &[0; 8]), "about 1 s left");
        assert_eq!(eta(&parent(&[], Counts::default()), now()), "time left unknown", "it has no children yet");
    }

    #[test]
    fn a_card_shows_as_many_phases_as_fit() {
        let mut parent = parent(&[], Counts::default());
        for number in 1..8 {
            let mut phase = parent.phases[0].clone();
            phase.name = Name::new(&format!("p{number}")).unwrap();
            parent.phases.push(phase);
        }
        for (most, shown, more) in [(6, 6, 2), (8, 8, 0), (9, 8, 0), (0, 0, 8)] {
            let card = ParentCard::new(id(20), &parent, most, now());
            assert_eq!((card.phases.len(), card.more_phases), (shown, more), "{most}");
        }
    }

    #[test]
    fn a_parent_without_a_title_is_called_by_its_type() {
        let mut parent = parent(&[], Counts::default());
        (parent.title, parent.task_type) = (None, Name::literal("import"));
        assert_eq!(ParentCard::new(id(20), &parent, 1, now()).title, "import");
        parent.title = Some("x".repeat(81));
        assert_eq!(ParentCard::new(id(20), &parent, 1, now()).title.chars().count(), 81, "80 and the ellipsis");
    }

    #[test]
    fn eight_of_each_are_shown_and_the_others_counted() {
        let mut board = board();
        for number in 0..20 {
            board.queues.0.insert(Name::new(&format!("q{number}")).unwrap(), Queue::default());
            let parent = parent(&[], Counts::default());
            board.parents.open.insert(id(100 + number), parent);
        }
        let page = Overview::of(&board, chrono::TimeDelta::seconds(25), now(), String::new());
        assert_eq!((page.queues.len(), page.more_queues), (8, board.queues.0.len() - 8));
        assert_eq!((page.parents.len(), page.more_parents), (8, board.parents.open.len() - 8));
    }

    #[test]
    fn the_worst_queue_comes_first_and_then_the_longest() {
        let mut board = Board::default();
        for (name, waiting, paused) in [("a", 1, false), ("b", 9, false), ("c", 1, true), ("d", 1, false)] {
            let queue = board.queues.0.entry(Name::literal(name)).or_default();
            queue.depth[9] = waiting;
            queue.paused_at = paused.then(now);
        }
        let names: Vec<_> = queues(&board, now()).into_iter().map(|row| row.name.to_string()).collect();
        assert_eq!(names, ["c", "b", "a", "d"]);
    }

    #[test]
    fn an_empty_queue_has_no_oldest_task() {
        let mut board = Board::default();
        let queue = board.queues.0.entry(Name::literal("a")).or_default();
        queue.oldest_enqueued_at = Some(ago(60));
        assert_eq!(queues(&board, now())[0].oldest, None, "a late measurement");
        board.queues.0.get_mut("a").unwrap().depth[0] = 1;
        assert_eq!(queues(&board, now())[0].oldest, Some(ago(60)));
    }
}
