//! An event as a line for people.

use std::fmt::Write;

use serde_json::Value;

use crate::event::{Kind, kind::Tone};

/// Time, kind, where, what, how long, and what was said; in colours when wanted.
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
    let padded = format!("{sign} {kind:<26}");
    let painted = if colour { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded };
    let mut line = format!("{time} {painted}");
    let mut add = |word: &str| {
        if !word.is_empty() {
            let _ = write!(line, " {}", visible(word));
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

/// Control characters shown, so that no text can steer the terminal.
fn visible(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().flat_map(|c| if steers(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        let event = serde_json::json!({ "event_type": "task_failed", "ts": "2026-11-20T16:05:00.123456Z", "error": "a\x1b[2Jb\u{202e}" });
        assert_eq!(readable(&event, false), "16:05:00.123 x task_failed                a\\u{1b}[2Jb\\u{202e}");
        assert!(readable(&event, true).contains("\x1b[31mx task_failed"));
    }
}
