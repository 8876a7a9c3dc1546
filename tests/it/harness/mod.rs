//! The words that tests are written in.

pub(crate) mod app;
pub(crate) mod browser;
pub(crate) mod cluster;
pub(crate) mod fixture;
pub(crate) mod packages;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod sse;

use std::{future::Future, time::Duration};

pub(crate) use app::{TestApp, TestWorker};
pub(crate) use sse::{Frame, Stream};

/// Longest wait for a condition. Passing tests never come near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, or says which one did not.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "this did not come true in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
