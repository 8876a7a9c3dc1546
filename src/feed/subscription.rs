//! A reader of the feed: a cursor, never a queue. Behind, it reads the ring, and behind that the log; at the head it
//! is woken by the broadcast. Nothing is skipped and nobody waits for it.

use std::{sync::Arc, time::Duration};

use tokio::sync::broadcast;

use super::{
    Published,
    hub::{Batch, Hub},
};
use crate::{
    event::{Event, Filter, envelope::Epoch},
    store::{Store, log},
};

/// Opens subscriptions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    hub: Arc<Hub>,
    store: Store,
    epoch: Epoch,
}

/// One reader's place in the feed.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    store: Store,
    epoch: Epoch,
    live: broadcast::Receiver<Batch>,
    cursor: i64,
    filter: Filter,
    ephemeral: bool,
}

/// What came next.
#[derive(Debug, Clone, Default)]
pub struct Next {
    /// What passed the filter, in order.
    pub events: Vec<Published>,
    /// The last position examined, whether it passed or not.
    pub position: i64,
}

impl Subscriptions {
    pub(super) const fn new(hub: Arc<Hub>, store: Store, epoch: Epoch) -> Self {
        Self { hub, store, epoch }
    }

    /// The newest position published in this process.
    #[must_use]
    pub fn head(&self) -> i64 {
        self.hub.head()
    }

    /// The log's epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
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

    /// Follows from behind a position, through a filter.
    #[must_use]
    pub fn follow(&self, after: i64, filter: Filter) -> Subscription {
        let (live, _) = self.hub.subscribe();
        Subscription {
            hub: self.hub.clone(),
            store: self.store.clone(),
            epoch: self.epoch,
            live,
            cursor: after,
            filter,
            ephemeral: true,
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
            if self.cursor < self.hub.head() {
                let events = match self.hub.after(self.cursor) {
                    Some(frames) => frames,
                    None => self.page().await?,
                };
                if !events.is_empty() {
                    return Ok(self.take(events));
                }
            }
            match self.live.recv().await {
                Ok(batch) => {
                    if let Some(next) = self.live_batch(&batch) {
                        return Ok(next);
                    }
                }
                // What was dropped is in the ring or in the log.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// A batch from the broadcast, when it is the next one; several waiting batches become one.
    fn live_batch(&mut self, batch: &Batch) -> Option<Next> {
        let mut events = Vec::new();
        self.add(batch, &mut events)?;
        while let Ok(batch) = self.live.try_recv() {
            if self.add(&batch, &mut events).is_none() {
                break;
            }
        }
        Some(Next { events, position: self.cursor })
    }

    fn add(&mut self, batch: &Batch, events: &mut Vec<Published>) -> Option<()> {
        match batch.first()?.id {
            None if !self.ephemeral => return Some(()),
            None => {}
            Some(first) if first.position == self.cursor + 1 => {
                self.cursor = batch.last()?.id?.position;
            }
            // Old news, or a hole: the loop reads from the ring.
            Some(_) => return None,
        }
        events.extend(batch.iter().filter(|published| self.filter.matches(&published.event)).cloned());
        Some(())
    }

    fn take(&mut self, mut events: Vec<Published>) -> Next {
        if let Some(id) = events.last().and_then(|published| published.id) {
            self.cursor = id.position;
        }
        if !self.filter.is_empty() {
            events.retain(|published| self.filter.matches(&published.event));
        }
        Next { events, position: self.cursor }
    }

    async fn page(&self) -> sqlx::Result<Vec<Published>> {
        let page = log::page(self.store.pool(), self.epoch, self.cursor).await?;
        Ok(page.into_iter().map(Published::from).collect())
    }

    /// Leaves out events that have no position.
    #[must_use]
    pub const fn stored_only(mut self) -> Self {
        self.ephemeral = false;
        self
    }
}
