//! When recurring tasks run: a cron expression in a time zone.

use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

use crate::clock::Time;

/// A cron expression and the time zone that it is meant in.
#[derive(Debug, Clone, PartialEq)]
pub struct Recurrence {
    cron: Cron,
    time_zone: Tz,
}

/// Why a recurrence is none: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct BadRecurrence {
    /// `cron` or `time_zone`.
    pub field: &'static str,
    /// What is wrong.
    pub detail: String,
}

impl Recurrence {
    /// Reads an expression of five fields (minute, hour, day of month, month, day of week), of six with seconds in
    /// front, or a name such as `@hourly`; and an IANA time zone.
    ///
    /// # Errors
    /// [`BadRecurrence`] that names the field.
    pub fn parse(cron: &str, time_zone: &str) -> Result<Self, BadRecurrence> {
        let bad = |field, detail: String| BadRecurrence { field, detail };
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let parsed = parser.parse(cron).map_err(|error| {
            bad("cron", format!("is not a cron expression ({error}); use five fields, as in */15 8-18 * * MON-FRI"))
        })?;
        let time_zone = time_zone.parse().map_err(|_| {
            bad("time_zone", "is not an IANA time zone; use a name such as Europe/Berlin or UTC".to_owned())
        })?;
        Ok(Self { cron: parsed, time_zone })
    }

    /// The first time after a moment; nothing when there is none.
    #[must_use]
    pub fn after(&self, moment: Time) -> Option<Time> {
        let next = self.cron.find_next_occurrence(&moment.with_timezone(&self.time_zone), false).ok()?;
        Some(next.with_timezone(&chrono::Utc))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn runs(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let recurrence = Recurrence::parse(cron, zone).unwrap();
        let mut at: Time = from.parse().unwrap();
        let mut next = || {
            at = recurrence.after(at)?;
            Some(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        };
        (0..count).map_while(|_| next()).collect()
    }

    #[test]
    fn the_clock_of_the_zone_counts() {
        // Berlin went from UTC+1 to UTC+2 on 29 March 2026.
        assert_eq!(
            runs("0 8 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T07:00:00Z", "2026-03-29T06:00:00Z", "2026-03-30T06:00:00Z"]
        );
        assert_eq!(
            runs("*/20 * * * * *", "UTC", "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T00:00:20Z", "2026-03-28T00:00:40Z"]
        );
        assert_eq!(runs("@hourly", "UTC", "2026-03-28T00:00:00Z", 1), ["2026-03-28T01:00:00Z"]);
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(Recurrence::parse("61 * * * *", "UTC").unwrap_err().field, "cron");
        assert_eq!(Recurrence::parse("", "UTC").unwrap_err().field, "cron");
        assert_eq!(Recurrence::parse("* * * * *", "Mars/Base").unwrap_err().field, "time_zone");
    }

    #[test]
    fn what_never_comes_is_nothing() {
        assert_eq!(runs("0 0 30 2 *", "UTC", "2026-03-28T00:00:00Z", 1), Vec::<String>::new());
    }
}
