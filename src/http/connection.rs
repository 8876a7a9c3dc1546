//! One connection: HTTP/1.1 or HTTP/2 without TLS (h2c), one deadline from its accept to its first request, and an end
//! when it asks for nothing.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    task::Poll,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{
    Method, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{
    activity::{Activity, Alarm, Glance, Progress, Signal, Watched},
    health::Probe,
    limits::Limits,
    socket::{First, Socket},
    stream::Outgoing,
};
use crate::feed::ledger::Peer;

/// Read buffer of a connection of HTTP/1; headers must fit.
const BUFFER: usize = 32 * 1024;
/// Largest headers of a request of HTTP/2, bytes.
const HEADER_BYTES: u32 = 16 * 1024;
/// What one HTTP/2 stream may have buffered on its way out, bytes.
const STREAM_BUFFER: usize = 32 * 1024;
/// What a client of HTTP/2 may send ahead of those who read it, bytes: the least that the protocol allows.
const WINDOW: u32 = 64 * 1024;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) probe: Probe,
    pub(super) limits: Limits,
    /// The server stops: a connection ends with its last answer.
    pub(super) ending: Arc<Signal>,
    /// Whatever is still open ends now.
    pub(super) cut: Arc<Signal>,
    pub(super) tasks: TaskTracker,
}

/// How serving a connection came to its end.
enum Why {
    Ended,
    Stopping,
    Idle,
}

/// One connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    peer: Peer,
    /// Only `/healthz` is answered.
    is_reserve: bool,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, address: std::net::IpAddr, is_reserve: bool) -> Self {
        let stuck = Arc::new(AtomicBool::new(false));
        let peer = Peer { address, stalled: stuck.clone(), stuck };
        Self { shared, activity: Activity::new(), peer, is_reserve }
    }

    /// Serves it to its end. One that breaks is the peer's business.
    pub(super) async fn run(self, mut stream: TcpStream) {
        let deadline = Instant::now() + self.longest_idle();
        let mut first = First::default();
        let second = tokio::select! {
            version = tokio::time::timeout_at(deadline, first.read(&mut stream)) => match version {
                Ok(Ok(second)) => second,
                Ok(Err(_)) | Err(_) => return,
            },
            () = self.shared.ending.raised() => return,
        };
        let (patience, shared) = (self.shared.limits.stuck, self.shared.clone());
        let socket = Socket::new(stream, first, patience, self.activity.clone(), self.peer.stuck.clone());
        let served = async { if second { self.second(socket).await } else { self.first(socket).await } };
        // What is polled for each event of a stream is what is in here, not this.
        let mut cut = Glance::new(shared.cut.clone());
        let mut served = std::pin::pin!(served);
        std::future::poll_fn(|cx| {
            if served.as_mut().poll(cx).is_ready() || cut.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn first(&self, socket: Socket) {
        let mut builder = http1::Builder::new();
        let limits = self.shared.limits;
        builder.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(BUFFER);
        builder.keep_alive(!self.is_reserve);
        let service = service_fn(|request| self.answer(request, None));
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
        if let Why::Stopping = self.until(connection.as_mut()).await {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }

    async fn second(&self, socket: Socket) {
        let streams = Streams { shared: self.shared.clone(), called: Arc::default() };
        let mut builder = http2::Builder::new(streams.clone());
        let limits = self.shared.limits;
        builder.timer(TokioTimer::new()).keep_alive_interval(limits.headers).keep_alive_timeout(limits.headers);
        builder.max_concurrent_streams(limits.streams).max_send_buf_size(STREAM_BUFFER);
        builder.max_header_list_size(HEADER_BYTES);
        builder.initial_connection_window_size(WINDOW).initial_stream_window_size(WINDOW);
        let service = service_fn(|request| self.answer(request, Some(streams.called())));
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(socket), service));
        match self.until(connection.as_mut()).await {
            Why::Ended => {}
            Why::Stopping => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
            Why::Idle => {
                connection.as_mut().graceful_shutdown();
                // Its last answer may still be on its way.
                let rest = if self.activity.was_asked() { limits.headers } else { Duration::ZERO };
                let _ = tokio::time::timeout(rest, connection).await;
            }
        }
    }

    /// Answers one request: what asks whether the server lives is answered here, before everything that may be busy.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        progress: Option<Arc<Progress>>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Outgoing>, std::convert::Infallible>> + Send + 'static>> {
        let in_flight = self.activity.begins();
        let head = request.method() == Method::HEAD;
        if let Some(answer) = self.shared.probe.answer(&request, self.is_reserve) {
            return Box::pin(std::future::ready(Ok(Outgoing::of(answer, head, in_flight, progress))));
        }
        let stalled = progress.as_ref().map_or_else(|| self.peer.stalled.clone(), |own| own.stalled.clone());
        request.extensions_mut().insert(Peer { stalled, ..self.peer.clone() });
        request.extensions_mut().insert(self.activity.clone());
        let answer = self.shared.router.clone().oneshot(request.map(Body::new));
        // The future is boxed, so that an open stream does not hold the room that its request took.
        Box::pin(async move { answer.await.map(|answer| Outgoing::of(answer, head, in_flight, progress)) })
    }

    /// How long it may stay without a request.
    fn longest_idle(&self) -> Duration {
        let limits = &self.shared.limits;
        if self.is_reserve { limits.reserve_time } else { limits.headers }
    }

    /// Polls a connection until it has ended, the server stops, or nothing was asked of it for too long. A stream's
    /// connection is polled for each of its events, so this only glances at what else may happen.
    async fn until(&self, mut connection: Pin<&mut impl Future>) -> Why {
        let longest = self.longest_idle();
        let mut ending = Glance::new(self.shared.ending.clone());
        let mut alarm = Alarm::after(longest.saturating_sub(self.activity.idle_for().unwrap_or_default()));
        std::future::poll_fn(|cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Why::Ended);
            }
            if ending.is_over(cx) {
                return Poll::Ready(Why::Stopping);
            }
            while alarm.rang(cx) {
                match self.activity.idle_for() {
                    Some(idle) if idle >= longest => return Poll::Ready(Why::Idle),
                    Some(idle) => alarm.set(longest - idle),
                    None => alarm.set(longest),
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Runs the streams of one HTTP/2 connection. hyper calls the service and hands over its work one after the other, so
/// the work belongs to the request that was called last.
#[derive(Clone)]
struct Streams {
    shared: Arc<Shared>,
    called: Arc<Mutex<Option<Arc<Progress>>>>,
}

impl Streams {
    fn called(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
        progress
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, work: F) {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (patience, cut) = (self.shared.limits.stuck, self.shared.cut.clone());
        self.shared.tasks.spawn(Watched::new(work, called.unwrap_or_default(), patience, cut));
    }
}
