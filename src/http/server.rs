//! The accept loop: connection slots, small buffers, and a graceful shutdown with a timeout.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Connection, Shared},
    connection_slots::ConnectionSlots,
    health::Probe,
    limits::Limits,
};
use crate::config::Settings;

/// Listen backlog, as far as the system allows: all clients reconnect within seconds of a restart.
const BACKLOG: u32 = 4_096;
/// Kernel send buffer for a slow reader, bytes (the kernel doubles this).
const SEND_BUFFER: usize = 128 * 1024;
/// Kernel receive buffer, bytes (the kernel doubles this): a body that is rejected must not have been copied as a whole
/// before.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// TCP user timeout: a peer that acknowledges nothing for this long is dead, milliseconds.
const VANISHED_MS: u32 = 30_000;
/// How long aborted tasks may take to end.
const CUT: Duration = Duration::from_millis(500);
/// Delay after accept failed (too many open files).
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket.
///
/// # Errors
/// The address is unavailable.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit these.
    socket.set_send_buffer_size(u32::try_from(SEND_BUFFER).unwrap_or(u32::MAX))?;
    socket.set_recv_buffer_size(u32::try_from(RECEIVE_BUFFER).unwrap_or(u32::MAX))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stopping` is cancelled and all connections have ended or were aborted.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    limits: Limits,
    stopping: CancellationToken,
) {
    let limits = fitted(limits, settings);
    let places = ConnectionSlots::new(limits, &settings.trusted_proxies);
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        router,
        probe: Probe::new(settings),
        limits,
        stopping: Arc::default(),
        cut: Arc::default(),
        tasks: tasks.clone(),
    });
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = stopping.cancelled() => break,
        };
        // Without a slot, not even in the reserve, it is closed.
        let Some(place) = places.enter(address.ip()) else { continue };
        prepare(&stream);
        let connection = Connection::new(shared.clone(), address.ip(), place.is_reserve);
        tasks.spawn(async move {
            connection.run(stream).await;
            drop(place);
        });
    }
    drop(listener);
    shared.stopping.raise();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "closing connections that did not drain in time");
        shared.cut.raise();
        let _ = tokio::time::timeout(CUT, tasks.wait()).await;
    }
}

fn prepare(stream: &TcpStream) {
    // Frames are small and must be sent immediately.
    let _ = stream.set_nodelay(true);
    // Not supported on every system; then the kernel's default timeout applies.
    let _ = sockopt::set_tcp_user_timeout(stream, VANISHED_MS);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// The limits adjusted to the settings and to the maximum number of open files.
fn fitted(limits: Limits, settings: &Settings) -> Limits {
    let limits = limits.with_streams_per_address(settings.stream_max_per_address as usize);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = files.map_or(limits, |files| limits.within(usize::try_from(files).unwrap_or(usize::MAX)));
    let wanted = settings.stream_max_clients as usize;
    if limits.connections < wanted {
        tracing::warn!(
            connections = limits.connections,
            wanted,
            "open file limit (ulimit -n, LimitNOFILE) is below --stream-max-clients; raise it"
        );
    }
    limits
}

/// Raises the soft limit of open files to the hard limit: each stream needs one. For programs, not for libraries: it
/// affects the whole process.
pub fn raise_file_limit() {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(resource, raised) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}
