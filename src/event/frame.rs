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
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

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

    const FORMS: [Form; 6] = {
        const fn form(wire: Wire, format: Format) -> Form {
            Form { wire, format }
        }
        [
            form(Wire::Named, Format::Native),
            form(Wire::Unnamed, Format::Native),
            form(Wire::Lines, Format::Native),
            form(Wire::Named, Format::CloudEvents),
            form(Wire::Unnamed, Format::CloudEvents),
            form(Wire::Lines, Format::CloudEvents),
        ]
    };

    /// A frame as a browser reads it: the name, the data, the ID and the retry time.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        name: Option<String>,
        data: Vec<String>,
        id: Option<String>,
        retry: Option<String>,
    }

    /// Reads Server-Sent Events as the HTML standard says: lines end with CR, LF or both, a blank line ends a frame.
    fn seen(bytes: &[u8]) -> Vec<Seen> {
        let text = std::str::from_utf8(bytes).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        assert!(text.ends_with("\n\n"), "a frame ends with a blank line: {text:?}");
        let frames = text.split_terminator("\n\n").map(|frame| {
            let mut seen = Seen::default();
            for line in frame.split('\n') {
                let (field, value) = line.split_once(": ").unwrap_or((line, ""));
                match field {
                    "event" => seen.name = Some(value.to_owned()),
                    "data" => seen.data.push(value.to_owned()),
                    "id" => seen.id = Some(value.to_owned()),
                    "retry" => seen.retry = Some(value.to_owned()),
                    other => panic!("a frame has no field {other:?}"),
                }
            }
            seen
        });
        frames.collect()
    }

    fn put(form: Form, event: &Event, json: &str, id: Option<EventId>) -> Bytes {
        let mut out = BytesMut::new();
        form.put(&mut out, &Frame::event(event.event_type.name(), json, id), event);
        out.freeze()
    }

    /// The JSON of the only frame or line.
    fn json(form: Form, bytes: &[u8]) -> serde_json::Value {
        if form.wire == Wire::Lines {
            let line = std::str::from_utf8(bytes).unwrap().strip_suffix('\n').unwrap();
            assert!(!line.contains(['\n', '\r']), "{line:?}");
            return serde_json::from_str(line).unwrap();
        }
        let frames = seen(bytes);
        assert_eq!((frames.len(), frames[0].data.len()), (1, 1), "{frames:?}");
        serde_json::from_str(&frames[0].data[0]).unwrap()
    }

    #[test]
    fn an_ephemeral_event_has_no_id_to_resume_from() {
        let event = Event::new(Kind::WorkerHeartbeat, crate::clock::Time::UNIX_EPOCH);
        for form in FORMS.into_iter().filter(|form| form.wire != Wire::Lines) {
            assert_eq!(seen(&put(form, &event, "{}", None))[0].id, None, "{form:?}");
            assert_eq!(seen(&put(form, &event, "{}", Some(ID)))[0].id.as_deref(), Some("5c1f09ae-184"), "{form:?}");
        }
    }

    #[test]
    fn only_a_named_form_has_names() {
        let event = Event::new(Kind::TaskFailed, crate::clock::Time::UNIX_EPOCH);
        for form in FORMS.into_iter().filter(|form| form.wire != Wire::Lines) {
            let name = seen(&put(form, &event, "{}", None)).remove(0).name;
            assert_eq!(name.as_deref(), (form.wire == Wire::Named).then_some("task_failed"), "{form:?}");
        }
    }

    #[test]
    fn a_cloud_event_is_about_the_task_or_else_the_worker_or_else_the_queue() {
        let form = FORMS[5];
        let mut event = Event::new(Kind::OperatorAction, crate::clock::Time::UNIX_EPOCH);
        assert_eq!(json(form, &put(form, &event, "{}", None)).get("subject"), None);
        event.queue = Some(crate::model::Name::literal("mails"));
        assert_eq!(json(form, &put(form, &event, "{}", None))["subject"], "mails");
        event.worker_id = Some(uuid::Uuid::nil());
        assert_eq!(json(form, &put(form, &event, "{}", None))["subject"], uuid::Uuid::nil().to_string());
        event.task_id = Some(uuid::Uuid::max());
        assert_eq!(json(form, &put(form, &event, "{}", None))["subject"], uuid::Uuid::max().to_string());
    }

    #[test]
    fn a_cloud_event_has_what_the_standard_demands() {
        let form = FORMS[5];
        let mut event = Event::new(Kind::QueuePaused, crate::clock::Time::UNIX_EPOCH);
        event.event_id = Some(ID.to_string());
        let json = json(form, &put(form, &event, r#"{"a":{"b":[]}}"#, Some(ID)));
        for (field, value) in [
            ("specversion", "1.0"),
            ("id", "5c1f09ae-184"),
            ("source", "/taskwatch"),
            ("type", "taskwatch.queue_paused"),
            ("time", "1970-01-01T00:00:00.000000Z"),
            ("datacontenttype", "application/json"),
            ("dataschema", "/api/v1/schemas/queue_paused"),
        ] {
            assert_eq!(json[field], value, "{field}");
        }
        assert_eq!(json["data"], json!({ "a": { "b": [] } }));
    }

    #[test]
    fn ephemeral_cloud_events_are_told_apart_by_what_they_say() {
        let event = Event::new(Kind::WorkerHeartbeat, crate::clock::Time::UNIX_EPOCH);
        let id = |text: &str| json(FORMS[5], &put(FORMS[5], &event, text, None))["id"].clone();
        assert_ne!(id(r#"{"worker_id":1}"#), id(r#"{"worker_id":2}"#));
        assert_eq!(id(r#"{"worker_id":1}"#), id(r#"{"worker_id":1}"#));
    }

    #[test]
    fn a_control_frame_says_its_name_in_every_form() {
        let data = json!({ "resume": "live\u{2028}\n" });
        for form in FORMS {
            let bytes = form.control("hello", &data, Some(ID), Some(2_000));
            let json = json(form, &bytes);
            let inner =
                if form.format == Format::CloudEvents && form.wire != Wire::Named { &json["data"] } else { &json };
            if form.wire == Wire::Named {
                assert_eq!(inner, &data);
                assert_eq!(seen(&bytes)[0].name.as_deref(), Some("hello"));
            } else {
                let all = json!({ "event_type": "hello", "data": data, "event_id": ID.to_string(), "retry_ms": 2_000 });
                assert_eq!(inner, &all, "{form:?}");
            }
            if form.wire != Wire::Lines {
                let frame = seen(&bytes).remove(0);
                assert_eq!(
                    (frame.id.as_deref(), frame.retry.as_deref()),
                    (Some("5c1f09ae-184"), Some("2000")),
                    "{form:?}"
                );
            }
        }
    }

    #[test]
    fn a_control_frame_without_an_id_or_a_retry_time_has_neither() {
        for form in FORMS {
            let bytes = form.control("bye", &json!({}), None, None);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!text.contains("retry") && !text.contains("event_id") && !text.contains("\nid:"), "{text}");
        }
    }

    #[test]
    fn the_json_of_a_frame_is_its_data() {
        for json in ["{}", r#"{"event":"data: id: "}"#, "{\"a\":\"\u{2028}\"}"] {
            let frame = Frame::event("task_created", json, Some(ID));
            assert_eq!(std::str::from_utf8(frame.json()).unwrap(), in_one_line(json));
            assert_eq!(frame.shared_json(), frame.json());
        }
    }

    #[test]
    fn html_of_no_line_is_still_a_frame() {
        assert_eq!(html(""), "data: \n\n");
        assert_eq!(html("a\r\nb"), "data: a\ndata: \ndata: b\n\n");
        assert_eq!(html("a\0b"), "data: a b\n\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Whatever a name or a text holds, a browser sees one frame with the ID that we gave it.
        #[test]
        fn no_text_breaks_a_frame(text in "(\\PC|[\\x00-\\x1f\u{85}\u{2028}\"\\\\]|\n\n|\r\n|id: 9|data: ){0,12}") {
            let mut event = Event::new(Kind::TaskFailed, crate::clock::Time::UNIX_EPOCH);
            event.error = Some(text.clone());
            event.event_id = Some(ID.to_string());
            let native = super::super::truncate::encode(&event);
            for form in FORMS {
                let bytes = put(form, &event, &native, Some(ID));
                let json = json(form, &bytes);
                let inner = if form.format == Format::CloudEvents { &json["data"] } else { &json };
                prop_assert_eq!(&inner["error"], &text);
                if form.wire != Wire::Lines {
                    let frame = seen(&bytes).remove(0);
                    prop_assert_eq!(frame.id, Some(ID.to_string()));
                }
            }
        }

        /// Not even text that is no JSON, which the server never sends.
        #[test]
        fn no_bytes_end_a_frame_early(name in "(\\PC|[\r\n\0]){0,8}", data in "(\\PC|[\r\n\0]){0,20}", retry: Option<u32>) {
            let frames = seen(&named(&name, &data, Some(ID), retry));
            prop_assert_eq!(frames.len(), 1);
            prop_assert_eq!(frames[0].data.len(), 1);
            prop_assert_eq!(&frames[0].retry, &retry.map(|ms| ms.to_string()));
        }

        /// A browser joins the lines of a page with line feeds.
        #[test]
        fn html_arrives_as_it_was_sent(lines in prop::collection::vec("[^\r\n\0]{0,12}", 1..6)) {
            let frames = seen(&html(&lines.join("\n")));
            prop_assert_eq!(frames.len(), 1);
            prop_assert_eq!(&frames[0].data, &lines);
        }
    }
}
