//! Folding events into the board: with one project, whose counters are those of the board, and with many.
//!
//! `cargo bench -- fold`. Projects take turns, so that none of them is in a cache.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use taskwatch::{
    board::Board,
    event::{Event, Kind},
    model::{Name, Priority, Status},
};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::bench::{Bench, percentile};

/// Tasks of one slice.
const TASKS: usize = 20_000;
/// Slices of each number of projects; they alternate.
const SLICES: usize = 15;

/// The events of tasks that are created, claimed and completed, or fail once in twenty, without positions.
fn events(projects: usize, first: usize) -> Vec<Event> {
    let begin = taskwatch::clock::Time::from_timestamp(1_800_000_000, 0).expect("a time in range");
    let mut events = Vec::with_capacity(TASKS * 3);
    for number in first..first + TASKS {
        let fails = number % 20 == 0;
        let end = if fails { Kind::TaskFailed } else { Kind::TaskCompleted };
        let last = if fails { Status::Failed } else { Status::Completed };
        for (kind, from, to) in [
            (Kind::TaskCreated, None, Status::Pending),
            (Kind::TaskStarted, Some(Status::Pending), Status::Running),
            (end, Some(Status::Running), last),
        ] {
            // 500 tasks a second.
            let mut event = Event::new(kind, begin + Duration::from_millis(number as u64 * 2));
            event.task_id = Some(Uuid::from_u128(number as u128));
            event.project_id = Name::new(&format!("project-{}", number % projects)).ok();
            event.queue = Name::new(["default", "mail", "media"][number / projects % 3]).ok();
            event.task_type = Name::new(["send", "encode", "sync"][number / projects % 3]).ok();
            event.priority = Priority::new(5);
            (event.old_status, event.status) = (from, Some(to));
            (event.attempt, event.duration_ms) = (Some(1), Some(number as u64 % 900));
            event.data.wait_ms = Some(number as u64 % 70);
            event.error = fails.then(|| "connection refused".to_owned());
            events.push(event);
        }
    }
    events
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
    pages * 4_096
}

pub(crate) fn run(_: &Bench, _: &Runtime) {
    // First: memory that was used before would be used again, and not be counted.
    idle();
    let mut sides = [1, 100, 10_000].map(|projects| (projects, Board::default(), Vec::new()));
    for slice in 0..=SLICES {
        for (projects, board, rates) in &mut sides {
            let made: Vec<_> = events(*projects, slice * TASKS)
                .into_iter()
                .zip(board.position + 1..)
                .map(|(mut event, position)| {
                    event.position = Some(position);
                    Arc::new(event)
                })
                .collect();
            let began = Instant::now();
            for event in &made {
                board.apply(event).expect("positions are dense");
            }
            // The first slice makes the projects, and is not counted.
            if slice > 0 {
                rates.push(made.len() as f64 / began.elapsed().as_secs_f64());
            }
        }
        sides.reverse();
    }
    sides.sort_unstable_by_key(|(projects, ..)| *projects);
    println!("{:<26} {:>12} {:>7}", "fold", "events/s", "ratio");
    let mut alone = 0.0;
    for (projects, _, rates) in &mut sides {
        rates.sort_unstable_by(f64::total_cmp);
        let rate = percentile(rates, 50.0);
        alone = if *projects == 1 { rate } else { alone };
        println!("{:<26} {rate:>12.0} {:>7.2}", format!("{projects} projects"), rate / alone);
    }
}

/// Memory of projects with a few finished tasks each.
fn idle() {
    const PROJECTS: usize = 10_000;
    let mut board = Board::default();
    let before = resident();
    let mut first = 0;
    while first < PROJECTS * 10 {
        for mut event in events(PROJECTS, first) {
            event.position = Some(board.position + 1);
            board.apply(&Arc::new(event)).expect("positions are dense");
        }
        first += TASKS;
    }
    let each = (resident() - before) as f64 / PROJECTS as f64 / 1_000.0;
    let saved = serde_json::to_string(&board).expect("a board is JSON").len() as f64 / PROJECTS as f64 / 1_000.0;
    println!("{PROJECTS} idle projects: {each:.1} kB each, {saved:.1} kB each in a checkpoint");
}
