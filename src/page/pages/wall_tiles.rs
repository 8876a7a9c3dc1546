//! The tiles of the wall: problems, key figures, parents, queues, machines and error groups.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use chrono::TimeDelta;

use super::overview;
use crate::page::format;
use crate::{
    board::{
        self,
        health::{Health, Level, Reason, rules::label},
    },
    clock::Time,
    model::{Name, Status, worker::WorkerStatus},
};

/// How long an error group counts as new.
const NEW: TimeDelta = TimeDelta::minutes(15);
/// Longest name, characters; longer ones are shortened in the middle.
const NAME: usize = 18;
/// Longest error text, characters.
const ERROR: usize = 70;

/// What a wall shows beside problems, in the order that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Board {
    /// Key figures.
    Overview,
    /// Queues by backlog.
    Queues,
    /// Parent tasks in progress.
    Parents,
    /// Machines with their workers.
    Workers,
    /// Error groups.
    Failures,
}

/// The boards and their names.
const BOARDS: [(&str, Board); 5] = [
    ("overview", Board::Overview),
    ("queues", Board::Queues),
    ("parents", Board::Parents),
    ("workers", Board::Workers),
    ("failures", Board::Failures),
];

impl Board {
    /// All of them.
    pub(super) fn all() -> Vec<Self> {
        BOARDS.iter().map(|(_, board)| *board).collect()
    }

    /// A comma-separated list.
    pub(super) fn list(text: &str) -> Result<Vec<Self>, String> {
        let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let known = |name: &&str| BOARDS.iter().find(|(known, _)| known == name).map(|(_, board)| *board);
        match names.iter().map(known).collect::<Option<Vec<_>>>() {
            Some(boards) if !boards.is_empty() => Ok(boards),
            _ => Err(format!("must be a comma-separated list of: {}", BOARDS.map(|(name, _)| name).join(", "))),
        }
    }
}

/// One tile: a name, something large, and a sentence in two lengths.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tile {
    /// Unique on the wall.
    pub(super) key: String,
    pub(super) level: Level,
    /// It is not a problem yet, but new.
    pub(super) is_new: bool,
    pub(super) name: String,
    pub(super) big: String,
    pub(super) long: String,
    pub(super) short: String,
    /// Since when, or of when, the sentence tells.
    pub(super) since: Option<Time>,
    pub(super) percent: Option<u64>,
}

impl Tile {
    fn new(key: &str, name: &str, big: impl Into<String>) -> Self {
        Self {
            key: format::anchor(key),
            level: Level::Ok,
            is_new: false,
            name: middle(name),
            big: big.into(),
            long: String::new(),
            short: String::new(),
            since: None,
            percent: None,
        }
    }

    fn saying(self, long: impl Into<String>, short: impl Into<String>) -> Self {
        Self { long: long.into(), short: short.into(), ..self }
    }
}

/// All tiles: problems first, the worst on top, then what was asked for.
pub(super) fn of(board: &board::Board, health: &Health, boards: &[Board], now: Time) -> Vec<Tile> {
    let mut tiles = problems(board, health);
    for chosen in boards {
        let more = match chosen {
            Board::Overview => figures(board, now),
            Board::Queues => queues(board),
            Board::Parents => parents(board, now),
            Board::Workers => machines(board),
            Board::Failures => failures(board, now),
        };
        // What is a problem has its tile already.
        let known: BTreeSet<_> = tiles.iter().map(|tile| tile.key.clone()).collect();
        tiles.extend(more.into_iter().filter(|tile| !known.contains(&tile.key)));
    }
    tiles
}

/// A name, shortened in the middle: both ends tell more than the middle does.
fn middle(name: &str) -> String {
    let chars: Vec<char> = format::visible(name).chars().collect();
    if chars.len() <= NAME {
        return chars.into_iter().collect();
    }
    let (head, tail) = (NAME / 2, NAME - NAME / 2 - 1);
    let ends = [&chars[..head], &['…'], &chars[chars.len() - tail..]];
    ends.concat().into_iter().collect()
}

