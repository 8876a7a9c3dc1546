//! Encoding of the stream: Server-Sent Events or lines of JSON, native or as CloudEvents. All frames are built here, so
//! that no text can break a frame.
//!
//! An SSE frame is `event:`, one `data:` line, then `id:`: some clients adopt an ID as soon as they read its line, so
//! the ID must not precede its data. LF only. Never a comment, never a frame without data.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::json;

use super::{
    Event, EventId,
    envelope::rfc3339,
    truncate::{in_one_line, one_line},
};
use crate::model::fingerprint;

/// Transport encoding of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Server-Sent Events with `event:` lines.
    #[default]
    Named,
    /// Server-Sent Events without them, for clients that only handle unnamed messages.
    Unnamed,
    /// One JSON object per line.
    Lines,
}

/// Format of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As stored.
    #[default]
    Native,
    /// In a CloudEvents 1.0 envelope.
    CloudEvents,
}

/// Transport encoding and format requested by a reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// Transport encoding.
    pub wire: Wire,
    /// Format of an event.
    pub format: Format,
}

/// A frame in the default form, and the range of its JSON; other forms are derived from it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// `event:`, `data:` and `id:` lines.
    pub bytes: Bytes,
    data: Range<usize>,
    name_end: usize,
}

impl Frame {
    /// The frame of an event from its JSON; line breaks are escaped. Without an ID if it is ephemeral.
    #[must_use]
    pub fn event(name: &str, json: &str, id: Option<EventId>) -> Self {
        let json = &in_one_line(json);
        let bytes = named(name, json, id, None);
        let name_end = "event: \n".len() + name.len();
        let start = name_end + "data: ".len();
        Self { bytes, data: start..start + json.len(), name_end }
    }

    /// The JSON of the event, sharing the frame's memory.
    #[must_use]
    pub fn shared_json(&self) -> Bytes {
        self.bytes.slice(self.data.clone())
    }

    /// The JSON of the event.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.bytes[self.data.clone()]
    }
}

impl Form {
    /// Appends an event to the output buffer.
    pub fn put(self, out: &mut BytesMut, frame: &Frame, event: &Event) {
        match (self.wire, self.format) {
            (Wire::Named, Format::Native) => out.put_slice(&frame.bytes),
            (Wire::Unnamed, Format::Native) => out.put_slice(&frame.bytes[frame.name_end..]),
            (Wire::Lines, Format::Native) => {
                out.put_slice(frame.json());
                out.put_u8(b'\n');
            }
            (wire, Format::CloudEvents) => {
                let after = &frame.bytes[frame.data.end..];
                match wire {
                    Wire::Named => out.put_slice(&frame.bytes[..frame.data.start]),
                    Wire::Unnamed => out.put_slice(b"data: "),
                    Wire::Lines => {}
                }
                put_cloud_event(out, event, frame.json());
                out.put_slice(if wire == Wire::Lines { b"\n" } else { after });
            }
        }
    }

    /// A control frame (`hello`, `heartbeat` …), which is not an event of the log. In unnamed forms the JSON contains
    /// its name: `{"event_type": "hello", "event_id": …, "retry_ms": …, "data": {…}}`.
    #[must_use]
    pub fn control(self, name: &str, data: &serde_json::Value, id: Option<EventId>, retry_ms: Option<u32>) -> Bytes {
        if self.wire == Wire::Named {
            return named(name, &one_line(data.to_string()), id, retry_ms);
        }
        let mut whole = json!({ "event_type": name, "data": data });
        if let Some(id) = id {
            whole["event_id"] = id.to_string().into();
        }
        if let Some(retry_ms) = retry_ms {
            whole["retry_ms"] = retry_ms.into();
        }
        if self.format == Format::CloudEvents {
            // Must be unique: it identifies a frame of this stream, not an event of the log.
            let id = format!("{name}-{:032x}", hash(&whole));
            whole = json!({ "specversion": "1.0", "id": id, "source": SOURCE, "type": format!("taskwatch.stream.{name}"),
                "datacontenttype": "application/json", "data": whole });
        }
        let whole = one_line(whole.to_string());
        match self.wire {
            Wire::Lines => Bytes::from(whole + "\n"),
            Wire::Named | Wire::Unnamed => unnamed(&whole, id, retry_ms),
        }
    }
}

/// `source` of CloudEvents. Globally unique together with the ID, which starts with the log's epoch.
const SOURCE: &str = "/taskwatch";

