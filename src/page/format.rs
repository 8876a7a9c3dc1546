//! Formatting for pages.

use askama::filters::urlencode_strict;

use super::Params;

use crate::{
    board::{ended::Attempts, health::Level},
    clock::Time,
    event::{Event, envelope::rfc3339, kind::Tone},
    model::{
        Status, Task,
        worker::{ConnectorStatus, WorkerStatus},
    },
};

/// A name as part of an element ID: letters, digits and `-` unchanged, all others by code point. htmx 4.0.1 splits
/// selectors at commas and spaces, ignoring escapes.
#[must_use]
pub fn anchor(name: &str) -> String {
    let mut anchor = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '-' {
            anchor.push(c);
        } else {
            anchor.push_str(&format!("_{:x}_", u32::from(c)));
        }
    }
    anchor
}

/// Encodes a query string.
#[must_use]
pub fn query(pairs: &[(String, String)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", path_segment(name), path_segment(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// A name as a part of a URL path, or as a value in a query.
#[must_use]
pub fn path_segment(name: &str) -> String {
    urlencode_strict(name).map_or_else(|_| String::new(), |encoded| encoded.to_string())
}

/// A name as a filter value in a link.
#[must_use]
pub fn filter_value(name: &str) -> String {
    crate::event::filter::escaped(name)
}

/// Names in a form field, comma-separated.
#[must_use]
pub fn list(names: &[String]) -> String {
    names.iter().map(|name| filter_value(name)).collect::<Vec<_>>().join(", ")
}

/// A URL with its query string, if not empty.
#[must_use]
pub fn address(path: &str, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", query(pairs)) }
}

/// Machine-readable time, for `<time datetime>`.
#[must_use]
pub fn datetime(time: &Time) -> String {
    rfc3339(*time)
}

/// Absolute time: UTC, in seconds.
#[must_use]
pub fn absolute(time: &Time) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Time of day, UTC, with milliseconds.
#[must_use]
pub fn clock(time: &Time) -> String {
    time.format("%H:%M:%S%.3f").to_string()
}

/// Month and day, UTC.
#[must_use]
pub fn day(time: &Time) -> String {
    time.format("%m-%d").to_string()
}

/// The page of events with one of them shown as a whole.
#[must_use]
pub fn event_url(params: &Params, position: i64) -> String {
    let mut pairs = params.without(&["event"]);
    pairs.push(("event".to_owned(), position.to_string()));
    address("/events-view", &pairs)
}

/// What an event says in free text: its error, message, reason, or what changed.
#[must_use]
pub fn event_text(event: &Event, limit: usize) -> String {
    let data = &event.data;
    let said = event.error.as_ref().or(event.message.as_ref()).or(data.reason.as_ref()).or(data.action.as_ref());
    if let Some(text) = said {
        return clip(text, limit);
    }
    if let Some(changes) = &data.changes {
        let change = |(field, [old, new]): (&String, &[serde_json::Value; 2])| format!("{field}: {old} → {new}");
        return clip(&changes.iter().map(change).collect::<Vec<_>>().join(" · "), limit);
    }
    data.percent.as_ref().map(percent).unwrap_or_default()
}

/// A duration in milliseconds: 812 ms, 4.2 s, 3m 20s, 2h 5m, 3d 4h.
#[must_use]
pub fn duration(ms: &u64) -> String {
    let ms = *ms;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..172_800_000 => format!("{}h {}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{}d {}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// A size: 812 B, 4.2 kB, 3.1 MB (powers of 1,000).
#[must_use]
pub fn bytes(bytes: &u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let unit = units.into_iter().find(|(_, size)| bytes >= size);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, size)| format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
    )
}

/// A duration in whole seconds: 40 s, 4m, 2h 5m.
#[must_use]
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{}m", seconds / 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A count with commas between thousands.
#[must_use]
pub fn count(number: &u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A percentage: 12.3%.
#[must_use]
pub fn percent(percent: &f64) -> String {
    format!("{}%", decimal(percent))
}

/// Failed attempts as a percentage of those that ended; a dash if none has.
#[must_use]
pub fn error_rate(attempts: &Attempts) -> String {
    if attempts.total() == 0 { "–".to_owned() } else { percent(&attempts.error_percent()) }
}

/// A fractional duration in milliseconds, formatted as [`duration`].
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
pub fn milliseconds(ms: f64) -> String {
    duration(&(ms.max(0.0) as u64))
}

/// Date and time in minutes, UTC.
#[must_use]
pub fn minute(time: &Time) -> String {
    time.format("%m-%d %H:%M").to_string()
}

/// The relevant time for a task's status, and its label.
#[must_use]
pub fn since(task: &Task) -> (&'static str, &Time) {
    let (word, time) = match task.status {
        Status::Scheduled | Status::Retrying => ("due", &task.run_at),
        Status::Blocked => ("created", &None),
        Status::Pending => ("enqueued", &task.enqueued_at),
        Status::Running => ("started", &task.started_at),
        Status::Completed => ("completed", &task.finished_at),
        Status::Failed => ("failed", &task.finished_at),
        Status::Cancelled => ("cancelled", &task.finished_at),
    };
    time.as_ref().map_or(("created", &task.created_at), |time| (word, time))
}

/// How long the last attempt of a finished task took, as text.
#[must_use]
pub fn took(task: &Task) -> String {
    let span = task.started_at.zip(task.finished_at).map(|(from, to)| (to - from).num_milliseconds());
    span.and_then(|ms| u64::try_from(ms).ok()).map_or_else(|| "–".to_owned(), |ms| duration(&ms))
}

/// One decimal.
#[must_use]
pub fn decimal(number: &f64) -> String {
    format!("{number:.1}")
}

/// CSS class and icon of a task status; always shown with the word.
#[must_use]
pub const fn status(status: &Status) -> (&'static str, &'static str) {
    match status {
        Status::Scheduled => ("quiet", "◷"),
        Status::Blocked => ("quiet", "⊘"),
        Status::Pending => ("quiet", "○"),
        Status::Running => ("busy", "▶"),
        Status::Retrying => ("warn", "↻"),
        Status::Completed => ("good", "✓"),
        Status::Failed => ("bad", "✕"),
        Status::Cancelled => ("quiet", "■"),
    }
}

/// CSS class and icon of a worker status.
#[must_use]
pub const fn worker(status: &WorkerStatus) -> (&'static str, &'static str) {
    match status {
        WorkerStatus::Starting => ("quiet", "◌"),
        WorkerStatus::Idle => ("quiet", "○"),
        WorkerStatus::Active => ("busy", "▶"),
        WorkerStatus::Draining => ("warn", "◐"),
        WorkerStatus::Stopped => ("quiet", "■"),
        WorkerStatus::Lost => ("bad", "✕"),
    }
}

/// CSS class and icon of a connector status.
#[must_use]
pub const fn connector(status: &ConnectorStatus) -> (&'static str, &'static str) {
    match status {
        ConnectorStatus::Starting => ("quiet", "◌"),
        ConnectorStatus::Idle => ("quiet", "○"),
        ConnectorStatus::Active => ("busy", "▶"),
        ConnectorStatus::Error => ("bad", "✕"),
        ConnectorStatus::Unknown => ("warn", "?"),
    }
}

/// CSS class and icon of an event type.
#[must_use]
pub const fn tone(tone: &Tone) -> (&'static str, &'static str) {
    match tone {
        Tone::Quiet => ("quiet", "○"),
        Tone::Busy => ("busy", "▶"),
        Tone::Good => ("good", "✓"),
        Tone::Warn => ("warn", "!"),
        Tone::Bad => ("bad", "✕"),
    }
}

/// The random last part of an ID, enough to distinguish tasks; the first part is only the time.
#[must_use]
pub fn short(id: &uuid::Uuid) -> String {
    let text = id.simple().to_string();
    text[text.len() - 8..].to_owned()
}

/// Text with hidden characters shown as code points.
#[must_use]
pub fn visible(text: &str) -> String {
    crate::event::visible::visible(text).into_owned()
}

/// Truncates to a number of characters, with an ellipsis.
#[must_use]
pub fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text),
    }
}

