//! Events that are too large lose their largest fields, and say which.

use std::borrow::Cow;

use super::Event;

/// Encodes an event in at most `max_bytes`. The fields that may go are those that people or workers fill;
/// names, ids, times, labels and phases are bounded where they come in and always stay, because filters and the board
/// need them.
#[must_use]
pub fn fit(mut event: Event, max_bytes: usize) -> (Event, String) {
    loop {
        let json = encode(&event);
        if json.len() <= max_bytes {
            return (event, json);
        }
        let Some((_, field)) = candidates(&event).into_iter().max() else {
            return (event, json);
        };
        clear(&mut event, &field);
        event.truncated.push(field);
    }
}

/// Fields of an edit that others count by; these edits are small.
const PLACES: [&str; 7] = ["is_parent", "parent_task_id", "phase", "priority", "project_id", "queue", "task_type"];

/// Fields that may go, with their sizes.
fn candidates(event: &Event) -> Vec<(usize, String)> {
    let texts = [
        (event.data.result.as_ref().map(|v| v.as_str().len()), "data.result"),
        (event.data.title.as_ref().map(String::len), "data.title"),
        (event.data.reason.as_ref().map(String::len), "data.reason"),
        (event.data.depends_on.as_ref().map(|ids| ids.len() * 39), "data.depends_on"),
        (event.error.as_ref().map(String::len), "error"),
        (event.message.as_ref().map(String::len), "message"),
    ];
    let texts = texts.into_iter().filter_map(|(size, field)| Some((size?, field.to_owned())));
    let changes = event.data.changes.iter().flatten().filter(|(field, _)| !PLACES.contains(&field.as_str()));
    let changes = changes
        .map(|(field, [old, new])| (old.to_string().len() + new.to_string().len(), format!("data.changes.{field}")));
    texts.chain(changes).collect()
}

fn clear(event: &mut Event, field: &str) {
    match field {
        "data.result" => event.data.result = None,
        "data.title" => event.data.title = None,
        "data.reason" => event.data.reason = None,
        "data.depends_on" => event.data.depends_on = None,
        "error" => event.error = None,
        "message" => event.message = None,
        change => {
            let name = change.trim_start_matches("data.changes.");
            if let Some(changes) = &mut event.data.changes {
                changes.remove(name);
            }
        }
    }
}

/// The JSON of an event: one line for every reader.
#[must_use]
pub fn encode(event: &Event) -> String {
    one_line(serde_json::to_string(event).expect("an event has string keys only and no failing serializer"))
}

/// JSON without characters that some readers take for the end of a line. serde_json escapes CR, LF and the like; these
/// three it leaves, and Python's `splitlines`, for one, splits at them (seen with sseclient 0.0.27). In JSON they stand
/// within strings only, so they can be escaped wherever they are.
#[must_use]
pub fn one_line(json: String) -> String {
    match in_one_line(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(escaped) => escaped,
    }
}

/// The same for JSON that others wrote.
#[must_use]
pub fn in_one_line(json: &str) -> Cow<'_, str> {
    // The first bytes of all three in UTF-8.
    let maybe = json.bytes().any(|byte| matches!(byte, 0xc2 | 0xe2));
    if !maybe || !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}
