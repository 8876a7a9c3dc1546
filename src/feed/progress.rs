//! How far a reader of the feed is.

use std::sync::{
    Weak,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use super::shared_stream::SharedStream;

/// Position of a reader. Only the reader advances it; anyone may read it.
#[derive(Debug)]
pub struct ReaderProgress {
    pub(super) stream: Weak<SharedStream>,
    /// Last position delivered or filtered out.
    pub(super) cursor: AtomicI64,
    /// Number of the next chunk; [`NO_NUMBER`] while the reader reads pages.
    pub(super) number: AtomicU64,
}

pub(super) const NO_NUMBER: u64 = u64::MAX;

impl ReaderProgress {
    /// The last position examined: for a reader that is up to date, that of its stream.
    #[must_use]
    pub fn position(&self) -> i64 {
        let cursor = self.cursor.load(Ordering::Relaxed);
        let number = self.number();
        let tail = number.and_then(|number| self.stream.upgrade()?.in_step(number));
        tail.map_or(cursor, |tail| tail.max(cursor))
    }

    pub(super) fn number(&self) -> Option<u64> {
        Some(self.number.load(Ordering::Relaxed)).filter(|number| *number != NO_NUMBER)
    }

    pub(super) fn advance(&self, cursor: i64, number: Option<u64>) {
        self.cursor.fetch_max(cursor, Ordering::Relaxed);
        self.number.store(number.unwrap_or(NO_NUMBER), Ordering::Relaxed);
    }
}
