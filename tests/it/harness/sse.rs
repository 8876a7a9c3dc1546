//! A strict reader of Server-Sent Events: it also checks the rules that frames must obey.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use super::DEADLINE;

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<u32>,
    pub(crate) raw: String,
}

/// An open stream.
pub(crate) struct Stream {
    body: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
    pub(crate) headers: reqwest::header::HeaderMap,
    /// The body ended with an error (no last chunk), so that clients come back.
    pub(crate) was_cut: bool,
}

impl Frame {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {}", self.data))
    }

    pub(crate) fn position(&self) -> Option<i64> {
        self.json()["position"].as_i64()
    }

    /// Reads one frame and holds it against the rules.
    pub(crate) fn parse(raw: &str) -> Self {
        assert!(!raw.contains('\r'), "frames use LF only: {raw:?}");
        // A page may be as large as its HTML.
        let most = if raw.starts_with("data: <hx-partial") { 110 * 1024 } else { 60 * 1024 };
        assert!(raw.len() < most, "a frame of {} bytes", raw.len());
        let mut frame = Self { event: String::new(), data: String::new(), id: None, retry: None, raw: raw.to_owned() };
        let mut data = Vec::new();
        for line in raw.lines() {
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a field: {line:?}"));
            assert!(frame.id.is_none(), "id must be the last line: {raw:?}");
            match field {
                "event" => value.clone_into(&mut frame.event),
                "data" => data.push(value),
                "id" => frame.id = Some(value.to_owned()),
                "retry" => frame.retry = Some(value.parse().unwrap()),
                other => panic!("unknown field {other:?}"),
            }
        }
        assert!(!data.is_empty(), "a frame without data: {raw:?}");
        frame.data = data.join("\n");
        frame
    }
}

impl Stream {
    pub(crate) async fn open(http: &reqwest::Client, url: &str, last_event_id: Option<&str>) -> Self {
        let mut request = http.get(url).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        Self::of(request.send().await.unwrap())
    }

    /// The stream in an answer.
    pub(crate) fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200, "{}", response.url());
        let headers = response.headers().clone();
        Self { body: Box::pin(response.bytes_stream()), buffer: Vec::new(), headers, was_cut: false }
    }

    /// The next frame; `None` when the body has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(Frame::parse(std::str::from_utf8(&raw[..=end]).unwrap()));
            }
            match tokio::time::timeout(DEADLINE, self.body.next()).await.expect("the stream fell silent") {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) => {
                    self.was_cut = true;
                    return None;
                }
                None => return None,
            }
        }
    }

    /// The next frame that is an event with a position.
    pub(crate) async fn event(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("stream closed");
            let own = ["hello", "heartbeat", "snapshot", "snapshot_end", "reset", "bye", "close"];
            if !own.contains(&frame.event.as_str()) && frame.id.is_some() {
                return frame;
            }
        }
    }

    /// Frames until one with a name.
    pub(crate) async fn until(&mut self, name: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            frames.push(frame.clone());
            if frame.event == name {
                return frames;
            }
        }
    }

    /// Events up to a position.
    pub(crate) async fn events_to(&mut self, position: i64) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.last().and_then(Frame::position) < Some(position) {
            frames.push(self.event().await);
        }
        frames
    }

    /// Nothing comes for a while.
    pub(crate) async fn stays_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}
