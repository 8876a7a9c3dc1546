//! The wall display: boards of a few large tiles, most severe first.

use std::collections::BTreeMap;

use askama::Template;
use chrono::TimeDelta;

use super::overview;
use crate::page::{Content, PageError, Params, View, format, row::Check};
use crate::{
    board::{
        Board,
        health::{self, Health, Level, Serving},
    },
    clock::Time,
    feed,
    model::{Name, Status},
};

/// Maximum number of tiles of a single board; more cannot be read from five metres.
const TILES: usize = 6;
/// Maximum number of tiles per board with several boards side by side.
const TILES_BESIDE: usize = 3;
/// How long a failure counts as recent.
const NEWS: TimeDelta = TimeDelta::minutes(15);

/// Available boards: name and heading.
const BOARDS: [(&str, &str); 5] = [
    ("overview", "Overview"),
    ("queues", "Queues"),
    ("parents", "Parent tasks"),
    ("workers", "Machines"),
    ("failures", "Failures"),
];

/// Parameters of the wall display.
pub(super) static OWN: [(&str, Check); 6] = [
    ("boards", |text| boards(text).map(|_| ())),
    ("rotate", |text| whole(text, 0, 3_600)),
    ("theme", |text| one_of(text, &["dark", "light"])),
    ("scale", |text| whole(text, 50, 200)),
    ("dim_from", hour),
    ("dim_to", hour),
];

fn boards(text: &str) -> Result<Vec<(&'static str, &'static str)>, String> {
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let known = names.iter().map(|name| BOARDS.into_iter().find(|(known, _)| known == name));
    match known.collect::<Option<Vec<_>>>() {
        Some(boards) if !boards.is_empty() => Ok(boards),
        _ => Err(format!("must be a comma-separated list of: {}", BOARDS.map(|(name, _)| name).join(", "))),
    }
}

fn whole(text: &str, least: u32, most: u32) -> Result<(), String> {
    let fits = text.parse().is_ok_and(|number: u32| (least..=most).contains(&number));
    if fits { Ok(()) } else { Err(format!("must be an integer between {least} and {most}")) }
}

fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("must be one of {}", words.join(", "))) }
}

fn hour(text: &str) -> Result<(), String> {
    let parsed = chrono::NaiveTime::parse_from_str(text, "%H:%M");
    parsed.map(|_| ()).map_err(|_| "must be a time of day such as 22:00".to_owned())
}

#[derive(Template)]
#[template(path = "wall.html")]
struct Wall {
    status: Level,
    reason: Option<String>,
    boards: Vec<WallBoard>,
    /// Number of boards to rotate through.
    count: usize,
}

struct WallBoard {
    name: &'static str,
    heading: &'static str,
    tiles: Vec<Tile>,
    more: usize,
}

/// One tile: CSS class, label, one large number and a line below.
struct Tile {
    /// Unique within its board.
    key: String,
    level: Level,
    name: String,
    big: String,
    unit: &'static str,
    below: String,
    percent: Option<u64>,
}

impl Tile {
    /// Width of its number in digits, including the smaller unit; the stylesheet has sizes for 3 to 12.
    fn width(&self) -> usize {
        (self.big.chars().count() + self.unit.chars().count().div_ceil(3)).clamp(3, 12)
    }

    fn new(key: &str, name: &str, big: impl Into<String>, below: impl Into<String>) -> Self {
        Self {
            key: format::anchor(key),
            level: Level::Ok,
            name: name.to_owned(),
            big: big.into(),
            unit: "",
            below: below.into(),
            percent: None,
        }
    }

