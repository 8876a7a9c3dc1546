//! A memory budget: total, and per IP address, with a pace per IP address. Parts are released on drop.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::feed::stream_registry::counted_as;

/// Maximum number of requests waiting for memory.
const MAX_WAITING: usize = 256;

/// Bytes per second that one IP address may reserve for long, so that large bodies leave time for other callers: reading
/// and parsing 4 MiB takes milliseconds of a core. As reports of 200 bytes it is many times what a database stores.
const PACE: f64 = 16.0 * 1024.0 * 1024.0;
/// How far an IP address may be ahead of its pace.
const BURST: Duration = Duration::from_millis(250);

/// The budget.
#[derive(Debug)]
pub(super) struct Budget {
    used: Mutex<Used>,
    freed: Notify,
    waiting: AtomicUsize,
    /// When what each IP address has reserved is paid off at its pace; only of those that are ahead of it.
    paced: Mutex<HashMap<IpAddr, Instant>>,
    /// Total, bytes.
    all: usize,
    /// Limit per IP address, bytes.
    each: usize,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A reserved part of the budget.
#[derive(Debug)]
pub(super) struct Part {
    budget: Arc<Budget>,
    address: IpAddr,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            used: Mutex::default(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            paced: Mutex::default(),
            all,
            each,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserved bytes.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.lock().all
    }

    /// Reserves memory, if available. An IP address without reservations may exceed its limit once.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, bytes: usize) -> Option<Part> {
        let address = counted_as(address);
        let mut used = self.lock();
        let of_address = used.by_address.get(&address).copied().unwrap_or_default();
        let fits = |used: usize, most: usize| used == 0 || used + bytes <= most;
        if !fits(used.all, self.all) || !fits(of_address, self.each) {
            return None;
        }
        used.all += bytes;
        *used.by_address.entry(address).or_default() += bytes;
        Some(Part { budget: self.clone(), address, bytes })
    }

    /// Waits until an IP address may use this many bytes more.
    pub(super) async fn pace(&self, address: IpAddr, bytes: usize) {
        let now = Instant::now();
        let paid_off = {
            let mut paced = self.paced.lock().unwrap_or_else(PoisonError::into_inner);
            paced.retain(|_, paid_off| *paid_off > now);
            let paid_off = paced.entry(counted_as(address)).or_insert(now);
            *paid_off += Duration::from_secs_f64(bytes as f64 / PACE);
            *paid_off
        };
        tokio::time::sleep_until(paid_off - BURST).await;
    }

    /// Reserves memory, waiting up to `patience`.
    pub(super) async fn wait(self: &Arc<Self>, address: IpAddr, bytes: usize, patience: Duration) -> Option<Part> {
        if let Some(part) = self.take(address, bytes) {
            return Some(part);
        }
        let waiting = Waiting::of(&self.waiting);
        if waiting.number > MAX_WAITING {
            return None;
        }
        let deadline = Instant::now() + patience;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(part) = self.take(address, bytes) {
                return Some(part);
            }
            tokio::time::timeout_at(deadline, freed).await.ok()?;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut used = self.budget.lock();
        used.all -= self.bytes;
        if let Some(of_address) = used.by_address.get_mut(&self.address) {
            *of_address -= self.bytes;
            if *of_address == 0 {
                used.by_address.remove(&self.address);
            }
        }
        drop(used);
        self.budget.freed.notify_waiters();
    }
}

/// A waiting request, counted.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    number: usize,
}

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        Self { number: count.fetch_add(1, Ordering::Relaxed) + 1, count }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_keeps_its_pace_after_a_burst() {
        let budget = Budget::new(usize::MAX, usize::MAX);
        let (busy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let began = Instant::now();
        budget.pace(busy, 4 * 1024 * 1024).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "a burst is not delayed");
        for _ in 0..4 {
            budget.pace(busy, 4 * 1024 * 1024).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1), "16 MiB take a second");
        budget.pace(other, 4 * 1024 * 1024).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1), "others are not delayed");
        tokio::time::sleep(Duration::from_secs(2)).await;
        budget.pace(other, 1).await;
        assert_eq!(budget.paced.lock().expect("no panic").len(), 1, "who is not ahead is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_shared_by_all_and_by_each_address() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let budget = Budget::new(100, 60);
        let patience = Duration::from_secs(5);
        let one = budget.wait(address(1), 60, patience).await;
        assert!(one.is_some() && budget.wait(address(1), 1, patience).await.is_none(), "its address is full");
        let two = budget.wait(address(2), 40, patience).await;
        assert!(two.is_some() && budget.wait(address(3), 1, patience).await.is_none(), "all is full");
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.wait(address(1), 10, patience).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(one);
        assert!(waiting.await.expect("no panic"), "what is given back goes to who waits");
        drop(two);
        assert!(budget.used() == 0 && budget.lock().by_address.is_empty());
        assert!(budget.take(address(4), 200).is_some(), "one alone is not refused for its size");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_memory_ends_with_its_patience() {
        let budget = Budget::new(10, 10);
        let address = IpAddr::from([192, 0, 2, 1]);
        let held = budget.take(address, 10);
        let began = Instant::now();
        assert!(budget.wait(address, 1, Duration::from_secs(5)).await.is_none());
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(budget.waiting.load(Ordering::Relaxed), 0, "who gave up no longer waits");
        drop(held);
        assert!(budget.wait(address, 1, Duration::ZERO).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_requests_wait_for_memory() {
        let budget = Budget::new(10, 10);
        let address = IpAddr::from([192, 0, 2, 1]);
        let _held = budget.take(address, 10);
        let waits = (0..MAX_WAITING).map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move { budget.wait(address, 1, Duration::from_secs(60)).await.is_some() })
        });
        let _waits: Vec<_> = waits.collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        assert!(budget.wait(address, 1, Duration::from_secs(60)).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO, "one more is refused at once");
    }

    #[test]
    fn addresses_of_one_network_share_their_part() {
        let budget = Budget::new(100, 50);
        let six = |text: &str| text.parse::<IpAddr>().expect("an address");
        let held = budget.take(six("2001:db8::1"), 50);
        assert!(budget.take(six("2001:db8::ffff:2"), 1).is_none(), "one network of 64 bits is one client");
        assert!(budget.take(six("2001:db8:0:1::1"), 1).is_some());
        assert!(held.is_some());
        let four = budget.take(six("::ffff:192.0.2.1"), 50);
        assert!(four.is_some() && budget.take(six("192.0.2.1"), 1).is_none(), "a mapped address is the address");
    }

    #[test]
    fn one_byte_beyond_the_limit_does_not_fit() {
        let budget = Budget::new(100, 60);
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let one = budget.take(address(1), 30);
        assert!(budget.take(address(1), 31).is_none());
        let two = budget.take(address(1), 30);
        let other = budget.take(address(2), 40);
        assert!(one.is_some() && two.is_some() && other.is_some());
        assert_eq!(budget.used(), 100);
        drop((one, two));
        assert_eq!((budget.used(), budget.lock().by_address.len()), (40, 1));
    }
}