fn hash(value: &serde_json::Value) -> u128 {
    // FNV-1a: collisions are unlikely, and the same text always gives the same ID.
    value.to_string().bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// CloudEvents 1.0, structured mode, with the native event as its data.
fn put_cloud_event(out: &mut BytesMut, event: &Event, json: &[u8]) {
    let name = event.event_type.name();
    let ts = rfc3339(event.ts);
    let id = event
        .event_id
        .clone()
        .unwrap_or_else(|| format!("{name}-{ts}-{:016x}", fingerprint::hash(json.iter().copied())));
    let subject = event.task_id.or(event.worker_id).map(|id| id.to_string());
    let subject = subject.or_else(|| event.queue.as_ref().map(|queue| queue.as_str().to_owned()));
    let mut head = json!({ "specversion": "1.0", "id": id, "source": SOURCE, "type": format!("taskwatch.{name}"),
        "time": ts, "subject": subject, "datacontenttype": "application/json",
        "dataschema": format!("/api/v1/schemas/{name}") });
    if head["subject"].is_null()
        && let Some(fields) = head.as_object_mut()
    {
        fields.remove("subject");
    }
    let head = one_line(head.to_string());
    out.put_slice(head.trim_end_matches('}').as_bytes());
    out.put_slice(b",\"data\":");
    out.put_slice(json);
    out.put_u8(b'}');
}

/// An SSE frame with a name. `json` must be one line.
#[must_use]
pub fn named(name: &str, json: &str, id: Option<EventId>, retry_ms: Option<u32>) -> Bytes {
    let mut frame = BytesMut::with_capacity(json.len() + name.len() + 64);
    frame.put_slice(b"event: ");
    put_line(&mut frame, name);
    put_rest(&mut frame, json, id, retry_ms);
    frame.freeze()
}

fn unnamed(json: &str, id: Option<EventId>, retry_ms: Option<u32>) -> Bytes {
    let mut frame = BytesMut::with_capacity(json.len() + 64);
    put_rest(&mut frame, json, id, retry_ms);
    frame.freeze()
}

fn put_rest(frame: &mut BytesMut, json: &str, id: Option<EventId>, retry_ms: Option<u32>) {
    frame.put_slice(b"data: ");
    put_line(frame, json);
    if let Some(retry_ms) = retry_ms {
        frame.put_slice(format!("retry: {retry_ms}\n").as_bytes());
    }
    if let Some(id) = id {
        frame.put_slice(format!("id: {id}\n").as_bytes());
    }
    frame.put_u8(b'\n');
}

/// An unnamed frame of HTML: each line becomes a `data:` line.
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

/// One line: CR, LF and NUL are removed, whatever the input.
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
    use crate::event::{Kind, envelope::Epoch};

    const ID: EventId = EventId { epoch: Epoch(0x5c1f_09ae), position: 184 };

    fn written(wire: Wire, format: Format) -> String {
        let event = Event::new(Kind::TaskCompleted, crate::clock::Time::UNIX_EPOCH);
        let mut out = BytesMut::new();
        Form { wire, format }.put(&mut out, &Frame::event("task_completed", "{\"a\":1}", Some(ID)), &event);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn id_is_the_last_line() {
        assert_eq!(
            written(Wire::Named, Format::Native),
            "event: task_completed\ndata: {\"a\":1}\nid: 5c1f09ae-184\n\n"
        );
        assert_eq!(written(Wire::Unnamed, Format::Native), "data: {\"a\":1}\nid: 5c1f09ae-184\n\n");
        assert_eq!(written(Wire::Lines, Format::Native), "{\"a\":1}\n");
    }

    #[test]
    fn a_cloud_event_holds_the_native_event() {
        let line = written(Wire::Lines, Format::CloudEvents);
        assert!(line.starts_with("{\"") && line.ends_with(",\"data\":{\"a\":1}}\n"), "{line}");
        let frame = written(Wire::Named, Format::CloudEvents);
        assert!(frame.starts_with("event: task_completed\ndata: {") && frame.ends_with("}}\nid: 5c1f09ae-184\n\n"));
        assert!(written(Wire::Unnamed, Format::CloudEvents).starts_with("data: {"));
    }

    #[test]
    fn nothing_in_a_cloud_event_ends_a_line_for_any_reader() {
        let mut event = Event::new(Kind::QueuePaused, crate::clock::Time::UNIX_EPOCH);
        event.queue = crate::model::Name::new("a\u{2028}b\u{2029}").ok();
        let frame = Frame::event("queue_paused", "{\"queue\":\"a\u{2028}b\u{2029}\u{85}\"}", Some(ID));
        for wire in [Wire::Named, Wire::Unnamed, Wire::Lines] {
            for format in [Format::Native, Format::CloudEvents] {
                let mut out = BytesMut::new();
                Form { wire, format }.put(&mut out, &frame, &event);
                let text = String::from_utf8_lossy(&out).into_owned();
                assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{text}");
                assert!(text.contains("\\u2028") && text.contains("\\u2029"), "{text}");
            }
        }
    }

    #[test]
    fn line_breaks_cannot_start_a_frame() {
        assert_eq!(named("x", "a\r\n\ndata: b\0", None, Some(7)), "event: x\ndata: a   data: b \nretry: 7\n\n");
        assert_eq!(html("<p>\n</p>"), "data: <p>\ndata: </p>\n\n");
    }
}
