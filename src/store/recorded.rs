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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch(0x5c1f_09ae);

    #[test]
    fn a_gap_is_filled_page_by_page() {
        let positions = |after, to| gap(EPOCH, after, to).iter().map(|event| event.id.position).collect::<Vec<_>>();
        assert_eq!(positions(1_000_000, 1_000_000), Vec::<i64>::new());
        assert_eq!(positions(1_000_000, 999_999), Vec::<i64>::new());
        assert_eq!(positions(1_000_000, 1_000_003), [1_000_001, 1_000_002, 1_000_003]);
        let page = positions(2_000_000, 9_000_000);
        assert_eq!((page.len(), page.first(), page.last()), (1_000, Some(&2_000_001), Some(&2_001_000)));
    }

    #[test]
    fn what_stands_in_for_an_event_can_be_read_by_anyone() {
        let missing = missing(EPOCH, 3_000_001);
        assert!(!missing.intact);
        let json: serde_json::Value = serde_json::from_str(&missing.json).unwrap();
        assert_eq!((&json["event_id"], &json["position"]), (&"5c1f09ae-3000001".into(), &3_000_001.into()));
        assert_eq!(json["error"], "this event is missing in the log");
        assert_eq!(missing.event.event_type, Kind::Unknown);
    }

    #[test]
    fn the_place_in_the_log_is_the_position_whatever_the_event_says() {
        let mut event = Event::new(Kind::TaskCreated, Time::UNIX_EPOCH);
        event.position = Some(7);
        let stored = serde_json::to_string(&event).unwrap();
        let read = recorded(EPOCH, 8, stored.clone());
        assert!(read.intact);
        assert_eq!((read.id.position, read.event.position, read.json), (8, Some(8), stored));
        assert_eq!(read.name, "task_created");
    }

    #[test]
    fn an_unreadable_event_keeps_its_place() {
        for stored in ["", "rubbish", "[]", "null"] {
            let read = recorded(EPOCH, 3_000_007, stored.to_owned());
            assert_eq!(
                (read.intact, read.id.position, read.event.position),
                (false, 3_000_007, Some(3_000_007)),
                "{stored}"
            );
            assert!(serde_json::from_str::<serde_json::Value>(&read.json).is_ok(), "{}", read.json);
        }
        assert!(unreadable() > 0);
    }

    proptest! {
        /// Only the published bytes are the published event; a frame has spaces for line breaks.
        #[test]
        fn another_byte_is_another_event(at in any::<proptest::sample::Index>(), byte in 1_u8..=255) {
            let mut event = Event::new(Kind::TaskFailed, Time::UNIX_EPOCH);
            event.error = Some("a b".to_owned());
            let stored = serde_json::to_string(&event).unwrap();
            prop_assert!(is_published_as(EPOCH, 5, stored.clone(), stored.as_bytes()));
            prop_assert!(is_published_as(EPOCH, 5, stored.replacen(',', ",\n", 1), stored.replacen(',', ", ", 1).as_bytes()));
            let mut other = stored.clone().into_bytes();
            let at = at.index(other.len());
            let plain = |byte: u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
            let differs = plain(byte) != other[at];
            other[at] = byte;
            prop_assert_eq!(is_published_as(EPOCH, 5, stored.clone(), &other), !differs);
            prop_assert!(!is_published_as(EPOCH, 5, stored.clone(), &stored.as_bytes()[1..]));
        }
    }
}
