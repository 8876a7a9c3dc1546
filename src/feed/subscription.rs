//! A reader of the feed within this process: a cursor, never a queue. Behind, it reads the ring, and behind that the
//! log; at the head it is woken. Nothing is skipped and nobody waits for it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::{
    Deliveries, Published,
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

/// One reader's place in the feed.
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

/// What came next.
#[derive(Debug, Clone, Default)]
pub struct Next {
    /// What passed the filter, in order.
    pub events: Vec<Published>,
    /// The log was replaced or lost its newest events: what was read before is void, and reading goes on at the new head.
    pub reset: bool,
    /// The last position examined, whether it passed or not.
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

    /// The log's epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.hub.epoch()
    }

    /// The newest event published in this process, with its epoch.
    #[must_use]
    pub fn end(&self) -> EventId {
        self.hub.end()
    }

    /// How many follow live.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.hub.readers()
    }

    /// The oldest position that the log still has.
    #[must_use]
    pub fn oldest(&self) -> i64 {
        self.hub.oldest()
    }

    /// Takes note that the log begins there now.
    pub fn set_oldest(&self, position: i64) {
        self.hub.set_oldest(position);
    }

    /// How long ago everything in the log was known here: the age of whatever is shown.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.hub.age()
    }

    /// Opens deliveries of bytes.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries {
        Deliveries::new(self.hub.clone(), self.log.clone())
    }

    /// Follows from behind a position, through a filter.
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

    /// The newest events in memory that pass a test, newest first.
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

    /// How many published events it is behind.
    #[must_use]
    pub fn behind(&self) -> i64 {
        (self.hub.head() - self.cursor).max(0)
    }

    /// Waits for the next events. Safe to drop while it waits: the cursor moves only when it answers.
    ///
    /// # Errors
    /// When the log has to be read and the database does not answer; the cursor stays, so it can be called again.
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
                // The sender lives in the hub, which this holds.
                _ = self.publications.changed() => {}
                batch = self.ephemeral.recv() => if let Ok(batch) = batch {
                    let (filter, position) = (&self.filter, self.cursor);
                    let events = batch.iter().filter(|published| filter.matches(&published.event));
                    return Ok(Next { events: events.cloned().collect(), reset: false, position });
                }
            }
        }
    }

    /// Moves the cursor over these events; `None` when they are all behind it.
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
