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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
pub(crate) mod tests {
    use super::*;
    use crate::{
        clock::{Clock, Time},
        event::{Kind, frame::Frame},
        model::Name,
        store::connect::tests::unconnected,
    };

    /// Subscriptions to a feed that has published these events, and reads no log.
    pub(crate) async fn subscriptions(events: &[Arc<Event>]) -> Subscriptions {
        let log = EventLog::new(unconnected(Clock::stopped(Time::UNIX_EPOCH)).await);
        let hub = Hub::new(EPOCH, 0, 1, 1_000_000);
        hub.publish(events.iter().map(published).collect());
        Subscriptions::new(Arc::new(hub), log)
    }

    /// The epoch of these feeds.
    pub(crate) const EPOCH: Epoch = Epoch(0x5c1f_09ae);

    /// An event as it is published.
    pub(crate) fn published(event: &Arc<Event>) -> Published {
        let id = event.position.map(|position| EventId { epoch: EPOCH, position });
        let frame = Frame::event(event.event_type.name(), &crate::event::truncate::encode(event), id);
        Published { id, event: event.clone(), frame, at: std::time::Instant::now() }
    }

    /// An event of a queue at a position.
    pub(crate) fn event(position: i64, queue: &'static str) -> Arc<Event> {
        let mut event = Event::new(Kind::TaskCreated, Time::UNIX_EPOCH);
        (event.position, event.queue) = (Some(position), Some(Name::literal(queue)));
        Arc::new(event)
    }

    /// An event without a position.
    pub(crate) fn heartbeat() -> Published {
        published(&Arc::new(Event::new(Kind::WorkerHeartbeat, Time::UNIX_EPOCH)))
    }

    /// The filter of a queue.
    pub(crate) fn of_queue(queue: &str) -> Filter {
        Filter::from_query(&[("queue".to_owned(), queue.to_owned())], &[]).unwrap()
    }

    fn positions(next: &Next) -> Vec<i64> {
        next.events.iter().filter_map(|published| published.id.map(|id| id.position)).collect()
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_comes_after_its_position_and_matches() {
        let feed = subscriptions(&[event(1, "a"), event(2, "b"), event(3, "a"), event(4, "b")]).await;
        let mut subscription = feed.follow(1, of_queue("a"));
        assert_eq!((subscription.behind(), subscription.position()), (3, 1));
        let next = subscription.next().await.unwrap();
        assert_eq!((positions(&next), next.position, next.reset), (vec![3], 4, false));
        assert_eq!((subscription.behind(), subscription.position()), (0, 4), "what did not match was examined");
    }

    #[tokio::test]
    async fn a_subscriber_at_the_head_waits_for_the_next_event() {
        let feed = subscriptions(&[event(1, "a")]).await;
        let mut subscription = feed.follow(1, Filter::default());
        let published = [event(2, "a"), event(3, "b")].iter().map(published).collect();
        let (next, ()) = tokio::join!(subscription.next(), async { feed.hub.publish(published) });
        assert_eq!(positions(&next.unwrap()), [2, 3]);
    }

    #[tokio::test]
    async fn an_event_without_a_position_moves_no_cursor() {
        let feed = subscriptions(&[event(1, "a")]).await;
        let mut subscription = feed.follow(1, Filter::default());
        feed.hub.publish_ephemeral(vec![heartbeat(), heartbeat()]);
        let next = subscription.next().await.unwrap();
        assert_eq!((next.events.len(), next.position, subscription.position()), (2, 1, 1));
        let mut filtered = feed.follow(1, of_queue("a"));
        feed.hub.publish_ephemeral(vec![heartbeat()]);
        assert!(filtered.next().await.unwrap().events.is_empty());
    }

    #[tokio::test]
    async fn another_log_resets_a_subscriber_to_its_head() {
        let feed = subscriptions(&[event(1, "a"), event(2, "a")]).await;
        let mut subscription = feed.follow(0, Filter::default());
        feed.hub.reset(Epoch(7), 40, 30);
        let next = subscription.next().await.unwrap();
        assert_eq!((next.reset, next.events.len(), next.position), (true, 0, 40));
        assert_eq!((feed.epoch(), feed.head(), feed.oldest()), (Epoch(7), 40, 30));
        assert_eq!(subscription.behind(), 0);
    }

    #[tokio::test]
    async fn a_cursor_never_goes_back() {
        let feed = subscriptions(&[]).await;
        let mut subscription = feed.follow(5, Filter::default());
        assert!(subscription.take(&[]).is_none());
        let old: Vec<_> = [event(3, "a"), event(5, "a")].iter().map(published).collect();
        assert!(subscription.take(&old).is_none());
        assert_eq!((subscription.position(), subscription.behind()), (5, 0), "ahead of a feed that lags is not behind");
        let mixed: Vec<_> = (4..=7).map(|position| published(&event(position, "a"))).collect();
        assert_eq!(positions(&subscription.take(&mixed).unwrap()), [6, 7]);
    }

    #[tokio::test]
    async fn readers_are_counted_until_they_leave() {
        let feed = subscriptions(&[]).await;
        let first = feed.follow(0, Filter::default());
        let second = feed.follow(0, Filter::default());
        assert_eq!(feed.readers(), 2);
        drop(first);
        assert_eq!(feed.readers(), 1);
        drop(second);
        assert_eq!(feed.readers(), 0);
    }

    #[tokio::test]
    async fn the_newest_events_come_newest_first_and_match() {
        let feed = subscriptions(&[event(1, "a"), event(2, "b"), event(3, "a"), event(4, "a")]).await;
        let newest = feed.newest(2, |event| event.queue.as_ref().is_some_and(|queue| queue.as_str() == "a"));
        assert_eq!(newest.iter().map(|event| event.position.unwrap()).collect::<Vec<_>>(), [4, 3]);
        assert!(feed.newest(0, |_| true).is_empty());
    }
}