/// The sentence of a problem, with its names shortened.
pub(super) fn sentence(reason: &Reason) -> String {
    let names = [&reason.queue, &reason.task_type].into_iter().flatten();
    let text = names.fold(reason.text.clone(), |text, name| text.replace(name.as_str(), &middle(name.as_str())));
    format::clip(&text, 120)
}

/// One tile for each problem; workers of one machine, and tasks of one type, that have the same problem share one.
fn problems(board: &board::Board, health: &Health) -> Vec<Tile> {
    let mut tiles: Vec<(Tile, u64)> = Vec::new();
    for reason in &health.reasons {
        let word = label(reason.code);
        let (mut tile, many) = if let Some(queue) = &reason.queue {
            let pending = board.queues.0.get(queue).map_or(0, |queue| queue.waiting());
            let pending = format!("{} pending", format::count(&pending));
            (Tile::new(&format!("queue-{queue}"), queue.as_str(), word).saying(sentence(reason), pending), "")
        } else if let Some(seen) = reason.worker_id.and_then(|id| board.workers.0.get(&id)) {
            let tile = Tile::new(&format!("machine-{}", seen.machine_id), seen.machine_id.as_str(), word);
            let short = format!("{} {}", middle(seen.name.as_str()), word.to_lowercase());
            // Several connectors of one worker are not several workers.
            let many = if reason.code.starts_with("worker_") { "workers" } else { "" };
            (tile.saying(sentence(reason), short), many)
        } else if let Some(kind) = &reason.task_type {
            (Tile::new(&format!("type-{kind}"), kind.as_str(), word).saying(sentence(reason), ""), "")
        } else if let Some(task) = reason.task_id.and_then(|id| board.running.0.get(&id)) {
            let tile = Tile::new(&format!("task-{}-{}", reason.code, task.task_type), task.task_type.as_str(), word);
            (tile.saying(sentence(reason), "1 task"), "tasks")
        } else {
            let key = reason.task_id.map_or_else(|| reason.code.to_owned(), |id| id.to_string());
            (Tile::new(&key, "Task", word).saying(sentence(reason), ""), "")
        };
        (tile.level, tile.since) = (reason.severity, reason.since);
        match tiles.iter_mut().find(|(known, _)| known.key == tile.key) {
            // Another problem of the same: the worst one, which comes first, is told.
            Some((known, _)) if !known.big.ends_with(word) && !known.big.ends_with(&word.to_lowercase()) => {}
            Some(_) if many.is_empty() => {}
            Some((known, count)) => {
                *count += 1;
                known.big = format!("{count} {}", word.to_lowercase());
                known.long = format!("{count} {many} {}", word.to_lowercase());
                known.short.clone_from(&known.long);
            }
            None => tiles.push((tile, 1)),
        }
    }
    tiles.into_iter().map(|(tile, _)| tile).collect()
}

fn figures(board: &board::Board, now: Time) -> Vec<Tile> {
    let stats = board.stats(now);
    let lost = board.workers.0.values().filter(|seen| seen.status == WorkerStatus::Lost).count();
    let oldest =
        board.queues.0.values().filter(|queue| queue.waiting() > 0).filter_map(|queue| queue.oldest_enqueued_at).min();
    let groups = board.failures.open().len();
    let failed = format!("{} failed", format::count(&stats.failed));
    let lost = if lost > 0 { format!("{lost} lost") } else { "none lost".to_owned() };
    vec![
        Tile::new("throughput", "Throughput", format!("{}/s", format::decimal(&stats.throughput_per_second)))
            .saying("completed, 1m average", "1m average"),
        Tile::new("errors", "Error rate", format::percent(&stats.error_rate_1m_percent))
            .saying(format!("{failed} tasks in {groups} groups"), failed),
        Tile {
            since: oldest,
            ..Tile::new("pending", "Pending", format::count(&stats.pending))
                .saying(if oldest.is_some() { "oldest" } else { "" }, "")
        },
        Tile::new("running", "Running", format::count(&stats.running))
            .saying(format!("{} retrying", format::count(&stats.retrying)), ""),
        Tile::new("workers", "Workers", format::count(&stats.workers_online)).saying(format!("online · {lost}"), lost),
    ]
}

