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
