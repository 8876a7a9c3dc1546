//! A replay at a speed: an event waits until it is its turn.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::{
    clock::Time,
    feed::{
        Delivery, Limit,
        delivery::{Gone, Piece},
    },
};

/// What there is to send.
pub(super) enum Next {
    Piece(Piece),
    /// As much as was asked for.
    Done,
    /// The log does not have what comes next.
    Gone(Gone),
}

/// The pace of a replay.
pub(super) struct Pace {
    speed: f64,
    /// The first event's own time, and when it was sent.
    began: Option<(Time, Instant)>,
    held: Option<Held>,
}

/// An event that waits.
struct Held {
    piece: Piece,
    due: Instant,
    /// The position before it: what was examined and sent.
    before: i64,
}

impl Pace {
    /// So many times as fast as it happened.
    pub(super) const fn new(speed: f64) -> Self {
        Self { speed, began: None, held: None }
    }

    /// When the event that waits is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.due)
    }

    /// The position before the event that waits.
    pub(super) fn before(&self) -> Option<i64> {
        self.held.as_ref().map(|held| held.before)
    }

    /// The next event once it is due. While one waits, its stream's timer has to wake the stream.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, delivery: &mut Delivery, limit: Limit) -> Poll<Next> {
        if self.held.is_none() {
            let before = delivery.position();
            let piece = match ready!(delivery.poll_next(cx, Limit { events: Some(1), ..limit })) {
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
