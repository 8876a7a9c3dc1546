//! Where the time of a task went, to scale: a bar from its first event to its end, or to now.

use std::sync::Arc;

use super::format;
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{Status, step::EventReason},
};

/// Least width of a part, percent, so that it can be seen and hit.
const LEAST: f64 = 0.5;
/// Width above which a part has its name and duration written in it, percent.
const WRITTEN: f64 = 9.0;
/// Most marks of the axis.
const MARKS: f64 = 6.0;

/// One part of the bar: a status, or an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Its name: `pending`, `attempt 2`, `backoff`.
    pub name: String,
    /// CSS class.
    pub class: &'static str,
    /// How it ended, in words, if it is an attempt.
    pub outcome: &'static str,
    /// Number of the attempt.
    pub attempt: Option<u32>,
    /// Its duration, milliseconds.
    pub ms: u64,
    /// Position of its left edge, percent.
    pub left: f64,
    /// Width, percent.
    pub width: f64,
    /// It has not ended.
    pub is_open: bool,
}

/// The bar and its axis.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The parts, oldest first.
    pub parts: Vec<Part>,
    /// Marks of the axis: position in percent, and the time since the beginning.
    pub marks: Vec<(f64, String)>,
    /// Time spent pending, milliseconds.
    pub waited_ms: u64,
    /// Time spent in attempts, milliseconds.
    pub ran_ms: u64,
}

impl Part {
    /// Whether there is room for its name.
    #[must_use]
    pub(super) fn is_written(&self) -> bool {
        self.width >= WRITTEN
    }

    /// Whether there is room for its name and its duration.
    #[must_use]
    pub(super) fn is_written_whole(&self) -> bool {
        self.width >= 2.0 * WRITTEN
    }

    /// All of it in words.
    #[must_use]
    pub(super) fn sentence(&self) -> String {
        // It begins with what is written in the part, so that a link can be called by what one sees.
        let seen = format!("{} · {}", self.name, format::duration(&self.ms));
        match (self.outcome, self.is_open) {
            (_, true) => format!("{seen} so far"),
            ("", false) => seen,
            (outcome, _) => format!("{seen}, {outcome}"),
        }
    }
}

impl Timeline {
    /// The bar of a task from its events, oldest first. If it is unfinished, its last part lasts until now.
    #[must_use]
    pub(super) fn new(events: &[Arc<Event>], now: Time) -> Self {
        let mut parts = parts(events, now);
        let total: u64 = parts.iter().map(|part| part.ms).sum();
        let least = LEAST.min(20.0 / parts.len().max(1) as f64);
        let shared = 100.0 - least * parts.len() as f64;
        let mut left = 0.0;
        for part in &mut parts {
            let width = least + shared * part.ms as f64 / total.max(1) as f64;
            (part.left, part.width) = (rounded(left), rounded(width));
            left += width;
        }
        let spent = |is_attempt: bool| {
            let parts =
                parts.iter().filter(|part| if is_attempt { part.attempt.is_some() } else { part.name == "pending" });
            parts.map(|part| part.ms).sum()
        };
        Self { marks: marks(&parts, total), waited_ms: spent(false), ran_ms: spent(true), parts }
    }

    /// Whether there is something to see: time passed.
    #[must_use]
    pub(super) fn is_drawn(&self) -> bool {
        self.parts.iter().any(|part| part.ms > 0)
    }
}

/// The parts, without their places.
fn parts(events: &[Arc<Event>], now: Time) -> Vec<Part> {
    let mut parts: Vec<(Part, Time)> = Vec::new();
    let mut latest = None;
    for event in events {
        // Reported events have the timestamp of the reporting system, not the time of arrival.
        let at = event.data.reported_at.unwrap_or(event.ts).max(latest.unwrap_or(Time::MIN_UTC));
        latest = Some(at);
        let Some(status) = event.status else { continue };
        let begins = event.event_type == Kind::TaskStarted;
        let is_same = event.old_status == Some(status) && !begins && !parts.is_empty();
        if is_same {
            continue;
        }
        if let Some((last, since)) = parts.last_mut().filter(|(last, _)| last.is_open) {
            close(last, *since, at, event);
        }
        if !status.is_finished() {
            parts.push((part(status, event.attempt), at));
        }
    }
    if let Some((last, since)) = parts.last_mut().filter(|(last, _)| last.is_open) {
        // In whole seconds: a page that is drawn twice within one is the same.
        let ms = milliseconds(*since, now);
        last.ms = ms - ms % 1_000;
    }
    // What took no time, such as being pending before a claim at once, is no part of the picture.
    let parts = parts.into_iter().map(|(part, _)| part);
    parts.filter(|part| part.ms > 0 || part.attempt.is_some() || part.is_open).collect()
}

