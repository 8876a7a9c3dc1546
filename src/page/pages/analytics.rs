//! Charts of throughput, wait time, run time, errors and backlog over the last hour, day or week.

use askama::Template;

use crate::page::{
    Content, PageError, Params, View,
    chart::{Chart, Series},
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
    from: Option<Time>,
    to: Time,
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

const THROUGHPUT: [Series; 3] = [
    ("created", "quiet", |slot, seconds| Some(slot.tally.created as f64 / seconds)),
    ("completed", "good", |slot, seconds| Some(slot.tally.completed as f64 / seconds)),
    ("failed attempts", "bad", |slot, seconds| Some((slot.tally.failed + slot.tally.retried) as f64 / seconds)),
];
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
const ERRORS: [Series; 1] = [("of attempts that ended", "bad", |slot, _| {
    let ended = slot.tally.completed + slot.tally.failed + slot.tally.retried;
    (ended > 0).then(|| slot.tally.error_percent())
})];
const DEPTH: [Series; 1] = [("at most at once", "busy", |slot, _| Some(slot.max_pending as f64))];

fn milliseconds(ms: f64) -> String {
    format::milliseconds(ms)
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let range = params.own("range").and_then(parse).unwrap_or_default();
    let slots = feed::read(&view.board).history.over(range, now);
    let seconds = range.slot_seconds() as f64;
    // The incomplete last bucket would always look like a drop.
    let over = &slots[..slots.len() - 1];
    let whole = (over, seconds);
    let charts = vec![
        Chart::new(("throughput", "Throughput"), whole, &THROUGHPUT, |value| format!("{value:.1} per s")),
        Chart::new(("waits", "Wait time"), whole, &WAITS, milliseconds),
        Chart::new(("runs", "Run time"), whole, &RUNS, milliseconds),
        Chart::new(("errors", "Error rate"), whole, &ERRORS, |value| format!("{value:.1} %")),
        Chart::new(("depth", "Waiting tasks"), whole, &DEPTH, |value| format!("{value:.0}")),
    ];
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
        from: over.first().and_then(|slot| slot.begins(range)),
        to: slots.last().and_then(|slot| slot.begins(range)).unwrap_or(now),
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
        let (_, _, rate) = ERRORS[0];
        let mut slot = Slot::default();
        slot.tally.started = 9;
        assert_eq!(rate(&slot, 60.0), None);
        slot.tally.completed = 1;
        assert_eq!(rate(&slot, 60.0), Some(0.0));
        slot.tally.retried = 1;
        assert_eq!(rate(&slot, 60.0), Some(50.0));
    }

    #[test]
    fn throughput_is_per_second() {
        let mut slot = Slot::default();
        (slot.tally.created, slot.tally.failed, slot.tally.retried) = (120, 30, 30);
        let rates = THROUGHPUT.map(|(_, _, rate)| rate(&slot, 60.0));
        assert_eq!(rates, [Some(2.0), Some(0.0), Some(1.0)]);
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
