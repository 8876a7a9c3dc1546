//! The overview: what is wrong, since when and what to do; key metrics, queues, error groups, parent tasks.

use std::collections::BTreeSet;

use askama::Template;
use chrono::TimeDelta;

use crate::page::{
    Content, PageError, Params, View,
    chart::Sparkline,
    format,
    problem_list::ProblemRow,
    queue_table::{self, QueueRow},
};
use crate::{
    board::{
        Board,
        durations::Histogram,
        failures::HOURS,
        health::{self, Health, Level},
        history::{Range, Slot},
        parents::Parent,
    },
    clock::Time,
    event::envelope::Stats,
    feed,
    model::{Name, phase::Counts, worker::WorkerStatus},
};

/// Maximum number of parents and error groups shown.
const SHOWN: usize = 8;
/// Maximum number of queues shown.
const QUEUES: usize = 10;
/// Maximum number of problems shown at first.
const PROBLEMS: usize = 5;
/// Error groups of this time are shown.
const LATELY: TimeDelta = TimeDelta::hours(1);

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    url: String,
    is_empty: bool,
    level: Level,
    /// What is wrong, counted.
    sentence: String,
    problems: Vec<ProblemRow>,
    more_problems: Vec<ProblemRow>,
    stats: Stats,
    lost: usize,
    busy: usize,
    oldest: Option<Time>,
    run_p95: Option<u64>,
    run_p99: Option<u64>,
    throughput: Sparkline,
    errors: Sparkline,
    backlog: Sparkline,
    runs: Sparkline,
    queues: Vec<QueueRow>,
    more_queues: usize,
    parents: Vec<ParentCard>,
    more_parents: usize,
    groups: Vec<GroupRow>,
    open_groups: usize,
    slider: Option<Slider>,
    is_past: bool,
}

/// Range of positions of the time travel slider.
struct Slider {
    oldest: i64,
    head: i64,
    at: i64,
}

/// An error group.
struct GroupRow {
    fingerprint: Name,
    task_type: Name,
    pattern: String,
    /// Failures within the last hours shown.
    lately: u64,
    last_seen_at: Time,
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
        return "all children finished".to_owned();
    }
    match parent.eta(now) {
        Some(eta) if eta.low_seconds == eta.high_seconds => format!("≈ {} left", format::seconds(eta.low_seconds)),
        Some(eta) => format!("{}–{} left", format::seconds(eta.low_seconds), format::seconds(eta.high_seconds)),
        None => "ETA unknown".to_owned(),
    }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let mut page = {
        let board = feed::read(&view.board);
        Overview::of(&board, view.quiet, now, view.url.clone())
    };
    page.is_past = params.at.is_some();
    let (oldest, head) = (view.subscriptions.oldest(), view.subscriptions.head());
    // Rounded, so that it does not change with every event.
    let head = if params.at.is_some() { head } else { head - head % 1_000 + 1_000 };
    page.slider = (!page.is_empty).then(|| Slider { oldest, head, at: params.at.map_or(head, |at| at.position) });
    Content::new("Overview", &page)
}

impl Overview {
    /// The p95 of run times, as text.
    fn run_words(&self) -> String {
        self.run_p95.map_or_else(|| "–".to_owned(), |ms| format::duration(&ms))
    }

    fn of(board: &Board, quiet: TimeDelta, now: Time, url: String) -> Self {
        let mut queues = queue_table::rows(board, now);
        let more_queues = queues.len().saturating_sub(QUEUES);
        queues.truncate(QUEUES);
        let mut parents: Vec<_> = board.parents.open.iter().collect();
        parents.sort_by_key(|(id, parent)| (std::cmp::Reverse(parent.created_at), **id));
        let health = health::overall(board, quiet, now);
        let mut problems: Vec<_> = health.reasons.iter().map(ProblemRow::of).collect();
        let more_problems = problems.split_off(PROBLEMS.min(problems.len()));
        let hour = board.history.over(Range::Hour, now);
        let mut runs = Histogram::default();
        hour[hour.len() - 6..].iter().for_each(|minute| runs.add_all(&minute.runs));
        let p95 = |minute: &Slot| minute.runs.percentile(95).unwrap_or_default();
        Self {
            url,
            is_empty: board.position == 0,
            level: health.status,
            sentence: sentence(&health),
            problems,
            more_problems,
            stats: board.stats(now),
            lost: board.workers.0.values().filter(|worker| worker.status == WorkerStatus::Lost).count(),
            busy: board.running.0.values().filter_map(|task| task.worker_id).collect::<BTreeSet<_>>().len(),
            oldest: board.queues.0.values().filter_map(|queue| queue.oldest_enqueued_at).min(),
            run_p95: runs.percentile(95),
            run_p99: runs.percentile(99),
            throughput: Sparkline::of_hour(board, now, "tasks completed", |tally| tally.completed),
            errors: Sparkline::of_hour(board, now, "attempts failed", |tally| tally.failed + tally.retried),
            backlog: Sparkline::of_minutes(&hour, |minute| minute.max_pending, "pending tasks", format::count),
            runs: Sparkline::of_minutes(&hour, p95, "p95 of run times", format::duration),
            more_queues,
            queues,
            more_parents: parents.len().saturating_sub(SHOWN),
            parents: parents
                .into_iter()
                .take(SHOWN)
                .map(|(id, parent)| ParentCard::new(*id, parent, PHASES, now))
                .collect(),
            groups: groups(board, now),
            open_groups: board.failures.open().len(),
            slider: None,
            is_past: false,
        }
    }
}

