//! When schedules run: a cron expression in a time zone.
//!
//! Daylight saving time: an expression with explicit hours (`30 2,14 * * *`, `0 1-3 * * *`, `0 */2 * * *`) runs once
//! per named hour and day: at the first occurrence of a repeated hour, and right after the gap for a skipped one. An
//! expression for every hour (`*/15 * * * *`) follows elapsed time.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

use crate::clock::Time;

/// Supported names.
const NAMES: &str = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually";
/// Maximum step of seconds, minutes, hours, days, months and days of the week: the size of the respective range.
const STEPS: [(&str, u32); 6] =
    [("second", 60), ("minute", 60), ("hour", 24), ("day of month", 31), ("month", 12), ("day of week", 7)];
/// No UTC offset exceeds this, hours.
const FARTHEST: TimeDelta = TimeDelta::hours(16);
/// Within this time the UTC offset changes at most once.
const CALM: TimeDelta = TimeDelta::hours(48);

/// A cron expression and its time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Recurrence {
    cron: Cron,
    time_zone: Tz,
    /// The hour field is `*`.
    every_hour: bool,
}

/// Validation error of a cron expression or time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct BadRecurrence {
    /// `cron` or `time_zone`.
    pub field: &'static str,
    /// What is wrong.
    pub detail: String,
}

impl Recurrence {
    /// Parses an expression of five fields (minute, hour, day of month, month, day of week), of six with leading
    /// seconds, of seven with a trailing year, or a name such as `@hourly`; and an IANA time zone.
    ///
    /// # Errors
    /// [`BadRecurrence`] with the name of the field.
    pub fn parse(cron: &str, time_zone: &str) -> Result<Self, BadRecurrence> {
        let bad = |field, detail: String| BadRecurrence { field, detail };
        let cron = if cron.trim().eq_ignore_ascii_case("@midnight") { "@daily" } else { cron };
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let parsed = parser.parse(cron).map_err(|error| {
            let detail = if cron.contains('@') {
                format!("is no name that is known; use {NAMES}, or five fields, as in */5 * * * *")
            } else {
                format!(
                    "invalid cron expression ({error}): expected five fields, e.g. */15 8-18 * * MON-FRI, or {NAMES}"
                )
            };
            bad("cron", detail)
        })?;
        let time_zone = time_zone
            .parse()
            .map_err(|_| bad("time_zone", "unknown time zone: use an IANA name such as Europe/Berlin".to_owned()))?;
        let hours = fields(cron).into_iter().nth(2);
        let every_hour = hours.is_none_or(|hours| hours == "*" || hours == "*/1") && !is_daily(cron);
        Ok(Self { cron: parsed, time_zone, every_hour })
    }

    /// Parses new input: also rejects expressions that are valid but surely not intended.
    ///
    /// # Errors
    /// [`BadRecurrence`] with the name of the field.
    pub fn parse_new(cron: &str, time_zone: &str, now: Time) -> Result<Self, BadRecurrence> {
        let bad = |detail: String| BadRecurrence { field: "cron", detail };
        let recurrence = Self::parse(cron, time_zone)?;
        for (field, (name, most)) in fields(cron).into_iter().zip(STEPS) {
            for item in field.split(',') {
                let step = item.split_once('/').and_then(|(_, step)| step.parse().ok());
                if step.is_some_and(|step: u32| step > most) {
                    return Err(bad(format!("has a step of {name} that is larger than {most}: {item}")));
                }
            }
        }
        if recurrence.after(now).is_none() {
            return Err(bad("never matches: no such day exists, or its year is over".to_owned()));
        }
        Ok(recurrence)
    }

    /// The first time after a moment; `None` if there is none.
    #[must_use]
    pub fn after(&self, moment: Time) -> Option<Time> {
        if self.every_hour { self.after_every_hour(moment) } else { self.after_named_hours(moment) }
    }

    /// Each local time maps to exactly one moment, in the same order.
    fn after_named_hours(&self, moment: Time) -> Option<Time> {
        let mut local = self.local(moment);
        loop {
            local = self.next_local(local, false)?;
            let at = self.moment_of(local)?;
            if at > moment {
                return Some(at);
            }
        }
    }

