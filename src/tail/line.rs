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

    #[test]
    fn a_line_says_what_happened_where_and_to_what() {
        let event = serde_json::json!({
            "event_type": "task_completed",
            "ts": "2026-11-20T16:05:00.123456Z",
            "project_id": "shop",
            "queue": "mail",
            "task_type": "send",
            "task_id": "id-7",
            "worker_id": "w-1",
            "attempt": 2,
            "duration_ms": 1500,
            "message": "sent",
        });
        let line = readable(&event, false);
        assert_eq!(line, "16:05:00.123 + task_completed             shop mail send id-7 attempt 2 1500 ms sent");
    }

    #[test]
    fn what_is_usual_is_not_said() {
        let started = |attempt: u64| serde_json::json!({ "event_type": "task_started", "attempt": attempt });
        assert!(!readable(&started(1), false).contains("attempt"));
        assert!(readable(&started(2), false).ends_with(" attempt 2"));
        let worker =
            serde_json::json!({ "event_type": "worker_stopped", "worker_id": "w-1", "data": { "reason": "lost" } });
        assert!(readable(&worker, false).ends_with(" w-1 lost"));
        let progress = serde_json::json!({ "event_type": "task_progress", "data": { "percent": 12.5 } });
        assert!(readable(&progress, false).ends_with(" 12.5 %"));
    }

    #[test]
    fn an_event_of_a_newer_server_is_shown_as_far_as_it_is_understood() {
        for event in [serde_json::json!(null), serde_json::json!([1]), serde_json::json!({ "ts": 7, "queue": 8 })] {
            assert!(readable(&event, false).starts_with("--:--:--.---   "), "{event}");
        }
        let new = serde_json::json!({ "event_type": "task_teleported", "ts": "2026-11-20T16:05:00.1ä" });
        assert!(readable(&new, true).contains("\x1b[2m  task_teleported"));
    }
}
