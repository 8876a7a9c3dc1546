//! Activity of a connection: requests in flight, idle time, and write progress of each HTTP/2 stream.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::coop,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Times are stored as milliseconds since this instant.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    // Starts at one: zero means unset.
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// One connection and its usage of the limits.
#[derive(Debug)]
pub(super) struct Activity {
    requests: AtomicUsize,
    idle_since: AtomicU64,
    was_asked: AtomicBool,
    /// A write is blocked until the peer reads.
    blocked: AtomicBool,
    /// Bytes of responses not yet sent.
    pub(super) unread: AtomicUsize,
    /// Bytes of small request bodies.
    pub(super) small_bodies: AtomicUsize,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now_ms()),
            was_asked: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unread: AtomicUsize::new(0),
            small_bodies: AtomicUsize::new(0),
        })
    }

    /// Registers a request.
    pub(super) fn begins(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Whether there has been a request.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    pub(super) fn is_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    pub(super) fn writes_again(&self) {
        self.idle_since.store(now_ms(), Ordering::Relaxed);
        self.blocked.store(false, Ordering::Relaxed);
    }

    /// How long there has been neither a request nor data to send; `None` while there is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let idle_since = self.idle_since.load(Ordering::Relaxed);
        let is_idle = self.requests.load(Ordering::Relaxed) == 0 && !self.blocked.load(Ordering::Relaxed);
        is_idle.then(|| Duration::from_millis(now_ms().saturating_sub(idle_since)))
    }
}

/// A request until its response has been sent.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since.store(now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Write progress of one HTTP/2 stream.
#[derive(Debug, Default)]
pub(super) struct WriteProgress {
    /// Since when a write has been blocked; 0 if none is.
    blocked_since: AtomicU64,
    /// The client read nothing for too long.
    pub(super) stalled: Arc<AtomicBool>,
}

impl WriteProgress {
    pub(super) fn waits_for_us(&self) {
        self.blocked_since.store(0, Ordering::Relaxed);
    }

    pub(super) fn waits_for_client(&self) {
        self.blocked_since.store(now_ms(), Ordering::Relaxed);
    }

    fn blocked_for(&self) -> Duration {
        match self.blocked_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms().saturating_sub(since)),
        }
    }
}

/// A cancellation signal for all connections.
#[derive(Debug, Default)]
pub(super) struct Signal {
    /// Set before wake-ups, so that a frequently polled task only has to load this flag.
    raised: AtomicBool,
    wake: CancellationToken,
}

impl Signal {
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.wake.cancel();
    }

    /// Waits for the signal.
    pub(super) async fn raised(&self) {
        self.wake.cancelled().await;
    }
}

/// Registers for the wake-up once; later polls only check the flag.
pub(super) struct Glance {
    signal: Arc<Signal>,
    wake: Pin<Box<WaitForCancellationFutureOwned>>,
    asked: bool,
}

impl Glance {
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        Self { wake: Box::pin(signal.wake.clone().cancelled_owned()), signal, asked: false }
    }

    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let over =
            if self.asked { self.signal.raised.load(Ordering::SeqCst) } else { self.wake.as_mut().poll(cx).is_ready() };
        self.asked = true;
        over
    }
}

/// A timer that is polled only once each time it is set.
pub(super) struct Alarm {
    timer: Pin<Box<Sleep>>,
    armed: bool,
}

impl Alarm {
    pub(super) fn after(time: Duration) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(time)), armed: false }
    }

    pub(super) fn set(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
        self.armed = false;
    }

    pub(super) fn rang(&mut self, cx: &mut Context<'_>) -> bool {
        if self.armed {
            return self.timer.is_elapsed();
        }
        // Without tokio's coop budget: a poll refused because of it would not register the waker.
        let rang = pin!(coop::unconstrained(self.timer.as_mut())).poll(cx).is_ready();
        self.armed = !rang;
        rang
    }
}

/// The task of one HTTP/2 stream: it is aborted when its client reads nothing for too long, or when all connections are
/// aborted.
pub(super) struct Watched {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    progress: Arc<WriteProgress>,
    patience: Duration,
    alarm: Alarm,
    cut: Glance,
}

impl Watched {
    pub(super) fn new(
        work: impl Future<Output = ()> + Send + 'static,
        progress: Arc<WriteProgress>,
        patience: Duration,
        cut: Arc<Signal>,
    ) -> Self {
        Self { work: Box::pin(work), progress, patience, alarm: Alarm::after(patience), cut: Glance::new(cut) }
    }
}

impl Future for Watched {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.work.as_mut().poll(cx).is_ready() || this.cut.is_over(cx) {
            return Poll::Ready(());
        }
        while this.alarm.rang(cx) {
            let left = this.patience.saturating_sub(this.progress.blocked_for());
            if left.is_zero() {
                this.progress.stalled.store(true, Ordering::Relaxed);
                return Poll::Ready(());
            }
            this.alarm.set(left);
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_between_its_requests() {
        let activity = Activity::new();
        assert!(!activity.was_asked());
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(activity.idle_for(), Some(5 * SECOND));
        let (one, two) = (activity.begins(), activity.begins());
        assert!(activity.was_asked());
        drop(one);
        assert_eq!(activity.idle_for(), None, "the other is still answered");
        tokio::time::advance(5 * SECOND).await;
        drop(two);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(activity.idle_for(), Some(2 * SECOND), "since the end of the last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_something_to_send_is_not_idle() {
        let activity = Activity::new();
        activity.is_blocked();
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(activity.idle_for(), None);
        activity.writes_again();
        tokio::time::advance(SECOND).await;
        assert_eq!(activity.idle_for(), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_blocked_since_its_client_stopped_reading() {
        let progress = WriteProgress::default();
        assert_eq!(progress.blocked_for(), Duration::ZERO);
        progress.waits_for_client();
        tokio::time::advance(3 * SECOND).await;
        assert_eq!(progress.blocked_for(), 3 * SECOND);
        progress.waits_for_us();
        assert_eq!(progress.blocked_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_reads_nothing_is_cut() {
        let progress = Arc::new(WriteProgress::default());
        let began = Instant::now();
        let stuck = Watched::new(std::future::pending(), progress.clone(), 10 * SECOND, Arc::default());
        let stuck = tokio::spawn(stuck);
        tokio::time::sleep(4 * SECOND).await;
        progress.waits_for_client();
        stuck.await.unwrap();
        assert_eq!(began.elapsed(), 14 * SECOND, "ten seconds after the client stopped");
        assert!(progress.stalled.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_us_is_not_cut() {
        let progress = Arc::new(WriteProgress::default());
        let cut = Arc::new(Signal::default());
        let quiet = tokio::spawn(Watched::new(std::future::pending(), progress.clone(), 10 * SECOND, cut.clone()));
        tokio::time::sleep(1_000 * SECOND).await;
        assert!(!quiet.is_finished());
        cut.raise();
        quiet.await.unwrap();
        assert!(!progress.stalled.load(Ordering::Relaxed), "it was ended for all, not for its client");
        let done = Watched::new(async {}, progress, 10 * SECOND, cut);
        done.await;
    }

    #[tokio::test]
    async fn a_signal_reaches_those_who_look_later() {
        let signal = Arc::new(Signal::default());
        let (mut early, mut late) = (Glance::new(signal.clone()), Glance::new(signal.clone()));
        let look = |glance: &mut Glance| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            glance.is_over(&mut cx)
        };
        assert!(!look(&mut early) && !look(&mut early));
        signal.raise();
        assert!(look(&mut early) && look(&mut late));
        signal.raised().await;
    }
}
