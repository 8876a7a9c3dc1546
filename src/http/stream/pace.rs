//! Replay at a speed: an event is delayed until it is due.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::{
    clock::Time,
    feed::{
        ByteReader, Limit,
        byte_reader::{Gone, Piece},
    },
};

/// The next item to send.
pub(super) enum Next {
    Piece(Piece),
    /// The requested range is complete.
    Done,
    /// The log does not have the next event.
    Gone(Gone),
}

/// The pace of a replay.
pub(super) struct Pace {
    speed: f64,
    /// Timestamp of the first event, and when it was sent.
    began: Option<(Time, Instant)>,
    held: Option<Held>,
}

/// A delayed event.
struct Held {
    piece: Piece,
    due: Instant,
    /// The position before it: the last one examined and sent.
    before: i64,
}

impl Pace {
    /// A replay at a multiple of the original speed.
    pub(super) const fn new(speed: f64) -> Self {
        Self { speed, began: None, held: None }
    }

    /// When the delayed event is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.due)
    }

    /// The position before the delayed event.
    pub(super) fn before(&self) -> Option<i64> {
        self.held.as_ref().map(|held| held.before)
    }

    /// The next event once it is due. While one is delayed, the stream must be woken by its own timer.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, reader: &mut ByteReader, limit: Limit) -> Poll<Next> {
        if self.held.is_none() {
            let before = reader.position();
            let piece = match ready!(reader.poll_next(cx, Limit { events: Some(1), ..limit })) {
                Ok(Some(piece)) => piece,
                other => return Poll::Ready(other.into()),
            };
            let (first, began) = *self.began.get_or_insert((piece.ts, Instant::now()));
            let later = (piece.ts - first).to_std().unwrap_or_default().div_f64(self.speed);
            self.held = Some(Held { piece, due: began + later, before });
        }
        match self.held.take_if(|held| held.due <= Instant::now()) {
            Some(held) => Poll::Ready(Next::Piece(held.piece)),
            None => Poll::Pending,
        }
    }
}

impl From<Result<Option<Piece>, Gone>> for Next {
    fn from(polled: Result<Option<Piece>, Gone>) -> Self {
        match polled {
            Ok(Some(piece)) => Self::Piece(piece),
            Ok(None) => Self::Done,
            Err(gone) => Self::Gone(gone),
        }
    }
}