    /// Between two changes of the UTC offset, local time advances evenly.
    fn after_every_hour(&self, moment: Time) -> Option<Time> {
        let (mut from, mut inclusive) = (moment, false);
        loop {
            let offset = self.offset(from);
            let at = DateTime::from_naive_utc_and_offset(self.next_local(self.local(from), inclusive)? - offset, Utc);
            inclusive = false;
            if at - from > CALM {
                // No run before `at`: continue close to it, where the offset changes at most once.
                from = at - CALM;
            } else if self.offset(at) == offset {
                return Some(at);
            } else {
                (from, inclusive) = (first(from, at, |time| self.offset(time) != offset), true);
            }
        }
    }

    fn offset(&self, moment: Time) -> TimeDelta {
        TimeDelta::seconds(self.time_zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc().into())
    }

    /// Local time, truncated to whole seconds.
    fn local(&self, moment: Time) -> NaiveDateTime {
        let local = moment.naive_utc() + self.offset(moment);
        local.with_nanosecond(0).unwrap_or(local)
    }

    /// The next local time that matches the expression, ignoring offset changes.
    fn next_local(&self, local: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        Some(self.cron.find_next_occurrence(&local.and_utc(), inclusive).ok()?.naive_utc())
    }

    /// The first moment with this local time, or, if it is skipped, the moment right after the gap.
    fn moment_of(&self, local: NaiveDateTime) -> Option<Time> {
        if let Some(at) = self.time_zone.from_local_datetime(&local).earliest() {
            return Some(at.with_timezone(&Utc));
        }
        let utc = local.and_utc();
        let (low, high) = (utc.checked_sub_signed(FARTHEST)?, utc.checked_add_signed(FARTHEST)?);
        Some(first(low, high, |time| self.local(time) >= local))
    }
}

