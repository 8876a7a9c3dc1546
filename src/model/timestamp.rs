//! Timestamps from clients: one type for every input.

use std::{fmt, str::FromStr};

use chrono::{Datelike, FixedOffset, NaiveDateTime};
use serde::{Deserialize, Deserializer, de};

use crate::clock::Time;

/// A timestamp from a client: in the years 1 to 9999 (UTC), truncated to whole microseconds, which is what Postgres
/// stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Time);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTimestamp {
    /// A date and a time of day without a zone.
    #[error("has no time zone: append Z for UTC or an offset, e.g. 2026-11-20T16:05:00Z or 2026-11-20T17:05:00+01:00")]
    NoZone,
    /// A year outside the supported range.
    #[error("must be between year 1 and 9999")]
    OutOfRange,
    /// Any other syntax error.
    #[error("must be an RFC 3339 time, e.g. 2026-11-20T16:05:00Z")]
    Malformed,
}

impl Timestamp {
    /// The time.
    #[must_use]
    pub const fn get(self) -> Time {
        self.0
    }

    /// Parses a time; without a zone it is taken as UTC.
    ///
    /// # Errors
    /// [`BadTimestamp`], but never [`BadTimestamp::NoZone`].
    pub fn parse_utc(text: &str) -> Result<Self, BadTimestamp> {
        let (local, offset) = read(text)?;
        Self::checked(local, offset.unwrap_or(0))
    }

    fn checked(local: NaiveDateTime, offset_seconds: i32) -> Result<Self, BadTimestamp> {
        let offset = FixedOffset::east_opt(offset_seconds).ok_or(BadTimestamp::Malformed)?;
        let utc = local.checked_sub_offset(offset).ok_or(BadTimestamp::OutOfRange)?.and_utc();
        // A leap second becomes the next second.
        let time = Time::from_timestamp_micros(utc.timestamp_micros()).ok_or(BadTimestamp::OutOfRange)?;
        if (1..=9_999).contains(&time.year()) { Ok(Self(time)) } else { Err(BadTimestamp::OutOfRange) }
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.0
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        let (local, offset) = read(text)?;
        Self::checked(local, offset.ok_or(BadTimestamp::NoZone)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as a text, as in \"2026-11-20T16:05:00Z\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Parses the local time, and the UTC offset in seconds if present.
fn read(text: &str) -> Result<(NaiveDateTime, Option<i32>), BadTimestamp> {
    let text = text.trim();
    let digits = text.trim_start_matches(['+', '-']).bytes().take_while(u8::is_ascii_digit).count();
    if text.contains(':') && digits > 0 && (digits > 4 || text.starts_with(['+', '-'])) {
        return Err(BadTimestamp::OutOfRange);
    }
    let (local, offset) = split_zone(text)?;
    let local = local.trim_end().replacen(['t', ' '], "T", 1);
    let parsed = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(&local, format).ok());
    parsed.map(|local| (local, offset)).ok_or(BadTimestamp::Malformed)
}

/// Splits off the zone: `Z`, an offset, or an offset whose plus sign became a space in a query string.
fn split_zone(text: &str) -> Result<(&str, Option<i32>), BadTimestamp> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Ok((local, Some(0)));
    }
    let Some(colon) = text.find(':') else { return Ok((text, None)) };
    let Some(at) = text[colon..].find(['+', '-', ' ']).map(|at| colon + at) else { return Ok((text, None)) };
    let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
    let zone = text[at + 1..].trim_start();
    if zone.eq_ignore_ascii_case("utc") {
        return Ok((&text[..at], Some(0)));
    }
    let (hours, minutes) = match zone.len() {
        5 => zone.split_once(':').ok_or(BadTimestamp::Malformed)?,
        4 if zone.is_ascii() => zone.split_at(2),
        2 => (zone, "00"),
        _ => return Err(BadTimestamp::Malformed),
    };
    let number = |text: &str, most: i32| -> Result<i32, BadTimestamp> {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number: &i32| plain && *number <= most).ok_or(BadTimestamp::Malformed)
    };
    Ok((&text[..at], Some(sign * (number(hours, 23)? * 3_600 + number(minutes, 59)? * 60))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<String, BadTimestamp> {
        let time = text.parse::<Timestamp>()?.get();
        Ok(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
    }

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        for (text, right) in [
            ("2026-11-20T16:05:00Z", "2026-11-20T16:05:00.000000Z"),
            ("2026-11-20t16:05:00.123456789z", "2026-11-20T16:05:00.123456Z"),
            ("2026-11-20T16:05:00+01:00", "2026-11-20T15:05:00.000000Z"),
            // A plus sign decoded as a space in a query string.
            ("2026-11-20T16:05:00 01:00", "2026-11-20T15:05:00.000000Z"),
            ("2026-11-20 16:05:00-0330", "2026-11-20T19:35:00.000000Z"),
            ("2026-11-20T16:05Z", "2026-11-20T16:05:00.000000Z"),
            ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(right), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_time_is_named() {
        for text in ["2026-11-20T16:05:00", "2026-11-20 16:05", " 2026-11-20T16:05:00.5 "] {
            assert_eq!(shown(text), Err(BadTimestamp::NoZone), "{text}");
            assert!(Timestamp::parse_utc(text).is_ok(), "{text}");
        }
        for text in [
            "12000-01-01T00:00:00Z",
            "+12000-01-01T00:00:00Z",
            "-5000-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:60Z",
            "262143-01-01T00:00:00Z",
        ] {
            assert_eq!(shown(text), Err(BadTimestamp::OutOfRange), "{text}");
        }
        for text in [
            "",
            "soon",
            "infinity",
            "2026-11-20",
            "2026-13-20T00:00:00Z",
            "2026-11-20T16:05:00+24:00",
            "16:05",
            "1763654700",
        ] {
            assert_eq!(shown(text), Err(BadTimestamp::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_in_range_or_refused(text in "\\PC{0,40}|[0-9T:+ .Zz-]{0,40}") {
            if let Ok(time) = text.parse::<Timestamp>() {
                prop_assert!((1..=9_999).contains(&time.get().year()));
                prop_assert_eq!(time.get().timestamp_subsec_nanos() % 1_000, 0);
            }
        }

        #[test]
        fn what_is_written_is_read_back(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let time = Time::from_timestamp_micros(micros).unwrap();
            let text = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            prop_assert_eq!(text.parse::<Timestamp>().unwrap().get(), time);
        }
    }
}