fn queues(board: &board::Board) -> Vec<Tile> {
    let mut queues: Vec<_> = board.queues.0.iter().collect();
    queues.sort_by_key(|(name, queue)| (Reverse(queue.waiting()), (*name).clone()));
    let tile = |(name, queue): (&Name, &board::queues::Queue)| {
        let running = format!("{} running", format::count(&queue.count(Status::Running)));
        let state = if queue.paused_at.is_some() { "pending · paused" } else { "pending" };
        let oldest = queue.oldest_enqueued_at.filter(|_| queue.waiting() > 0);
        let long = format!("{state} · {running}{}", if oldest.is_some() { " · oldest" } else { "" });
        let tile = Tile::new(&format!("queue-{name}"), name.as_str(), format::count(&queue.waiting()));
        Tile { since: oldest, ..tile.saying(long, state) }
    };
    queues.into_iter().map(tile).collect()
}

fn parents(board: &board::Board, now: Time) -> Vec<Tile> {
    let mut parents: Vec<_> = board.parents.open.iter().collect();
    parents.sort_by_key(|(id, parent)| (parent.created_at, **id));
    let tile = |(id, parent): (&uuid::Uuid, &board::parents::Parent)| {
        let total = parent.total();
        let title = parent.title.as_deref().unwrap_or(parent.task_type.as_str());
        let failed = if total.failed > 0 { format!(" · {} failed", total.failed) } else { String::new() };
        let done = format!("{}/{}{failed}", format::count(&total.finished()), format::count(&total.total()));
        let tile = Tile::new(&id.to_string(), title, format!("{}%", total.percent()));
        Tile {
            percent: Some(total.percent()), ..tile.saying(format!("{done} · {}", overview::eta(parent, now)), done)
        }
    };
    parents.into_iter().map(tile).collect()
}

fn machines(board: &board::Board) -> Vec<Tile> {
    let mut machines: BTreeMap<&Name, (u64, u64)> = BTreeMap::new();
    for seen in board.workers.0.values() {
        let (online, lost) = machines.entry(&seen.machine_id).or_default();
        *online += u64::from(seen.status.is_online());
        *lost += u64::from(seen.status == WorkerStatus::Lost);
    }
    let tile = |(name, (online, lost)): (&&Name, &(u64, u64))| {
        let lost = if *lost > 0 { format!("{lost} lost") } else { String::new() };
        let long = if lost.is_empty() { "workers online".to_owned() } else { format!("workers online · {lost}") };
        Tile::new(&format!("machine-{name}"), name.as_str(), format::count(online)).saying(long, "online")
    };
    machines.iter().map(tile).collect()
}

