//! Lifecycle callbacks: hooks that see every event. Each hook has its own queue and tokio task, so an error, a panic or
//! a hang is counted and logged, and blocks neither the tailer nor other hooks.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::event::Event;

/// Queue capacity of one hook, events; overflow is counted as skipped.
const QUEUE: usize = 16_384;

/// Return type of a hook.
pub type HookResult<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// Code called with each event, in order.
pub trait Hook: Send + Sync + 'static {
    /// Name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Handles one event. It must not block its thread; it times out after [`Hook::time_limit`].
    fn on_event(&self, event: Arc<Event>) -> HookResult<'_>;

    /// Timeout for one event.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// Counters of one hook.
#[derive(Debug, Default)]
pub struct HookCounters {
    /// Events handled successfully.
    pub done: AtomicU64,
    /// Events on which it returned an error.
    pub errors: AtomicU64,
    /// Events on which it panicked.
    pub panics: AtomicU64,
    /// Events on which it timed out.
    pub timeouts: AtomicU64,
    /// Events skipped because the queue was full.
    pub skipped: AtomicU64,
}

/// The registered hooks.
#[derive(Debug, Default, Clone)]
pub struct Callbacks {
    hooks: Vec<Registered>,
}

#[derive(Debug, Clone)]
struct Registered {
    name: &'static str,
    queue: mpsc::Sender<Arc<Event>>,
    counters: Arc<HookCounters>,
}

impl Callbacks {
    /// Registers a hook and spawns its task.
    pub fn register(&mut self, hook: impl Hook) {
        let (queue, events) = mpsc::channel(QUEUE);
        let counters = Arc::new(HookCounters::default());
        let hook = Arc::new(hook);
        self.hooks.push(Registered { name: hook.name(), queue, counters: counters.clone() });
        tokio::spawn(serve(hook, events, counters));
    }

    /// Enqueues an event for every hook without blocking.
    pub fn fire(&self, event: &Arc<Event>) {
        for hook in &self.hooks {
            if hook.queue.try_send(event.clone()).is_err() {
                hook.counters.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Names and counters of all hooks, for metrics.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, &HookCounters)> {
        self.hooks.iter().map(|hook| (hook.name, &*hook.counters))
    }
}

async fn serve<H: Hook>(hook: Arc<H>, mut events: mpsc::Receiver<Arc<Event>>, counters: Arc<HookCounters>) {
    while let Some(event) = events.recv().await {
        let kind = event.event_type;
        let call = {
            let hook = hook.clone();
            // A separate tokio task, so that a panic is contained.
            tokio::spawn(async move { hook.on_event(event).await })
        };
        let abort = call.abort_handle();
        let counter = match tokio::time::timeout(hook.time_limit(), call).await {
            Ok(Ok(Ok(()))) => &counters.done,
            Ok(Ok(Err(error))) => {
                tracing::warn!(hook = hook.name(), event_type = %kind, %error, "callback failed");
                &counters.errors
            }
            Ok(Err(_)) => {
                tracing::error!(hook = hook.name(), event_type = %kind, "callback panicked");
                &counters.panics
            }
            Err(_) => {
                abort.abort();
                tracing::error!(hook = hook.name(), event_type = %kind, "callback timed out");
                &counters.timeouts
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{clock::Time, event::Kind};

    /// What a hook does with an event.
    #[derive(Clone, Copy)]
    enum Does {
        Succeed,
        Fail,
        Panic,
        Hang,
    }

    struct Scripted(&'static str, Does);

    impl Hook for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }

        fn on_event(&self, _: Arc<Event>) -> HookResult<'_> {
            let does = self.1;
            Box::pin(async move {
                match does {
                    Does::Succeed => Ok(()),
                    Does::Fail => Err(anyhow::anyhow!("no")),
                    Does::Panic => panic!("a hook that panics, for a test"),
                    Does::Hang => std::future::pending().await,
                }
            })
        }

        fn time_limit(&self) -> Duration {
            if matches!(self.1, Does::Hang) { Duration::ZERO } else { Duration::from_secs(60) }
        }
    }

    fn event() -> Arc<Event> {
        Arc::new(Event::new(Kind::TaskCreated, Time::UNIX_EPOCH))
    }

    /// Done, errors, panics, timeouts, skipped.
    fn numbers(counters: &HookCounters) -> [u64; 5] {
        [&counters.done, &counters.errors, &counters.panics, &counters.timeouts, &counters.skipped]
            .map(|counter| counter.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn each_hook_counts_how_its_events_ended_and_goes_on() {
        let mut callbacks = Callbacks::default();
        for (name, does) in
            [("works", Does::Succeed), ("fails", Does::Fail), ("panics", Does::Panic), ("hangs", Does::Hang)]
        {
            callbacks.register(Scripted(name, does));
        }
        for _ in 0..3 {
            callbacks.fire(&event());
        }
        let all =
            |callbacks: &Callbacks| callbacks.counters().map(|(_, counters)| numbers(counters)).collect::<Vec<_>>();
        while all(&callbacks).iter().flatten().sum::<u64>() < 12 {
            tokio::task::yield_now().await;
        }
        assert_eq!(all(&callbacks), [[3, 0, 0, 0, 0], [0, 3, 0, 0, 0], [0, 0, 3, 0, 0], [0, 0, 0, 3, 0]]);
        assert_eq!(
            callbacks.counters().map(|(name, _)| name).collect::<Vec<_>>(),
            ["works", "fails", "panics", "hangs"]
        );
    }

    #[tokio::test]
    async fn a_hook_that_lags_skips_events_and_blocks_nobody() {
        let mut callbacks = Callbacks::default();
        callbacks.register(Scripted("slow", Does::Succeed));
        let event = event();
        // Its task does not run before this one waits.
        for _ in 0..QUEUE + 5 {
            callbacks.fire(&event);
        }
        let (_, counters) = callbacks.counters().next().unwrap();
        assert_eq!(numbers(counters), [0, 0, 0, 0, 5]);
    }

    #[test]
    fn without_hooks_nothing_happens() {
        let callbacks = Callbacks::default();
        callbacks.fire(&event());
        assert_eq!(callbacks.counters().count(), 0);
    }
}
