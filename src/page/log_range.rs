//! The part of the log that a page of events shows: between two times, and before a position.

use super::{Check, PageError, Params, View, format};
use crate::{event::filter::time_bound, store::event_log};

/// Parameters of such a page.
pub(super) const OWN: [(&str, Check); 3] = [("from", check_time), ("until", check_time), ("before", check_position)];

fn check_time(text: &str) -> Result<(), String> {
    time_bound(text).map(|_| ())
}

pub(super) fn check_position(text: &str) -> Result<(), String> {
    let is_position = text.parse::<i64>().is_ok_and(|position| position > 0);
    if is_position { Ok(()) } else { Err("must be a position of the log".to_owned()) }
}

/// Whether only a part of the log is asked for; without it the newest events are shown.
pub(super) fn is_asked_for(params: &Params) -> bool {
    OWN.iter().any(|(name, _)| params.own(name).is_some())
}

/// The same page with what came before a position.
pub(super) fn older(path: &str, params: &Params, position: i64) -> String {
    let mut pairs = params.without(&["before", "event"]);
    pairs.push(("before".to_owned(), position.to_string()));
    format::address(path, &pairs)
}

/// The part of the log, with at most so many events of it.
pub(super) async fn range(view: &View, params: &Params, limit: usize) -> Result<event_log::Range, PageError> {
    let mut range = event_log::Range { from: 1, before: i64::MAX, limit };
    let time =
        |name| params.own(name).and_then(|text| time_bound(text).ok().flatten()).map(|bound| bound.time(view.now()));
    if let Some(from) = time("from") {
        range.from = view.event_log.position_before(from, false).await? + 1;
    }
    if let Some(until) = time("until") {
        range.before = view.event_log.position_before(until, false).await? + 1;
    }
    if let Some(moment) = params.at {
        range.before = range.before.min(moment.position + 1);
    }
    if let Some(before) = params.own("before").and_then(|text| text.parse().ok()) {
        range.before = range.before.min(before);
    }
    Ok(range)
}
