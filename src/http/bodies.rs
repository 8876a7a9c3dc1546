//! Request bodies: each has a deadline, a minimum speed and a share of one memory budget, whatever its content and
//! encoding.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::{body::BodyDataStream, extract::Request, http::header};
use bytes::{Bytes, BytesMut};
use hyper::body::Body as _;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_stream::StreamExt;

use super::{
    activity::Activity,
    budget::{Budget, Part},
    codes::ErrorCode,
    limits::Limits,
    problem::Problem,
};

/// A body over the limit is drained up to this size, bytes: a client that is still sending does not read a response.
const MAX_DRAINED: usize = 16 * 1024 * 1024;
/// Bodies drained concurrently: that costs no memory, but time. Beyond it rejected clients are disconnected.
static DRAINS: Semaphore = Semaphore::const_new(2);
/// How long a rejection for want of memory is held back: a client that repeats its request at once, with the body, costs
/// more than one that waits.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Bodies up to this size do not use the budget while their connection has capacity, bytes.
const SMALL: usize = 16 * 1024;
/// Capacity of one connection for small bodies, bytes.
const SMALL_OF_CONNECTION: usize = 32 * 1024;

/// The share of one request in the budget, held until the response.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    budget: Arc<Budget>,
    limits: Limits,
    address: IpAddr,
    activity: Option<Arc<Activity>>,
    held: Mutex<Vec<Held>>,
}

