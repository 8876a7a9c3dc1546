//! The bytes of Server-Sent-Events frames. Built here alone, so that no text can ever break one.
//!
//! One frame is `event:`, one `data:` line, and `id:` last: some clients adopt an id as soon as they read its line,
//! so an id must not come before the data it stands for. LF only. Never a comment, never a frame without data.

use bytes::{BufMut, Bytes, BytesMut};

use super::{EventId, Kind};

/// The frame of a stored event and its JSON.
#[must_use]
pub fn event(kind: Kind, json: &str, id: EventId) -> Bytes {
    named(kind.name(), json, Some(id), None)
}

/// A frame of the stream itself (`hello`, `heartbeat` …). `json` must be one line, as serde_json writes it.
#[must_use]
pub fn named(name: &'static str, json: &str, id: Option<EventId>, retry_ms: Option<u32>) -> Bytes {
    let mut frame = BytesMut::with_capacity(json.len() + name.len() + 64);
    frame.put_slice(b"event: ");
    frame.put_slice(name.as_bytes());
    frame.put_slice(b"\ndata: ");
    put_line(&mut frame, json);
    if let Some(retry_ms) = retry_ms {
        frame.put_slice(format!("retry: {retry_ms}\n").as_bytes());
    }
    if let Some(id) = id {
        frame.put_slice(format!("id: {id}\n").as_bytes());
    }
    frame.put_u8(b'\n');
    frame.freeze()
}

/// An unnamed frame of HTML: each line its own `data:` line.
#[must_use]
pub fn html(fragment: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(fragment.len() + fragment.len() / 16 + 16);
    for line in fragment.split(['\n', '\r']) {
        frame.put_slice(b"data: ");
        put_line(&mut frame, line);
    }
    frame.put_u8(b'\n');
    frame.freeze()
}

/// One line: CR, LF and NUL cannot be in it, whatever was handed in.
fn put_line(frame: &mut BytesMut, text: &str) {
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        frame.extend(text.bytes().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }));
    } else {
        frame.put_slice(text.as_bytes());
    }
    frame.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::envelope::Epoch;

    #[test]
    fn id_is_the_last_line() {
        let id = EventId { epoch: Epoch(0x5c1f_09ae), position: 184 };
        let frame = event(Kind::TaskCompleted, "{}", id);
        assert_eq!(frame, "event: task_completed\ndata: {}\nid: 5c1f09ae-184\n\n");
    }

    #[test]
    fn line_breaks_cannot_start_a_frame() {
        assert_eq!(named("x", "a\r\n\ndata: b\0", None, Some(7)), "event: x\ndata: a   data: b \nretry: 7\n\n");
        assert_eq!(html("<p>\n</p>"), "data: <p>\ndata: </p>\n\n");
    }
}
