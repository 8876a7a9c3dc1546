//! Events that are too large lose their largest fields, and say which.

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
        let Some((_, field, clear)) = candidates(&event).into_iter().max_by_key(|(size, ..)| *size) else {
            return (event, json);
        };
        clear(&mut event);
        event.truncated.push(field.to_owned());
    }
}

type Clear = fn(&mut Event);

fn candidates(event: &Event) -> Vec<(usize, &'static str, Clear)> {
    let sizes: [(Option<usize>, &'static str, Clear); 5] = [
        (event.data.result.as_ref().map(|v| v.as_str().len()), "data.result", |e| e.data.result = None),
        (event.data.title.as_ref().map(String::len), "data.title", |e| e.data.title = None),
        (event.data.reason.as_ref().map(String::len), "data.reason", |e| e.data.reason = None),
        (event.error.as_ref().map(String::len), "error", |e| e.error = None),
        (event.message.as_ref().map(String::len), "message", |e| e.message = None),
    ];
    sizes.into_iter().filter_map(|(size, field, clear)| Some((size?, field, clear))).collect()
}

/// The JSON of an event: one line, no CR, LF or NUL (serde_json escapes them).
#[must_use]
pub fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("an event has string keys only and no failing serializer")
}