/// Released on drop.
#[derive(Debug)]
enum Held {
    OfBudget { _part: Part },
    OfConnection { activity: Arc<Activity>, bytes: usize },
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::OfConnection { activity, bytes } = self {
            activity.small_bodies.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

impl Share {
    pub(super) fn new(budget: &Arc<Budget>, limits: Limits, address: IpAddr, activity: Option<Arc<Activity>>) -> Self {
        Self(Arc::new(Parts { budget: budget.clone(), limits, address, activity, held: Mutex::default() }))
    }

    fn keep(&self, held: Held) {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    /// Takes from the allowance of the connection itself.
    fn takes_small(&self, bytes: usize) -> bool {
        let Some(activity) = &self.0.activity else { return false };
        let before = activity.small_bodies.fetch_add(bytes, Ordering::Relaxed);
        // Dropping it reverts the addition if it does not fit.
        let held = Held::OfConnection { activity: activity.clone(), bytes };
        let fits = before + bytes <= SMALL_OF_CONNECTION;
        if fits {
            self.keep(held);
        }
        fits
    }

    async fn takes(&self, bytes: usize) -> Result<(), Problem> {
        if bytes <= SMALL && self.takes_small(bytes) {
            return Ok(());
        }
        let Some(part) = self.0.budget.wait(self.0.address, bytes, self.0.limits.body_wait).await else {
            tokio::time::sleep(REFUSAL_DELAY).await;
            let detail =
                "too many request bodies are being received, in total or from your IP address; retry in a second";
            return Err(Problem::new(ErrorCode::TooManyBodies, detail));
        };
        self.keep(Held::OfBudget { _part: part });
        self.0.budget.pace(self.0.address, bytes).await;
        Ok(())
    }
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// 413 if it is larger, 408 if it does not arrive in time, 503 if no memory is available.
pub async fn body_up_to(request: Request, most: usize) -> Result<Bytes, Problem> {
    let share = request.extensions().get::<Share>().cloned();
    let limits = share.as_ref().map_or_else(Limits::default, |share| share.0.limits);
    let expects = request.headers().contains_key(header::EXPECT);
    let length = request.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if length.is_some_and(|length| length > MAX_DRAINED || expects && length > most) {
        return Err(too_large(most));
    }
    let wanted = length.unwrap_or(SMALL);
    // A rejected body is drained, which takes no memory.
    let mut refusal = if wanted > most { Some(too_large(most)) } else { share.reserve(wanted).await.err() };
    let mut drains = None;
    if let Some(problem) = refusal.take() {
        if expects || !begins_to_drain(&mut drains) {
            return Err(problem);
        }
        refusal = Some(problem);
    }
    let mut reading = Reading::new(request.into_body().into_data_stream(), limits);
    let mut room = wanted;
    let mut read = BytesMut::new();
    while reading.received <= MAX_DRAINED
        && let Some(chunk) = reading.next().await?
    {
        if reading.received > most {
            refusal = refusal.or_else(|| Some(too_large(most)));
        } else if reading.received > room && refusal.is_none() {
            room = most;
            refusal = share.reserve(most - wanted).await.err();
        }
        match refusal.take() {
            None => read.extend_from_slice(&chunk),
            Some(problem) => {
                read = BytesMut::new();
                share.give_back();
                if !begins_to_drain(&mut drains) {
                    return Err(problem);
                }
                refusal = Some(problem);
            }
        }
    }
    match refusal {
        Some(problem) => Err(problem),
        None if reading.received > most => Err(too_large(most)),
        None => Ok(read.freeze()),
    }
}

/// Whether the rest of a body may be drained.
fn begins_to_drain(drains: &mut Option<SemaphorePermit<'static>>) -> bool {
    if drains.is_none() {
        *drains = DRAINS.try_acquire().ok();
    }
    drains.is_some()
}

/// Number of items in a body: lines, elements of an array, or one. Counted before parsing, since parsed items take many
/// times their bytes.
pub(super) fn items(body: &[u8], lines: bool) -> usize {
    if lines {
        return body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    }
    let (mut depth, mut in_text, mut escaped, mut commas) = (0_usize, false, false, 0);
    for byte in body {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, b',') if depth == 1 => commas += 1,
            _ => {}
        }
    }
    if body.trim_ascii_start().starts_with(b"[") { commas + 1 } else { 1 }
}

fn too_large(most: usize) -> Problem {
    let detail = format!("request body exceeds {} MiB; split the request", most / 1024 / 1024);
    Problem::new(ErrorCode::BodyTooLarge, detail)
}

/// Without a share, as in another program's router, bodies are read without a budget.
trait Reserve {
    async fn reserve(&self, bytes: usize) -> Result<(), Problem>;
    fn give_back(&self);
}

impl Reserve for Option<Share> {
    async fn reserve(&self, bytes: usize) -> Result<(), Problem> {
        match self {
            Some(share) if bytes > 0 => share.takes(bytes).await,
            Some(_) | None => Ok(()),
        }
    }

    fn give_back(&self) {
        if let Some(share) = self {
            share.0.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// A body being read.
struct Reading {
    chunks: BodyDataStream,
    limits: Limits,
    began: Instant,
    received: usize,
}

impl Reading {
    fn new(chunks: BodyDataStream, limits: Limits) -> Self {
        Self { chunks, limits, began: Instant::now(), received: 0 }
    }

    /// When reading times out: at the total deadline, or when the average speed falls below the minimum.
    fn deadline(&self) -> Instant {
        let seconds = self.received as f64 / f64::from(self.limits.body_floor);
        let slowest = Duration::from_secs_f64(seconds).max(self.limits.body_grace);
        self.began + slowest.min(self.limits.body)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let next = tokio::time::timeout_at(self.deadline(), self.chunks.next()).await.map_err(|_| {
            let detail = "request body timed out; send it faster, or split the request";
            Problem::new(ErrorCode::BodyTimeout, detail)
        })?;
        let chunk = next.transpose().map_err(|_| {
            let detail = "incomplete request body";
            Problem::new(ErrorCode::IncompleteBody, detail)
        })?;
        self.received += chunk.as_ref().map_or(0, Bytes::len);
        Ok(chunk)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn things_are_counted_before_they_are_read() {
        for (body, lines, count) in [
            (&br#"[{"a":[1,2,3],"b":"],,\",["},7]"#[..], false, 2),
            (br#" {"a":1,"b":2}"#, false, 1),
            (b"[1,1,1,1]", false, 4),
            (b"{}\n\n {}\n", true, 2),
        ] {
            assert_eq!(items(body, lines), count, "{}", String::from_utf8_lossy(body));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_keeps_its_share_until_it_is_answered() {
        let budget = Budget::new(100_000, 100_000);
        let address = IpAddr::from([192, 0, 2, 1]);
        let activity = Activity::new();
        let read = |bytes: usize| {
            let share = Share::new(&budget, Limits::default(), address, Some(activity.clone()));
            let mut request = Request::new(axum::body::Body::from(vec![b'x'; bytes]));
            request.extensions_mut().insert(share.clone());
            async move { (body_up_to(request, 60_000).await.map(|read| read.len()).map_err(|p| p.code), share) }
        };
        let (small, small_share) = read(10_000).await;
        assert_eq!((small, activity.small_bodies.load(Ordering::Relaxed), budget.used()), (Ok(10_000), 10_000, 0));
        let (large, large_share) = read(60_000).await;
        assert_eq!((large, budget.used()), (Ok(60_000), 60_000));
        assert_eq!(read(60_000).await.0, Err(ErrorCode::TooManyBodies));
        assert_eq!(read(60_001).await.0, Err(ErrorCode::BodyTooLarge));
        drop((small_share, large_share));
        assert_eq!((activity.small_bodies.load(Ordering::Relaxed), budget.used()), (0, 0));
        assert_eq!(read(60_000).await.0, Ok(60_000));
    }

    fn read(
        body: axum::body::Body,
        length: Option<&str>,
        most: usize,
    ) -> impl Future<Output = Result<usize, ErrorCode>> {
        let mut request = Request::builder();
        if let Some(expect) = length {
            request = request.header(header::EXPECT, expect);
        }
        let request = request.body(body).unwrap();
        async move { body_up_to(request, most).await.map(|read| read.len()).map_err(|problem| problem.code) }
    }

    /// A body of unknown length, in pieces.
    fn pieces(count: usize, bytes: usize, pause: Duration) -> axum::body::Body {
        let piece = move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))
        };
        axum::body::Body::from_stream(futures_util::stream::iter(0..count).then(piece))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_as_large_as_allowed_and_not_a_byte_larger() {
        let of = |bytes: usize| axum::body::Body::from(vec![b'x'; bytes]);
        assert_eq!(read(of(0), None, 0).await, Ok(0));
        assert_eq!(read(of(1_000), None, 1_000).await, Ok(1_000));
        assert_eq!(read(of(1_001), None, 1_000).await, Err(ErrorCode::BodyTooLarge));
        assert_eq!(read(of(1_001), Some("100-continue"), 1_000).await, Err(ErrorCode::BodyTooLarge));
        assert_eq!(
            read(pieces(10, 10_000, Duration::ZERO), None, 100_000).await,
            Ok(100_000),
            "a length is not needed"
        );
        assert_eq!(read(pieces(11, 10_000, Duration::ZERO), None, 100_000).await, Err(ErrorCode::BodyTooLarge));
        assert!(too_large(4 * 1024 * 1024).detail.contains("exceeds 4 MiB"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_refused() {
        let limits = Limits::default();
        let began = Instant::now();
        let slow = pieces(1_000, 10, limits.body_grace + Duration::from_millis(1));
        assert_eq!(read(slow, None, 100_000).await, Err(ErrorCode::BodyTimeout));
        assert_eq!(began.elapsed(), limits.body_grace, "long before its last chance");
        let steady = pieces(20, 10_000, Duration::from_secs(1));
        assert_eq!(read(steady, None, 1_000_000).await, Ok(200_000), "10 kB a second will do");
        let endless = pieces(100, 10_000, Duration::from_secs(1));
        assert_eq!(read(endless, None, 10_000_000).await, Err(ErrorCode::BodyTimeout), "but not forever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_ends_early_is_incomplete() {
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
        let read = read(axum::body::Body::from_stream(broken), None, 1_000).await;
        assert_eq!(read, Err(ErrorCode::IncompleteBody));
    }

    proptest! {
        /// The number of items is counted right for any array, and never too low for what is no JSON.
        #[test]
        fn items_are_counted_without_being_read(
            values in proptest::collection::vec("[a,\\[\\]{}\"\\\\ä ]{0,6}", 1..8),
            nested in any::<bool>(),
        ) {
            let json = |value: &String| if nested { serde_json::json!([[value, 1], { value: 2 }]) } else { serde_json::json!(value) };
            let array = serde_json::Value::from(values.iter().map(json).collect::<Vec<_>>());
            prop_assert_eq!(items(array.to_string().as_bytes(), false), values.len());
            prop_assert_eq!(items(format!(" \n{array:#}").as_bytes(), false), values.len());
        }
    }
}
