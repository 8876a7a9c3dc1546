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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{Filter, frame::Form},
        feed::subscription::tests::EPOCH,
    };

    fn progress(stream: &Arc<SharedStream>, cursor: i64) -> ReaderProgress {
        let (cursor, number) = (AtomicI64::new(cursor), AtomicU64::new(NO_NUMBER));
        ReaderProgress { stream: Arc::downgrade(stream), cursor, number }
    }

    fn stream(tail: i64) -> Arc<SharedStream> {
        Arc::new(SharedStream::new(EPOCH, Filter::default(), Form::default(), tail))
    }

    #[test]
    fn a_reader_in_step_is_where_its_stream_is() {
        let stream = stream(40);
        let progress = progress(&stream, 7);
        assert_eq!(progress.position(), 7, "it reads pages");
        progress.advance(9, Some(0));
        assert_eq!(progress.position(), 40, "nothing of its filter came since");
        progress.advance(9, None);
        assert_eq!(progress.position(), 9);
    }

    #[test]
    fn a_position_never_goes_back() {
        let stream = stream(0);
        let progress = progress(&stream, 7);
        progress.advance(3, None);
        progress.advance(i64::MIN, None);
        assert_eq!(progress.position(), 7);
        progress.advance(8, Some(0));
        assert_eq!(progress.position(), 8, "ahead of a stream that lags");
    }

    #[test]
    fn a_reader_keeps_its_place_when_its_stream_is_gone() {
        let stream = stream(40);
        let progress = progress(&stream, 7);
        progress.advance(9, Some(0));
        drop(stream);
        assert_eq!(progress.position(), 9);
    }
}