fn part(status: Status, attempt: Option<u32>) -> Part {
    let (name, class) = match status {
        Status::Running => (format!("attempt {}", attempt.unwrap_or(1)), "running"),
        Status::Retrying => ("backoff".to_owned(), "retrying"),
        _ => (status.to_string(), status.as_str()),
    };
    let attempt = (status == Status::Running).then(|| attempt.unwrap_or(1));
    Part { name, class, outcome: "", attempt, ms: 0, left: 0.0, width: 0.0, is_open: true }
}

/// Ends a part by the event that follows.
fn close(part: &mut Part, since: Time, at: Time, event: &Event) {
    part.is_open = false;
    part.ms = milliseconds(since, at);
    if part.attempt.is_some() {
        (part.class, part.outcome) = match event.event_type {
            Kind::TaskCompleted => ("completed", "completed"),
            Kind::TaskFailed | Kind::TaskRetry => ("failed", "failed"),
            Kind::TaskCancelled => ("cancelled", "cancelled"),
            Kind::TaskEnqueued if is_stalled(event) => ("retrying", "stalled"),
            Kind::TaskEnqueued => ("cancelled", "released"),
            _ => ("cancelled", "ended"),
        };
        part.ms = event.duration_ms.filter(|_| part.outcome != "ended").unwrap_or(part.ms);
    }
}

/// Whether the event ends an attempt that stalled.
pub(super) fn is_stalled(event: &Event) -> bool {
    event.data.reason.as_deref() == Some(EventReason::Stalled.as_str())
}

/// A percentage as precise as a screen is.
fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

fn milliseconds(from: Time, to: Time) -> u64 {
    u64::try_from((to - from).num_milliseconds()).unwrap_or_default()
}

/// Round times since the beginning, each at its place among the parts.
fn marks(parts: &[Part], total: u64) -> Vec<(f64, String)> {
    let step = step(total as f64 / MARKS);
    if total == 0 || step == 0 {
        return Vec::new();
    }
    let place = |ms: u64| {
        let mut before = 0;
        for part in parts {
            if ms < before + part.ms {
                return part.left + part.width * (ms - before) as f64 / part.ms as f64;
            }
            before += part.ms;
        }
        100.0
    };
    (0..=total / step).map(|number| (rounded(place(number * step)), mark(number * step))).collect()
}

/// The round time that is not shorter, milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
fn step(least: f64) -> u64 {
    const ROUND: [u64; 26] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        7_200_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        604_800_000,
    ];
    const MONTH: u64 = 30 * 86_400_000;
    let months = || (least / MONTH as f64).ceil() as u64 * MONTH;
    ROUND.into_iter().find(|round| *round as f64 >= least).unwrap_or_else(months)
}

