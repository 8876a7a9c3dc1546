//! The accept loop: HTTP/1.1 and HTTP/2 without TLS (h2c), header time-out, small buffers, a cap on connections,
//! graceful end.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{
    Method,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{outgoing::Outgoing, socket::Socket};
use crate::feed::ledger::Peer;

/// Time from the first byte of a connection (or the end of the last answer) to the end of a request's headers.
const HEADERS: Duration = Duration::from_secs(15);
/// Read buffer of a connection; headers must fit.
const BUFFER: usize = 32 * 1024;
/// Connections open at once.
const CONNECTIONS: usize = 20_000;
/// Connections that wait to be accepted, as far as the system allows: all clients of a server that was restarted come
/// back within seconds.
const BACKLOG: u32 = 4_096;
/// What the kernel keeps for a peer that reads slowly, bytes (it doubles this).
const SEND_BUFFER: usize = 128 * 1024;
/// A peer that acknowledges nothing for so long is gone.
const VANISHED_MS: u32 = 30_000;
/// Streams within one HTTP/2 connection.
const STREAMS: u32 = 200;
/// What one HTTP/2 stream may have buffered, bytes.
const STREAM_BUFFER: usize = 64 * 1024;
/// How long open connections may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(100);
/// Pause before the first bytes of a connection are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Opens the socket.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(u32::try_from(SEND_BUFFER).unwrap_or(u32::MAX))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stopping` is cancelled and the connections have ended.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let ending = Arc::new(Ending::default());
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((listener.accept().await?, place))
        };
        let ((stream, address), place) = tokio::select! {
            accepted = accept => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = stopping.cancelled() => break,
        };
        // Frames are small and must leave at once.
        let _ = stream.set_nodelay(true);
        // Not every system knows it; then the kernel's own patience holds.
        let _ = sockopt::set_tcp_user_timeout(&stream, VANISHED_MS);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let peer = Peer { address: address.ip(), stuck: Arc::new(AtomicBool::new(false)) };
        let (router, ending) = (router.clone(), ending.clone());
        tokio::spawn(async move {
            connection(stream, peer, router, ending).await;
            drop(place);
        });
    }
    drop(listener);
    ending.begin();
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN, places.acquire_many(all)).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
}

/// Told to all connections when the server stops.
#[derive(Debug, Default)]
struct Ending {
    /// Set before anyone is woken, so that a connection needs no more than a glance.
    begun: AtomicBool,
    wake: CancellationToken,
}

impl Ending {
    fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        self.wake.cancel();
    }
}

/// One connection to its end. One that breaks is the peer's business.
async fn connection(stream: TcpStream, peer: Peer, router: Router, ending: Arc<Ending>) {
    let second = tokio::select! {
        version = tokio::time::timeout(HEADERS, is_http2(&stream)) => match version {
            Ok(Ok(second)) => second,
            Ok(Err(_)) | Err(_) => return,
        },
        () = ending.wake.cancelled() => return,
    };
    let socket = TokioIo::new(Socket::new(stream, peer.stuck.clone()));
    // The future is boxed, so that an open stream does not hold the room that its request took.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let head = request.method() == Method::HEAD;
        let answer = router.clone().oneshot(request.map(Body::new));
        Box::pin(async move { answer.await.map(|answer| Outgoing::of(answer, head)) })
    });
    if second {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(HEADERS).keep_alive_timeout(HEADERS);
        builder.max_concurrent_streams(STREAMS).max_send_buf_size(STREAM_BUFFER).max_header_list_size(16 * 1024);
        let mut connection = Box::pin(builder.serve_connection(socket, service));
        if !until(connection.as_mut(), &ending).await {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER);
        let mut connection = std::pin::pin!(builder.serve_connection(socket, service));
        if !until(connection.as_mut(), &ending).await {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Polls a connection until it has ended (true) or the server stops. A stream's connection is polled for each of its
/// events, so this asks once to be woken at the end and only glances at it then.
async fn until(mut connection: Pin<&mut impl Future>, ending: &Ending) -> bool {
    let mut wake = std::pin::pin!(ending.wake.cancelled());
    let mut asked = false;
    std::future::poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        let over = if asked { ending.begun.load(Ordering::SeqCst) } else { wake.as_mut().poll(cx).is_ready() };
        asked = true;
        if over { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// Looks at the first bytes, without taking them: HTTP/2 begins with `PRI`, and no request of HTTP/1 does.
async fn is_http2(stream: &TcpStream) -> std::io::Result<bool> {
    const PREFACE: &[u8] = b"PRI";
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || first[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