/// CSS class, icon and text of a health level.
#[must_use]
pub const fn level(level: &Level) -> (&'static str, &'static str, &'static str) {
    match level {
        Level::Ok => ("good", "✓", "Healthy"),
        Level::Degraded => ("warn", "▲", "Degraded"),
        Level::Stalled => ("bad", "✕", "Stalled"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(&812), "812 ms");
        assert_eq!(duration(&4_250), "4.2 s");
        assert_eq!(duration(&200_000), "3m 20s");
        assert_eq!(duration(&3_456_000_000), "40d 0h");
        assert_eq!(count(&1_234_567), "1,234,567");
        assert_eq!(count(&12), "12");
    }

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(clip("abcdef", 3), "abc…");
    }

    #[test]
    fn a_duration_changes_its_unit_where_the_next_one_begins() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1m 0s"),
            (3_599_999, "59m 59s"),
            (3_600_000, "1h 0m"),
            (172_799_999, "47h 59m"),
            (172_800_000, "2d 0h"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(duration(&ms), text, "{ms}");
        }
        assert_eq!(
            (milliseconds(-1.0), milliseconds(f64::NAN), milliseconds(999.9)),
            ("0 ms".into(), "0 ms".into(), "999 ms".into())
        );
        assert_eq!(milliseconds(f64::INFINITY), duration(&u64::MAX));
    }

    #[test]
    fn a_size_changes_its_unit_at_each_thousand() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (4_250_000_000, "4.2 GB"),
            (999_999_999_999, "999.9 GB"),
            (1_000_000_000_000, "1.0 TB"),
        ] {
            assert_eq!(bytes(&size), text, "{size}");
        }
    }

    #[test]
    fn whole_seconds_stay_seconds_for_two_minutes() {
        for (given, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2m"), (7_199, "119m"), (7_200, "2h 0m"), (11_100, "3h 5m")]
        {
            assert_eq!(seconds(given), text, "{given}");
        }
    }

    #[test]
    fn thousands_are_set_apart_from_the_right() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (100_000, "100 000"), (1_000_000, "1 000 000")]
        {
            assert_eq!(count(&number), text.replace(' ', ","));
        }
        assert_eq!(count(&u64::MAX).replace(',', ""), u64::MAX.to_string());
    }

    #[test]
    fn a_text_is_cut_between_characters_and_only_if_it_is_longer() {
        assert_eq!(
            (clip("äöü", 3), clip("äöü", 2), clip("äöü", 0), clip("", 0)),
            ("äöü".into(), "äö…".into(), "…".into(), String::new())
        );
        assert_eq!(clip("\u{202e}abc", 1), "\\u{202e}…", "cut before it is made visible, so that no code point is cut");
    }

    #[test]
    fn times_say_their_zone_when_they_are_absolute() {
        let time = Time::from_timestamp_millis(1_800_000_000_007).unwrap();
        assert_eq!(absolute(&time), "2027-01-15 08:00:00 UTC");
        assert_eq!((clock(&time), minute(&time)), ("08:00:00.007".into(), "01-15 08:00".into()));
        assert_eq!(datetime(&time), "2027-01-15T08:00:00.007000Z");
    }

    #[test]
    fn a_task_shows_the_time_that_its_status_is_about() {
        let at = |seconds| Time::from_timestamp(seconds, 0);
        let new = crate::model::NewTask::plain(
            uuid::Uuid::nil(),
            crate::model::Name::literal("t"),
            crate::model::Name::literal("q"),
        );
        let task = new.into_task(None, false, at(1).unwrap());
        let task = Task { run_at: at(2), enqueued_at: at(3), started_at: at(4), finished_at: at(5), ..task };
        let shown = |status| {
            let task = Task { status, ..task.clone() };
            let (word, time) = since(&task);
            (word, time.timestamp())
        };
        let expected = [
            ("due", 2),
            ("created", 1),
            ("enqueued", 3),
            ("started", 4),
            ("due", 2),
            ("completed", 5),
            ("failed", 5),
            ("cancelled", 5),
        ];
        assert_eq!(Status::ALL.map(shown), expected);
        let bare = Task { finished_at: None, status: Status::Failed, ..task };
        assert_eq!(since(&bare).0, "created", "a time that is not known is not made up");
    }

    #[test]
    fn looks_of_statuses_are_told_apart_without_colour() {
        let signs = |mut looks: Vec<&str>| {
            let all = looks.len();
            looks.sort_unstable();
            looks.dedup();
            (all, looks.len())
        };
        let of_tasks = Status::ALL.iter().map(|of| status(of).1).collect();
        assert_eq!(signs(of_tasks), (8, 8));
        assert_eq!(signs(WorkerStatus::ALL.iter().map(|of| worker(of).1).collect()), (6, 6));
        assert_eq!(signs(ConnectorStatus::ALL.iter().map(|of| connector(of).1).collect()), (5, 5));
        assert_eq!(signs([Level::Ok, Level::Degraded, Level::Stalled].iter().map(|of| level(of).1).collect()), (3, 3));
    }

    #[test]
    fn a_link_without_parameters_has_no_question_mark() {
        assert_eq!(address("/tasks", &[]), "/tasks");
        let pairs = [("q".to_owned(), "a b&c=d/é".to_owned()), ("at".to_owned(), String::new())];
        assert_eq!(address("/tasks", &pairs), "/tasks?q=a%20b%26c%3Dd%2F%C3%A9&at=");
    }

    #[test]
    fn a_code_point_in_an_anchor_ends_before_the_next_digit() {
        assert_eq!((anchor("a-9"), anchor("_"), anchor("é.")), ("a-9".into(), "_5f_".into(), "_e9__2e_".into()));
        assert_ne!(anchor("_0"), anchor("\u{5f0}"));
    }

    #[test]
    fn a_short_id_is_its_random_end() {
        let id = uuid::Uuid::from_u128(0x0190_b6a2_3f5e_7a10_8c11_2d5f_0c3b_9a77);
        assert_eq!(short(&id), "0c3b9a77");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// A name becomes an ID that selectors can hold, and different names become different ones.
        #[test]
        fn anchors_are_plain_and_unique(a in "\\PC{0,12}|[a_0-9x-]{0,8}", b in "\\PC{0,12}|[a_0-9x-]{0,8}") {
            let plain = anchor(&a).bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            prop_assert!(plain);
            prop_assert_eq!(anchor(&a) == anchor(&b), a == b);
        }

        /// A name in a link to a list is the only value of its filter.
        #[test]
        fn a_name_in_a_link_is_one_value(name in "\\PC{1,12}|[a,\\\\ ]{1,8}") {
            let values = crate::event::filter::values(&filter_value(&name));
            prop_assert_eq!(values, [name]);
        }

        /// What a form shows is what it sends back.
        #[test]
        fn a_list_in_a_field_is_read_back(names in prop::collection::vec("\\PC{1,8}|[a,\\\\ ]{1,6}", 0..4)) {
            prop_assert_eq!(crate::event::filter::values(&list(&names)), names);
        }

        #[test]
        fn a_query_is_read_back(name in "\\PC{1,8}", value in "\\PC{0,12}|[&=?#%+ ]{0,8}") {
            let encoded = query(&[(name.clone(), value.clone())]);
            let plain = encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%=-_.~".contains(&byte));
            prop_assert!(plain, "{}", encoded);
            let (left, right) = encoded.split_once('=').unwrap();
            let decode = |text: &str| percent_decoded(text);
            prop_assert_eq!((decode(left), decode(right)), (name, value));
        }
    }

    fn percent_decoded(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first == b'%' {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            } else {
                bytes.push(*first);
            }
        }
        String::from_utf8(bytes).unwrap()
    }
}