fn failures(board: &board::Board, now: Time) -> Vec<Tile> {
    let mut open = board.failures.open();
    // Same stable order as on the failures page.
    open.sort_by_key(|(key, group)| (Reverse(group.first_seen_at), (*key).clone()));
    if open.is_empty() {
        return vec![Tile::new("no-failures", "Failures", "0").saying("No failed tasks", "")];
    }
    let tile = |(key, group): (&Name, &board::failures::Group)| {
        let failed = format!("{} failed", format::count(&group.open));
        let (long, short) = (format::clip(&group.pattern, ERROR), format::clip(&group.pattern, ERROR / 2));
        let tile = Tile::new(&format!("group-{key}"), group.task_type.as_str(), failed).saying(long, short);
        Tile { is_new: group.first_seen_at > now - NEW, ..tile }
    };
    open.into_iter().map(tile).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        board::{Board as Figures, queues::Queue},
        page::golden::{ago, board, now},
    };

    #[test]
    fn boards_are_shown_in_the_order_that_was_asked_for() {
        assert_eq!(Board::list("queues, overview ,,queues"), Ok(vec![Board::Queues, Board::Overview, Board::Queues]));
        for bad in ["", ",", " ", "queue", "queues,weather", "Queues"] {
            let expected = "must be a comma-separated list of: overview, queues, parents, workers, failures";
            assert_eq!(Board::list(bad).unwrap_err(), expected, "{bad}");
        }
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(middle("a-very-long-name-of-platform-team"), "a-very-lo…orm-team");
        assert_eq!((middle("eighteen-letters-x"), middle("").as_str()), ("eighteen-letters-x".to_owned(), ""));
    }

    fn reason(code: &'static str, queue: Option<&'static str>) -> Reason {
        Reason {
            code,
            severity: Level::Stalled,
            text: format!("Queue {} has no workers · 3 pending", queue.unwrap_or("-")),
            queue: queue.map(Name::literal),
            since: Some(ago(60)),
            task_type: None,
            task_id: None,
            worker_id: None,
        }
    }

    fn with_queues(waiting: &[(&'static str, u64)]) -> Figures {
        let mut board = Figures::default();
        for (name, waiting) in waiting {
            let depth = [*waiting, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            board.queues.0.insert(Name::literal(name), Queue { depth, ..Queue::default() });
        }
        board
    }

    #[test]
    fn a_queue_in_trouble_has_one_tile_and_stands_first() {
        let board = with_queues(&[("a", 1), ("b", 3), ("c", 3)]);
        let health = Health { status: Level::Stalled, reasons: vec![reason("no_worker", Some("a"))] };
        let tiles = of(&board, &health, &[Board::Queues, Board::Queues], now());
        let told: Vec<_> = tiles.iter().map(|tile| (tile.name.as_str(), tile.big.as_str(), tile.level)).collect();
        assert_eq!(told, [("a", "No workers", Level::Stalled), ("b", "3", Level::Ok), ("c", "3", Level::Ok)]);
        assert_eq!(tiles[0].long, "Queue a has no workers · 3 pending");
        assert_eq!((tiles[0].short.as_str(), tiles[0].since), ("1 pending", Some(ago(60))));
    }

    #[test]
    fn every_rule_has_a_word_for_the_wall() {
        for rule in crate::board::health::rules::RULES {
            assert!(!label(rule.code).is_empty() && rule.label.len() <= 16, "{}", rule.code);
        }
    }

    #[test]
    fn workers_of_one_machine_with_one_problem_share_a_tile() {
        let mut board = board();
        let some = board.workers.0.values().next().unwrap().clone();
        board.workers.0 = (1..=3).map(|number| (uuid::Uuid::from_u128(number), some.clone())).collect();
        let lost = |number| Reason { worker_id: Some(uuid::Uuid::from_u128(number)), ..reason("worker_lost", None) };
        let health = Health { status: Level::Stalled, reasons: [1, 2, 3].map(lost).into() };
        let tiles = of(&board, &health, &[Board::Workers], now());
        assert_eq!(tiles.len(), 1, "{tiles:?}");
        assert_eq!((tiles[0].big.as_str(), tiles[0].long.as_str()), ("3 lost", "3 workers lost"));
    }

    #[test]
    fn an_error_group_is_new_for_fifteen_minutes_and_no_problem_by_itself() {
        let board = board();
        let first = board.failures.open()[0].1.first_seen_at;
        let at = |minutes| failures(&board, first + TimeDelta::minutes(minutes)).remove(0);
        assert!(at(14).is_new && !at(15).is_new && at(0).level == Level::Ok);
        assert_eq!(failures(&Figures::default(), now())[0].big, "0");
    }
}