/// Binary search: the first whole second after `low` at which the predicate holds; it must be false at `low` and true
/// at `high`.
fn first(low: Time, high: Time, holds: impl Fn(Time) -> bool) -> Time {
    let at = |seconds: i64| Time::from_timestamp(seconds, 0).unwrap_or(high);
    let (mut low, mut high) = (low.timestamp(), high.timestamp());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(at(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    at(high)
}

/// The fields of an expression, starting with seconds; empty for a name.
fn fields(cron: &str) -> Vec<&str> {
    let mut fields: Vec<_> = cron.split_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    if fields.len() < 5 { Vec::new() } else { fields }
}

/// All names except `@hourly` run at midnight.
fn is_daily(cron: &str) -> bool {
    cron.trim().starts_with('@') && !cron.trim().eq_ignore_ascii_case("@hourly")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

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
        // Berlin changed from UTC+1 to UTC+2 on 29 March 2026.
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
        for name in ["@reboot", "@every 5m", "@", "* * @ * *"] {
            let error = Recurrence::parse(name, "UTC").unwrap_err();
            assert!(error.detail.contains("@hourly, @daily, @midnight"), "{name}: {error}");
        }
        assert!(Recurrence::parse("1 2", "UTC").unwrap_err().detail.contains("@hourly"));
    }

    #[test]
    fn what_is_not_meant_is_refused_when_it_is_new() {
        let now: Time = "2026-11-20T00:00:00Z".parse().unwrap();
        let new = |cron: &str| Recurrence::parse_new(cron, "UTC", now).map_err(|error| error.detail);
        for cron in ["0 0 31 2 *", "* * 31 4 *", "0 0 30 2 *", "0 0 0 1 1 * 2025"] {
            assert!(new(cron).is_err_and(|detail| detail.starts_with("never matches")), "{cron}");
        }
        for cron in
            ["*/61 * * * *", "0 */25 * * *", "0-30/99 * * * *", "1,*/70 * * * *", "*/61 * * * * *", "* * * */13 *"]
        {
            assert!(new(cron).is_err_and(|detail| detail.contains("step") || detail.contains("cron")), "{cron}");
        }
        for cron in
            ["0 0 29 2 *", "*/60 * * * *", "0 */24 * * *", "0 0 0 1 1 * 2027", "@midnight", "@HOURLY", " @daily "]
        {
            assert!(new(cron).is_ok(), "{cron}");
        }
    }

    #[test]
    fn what_never_comes_is_nothing() {
        assert_eq!(runs("0 0 30 2 *", "UTC", "2026-03-28T00:00:00Z", 1), Vec::<String>::new());
    }

    #[test]
    fn an_hour_that_comes_twice_counts_once() {
        // Berlin changed from UTC+2 to UTC+1 on 25 October 2026, at 03:00.
        for cron in ["30 2 * * *", "30 2,14 * * *", "30 2-2 * * *", "30 2-14/12 * * *"] {
            let first = runs(cron, "Europe/Berlin", "2026-10-24T22:30:00Z", 2);
            assert_eq!(first[0], "2026-10-25T00:30:00Z", "{cron}");
            assert_ne!(first[1], "2026-10-25T01:30:00Z", "{cron}");
        }
        assert_eq!(
            runs("*/20 1-3 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 5),
            ["00:20", "00:40", "02:00", "02:20", "02:40"].map(|time| format!("2026-10-25T{time}:00Z"))
        );
        // An expression without hours runs in both.
        assert_eq!(
            runs("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 5),
            ["00:00", "00:30", "01:00", "01:30", "02:00"].map(|time| format!("2026-10-25T{time}:00Z"))
        );
        // Havana turns its clock back at 01:00, so the first hour of the day is repeated.
        assert_eq!(
            runs("30 * 1 11 *", "America/Havana", "2026-01-01T00:00:00Z", 3),
            ["04:30", "05:30", "06:30"].map(|time| format!("2026-11-01T{time}:00Z"))
        );
    }

    #[test]
    fn an_hour_that_does_not_come_is_made_up_for() {
        // Berlin skipped from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
        for cron in ["30 2 * * *", "30 2,14 * * *", "15,30,45 2 * * *", "30 2-14/12 * * *"] {
            assert_eq!(runs(cron, "Europe/Berlin", "2026-03-28T23:00:00Z", 1), ["2026-03-29T01:00:00Z"], "{cron}");
        }
        assert_eq!(
            runs("0 1-3 * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 3),
            ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T23:00:00Z"]
        );
        assert_eq!(
            runs("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            ["00:30", "01:00", "01:30"].map(|time| format!("2026-03-29T{time}:00Z"))
        );
        // Samoa had no 30 December 2011.
        assert_eq!(
            runs("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 2),
            ["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]
        );
    }

    const ZONES: [&str; 10] = [
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",
        "Australia/Lord_Howe",
        "Atlantic/Azores",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Chatham",
        "Antarctica/Troll",
        "America/Santiago",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// Each named hour of each day runs once, at its time or right after the gap that contains it.
        #[test]
        fn named_hours_run_once_a_day(
            zone in proptest::sample::select(&ZONES[..]),
            year in 2000_i32..2037,
            hours in proptest::collection::btree_set(0_u32..24, 1..4),
            minute in 0_u32..60,
        ) {
            let list = hours.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let recurrence = Recurrence::parse(&format!("{minute} {list} * * *"), zone).unwrap();
            let time_zone: Tz = zone.parse().unwrap();
            let begin = chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
            let mut right = Vec::new();
            for day in begin.iter_days().take(366) {
                for hour in &hours {
                    // The first minute from there on that exists in local time.
                    let mut local = day.and_hms_opt(*hour, minute, 0).unwrap();
                    while time_zone.from_local_datetime(&local).earliest().is_none() {
                        local += TimeDelta::minutes(1);
                    }
                    let at = time_zone.from_local_datetime(&local).earliest().unwrap().with_timezone(&Utc);
                    right.push(at);
                }
            }
            right.dedup();
            let mut at = right[0] - TimeDelta::seconds(1);
            for wanted in right {
                at = recurrence.after(at).unwrap();
                prop_assert_eq!(at, wanted);
            }
        }

        /// An expression without hours runs at every moment whose local time matches.
        #[test]
        fn every_hour_follows_the_clock(
            zone in proptest::sample::select(&ZONES[..]),
            day in 0_i64..13_500,
            step in 1_i64..60,
        ) {
            let recurrence = Recurrence::parse(&format!("*/{step} * * * *"), zone).unwrap();
            let begin = Time::from_timestamp(946_684_800 + day * 86_400, 0).unwrap();
            let mut at = begin - TimeDelta::seconds(1);
            for minute in 0..1_500 {
                let moment = begin + TimeDelta::minutes(minute);
                if i64::from(recurrence.local(moment).minute()) % step == 0 {
                    at = recurrence.after(at).unwrap();
                    prop_assert_eq!(at, moment);
                }
            }
        }
    }

    #[test]
    fn a_day_that_a_month_does_not_have_is_skipped() {
        let day = |cron: &str, from: &str, count| {
            runs(cron, "UTC", from, count).into_iter().map(|at| at[..10].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(day("0 0 31 * *", "2026-01-31T00:00:00Z", 3), ["2026-03-31", "2026-05-31", "2026-07-31"]);
        assert_eq!(day("0 0 29 2 *", "2026-01-01T00:00:00Z", 2), ["2028-02-29", "2032-02-29"]);
        assert_eq!(day("0 0 29 2 *", "2096-03-01T00:00:00Z", 1), ["2104-02-29"], "2100 is no leap year");
        assert_eq!(day("0 0 L * *", "2028-02-01T00:00:00Z", 2), ["2028-02-29", "2028-03-31"]);
    }

    #[test]
    fn a_run_is_after_its_moment_never_at_it() {
        let recurrence = Recurrence::parse("0 0 * * *", "UTC").unwrap();
        let midnight: Time = "2026-11-20T00:00:00Z".parse().unwrap();
        let next = midnight + TimeDelta::days(1);
        assert_eq!(recurrence.after(midnight), Some(next));
        assert_eq!(recurrence.after(midnight + TimeDelta::nanoseconds(1)), Some(next));
        assert_eq!(recurrence.after(midnight - TimeDelta::nanoseconds(1)), Some(midnight));
        let hourly = Recurrence::parse("@hourly", "UTC").unwrap();
        assert_eq!(hourly.after(midnight - TimeDelta::nanoseconds(1)), Some(midnight));
    }

    #[test]
    fn half_hour_changes_and_odd_offsets_are_followed() {
        // Lord Howe goes back by half an hour, from 02:00 to 01:30, on 5 April 2026 at 15:00 UTC the day before.
        assert_eq!(
            runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
            ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
        );
        // New York skipped 02:00 to 03:00 on 8 March 2026, and repeated 01:00 to 02:00 on 1 November 2026.
        assert_eq!(
            runs("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
            ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
        );
        assert_eq!(
            runs("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        assert_eq!(runs("0 0 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", 1), ["2026-01-01T18:15:00Z"]);
    }

    #[test]
    fn names_and_six_fields_mean_what_they_say() {
        let first = |cron: &str| runs(cron, "UTC", "2026-11-20T10:20:30Z", 1).remove(0);
        for (cron, at) in [
            ("@daily", "2026-11-21T00:00:00Z"),
            ("@midnight", "2026-11-21T00:00:00Z"),
            (" @Midnight ", "2026-11-21T00:00:00Z"),
            ("@weekly", "2026-11-22T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@yearly", "2027-01-01T00:00:00Z"),
            ("@annually", "2027-01-01T00:00:00Z"),
            ("30 20 10 * * *", "2026-11-21T10:20:30Z"),
            ("31 20 10 * * *", "2026-11-20T10:20:31Z"),
            ("0 0 0 1 1 * 2030", "2030-01-01T00:00:00Z"),
            ("0 8 * * MON-FRI", "2026-11-23T08:00:00Z"),
        ] {
            assert_eq!(first(cron), at, "{cron}");
        }
    }

    #[test]
    fn an_error_names_the_field_and_what_would_be_right() {
        let error = |cron: &str, zone: &str| Recurrence::parse(cron, zone).unwrap_err().to_string();
        assert!(error("* * * *", "UTC").starts_with("cron: invalid cron expression"));
        assert_eq!(error("@daily", ""), "time_zone: unknown time zone: use an IANA name such as Europe/Berlin");
        assert!(error("@fortnightly", "UTC").contains("use @hourly, @daily"));
        let now: Time = "2026-11-20T00:00:00Z".parse().unwrap();
        let new = |cron: &str| Recurrence::parse_new(cron, "UTC", now).unwrap_err().to_string();
        assert_eq!(new("0 */25 * * *"), "cron: has a step of hour that is larger than 24: */25");
        assert!(new("0 0 31 6 *").starts_with("cron: never matches"));
    }

    #[test]
    fn the_end_of_time_is_no_run() {
        let far = Time::from_timestamp(253_402_300_799, 0).unwrap();
        let recurrence = Recurrence::parse("0 0 1 1 *", "Pacific/Auckland").unwrap();
        assert!(recurrence.after(far).is_none_or(|at| at > far));
    }
}