/// A round time in short.
fn mark(ms: u64) -> String {
    if ms > 1_000 && ms < 60_000 && !ms.is_multiple_of(1_000) {
        return format::duration(&ms);
    }
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), (" s", 1_000), (" ms", 1)];
    let unit = units.into_iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size));
    unit.map_or_else(|| "0".to_owned(), |(unit, size)| format!("{}{unit}", ms / size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page::golden::{ago, now};

    fn event(kind: Kind, (from, to): (Option<Status>, Status), attempt: u32, seconds: i64) -> Arc<Event> {
        let mut event = Event::new(kind, ago(seconds));
        (event.old_status, event.status, event.attempt) = (from, Some(to), Some(attempt));
        Arc::new(event)
    }

    /// A task that waits 10 s, fails after 20 s, is retried after 5 s, and completes after 15 s; 50 s in all.
    fn story() -> Vec<Arc<Event>> {
        use Status::{Completed, Pending, Retrying, Running};
        vec![
            event(Kind::TaskCreated, (None, Pending), 0, 100),
            event(Kind::TaskStarted, (Some(Pending), Running), 1, 90),
            event(Kind::TaskProgress, (Some(Running), Running), 1, 80),
            event(Kind::TaskRetry, (Some(Running), Retrying), 1, 70),
            event(Kind::TaskEnqueued, (Some(Retrying), Pending), 1, 65),
            event(Kind::TaskStarted, (Some(Pending), Running), 2, 65),
            event(Kind::TaskCompleted, (Some(Running), Completed), 2, 50),
        ]
    }

    fn sentences(timeline: &Timeline) -> Vec<String> {
        timeline.parts.iter().map(Part::sentence).collect()
    }

    #[test]
    fn each_attempt_and_each_wait_is_a_part_to_scale() {
        let timeline = Timeline::new(&story(), now());
        assert_eq!(
            sentences(&timeline),
            ["pending · 10.0 s", "attempt 1 · 20.0 s, failed", "backoff · 5.0 s", "attempt 2 · 15.0 s, completed"]
        );
        let widths: Vec<_> = timeline.parts.iter().map(|part| part.width.round()).collect();
        assert_eq!(widths, [20.0, 40.0, 10.0, 30.0]);
        assert_eq!((timeline.waited_ms, timeline.ran_ms), (10_000, 35_000));
        let marks: Vec<_> = timeline.marks.iter().map(|(place, text)| format!("{text} at {place:.0}")).collect();
        assert_eq!(marks, ["0 at 0", "10 s at 20", "20 s at 40", "30 s at 60", "40 s at 80", "50 s at 100"]);
    }

    #[test]
    fn what_has_not_ended_lasts_until_now() {
        let timeline = Timeline::new(&story()[..3], now());
        assert_eq!(sentences(&timeline), ["pending · 10.0 s", "attempt 1 · 1m 30s so far"]);
        assert!(timeline.parts[1].is_open);
        assert!(!Timeline::new(&[], now()).is_drawn());
    }

    #[test]
    fn a_task_that_is_run_again_goes_on_where_it_ended() {
        let again = event(Kind::TaskEnqueued, (Some(Status::Completed), Status::Pending), 2, 20);
        let timeline = Timeline::new(&[story(), vec![again]].concat(), now());
        assert_eq!(sentences(&timeline).last().map(String::as_str), Some("pending · 20.0 s so far"));
    }

    #[test]
    fn a_short_attempt_after_days_can_still_be_seen() {
        use Status::{Completed, Pending, Running};
        let timeline = Timeline::new(
            &[
                event(Kind::TaskCreated, (None, Pending), 0, 864_000),
                event(Kind::TaskStarted, (Some(Pending), Running), 1, 1),
                event(Kind::TaskCompleted, (Some(Running), Completed), 1, 0),
            ],
            now(),
        );
        assert!(timeline.parts[1].width >= LEAST, "{:?}", timeline.parts);
        assert_eq!(timeline.marks.last().map(|(_, text)| text.as_str()), Some("10d"));
    }

    #[test]
    fn marks_are_round() {
        for (least, round) in [(0.1, 1), (3.0, 5), (7_000.0, 10_000), (9e8, 2_592_000_000), (1e12, 1_000_512_000_000)] {
            assert_eq!(step(least), round, "{least}");
        }
        assert_eq!([0, 5, 1_500, 2_000, 90_000, 7_200_000].map(mark), ["0", "5 ms", "1.5 s", "2 s", "90 s", "2h"]);
    }

    proptest! {
        /// Whatever order the times have: the parts fill the bar, and no mark lies outside of it.
        #[test]
        fn parts_fill_the_bar(times in prop::collection::vec((0_i64..100_000, 0_usize..7), 1..60)) {
            let story = story();
            let events: Vec<_> = times.iter().map(|(seconds, index)| {
                Arc::new(Event { ts: ago(*seconds), ..(*story[*index]).clone() })
            }).collect();
            let timeline = Timeline::new(&events, now());
            let right = timeline.parts.last().map_or(100.0, |part| part.left + part.width);
            prop_assert!(!timeline.is_drawn() || (right - 100.0).abs() < 0.02, "{right}");
            prop_assert!(timeline.marks.iter().all(|(place, _)| (0.0..=100.001).contains(place)));
        }
    }
}
