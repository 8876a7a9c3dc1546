//! A subscriber within this process: a cursor, never a queue. A lagging subscriber reads the ring, then the log; at the
//! head it is woken. No event is skipped, and no publisher waits for a subscriber.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::{
    ByteReaders, Published,
    hub::{Batch, Hub},
};
use crate::{
    event::{Event, EventId, Filter, envelope::Epoch},
    store::EventLog,
};

/// Opens subscriptions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    hub: Arc<Hub>,
    log: EventLog,
}

/// One subscriber: its cursor and filter.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    log: EventLog,
    epoch: Epoch,
    publications: watch::Receiver<u64>,
    ephemeral: broadcast::Receiver<Batch>,
    cursor: i64,
    filter: Filter,
}

/// The next events for a subscriber.
#[derive(Debug, Clone, Default)]
pub struct Next {
    /// Events that match the filter, in order.
    pub events: Vec<Published>,
    /// The log was replaced or lost its newest events: earlier events are void, and reading continues at the new head.
    pub reset: bool,
    /// The last position examined, whether it matched or not.
    pub position: i64,
}

impl Subscriptions {
    pub(super) const fn new(hub: Arc<Hub>, log: EventLog) -> Self {
        Self { hub, log }
    }

    /// The newest position published in this process.
    #[must_use]
    pub fn head(&self) -> i64 {
        self.hub.head()
    }

    /// The current epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.hub.epoch()
    }

    /// The newest event published in this process, with its epoch.
    #[must_use]
    pub fn end(&self) -> EventId {
        self.hub.end()
    }

    /// Number of live readers.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.hub.readers()
    }

    /// The oldest position in the log.
    #[must_use]
    pub fn oldest(&self) -> i64 {
        self.hub.oldest()
    }

    /// Records that the log now starts at this position.
    pub fn set_oldest(&self, position: i64) {
        self.hub.set_oldest(position);
    }

    /// Time since this process was last known to be up to date with the log: the age of everything shown.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.hub.age()
    }

    /// The byte readers of this feed.
    #[must_use]
    pub fn byte_readers(&self) -> ByteReaders {
        ByteReaders::new(self.hub.clone(), self.log.clone())
    }

    /// Subscribes after a position, with a filter.
    #[must_use]
    pub fn follow(&self, after: i64, filter: Filter) -> Subscription {
        self.hub.reader_came();
        Subscription {
            hub: self.hub.clone(),
            log: self.log.clone(),
            epoch: self.hub.epoch(),
            publications: self.hub.publications(),
            ephemeral: self.hub.ephemeral(),
            cursor: after,
            filter,
        }
    }

    /// The newest events in memory that satisfy a predicate, newest first.
    pub fn newest(&self, limit: usize, test: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        self.hub.newest(limit, |published| test(&published.event)).into_iter().map(|p| p.event).collect()
    }
}

impl Subscription {
    /// The last position examined.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.cursor
    }

    /// Lag in published events.
    #[must_use]
    pub fn behind(&self) -> i64 {
        (self.hub.head() - self.cursor).max(0)
    }

    /// Waits for the next events. Cancel-safe: the cursor advances only when the call returns.
    ///
    /// # Errors
    /// The log has to be read and the database fails; the cursor is unchanged, so the call can be repeated.
    pub async fn next(&mut self) -> sqlx::Result<Next> {
        loop {
            self.publications.mark_unchanged();
            let end = self.hub.end();
            if end.epoch != self.epoch {
                (self.epoch, self.cursor) = (end.epoch, end.position);
                return Ok(Next { events: Vec::new(), reset: true, position: end.position });
            }
            if self.cursor < self.hub.head() {
                let events = self.hub.read_after(&self.log, self.epoch, self.cursor).await?;
                if let Some(next) = self.take(&events) {
                    return Ok(next);
                }
            }
            tokio::select! {
                // Cannot fail: the hub owns the sender, and this holds the hub.
                _ = self.publications.changed() => {}
                batch = self.ephemeral.recv() => if let Ok(batch) = batch {
                    let (filter, position) = (&self.filter, self.cursor);
                    let events = batch.iter().filter(|published| filter.matches(&published.event));
                    return Ok(Next { events: events.cloned().collect(), reset: false, position });
                }
            }
        }
    }

    /// Advances the cursor over these events; `None` if all of them are at or before it.
    fn take(&mut self, events: &[Published]) -> Option<Next> {
        let last = events.last()?.id?.position;
        let after = self.cursor;
        self.cursor = last.max(after);
        let new = events.iter().filter(|published| published.id.is_some_and(|id| id.position > after));
        let passed = new.filter(|published| self.filter.matches(&published.event)).cloned().collect();
        (last > after).then_some(Next { events: passed, reset: false, position: last })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.reader_left();
    }
}
