//! Where a stream starts: resolution of the cursor.

use std::time::Duration;

use tokio::time::Instant;

use super::request::{Cursor, Moment, Snapshot, StreamRequest};
use crate::{
    event::{EventId, envelope::Epoch},
    http::{problem::Problem, state::AppState},
};

/// How long to wait for a cursor ahead of this server: another server may be briefly ahead.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Resolution of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// After this position; with the start mode for `hello`.
    After(i64, &'static str),
    /// It cannot be served; with the reason.
    Gap(&'static str),
}

/// Start of a stream, and end of a replay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    /// Epoch of the positions.
    pub(super) epoch: Epoch,
    pub(super) start: Start,
    /// Position before the range of a replay.
    from: Option<i64>,
    /// The last position to send.
    pub(super) until: Option<i64>,
}

impl Begin {
    /// [`Self::position`] with its epoch.
    pub(super) fn end(&self, state: &AppState) -> EventId {
        EventId { epoch: self.epoch, position: self.position(state) }
    }

    /// The position after which the stream starts. After a gap a replay continues with the rest of its range;
    /// everything else starts with a snapshot.
    pub(super) fn position(&self, state: &AppState) -> i64 {
        match (self.start, self.from) {
            (Start::After(position, _), _) => position,
            (Start::Gap(_), Some(from)) => from.max(state.subscriptions.oldest() - 1),
            (Start::Gap(_), None) => state.subscriptions.head(),
        }
    }
}

/// Resolves the start.
///
/// # Errors
/// 400 if the range of a replay is invalid; 503 if times have to be looked up and the database fails.
pub(super) async fn begin(state: &AppState, request: &StreamRequest) -> Result<Begin, Problem> {
    let epoch = state.subscriptions.epoch();
    let until = match request.replay.until {
        None => None,
        Some(until) => Some(position(state, until, "until").await?.min(state.subscriptions.head())),
    };
    let from = match request.replay.from {
        None => None,
        // A time refers to the first event at or after it.
        Some(from @ Moment::Time(_)) => Some(position(state, from, "from").await?),
        Some(from) => Some(position(state, from, "from").await? - 1),
    };
    if from.is_some_and(|from| from > state.subscriptions.head()) {
        let detail = "ahead of the log; use after=now";
        return Err(Problem::invalid_parameter("from", detail));
    }
    if let (Some(from), Some(until)) = (from, until)
        && until < from
    {
        let detail = "must not precede from";
        return Err(Problem::invalid_parameter("until", detail));
    }
    let start = match (&request.cursor, from) {
        // A client that resumes its replay continues at its cursor.
        (Cursor::Absent, Some(after)) if after + 1 < state.subscriptions.oldest() => Start::Gap("too_old"),
        (Cursor::Absent, Some(after)) => Start::After(after, "replay"),
        (cursor, _) => of_cursor(state, cursor, request.snapshot).await,
    };
    Ok(Begin { epoch, start, from, until })
}

/// The position of a moment; for a time: that of the last event before it.
async fn position(state: &AppState, moment: Moment, field: &'static str) -> Result<i64, Problem> {
    match moment {
        Moment::Position(position) => Ok(position),
        Moment::Id(id) if id.epoch == state.subscriptions.epoch() => Ok(id.position),
        Moment::Id(EventId { .. }) => {
            let detail = "event ID belongs to a different log epoch";
            Err(Problem::invalid_parameter(field, detail))
        }
        Moment::Time(time) => Ok(state.event_log.position_before(time, field == "until").await?),
    }
}

async fn of_cursor(state: &AppState, cursor: &Cursor, snapshot: Snapshot) -> Start {
    let subscriptions = &state.subscriptions;
    match cursor {
        Cursor::Absent if snapshot == Snapshot::Never => Start::After(subscriptions.head(), "live"),
        Cursor::Absent => Start::After(subscriptions.head(), "snapshot"),
        Cursor::Now => Start::After(subscriptions.head(), "live"),
        Cursor::Earliest => Start::After(subscriptions.oldest() - 1, "resumed"),
        Cursor::Malformed => Start::Gap("malformed"),
        Cursor::At(id) if id.epoch != subscriptions.epoch() => Start::Gap("epoch"),
        Cursor::At(id) => {
            let deadline = Instant::now() + CATCH_UP;
            while id.position > subscriptions.head() {
                if Instant::now() > deadline {
                    return Start::Gap("ahead");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if id.position + 1 < subscriptions.oldest() {
                return Start::Gap("too_old");
            }
            Start::After(id.position, "resumed")
        }
    }
}
