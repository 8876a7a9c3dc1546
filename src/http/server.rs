//! The accept loop: header time-out, small buffers, a cap on connections, graceful end.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::socket::Socket;

/// Time from the first byte of a connection (or the end of the last answer) to the end of a request's headers.
const HEADERS: Duration = Duration::from_secs(15);
/// Read buffer of a connection; headers must fit.
const BUFFER: usize = 32 * 1024;
/// Connections open at once.
const CONNECTIONS: usize = 20_000;
/// How long open connections may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping` is cancelled and the connections have ended.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
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
        let (router, stopping) = (router.clone(), stopping.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER);
            let connection = builder.serve_connection(TokioIo::new(Socket::new(stream)), service);
            let mut connection = std::pin::pin!(connection);
            // A connection that breaks is the peer's business.
            let ended = tokio::select! {
                _ = connection.as_mut() => true,
                () = stopping.cancelled() => false,
            };
            if !ended {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
            drop(place);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN, places.acquire_many(all)).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
}
