//! The accept loop: places for connections, small buffers, a graceful end that is never waited for too long.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Connection, Shared},
    health::Probe,
    limits::Limits,
    places::Places,
};
use crate::config::Settings;

/// Connections that wait to be accepted, as far as the system allows: all clients of a server that was restarted come
/// back within seconds.
const BACKLOG: u32 = 4_096;
/// What the kernel keeps for a peer that reads slowly, bytes (it doubles this).
const SEND_BUFFER: usize = 128 * 1024;
/// What the kernel takes of a peer ahead of those who read it, bytes (it doubles this): a body that is refused must not
/// have been copied whole before.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// A peer that acknowledges nothing for so long is gone.
const VANISHED_MS: u32 = 30_000;
/// How long tasks that are cut may take to end.
const CUT: Duration = Duration::from_millis(500);
/// Pause after the system refused a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(u32::try_from(SEND_BUFFER).unwrap_or(u32::MAX))?;
    socket.set_recv_buffer_size(u32::try_from(RECEIVE_BUFFER).unwrap_or(u32::MAX))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stopping` is cancelled and the connections have ended or are cut.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    limits: Limits,
    stopping: CancellationToken,
) {
    let limits = fitted(limits, settings);
    let places = Places::new(limits, &settings.trusted_proxies);
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        router,
        probe: Probe::new(settings),
        limits,
        ending: Arc::default(),
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
        // One that finds no place, not even for a word, is closed.
        let Some(place) = places.enter(address.ip()) else { continue };
        prepare(&stream);
        let connection = Connection::new(shared.clone(), address.ip(), place.is_reserve);
        tasks.spawn(async move {
            connection.run(stream).await;
            drop(place);
        });
    }
    drop(listener);
    shared.ending.raise();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "some connections did not end in time and are cut");
        shared.cut.raise();
        let _ = tokio::time::timeout(CUT, tasks.wait()).await;
    }
}

fn prepare(stream: &TcpStream) {
    // Frames are small and must leave at once.
    let _ = stream.set_nodelay(true);
    // Not every system knows it; then the kernel's own patience holds.
    let _ = sockopt::set_tcp_user_timeout(stream, VANISHED_MS);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// The limits that the settings and the files that may be open leave.
fn fitted(limits: Limits, settings: &Settings) -> Limits {
    let limits = limits.with_streams_per_address(settings.stream_max_per_address as usize);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = files.map_or(limits, |files| limits.within(usize::try_from(files).unwrap_or(usize::MAX)));
    let wanted = settings.stream_max_clients as usize;
    if limits.connections < wanted {
        tracing::warn!(
            connections = limits.connections,
            wanted,
            "the limit on open files (ulimit -n, LimitNOFILE) allows fewer connections than --stream-max-clients; raise it"
        );
    }
    limits
}

/// Lets this process open as many files as it may: each stream needs one. For programs, not for libraries: it concerns
/// the whole process.
pub fn raise_file_limit() {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(resource, raised) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}
