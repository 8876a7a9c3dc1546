//! The wall display: the worst problem in words, then tiles, problems first.

use askama::Template;

use super::wall_tiles::{self, Board, Tile};
use crate::page::{Content, PageError, Params, View, format, row::Check};
use crate::{
    board::health::{self, Health, Level},
    clock::Time,
    feed,
};

/// Number of tiles, unless it is asked for.
const TILES: usize = 12;
/// Maximum number of tiles at once; more cannot be read from five metres.
const MOST: u32 = 15;
/// Maximum number of tiles of a wall that turns its pages over.
const MOST_TURNED: usize = 60;

/// Parameters of the wall display.
pub(super) static OWN: [(&str, Check); 8] = [
    ("boards", |text| Board::list(text).map(|_| ())),
    ("rotate", |text| whole(text, 0, 3_600)),
    ("tiles", |text| whole(text, 1, MOST)),
    ("theme", |text| one_of(text, &["dark", "light"])),
    ("scale", |text| whole(text, 50, 200)),
    ("tz", time_zone),
    ("dim_from", hour),
    ("dim_to", hour),
];

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

fn time_zone(text: &str) -> Result<(), String> {
    let parsed = text.parse::<chrono_tz::Tz>();
    parsed.map(|_| ()).map_err(|_| "must be a time zone such as Europe/Berlin".to_owned())
}

#[derive(Template)]
#[template(path = "wall.html")]
struct Wall {
    status: Level,
    headline: String,
    since: Option<Time>,
    /// Number of further problems.
    others: usize,
    tiles: Vec<Tile>,
    /// Number of tiles shown at once.
    at_once: usize,
    /// Number of tiles left out.
    more: usize,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let number = |name: &str| params.own(name).and_then(|text| text.parse::<usize>().ok());
    let chosen = params.own("boards").and_then(|text| Board::list(text).ok());
    let chosen = chosen.unwrap_or_else(Board::all);
    let at_once = number("tiles").unwrap_or(TILES);
    let most = if number("rotate").is_some_and(|seconds| seconds > 0) { MOST_TURNED } else { at_once };
    let page = {
        let board = feed::read(&view.board);
        let health = health::overall(&board, view.quiet, view.now());
        let is_empty = board.position == 0 || board.tasks.iter().all(|(_, count)| count == 0);
        let tiles = wall_tiles::of(&board, &health, &chosen, view.now());
        Wall::of(&health, is_empty && board.workers.0.is_empty(), tiles, (at_once, most))
    };
    Content::new(format!("({}) Wall", format::level(&page.status).2.to_lowercase()), &page)
}

impl Wall {
    fn of(health: &Health, is_empty: bool, mut tiles: Vec<Tile>, (at_once, most): (usize, usize)) -> Self {
        let first = health.reasons.first();
        let headline = match first {
            Some(reason) => wall_tiles::sentence(reason),
            None if is_empty => "No tasks yet".to_owned(),
            None => "All clear".to_owned(),
        };
        let more = tiles.len().saturating_sub(most);
        tiles.truncate(most);
        Self {
            status: health.status,
            headline,
            since: first.and_then(|reason| reason.since),
            others: health.reasons.len().saturating_sub(1),
            tiles,
            at_once,
            more,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        board::health::Reason,
        page::golden::{board, now},
    };

    fn check(name: &str, text: &str) -> Result<(), String> {
        OWN.iter().find(|(own, _)| *own == name).unwrap().1(text)
    }

    #[test]
    fn parameters_of_the_wall_end_at_their_bounds() {
        for (name, good, bad) in [
            ("rotate", &["0", "3600"][..], &["3601", "-1", "", "5.5", "4294967296"][..]),
            ("tiles", &["1", "15"], &["0", "16", "x"]),
            ("scale", &["50", "200"], &["49", "201", "100%"]),
            ("theme", &["dark", "light"], &["", "Dark", "system"]),
            ("tz", &["UTC", "Europe/Berlin"], &["", "Berlin", "+02:00"]),
            ("dim_from", &["00:00", "23:59"], &["24:00", "22", "22:60", "10pm", ""]),
            ("dim_to", &["06:00"], &["6 o'clock"]),
        ] {
            assert!(good.iter().all(|text| check(name, text).is_ok()), "{name}");
            assert!(bad.iter().all(|text| check(name, text).is_err()), "{name}");
        }
        assert_eq!(check("scale", "49").unwrap_err(), "must be an integer between 50 and 200");
        assert_eq!(check("theme", "x").unwrap_err(), "must be one of dark, light");
    }

    fn health(reasons: &[(Level, &str)]) -> Health {
        let reasons = reasons.iter().map(|(severity, text)| Reason {
            code: "no_worker",
            severity: *severity,
            text: (*text).to_owned(),
            queue: None,
            since: Some(now()),
            task_type: None,
            task_id: None,
            worker_id: None,
        });
        let reasons: Vec<_> = reasons.collect();
        Health { status: reasons.first().map_or(Level::Ok, |reason| reason.severity), reasons }
    }

    #[test]
    fn the_headline_is_the_worst_problem_and_how_many_others_there_are() {
        let of = |health: &Health, is_empty| {
            let wall = Wall::of(health, is_empty, Vec::new(), (12, 12));
            (wall.status, wall.headline, wall.others)
        };
        let two = health(&[(Level::Stalled, "It stands"), (Level::Degraded, "It limps")]);
        assert_eq!(of(&two, false), (Level::Stalled, "It stands".to_owned(), 1));
        assert_eq!(of(&health(&[]), false), (Level::Ok, "All clear".to_owned(), 0));
        assert_eq!(of(&health(&[]), true), (Level::Ok, "No tasks yet".to_owned(), 0));
    }

    #[test]
    fn no_tile_is_worse_than_the_headline() {
        let board = board();
        let health = health::overall(&board, chrono::TimeDelta::seconds(25), now());
        let tiles = wall_tiles::of(&board, &health, &Board::all(), now());
        assert!(tiles.iter().all(|tile| tile.level <= health.status));
        let wall = Wall::of(&health, false, tiles, (3, 3));
        assert_eq!(wall.tiles.len(), 3);
        assert!(wall.more > 0 && wall.tiles.iter().map(|tile| tile.level).rev().is_sorted(), "the worst come first");
    }
}
