//! One connection: HTTP/1.1 or HTTP/2 without TLS (h2c), with one deadline from accept to the first request, and an
//! idle timeout.

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
    activity::{Activity, Alarm, Glance, Signal, Watched, WriteProgress},
    health::Probe,
    limits::Limits,
    socket::{First, Socket},
    stream::Outgoing,
};
use crate::feed::stream_registry::Peer;

/// Read buffer of an HTTP/1 connection, bytes; headers must fit.
const BUFFER: usize = 32 * 1024;
/// Maximum size of request headers in HTTP/2, bytes.
const HEADER_BYTES: u32 = 16 * 1024;
/// Send buffer of one HTTP/2 stream, bytes.
const STREAM_BUFFER: usize = 32 * 1024;
/// HTTP/2 flow control window for data from the client, bytes: the minimum that the protocol allows.
const WINDOW: u32 = 64 * 1024;

/// State shared by all connections.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) probe: Probe,
    pub(super) limits: Limits,
    /// Shutdown: a connection closes after its last response.
    pub(super) stopping: Arc<Signal>,
    /// Aborts all connections that are still open.
    pub(super) cut: Arc<Signal>,
    pub(super) tasks: TaskTracker,
}

/// Why serving a connection ended.
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
    /// Only `/healthz` is served.
    is_reserve: bool,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, address: std::net::IpAddr, is_reserve: bool) -> Self {
        let stuck = Arc::new(AtomicBool::new(false));
        let peer = Peer { address, stalled: stuck.clone(), stuck };
        Self { shared, activity: Activity::new(), peer, is_reserve }
    }

    /// Serves the connection until it ends. Its errors are of no interest to the server.
    pub(super) async fn run(self, mut stream: TcpStream) {
        let deadline = Instant::now() + self.longest_idle();
        let mut first = First::default();
        let second = tokio::select! {
            version = tokio::time::timeout_at(deadline, first.read(&mut stream)) => match version {
                Ok(Ok(second)) => second,
                Ok(Err(_)) | Err(_) => return,
            },
            () = self.shared.stopping.raised() => return,
        };
        let (patience, shared) = (self.shared.limits.stuck, self.shared.clone());
        let socket = Socket::new(stream, first, patience, self.activity.clone(), self.peer.stuck.clone());
        let served = async { if second { self.http2(socket).await } else { self.http1(socket).await } };
        // Polled whenever the connection is, which is for each event of a stream, so it must be cheap.
        let mut cut = Glance::new(shared.cut.clone());
        let mut served = std::pin::pin!(served);
        std::future::poll_fn(|cx| {
            if served.as_mut().poll(cx).is_ready() || cut.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn http1(&self, socket: Socket) {
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

    async fn http2(&self, socket: Socket) {
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
                // Its last response may still be in transit.
                let rest = if self.activity.was_asked() { limits.headers } else { Duration::ZERO };
                let _ = tokio::time::timeout(rest, connection).await;
            }
        }
    }

    /// Serves one request. Liveness checks are answered here, before anything that may be busy.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        progress: Option<Arc<WriteProgress>>,
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
        // The future is boxed, so that an open stream does not keep the memory of its request.
        Box::pin(async move { answer.await.map(|answer| Outgoing::of(answer, head, in_flight, progress)) })
    }

    /// Idle timeout.
    fn longest_idle(&self) -> Duration {
        let limits = &self.shared.limits;
        if self.is_reserve { limits.reserve_time } else { limits.headers }
    }

    /// Polls a connection until it ends, the server shuts down, or it was idle for too long. The connection of a stream
    /// is polled for each event, so the other conditions are checked cheaply.
    async fn until(&self, mut connection: Pin<&mut impl Future>) -> Why {
        let longest = self.longest_idle();
        let mut stopping = Glance::new(self.shared.stopping.clone());
        let mut alarm = Alarm::after(longest.saturating_sub(self.activity.idle_for().unwrap_or_default()));
        std::future::poll_fn(|cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Why::Ended);
            }
            if stopping.is_over(cx) {
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

/// Spawns the streams of one HTTP/2 connection. hyper calls the service and submits its task in sequence, so the task
/// belongs to the request of the last call.
#[derive(Clone)]
struct Streams {
    shared: Arc<Shared>,
    called: Arc<Mutex<Option<Arc<WriteProgress>>>>,
}

impl Streams {
    fn called(&self) -> Arc<WriteProgress> {
        let progress = Arc::new(WriteProgress::default());
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
