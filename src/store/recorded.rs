//! Events as read from the log. An unreadable or missing event is replaced by a placeholder of an unknown type: the log
//! is immutable, so readers have to tolerate it.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    clock::Time,
    event::{Event, EventId, Kind, envelope::Epoch, truncate, upcast},
};

/// Maximum number of events per read. Positions are dense, so a range of positions bounds the number of rows.
pub const PAGE: i64 = 1_000;

/// An event at its position, with the bytes that are stored and sent.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Event ID.
    pub id: EventId,
    /// The parsed event.
    pub event: Arc<Event>,
    /// The name of its type, which may be unknown to this version.
    pub name: Cow<'static, str>,
    /// The encoded JSON object.
    pub json: String,
    /// False if the stored event is missing or unreadable; then this is a placeholder.
    pub intact: bool,
}

/// Placeholders for events missing from the log: at most [`PAGE`] after a position, up to `to`.
#[must_use]
pub fn gap(epoch: Epoch, after: i64, to: i64) -> Vec<Recorded> {
    (after + 1..=to.min(after + PAGE)).map(|position| missing(epoch, position)).collect()
}

pub(super) fn recorded(epoch: Epoch, position: i64, stored: String) -> Recorded {
    let id = EventId { epoch, position };
    let read = upcast::read(stored);
    if !read.intact {
        report(position, "unreadable event; sent with an unknown type");
    }
    let upcast::Read { mut event, json, name, intact } = read;
    // The column is authoritative for the position.
    event.position = Some(position);
    if json.is_empty() {
        return stand_in(id, "unreadable event; run taskwatch verify");
    }
    Recorded { id, event: Arc::new(event), name: name.into(), json, intact }
}

pub(super) fn missing(epoch: Epoch, position: i64) -> Recorded {
    report(position, "an event of the log is missing; readers get one of an unknown kind in its place");
    stand_in(EventId { epoch, position }, "this event is missing in the log")
}

fn stand_in(id: EventId, why: &str) -> Recorded {
    let mut event = Event::new(Kind::Unknown, Time::UNIX_EPOCH);
    event.event_id = Some(id.to_string());
    event.position = Some(id.position);
    event.error = Some(why.to_owned());
    let json = truncate::encode(&event);
    Recorded { id, name: event.event_type.name().into(), event: Arc::new(event), json, intact: false }
}

/// Positions whose events could not be read, as far as reported.
static REPORTED: Mutex<BTreeSet<i64>> = Mutex::new(BTreeSet::new());
/// Maximum number of reported positions.
const MAX_REPORTED: usize = 1_000;

/// Logs once per position that its event is unreadable.
fn report(position: i64, what: &str) {
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.len() < MAX_REPORTED && reported.insert(position) {
        tracing::error!(position, "{what}");
    }
}

/// Number of missing or unreadable events found by this process, at most 1,000.
#[must_use]
pub fn unreadable() -> usize {
    REPORTED.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Whether the event stored at a position is the published one. A frame has spaces where the stored text has line
/// breaks.
pub(super) fn is_published_as(epoch: Epoch, position: i64, stored: String, published: &[u8]) -> bool {
    let stored = recorded(epoch, position, stored).json;
    let plain = |byte: u8| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte };
    stored.len() == published.len() && stored.bytes().map(plain).eq(published.iter().copied().map(plain))
}
