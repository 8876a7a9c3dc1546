//! Ranges of times in filters: `-1h..`, `-2d..-1d`, `2026-11-27T03:00Z..2026-11-27T03:05Z`.

use crate::model::{
    Timestamp,
    task_query::{Bound, TimeRange},
};

/// Longest time from now, seconds: ten years.
const LONGEST: i64 = 315_576_000;

/// Parses a range. One of the ends may be missing; one end alone is where the range begins.
pub(super) fn range(text: &str) -> Result<TimeRange, String> {
    let (from, until) = text.split_once("..").unwrap_or((text, ""));
    let range = TimeRange { from: end(from)?, until: end(until)? };
    let is_backwards = match (range.from, range.until) {
        (Some(Bound::At(from)), Some(Bound::At(until))) => from >= until,
        (Some(Bound::FromNow(from)), Some(Bound::FromNow(until))) => from >= until,
        _ => false,
    };
    if is_backwards {
        return Err("the range ends before it begins".to_owned());
    }
    if range == TimeRange::default() {
        return Err("must not be empty".to_owned());
    }
    Ok(range)
}

/// Parses one time: an RFC 3339 time, or one from now; `None` for an empty text.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn end(text: &str) -> Result<Option<Bound>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let relative =
        text.strip_prefix('-').map(|rest| (-1, rest)).or_else(|| text.strip_prefix('+').map(|rest| (1, rest)));
    let bound = match relative {
        Some((sign, rest)) => span(rest).map(|seconds| Bound::FromNow(sign * seconds)),
        None if text == "now" => Some(Bound::FromNow(0)),
        None => Timestamp::parse_utc(text).ok().map(|time| Bound::At(time.get())),
    };
    let expected = "expected a range such as -1h.., -2d..-1d or 2026-11-27T03:00Z..2026-11-27T03:05Z";
    bound.map(Some).ok_or_else(|| format!("invalid time '{text}'; {expected}"))
}

/// A number with a unit, in seconds: 30s, 5m, 1h, 2d, 1w.
fn span(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let number = &text[..text.len() - unit.len_utf8()];
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(seconds).filter(|span| *span <= LONGEST)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_has_one_end_or_both() {
        let at = |text: &str| Bound::At(Timestamp::parse_utc(text).unwrap().get());
        for (text, from, until) in [
            ("-1h..", Some(Bound::FromNow(-3_600)), None),
            ("-1h", Some(Bound::FromNow(-3_600)), None),
            ("..-7d", None, Some(Bound::FromNow(-604_800))),
            ("-2d..-1d", Some(Bound::FromNow(-172_800)), Some(Bound::FromNow(-86_400))),
            ("now..+5m", Some(Bound::FromNow(0)), Some(Bound::FromNow(300))),
            (" -30s .. ", Some(Bound::FromNow(-30)), None),
            ("2026-11-27T03:00..2026-11-27T03:05Z", Some(at("2026-11-27T03:00:00Z")), Some(at("2026-11-27T03:05:00Z"))),
            ("2026-11-27T03:00Z..", Some(at("2026-11-27T03:00:00Z")), None),
        ] {
            assert_eq!(range(text), Ok(TimeRange { from, until }), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "..",
            " .. ",
            "-1",
            "1h",
            "-h",
            "-1y",
            "--1h",
            "-1.5h",
            "-99999999999h",
            "-11w..-12w",
            "yesterday",
            "-1h..-2h",
            "+1h..now",
            "-1é",
            "-+1h",
        ] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[-+0-9smhdw.TZ:é ]{0,24}") {
            let _ = range(&text);
        }
    }
}