    fn at(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let chosen = params.own("boards").and_then(|text| boards(text).ok());
    let chosen = chosen.unwrap_or_else(|| BOARDS.to_vec());
    let board = feed::read(&view.board);
    let overall = health::overall(&board, view.quiet, now);
    let alone = chosen.len() == 1 || params.own("rotate").is_some_and(|seconds| seconds != "0");
    let most = if alone { TILES } else { TILES_BESIDE };
    let made = chosen.into_iter().map(|(name, heading)| {
        let mut tiles = match name {
            "overview" => overview_tiles(&board, now),
            "queues" => queue_tiles(&board, now),
            "parents" => parent_tiles(&board, now),
            "workers" => machine_tiles(&board),
            _ => failure_tiles(&board, now),
        };
        tiles.sort_by_key(|tile| std::cmp::Reverse(tile.level));
        let more = tiles.len().saturating_sub(most);
        tiles.truncate(most);
        WallBoard { name, heading, tiles, more }
    });
    let boards: Vec<_> = made.collect();
    // Release the lock before the template is rendered.
    drop(board);
    let (status, reason) = worst(&overall, &boards);
    let page = Wall { status, reason, count: boards.len(), boards };
    Content::new(format!("({}) Wall", format::level(&status).2.to_lowercase()), &page)
}

/// The headline. It is never less severe than a tile below it.
fn worst(overall: &Health, boards: &[WallBoard]) -> (Level, Option<String>) {
    let tiles = boards.iter().flat_map(|board| board.tiles.iter().map(move |tile| (board, tile)));
    let (mut level, mut reason) = (overall.status, None);
    for (board, tile) in tiles {
        if tile.level > level {
            (level, reason) =
                (tile.level, Some(format!("{}: {} {} {}", board.heading, tile.name, tile.big, tile.unit)));
        }
    }
    let more = overall.reasons.iter().filter(|reason| reason.severity == level).count().saturating_sub(1);
    let first = overall.reasons.first().filter(|_| reason.is_none()).map(|reason| match more {
        0 => format::clip(&reason.text, 160),
        _ => format!("{} · and {more} more", format::clip(&reason.text, 140)),
    });
    (level, reason.map(|reason| reason.trim_end().to_owned()).or(first))
}

fn overview_tiles(board: &Board, now: Time) -> Vec<Tile> {
    let stats = board.stats(now);
    let gone = board.workers.0.values().filter(|seen| seen.status == crate::model::worker::WorkerStatus::Lost).count();
    let news = board.failures.open().iter().any(|(_, group)| group.last_seen_at > now - NEWS);
    let errors = if stats.error_rate_1m_percent >= 20.0 { Level::Degraded } else { Level::Ok };
    vec![
        Tile::new(
            "failed",
            "Failed",
            format::count(&stats.failed),
            format!("in {} groups", board.failures.open().len()),
        )
        .at(if news { Level::Degraded } else { Level::Ok }),
        Tile::new("waiting", "Waiting", format::count(&stats.pending), format!("{} wait for a retry", stats.retrying)),
        Tile::new("running", "Running", format::count(&stats.running), String::new()),
        Tile {
            unit: "per s",
            ..Tile::new("completed", "Completed", format::decimal(&stats.throughput_per_second), "over one minute")
        },
        Tile {
            unit: "%",
            level: errors,
            ..Tile::new("errors", "Error rate", format::decimal(&stats.error_rate_1m_percent), "over one minute")
        },
        Tile::new("workers", "Workers", format::count(&stats.workers_online), format!("{gone} lost")).at(if gone > 0 {
            Level::Degraded
        } else {
            Level::Ok
        }),
    ]
}

fn queue_tiles(board: &Board, now: Time) -> Vec<Tile> {
    let mut queues: Vec<_> = board.queues.0.iter().collect();
    queues.sort_by_key(|(name, queue)| (std::cmp::Reverse(queue.waiting()), (*name).clone()));
    let serving = Serving::taking(board);
    let tile = |(name, queue): (&Name, &crate::board::queues::Queue)| {
        let why = health::of_queue(&serving, name, queue, now);
        let running = queue.count(Status::Running);
        let below = if queue.paused_at.is_some() { "paused".to_owned() } else { format!("{running} running") };
        Tile {
            unit: "waiting",
            level: why.status,
            ..Tile::new(name.as_str(), &format::clip(name.as_str(), 24), format::count(&queue.waiting()), below)
        }
    };
    queues.into_iter().map(tile).collect()
}

fn parent_tiles(board: &Board, now: Time) -> Vec<Tile> {
    let mut parents: Vec<_> = board.parents.open.iter().collect();
    parents.sort_by_key(|(id, parent)| (parent.created_at, **id));
    let tile = |(id, parent): (&uuid::Uuid, &crate::board::parents::Parent)| {
        let total = parent.total();
        let title = parent.title.as_deref().unwrap_or(parent.task_type.as_str());
        let level = if total.failed > 0 { Level::Degraded } else { Level::Ok };
        Tile {
            unit: "%",
            level,
            percent: Some(total.percent()),
            ..Tile::new(
                &id.to_string(),
                &format::clip(title, 40),
                total.percent().to_string(),
                format!("{} of {} · {}", total.finished(), total.total(), overview::eta(parent, now)),
            )
        }
    };
    parents.into_iter().map(tile).collect()
}

fn machine_tiles(board: &Board) -> Vec<Tile> {
    let mut machines: BTreeMap<&Name, (u64, u64)> = BTreeMap::new();
    for seen in board.workers.0.values() {
        let (online, lost) = machines.entry(&seen.machine_id).or_default();
        *online += u64::from(seen.status.is_online());
        *lost += u64::from(seen.status == crate::model::worker::WorkerStatus::Lost);
    }
    let tile = |(name, (online, lost)): (&&Name, &(u64, u64))| {
        let level = match (online, lost) {
            (_, 0) => Level::Ok,
            (0, _) => Level::Stalled,
            _ => Level::Degraded,
        };
        Tile {
            unit: "online",
            ..Tile::new(name.as_str(), &format::clip(name.as_str(), 24), format::count(online), format!("{lost} lost"))
        }
        .at(level)
    };
    machines.iter().map(tile).collect()
}

fn failure_tiles(board: &Board, now: Time) -> Vec<Tile> {
    let mut open = board.failures.open();
    // Same stable order as on the failures page.
    open.sort_by_key(|(key, group)| (std::cmp::Reverse(group.first_seen_at), (*key).clone()));
    if open.is_empty() {
        return vec![Tile::new("none", "Failures", "0", "no task is a failed one")];
    }
    let tile = |(key, group): (&Name, &crate::board::failures::Group)| {
        let is_new = group.first_seen_at > now - NEWS;
        let below = format!("{}{}", if is_new { "new: " } else { "" }, format::clip(&group.pattern, 60));
        Tile {
            unit: "failed",
            ..Tile::new(key.as_str(), &format::clip(group.task_type.as_str(), 24), format::count(&group.open), below)
        }
        .at(if group.last_seen_at > now - NEWS { Level::Degraded } else { Level::Ok })
    };
    open.into_iter().map(tile).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        board::{health::Reason, queues::Queue},
        page::golden::{ago, board, now},
    };