/// What is wrong, counted by kind.
fn sentence(health: &Health) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for reason in &health.reasons {
        match kinds.iter_mut().find(|(code, _)| *code == reason.code) {
            Some((_, count)) => *count += 1,
            None => kinds.push((reason.code, 1)),
        }
    }
    let words = |(code, count): (&str, usize)| {
        let s = if count == 1 { "" } else { "s" };
        match code {
            "queue_paused" => format!("{count} queue{s} paused"),
            "no_worker" => format!("{count} queue{s} without workers"),
            "concurrency_limited" | "rate_limited" => format!("{count} queue{s} at a limit"),
            "standstill" => format!("{count} queue{s} not claimed from"),
            "backlog" => format!("{count} backlog{s}"),
            "error_rate" => format!("{count} high error rate{s}"),
            "worker_lost" => format!("{count} worker{s} lost"),
            "worker_quiet" => format!("{count} worker{s} without heartbeats"),
            "connector_error" | "connector_unknown" => format!("{count} connector{s} failing"),
            "task_slow" => format!("{count} slow task{s}"),
            "task_stalled" => format!("{count} stalled task{s}"),
            _ => format!("{count} task{s} blocked forever"),
        }
    };
    kinds.into_iter().map(words).collect::<Vec<_>>().join(" · ")
}

/// Error groups of the last hour, those with the most failures first. A group changes its place only when it has twice as
/// many as before: what one reads does not jump with every failure.
fn groups(board: &Board, now: Time) -> Vec<GroupRow> {
    let active = board.failures.groups.iter().filter(|(_, group)| now - group.last_seen_at < LATELY);
    let mut groups: Vec<_> = active
        .map(|(fingerprint, group)| {
            let hours = group.last_hours(now);
            GroupRow {
                fingerprint: fingerprint.clone(),
                task_type: group.task_type.clone(),
                pattern: format::clip(&group.pattern, 120),
                lately: hours[HOURS - 2..].iter().sum(),
                last_seen_at: group.last_seen_at,
            }
        })
        .collect();
    let size = |group: &GroupRow| std::cmp::Reverse(group.lately.checked_ilog2());
    groups.sort_by(|a, b| (size(a), &a.fingerprint).cmp(&(size(b), &b.fingerprint)));
    groups.truncate(SHOWN);
    groups
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
        assert_eq!(left(0, &steady), "all children finished");
        assert_eq!(left(5, &[]), "ETA unknown");
        assert_eq!(left(20, &steady), "2m–3m left");
        assert_eq!(left(1, &[0; 8]), "≈ 1 s left");
        assert_eq!(eta(&parent(&[], Counts::default()), now()), "ETA unknown", "it has no children yet");
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
    fn some_of_each_are_shown_and_the_others_counted() {
        let mut board = board();
        for number in 0..20 {
            board.queues.0.insert(Name::new(&format!("q{number}")).unwrap(), Queue::default());
            let parent = parent(&[], Counts::default());
            board.parents.open.insert(id(100 + number), parent);
        }
        let page = Overview::of(&board, TimeDelta::seconds(25), now(), String::new());
        assert_eq!((page.queues.len(), page.more_queues), (10, board.queues.0.len() - 10));
        assert_eq!((page.parents.len(), page.more_parents), (8, board.parents.open.len() - 8));
    }

    #[test]
    fn what_is_wrong_is_counted_by_kind() {
        let board = board();
        let health = health::overall(&board, TimeDelta::seconds(25), now());
        let told = sentence(&health);
        assert!(told.contains("1 queue paused"), "{told}");
        assert_eq!(sentence(&health::overall(&Board::default(), TimeDelta::seconds(25), now())), "");
    }

    #[test]
    fn error_groups_of_the_last_hour_are_shown_the_most_frequent_first() {
        let board = board();
        let shown = groups(&board, now());
        assert!(!shown.is_empty() && shown.windows(2).all(|pair| pair[0].lately * 2 > pair[1].lately));
        assert!(groups(&board, now() + TimeDelta::hours(2)).is_empty());
    }
}
