//! Charts of throughput, wait time, run time, errors and backlog over the last hour, day or week.

use askama::Template;

use crate::page::{
    Content, PageError, Params, View,
    chart::{Chart, Form, Series, round_count, round_duration, round_number},
    format,
};
use crate::{
    board::history::{Range, Slot},
    clock::Time,
    feed,
};

#[derive(Template)]
#[template(path = "analytics.html")]
struct Analytics {
    range: Range,
    ranges: [(Range, String); 3],
    charts: Vec<Chart>,
    rows: Vec<Row>,
    quiet: usize,
}

struct Row {
    begins: Time,
    slot: Slot,
}

/// Validates `range`.
pub(super) fn check_range(text: &str) -> Result<(), String> {
    parse(text).map(|_| ()).ok_or_else(|| "must be one of 1h, 24h, 7d".to_owned())
}

fn parse(text: &str) -> Option<Range> {
    Range::ALL.into_iter().find(|range| range.as_str() == text)
}

const COMPLETED: Series = ("completed", "good", |slot, _| Some(slot.tally.completed as f64));
const RETRIED: Series = ("retried", "warn", |slot, _| Some(slot.tally.retried as f64));
const FAILED: Series = ("failed", "bad", |slot, _| Some(slot.tally.failed as f64));
const CREATED: Series = ("created", "busy", |slot, seconds| Some(slot.tally.created as f64 / seconds));
const DONE: Series = ("completed", "good", |slot, seconds| Some(slot.tally.completed as f64 / seconds));
const WAITS: [Series; 3] = [
    ("p50", "good", |slot, _| slot.waits.percentile(50).map(|ms| ms as f64)),
    ("p95", "busy", |slot, _| slot.waits.percentile(95).map(|ms| ms as f64)),
    ("p99", "warn", |slot, _| slot.waits.percentile(99).map(|ms| ms as f64)),
];
const RUNS: [Series; 3] = [
    ("p50", "good", |slot, _| slot.runs.percentile(50).map(|ms| ms as f64)),
    ("p95", "busy", |slot, _| slot.runs.percentile(95).map(|ms| ms as f64)),
    ("p99", "warn", |slot, _| slot.runs.percentile(99).map(|ms| ms as f64)),
];
const ERRORS: Series = ("failed attempts", "bad", |slot, _| {
    let ended = slot.tally.completed + slot.tally.failed + slot.tally.retried;
    (ended > 0).then(|| slot.tally.error_percent())
});
const DEPTH: Series = ("peak pending", "busy", |slot, _| Some(slot.max_pending as f64));

const LINES: Form =
    Form { name: ("", ""), series: &[], is_stacked: false, words: whole, round: round_count, is_wide: false };
const LATENCIES: Form = Form { words: format::milliseconds, round: round_duration, is_wide: true, ..LINES };

/// The charts.
const FORMS: [Form; 6] = [
    Form { name: ("attempts", "Attempts"), series: &[COMPLETED, RETRIED, FAILED], is_stacked: true, ..LINES },
    Form {
        name: ("throughput", "Throughput"),
        series: &[CREATED, DONE],
        words: per_second,
        round: round_number,
        ..LINES
    },
    Form {
        name: ("errors", "Error rate"),
        series: &[ERRORS],
        words: |value| format!("{value:.1}%"),
        round: round_number,
        ..LINES
    },
    Form { name: ("waits", "Wait time"), series: &WAITS, ..LATENCIES },
    Form { name: ("runs", "Run time"), series: &RUNS, ..LATENCIES },
    Form { name: ("depth", "Backlog"), series: &[DEPTH], ..LINES },
];

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(value: f64) -> String {
    format::count(&(value.round() as u64))
}

fn per_second(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}/s") } else { format!("{value:.1}/s") }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let range = params.own("range").and_then(parse).unwrap_or_default();
    let slots = feed::read(&view.board).history.over(range, now);
    // The incomplete last bucket would always look like a drop.
    let over = &slots[..slots.len() - 1];
    let charts = FORMS.iter().map(|form| Chart::new(form, (over, range))).collect();
    let rest = params.without(&["range"]);
    let url = |range: Range| {
        let mut pairs = rest.clone();
        pairs.push(("range".to_owned(), range.as_str().to_owned()));
        format!("/analytics?{}", format::query(&pairs))
    };
    let is_quiet = |slot: &Slot| slot.tally == crate::board::rates::Tally::default() && slot.max_pending == 0;
    let begun = over.iter().rev().filter(|slot| !is_quiet(slot));
    let rows: Vec<_> = begun.filter_map(|slot| Some(Row { begins: slot.begins(range)?, slot: slot.clone() })).collect();
    let page = Analytics {
        range,
        ranges: Range::ALL.map(|range| (range, url(range))),
        charts,
        quiet: over.len() - rows.len(),
        rows,
    };
    Content::new("Metrics", &page)
}

fn ms(percentile: Option<u64>) -> String {
    percentile.map_or_else(|| "–".to_owned(), |ms| format::duration(&ms))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::golden::{params, view};

    #[test]
    fn a_range_is_one_of_three() {
        for range in Range::ALL {
            assert_eq!(parse(range.as_str()), Some(range));
            assert_eq!(check_range(range.as_str()), Ok(()));
        }
        for text in ["", "1H", "2h", "7d ", "week"] {
            assert_eq!(check_range(text), Err("must be one of 1h, 24h, 7d".to_owned()), "{text}");
        }
        assert!(Range::ALL.iter().all(|range| check_range("x").unwrap_err().contains(range.as_str())));
    }

    #[test]
    fn an_hour_in_which_no_attempt_ended_has_no_error_rate() {
        let (_, _, rate) = ERRORS;
        let mut slot = Slot::default();
        slot.tally.started = 9;
        assert_eq!(rate(&slot, 60.0), None);
        slot.tally.completed = 1;
        assert_eq!(rate(&slot, 60.0), Some(0.0));
        slot.tally.retried = 1;
        assert_eq!(rate(&slot, 60.0), Some(50.0));
    }

    #[test]
    fn throughput_is_per_second_and_attempts_are_counted() {
        let mut slot = Slot::default();
        (slot.tally.created, slot.tally.failed, slot.tally.retried) = (120, 30, 20);
        let of = |(_, _, value): Series| value(&slot, 60.0);
        assert_eq!([CREATED, DONE, FAILED, RETRIED].map(of), [Some(2.0), Some(0.0), Some(30.0), Some(20.0)]);
        assert_eq!((whole(1_234.4), per_second(0.25)), ("1,234".to_owned(), "0.2/s".to_owned()));
    }

    #[test]
    fn percentiles_that_are_not_known_are_dashes() {
        assert_eq!((ms(None), ms(Some(0)), ms(Some(1_000))), ("–".into(), "0 ms".into(), "1.0 s".into()));
        assert!(WAITS.iter().chain(&RUNS).all(|(_, _, value)| value(&Slot::default(), 60.0).is_none()));
    }

    #[tokio::test]
    async fn a_link_to_another_range_keeps_the_rest_of_the_query() {
        let (view, _open) = view().await;
        let page = render(&view, &params("analytics", &[("at", "7"), ("range", "7d")])).unwrap();
        for range in Range::ALL {
            let link = format!("/analytics?at=7&#38;range={}", range.as_str());
            assert!(page.html.contains(&link) || page.html.contains(&link.replace("&#38;", "&")), "{link}");
        }
        assert!(!page.html.contains("range=7d&#38;range"), "{}", page.title);
    }
}
