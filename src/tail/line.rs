//! Formats an event as a human-readable line.

use std::fmt::Write;

use serde_json::Value;

use crate::event::{Kind, kind::Tone, visible::visible_line};

/// Time, type, location, subject, duration and message; optionally in colour.
pub(super) fn readable(event: &Value, colour: bool) -> String {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let kind = text("event_type");
    let tone = kind.parse::<Kind>().map_or(Tone::Quiet, |kind| kind.row().tone);
    let (sign, code) = match tone {
        Tone::Quiet => (' ', "2"),
        Tone::Busy => ('>', "36"),
        Tone::Good => ('+', "32"),
        Tone::Warn => ('!', "33"),
        Tone::Bad => ('x', "31"),
    };
    // 2026-11-20T16:05:00.123456Z
    let time = text("ts").get(11..23).unwrap_or("--:--:--.---");
    let padded = format!("{sign} {:<26}", visible_line(kind));
    let painted = if colour { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded };
    let mut line = format!("{} {painted}", visible_line(time));
    let mut add = |word: &str| {
        if !word.is_empty() {
            let _ = write!(line, " {}", visible_line(word));
        }
    };
    add(text("project_id"));
    add(text("queue"));
    add(text("task_type"));
    add(text("task_id"));
    add(text("connector_id"));
    if text("task_id").is_empty() {
        add(text("worker_id"));
    }
    if let Some(attempt) = event["attempt"].as_u64().filter(|attempt| *attempt > 1) {
        add(&format!("attempt {attempt}"));
    }
    if let Some(ms) = event["duration_ms"].as_u64() {
        add(&format!("{ms} ms"));
    }
    if let Some(percent) = event["data"]["percent"].as_f64() {
        add(&format!("{percent} %"));
    }
    add(text("message"));
    add(text("error"));
    add(event["data"]["reason"].as_str().unwrap_or_default());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        let event = serde_json::json!({ "event_type": "task_failed", "ts": "2026-11-20T16:05:00.123456Z", "error": "a\x1b[2Jb\u{202e}" });
        assert_eq!(readable(&event, false), "16:05:00.123 x task_failed                a\\u{1b}[2Jb\\u{202e}");
        assert!(readable(&event, true).contains("\x1b[31mx task_failed"));
        let event = serde_json::json!({ "event_type": "a\u{9b}", "ts": "2026-11-20T16:05:00.123\u{9b}", "error": "\u{200f}\u{e0041}" });
        assert!(!readable(&event, false).chars().any(crate::event::visible::is_hidden));
    }
}
