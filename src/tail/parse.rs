//! Parser for Server-Sent Events, limited to what our server writes: LF only, complete frames.

/// One message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) event: String,
    pub(super) data: String,
    pub(super) id: Option<String>,
    pub(super) retry_ms: Option<u64>,
}

/// Bytes of an incomplete frame.
#[derive(Debug, Default)]
pub(super) struct Parser {
    rest: Vec<u8>,
}

impl Parser {
    /// Feeds bytes; returns the messages that are complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut done = 0;
        while let Some(length) = self.rest[done..].windows(2).position(|two| two == b"\n\n") {
            messages.push(message(&String::from_utf8_lossy(&self.rest[done..done + length])));
            done += length + 2;
        }
        self.rest.drain(..done);
        messages
    }
}

fn message(frame: &str) -> Message {
    let mut message = Message::default();
    for line in frame.lines() {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "event" => value.clone_into(&mut message.event),
            "data" => value.clone_into(&mut message.data),
            "id" => message.id = Some(value.to_owned()),
            "retry" => message.retry_ms = value.parse().ok(),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_come_in_any_pieces() {
        let stream = "event: hello\ndata: {\"a\":1}\nretry: 7\nid: e-1\n\nevent: x\ndata: {\"b\":\"ü\"}\nid: e-2\n\n";
        let whole = Parser::default().push(stream.as_bytes());
        assert_eq!((whole.len(), whole[0].retry_ms, whole[1].id.as_deref()), (2, Some(7), Some("e-2")));
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let pieces: Vec<_> = stream.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(pieces, whole);
        }
    }

    #[test]
    fn an_unfinished_frame_waits_for_its_end() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"event: x\ndata: 1\n"), []);
        assert_eq!(parser.push(b""), []);
        let messages = parser.push(b"\nevent: y\n");
        assert_eq!(messages, [Message { event: "x".to_owned(), data: "1".to_owned(), id: None, retry_ms: None }]);
        assert_eq!(parser.rest, b"event: y\n");
    }

    #[test]
    fn lines_that_are_not_known_and_numbers_that_are_none_are_left_out() {
        let frame = ": comment\nevent: x\nother: y\nretry: soon\ndata\nid: \n\n";
        let right = Message { event: "x".to_owned(), id: Some(String::new()), ..Message::default() };
        assert_eq!(Parser::default().push(frame.as_bytes()), [right]);
        let colon = Parser::default().push(b"data: a: b\n\n");
        assert_eq!(colon.first().map(|message| message.data.as_str()), Some("a: b"));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let messages = Parser::default().push(b"data: \xff\xfe\n\n");
        assert_eq!(messages.first().map(|message| message.data.as_str()), Some("\u{fffd}\u{fffd}"));
    }
}