    fn names(text: &str) -> Result<Vec<&'static str>, String> {
        boards(text).map(|boards| boards.into_iter().map(|(name, _)| name).collect())
    }

    fn check(name: &str, text: &str) -> Result<(), String> {
        OWN.iter().find(|(own, _)| *own == name).unwrap().1(text)
    }

    #[test]
    fn boards_are_shown_in_the_order_that_was_asked_for() {
        assert_eq!(names("queues, overview ,,queues"), Ok(vec!["queues", "overview", "queues"]));
        for bad in ["", ",", " ", "queue", "queues,weather", "Queues"] {
            assert_eq!(
                names(bad).unwrap_err(),
                "must be a comma-separated list of: overview, queues, parents, workers, failures",
                "{bad}"
            );
        }
    }

    #[test]
    fn parameters_of_the_wall_end_at_their_bounds() {
        for (name, good, bad) in [
            ("rotate", &["0", "3600"][..], &["3601", "-1", "", "5.5", "4294967296"][..]),
            ("scale", &["50", "200"], &["49", "201", "100%"]),
            ("theme", &["dark", "light"], &["", "Dark", "system"]),
            ("dim_from", &["00:00", "23:59"], &["24:00", "22", "22:60", "10pm", ""]),
            ("dim_to", &["06:00"], &["6 o'clock"]),
        ] {
            assert!(good.iter().all(|text| check(name, text).is_ok()), "{name}");
            assert!(bad.iter().all(|text| check(name, text).is_err()), "{name}");
        }
        assert_eq!(check("scale", "49").unwrap_err(), "must be an integer between 50 and 200");
        assert_eq!(check("theme", "x").unwrap_err(), "must be one of dark, light");
    }

    #[test]
    fn a_number_has_a_size_for_three_to_twelve_digits() {
        let width = |big: &str, unit| Tile { unit, ..Tile::new("k", "n", big, "") }.width();
        assert_eq!((width("", ""), width("7", ""), width("1234", "")), (3, 3, 4));
        assert_eq!((width("123", "per s"), width("1234567890123", "waiting")), (5, 12));
    }

    fn wall(level: Level) -> Vec<WallBoard> {
        let tile = Tile { unit: "waiting", ..Tile::new("k", "mails", "7", "") }.at(level);
        vec![WallBoard { name: "queues", heading: "Queues", tiles: vec![tile], more: 0 }]
    }

    fn health(severities: &[Level]) -> Health {
        let reasons = severities.iter().map(|severity| Reason {
            code: "x",
            severity: *severity,
            text: format!("{severity:?} reason"),
            queue: None,
            since: None,
            task_type: None,
            task_id: None,
            worker_id: None,
        });
        Health { status: severities.first().copied().unwrap_or(Level::Ok), reasons: reasons.collect() }
    }

    #[test]
    fn the_headline_is_never_milder_than_a_tile() {
        let told = worst(&health(&[Level::Degraded]), &wall(Level::Stalled));
        assert_eq!(told, (Level::Stalled, Some("Queues: mails 7 waiting".to_owned())));
        let told = worst(&health(&[]), &wall(Level::Degraded));
        assert_eq!(told, (Level::Degraded, Some("Queues: mails 7 waiting".to_owned())));
        assert_eq!(worst(&health(&[]), &wall(Level::Ok)), (Level::Ok, None));
    }

    #[test]
    fn the_headline_is_the_first_reason_and_how_many_are_as_bad() {
        let (level, reason) = worst(&health(&[Level::Stalled, Level::Degraded]), &wall(Level::Degraded));
        assert_eq!((level, reason.as_deref()), (Level::Stalled, Some("Stalled reason")));
        let (_, reason) = worst(&health(&[Level::Degraded; 3]), &wall(Level::Degraded));
        assert_eq!(reason.as_deref(), Some("Degraded reason · and 2 more"));
    }

    #[test]
    fn a_long_reason_is_cut_for_the_wall() {
        let mut long = health(&[Level::Degraded]);
        long.reasons[0].text = "x".repeat(161);
        assert_eq!(worst(&long, &[]).1.unwrap().chars().count(), 161, "160 and the ellipsis");
    }

    #[test]
    fn queues_with_the_longest_backlog_come_first() {
        let mut board = Board::default();
        for (name, waiting) in [("a", 1), ("b", 3), ("c", 3)] {
            let depth = [waiting, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            board.queues.0.insert(Name::literal(name), Queue { depth, ..Queue::default() });
        }
        board.queues.0.get_mut("a").unwrap().paused_at = Some(now());
        let tiles = queue_tiles(&board, now());
        let told: Vec<_> =
            tiles.iter().map(|tile| (tile.name.as_str(), tile.big.as_str(), tile.below.as_str())).collect();
        assert_eq!(told, [("b", "3", "0 running"), ("c", "3", "0 running"), ("a", "1", "paused")]);
        assert_eq!(tiles[2].level, Level::Degraded);
    }

    #[test]
    fn a_machine_stands_still_when_all_its_workers_are_lost() {
        let machine = |statuses: &[crate::model::worker::WorkerStatus]| {
            let mut board = board();
            let some = board.workers.0.values().next().unwrap().clone();
            let workers = statuses.iter().zip(1..).map(|(status, number)| {
                (uuid::Uuid::from_u128(number), crate::board::workers::LastSeen { status: *status, ..some.clone() })
            });
            board.workers.0 = workers.collect();
            let tile = machine_tiles(&board).remove(0);
            (tile.level, tile.big, tile.below)
        };
        use crate::model::worker::WorkerStatus::{Idle, Lost, Stopped};
        assert_eq!(machine(&[Idle, Stopped]), (Level::Ok, "1".to_owned(), "0 lost".to_owned()));
        assert_eq!(machine(&[Idle, Lost]), (Level::Degraded, "1".to_owned(), "1 lost".to_owned()));
        assert_eq!(machine(&[Lost, Stopped]), (Level::Stalled, "0".to_owned(), "1 lost".to_owned()));
        assert_eq!(machine(&[Stopped]).0, Level::Ok, "who left in order is not missed");
    }

    #[test]
    fn a_failure_is_news_for_fifteen_minutes() {
        let board = board();
        let last = board.failures.open()[0].1.last_seen_at;
        let minutes = |minutes| last + TimeDelta::minutes(minutes);
        assert_eq!(failure_tiles(&board, minutes(15) - TimeDelta::seconds(1))[0].level, Level::Degraded);
        let tile = failure_tiles(&board, minutes(15)).remove(0);
        assert_eq!(tile.level, Level::Ok);
        assert!(failure_tiles(&board, ago(600))[0].below.starts_with("new: ") && !tile.below.starts_with("new"));
        assert_eq!(failure_tiles(&Board::default(), now())[0].big, "0");
    }
}
