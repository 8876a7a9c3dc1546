//! Formatting for pages.

use askama::filters::urlencode_strict;

use crate::{
    board::health::Level,
    clock::Time,
    event::{envelope::rfc3339, kind::Tone},
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
    let encode = |text: &str| urlencode_strict(text).map_or_else(|_| String::new(), |encoded| encoded.to_string());
    pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
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

/// A duration in milliseconds: 812 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
#[must_use]
pub fn duration(ms: &u64) -> String {
    let ms = *ms;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..172_800_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
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

/// A duration in whole seconds: 40 s, 4 min, 2 h 5 min.
#[must_use]
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A count with thin spaces between thousands.
#[must_use]
pub fn count(number: &u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
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
        Status::Pending => ("queued", &task.enqueued_at),
        Status::Running => ("began", &task.started_at),
        Status::Completed => ("done", &task.finished_at),
        Status::Failed => ("failed", &task.finished_at),
        Status::Cancelled => ("stopped", &task.finished_at),
    };
    time.as_ref().map_or(("created", &task.created_at), |time| (word, time))
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
        Level::Ok => ("good", "✓", "Work goes on"),
        Level::Degraded => ("warn", "▲", "Degraded"),
        Level::Stalled => ("bad", "✕", "Stalled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(&812), "812 ms");
        assert_eq!(duration(&4_250), "4.2 s");
        assert_eq!(duration(&200_000), "3 min 20 s");
        assert_eq!(duration(&3_456_000_000), "40 d 0 h");
        assert_eq!(count(&1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(&12), "12");
    }

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(clip("abcdef", 3), "abc…");
    }
}
