//! Resource limits of clients: times, bytes and counts. Tests shorten the times; a server uses the defaults.

use std::time::Duration;

/// File descriptors needed by the rest of the program: connections to the database, its own files, the listener.
const OTHER_FILES: usize = 96;
/// Minimum number of connections, even with few file descriptors.
const MIN_CONNECTIONS: usize = 16;

/// Limits of the server on its clients.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// From accept (or the end of the last response) to the end of a request's headers.
    pub headers: Duration,
    /// Maximum time without write progress to a client while there is something to send.
    pub stuck: Duration,
    /// From the end of a request's headers to the end of its body.
    pub body: Duration,
    /// After this time a body must have arrived at [`Limits::body_floor`] on average.
    pub body_grace: Duration,
    /// Minimum average speed of a body, bytes per second.
    pub body_floor: u32,
    /// Memory for request bodies from reading to response, total, bytes.
    pub bodies: usize,
    /// The same per IP address.
    pub bodies_per_address: usize,
    /// How long a body may wait for memory before it is rejected.
    pub body_wait: Duration,
    /// Memory for responses not yet sent, total, bytes.
    pub answers: usize,
    /// The same per IP address.
    pub answers_per_address: usize,
    /// The same per connection.
    pub answers_per_connection: usize,
    /// Open connections, total.
    pub connections: usize,
    /// The same per IP address.
    pub connections_per_address: usize,
    /// Additional connections that are only served `/healthz`.
    pub reserve: usize,
    /// Lifetime of such a connection.
    pub reserve_time: Duration,
    /// Concurrent streams per HTTP/2 connection.
    pub streams: u32,
    /// How long open connections may take to end at shutdown; then they are aborted.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(15),
            stuck: Duration::from_secs(30),
            body: Duration::from_secs(30),
            body_grace: Duration::from_secs(10),
            body_floor: 8 * 1024,
            bodies: 64 * 1024 * 1024,
            bodies_per_address: 8 * 1024 * 1024,
            body_wait: Duration::from_secs(5),
            answers: 64 * 1024 * 1024,
            answers_per_address: 32 * 1024 * 1024,
            answers_per_connection: 8 * 1024 * 1024,
            connections: 20_000,
            connections_per_address: 1_000,
            reserve: 64,
            reserve_time: Duration::from_secs(2),
            streams: 100,
            drain: Duration::from_millis(3_500),
        }
    }
}

impl Limits {
    /// Adjusts the limits to a maximum number of open files: descriptors are reserved for the database and for
    /// `/healthz`.
    #[must_use]
    pub fn within(self, files: usize) -> Self {
        let connections = files.saturating_sub(OTHER_FILES + self.reserve).max(MIN_CONNECTIONS);
        Self { connections: self.connections.min(connections), ..self }
    }

    /// Adjusts the limits to a number of streams per IP address: each needs a connection.
    #[must_use]
    pub fn with_streams_per_address(self, streams: usize) -> Self {
        let connections = streams.saturating_add(100);
        Self { connections_per_address: self.connections_per_address.max(connections), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_leave_room_for_the_database_and_health() {
        let limits = Limits::default();
        assert_eq!(limits.within(1_024).connections, 1_024 - 160);
        assert_eq!(limits.within(10).connections, MIN_CONNECTIONS);
        assert_eq!(limits.within(1_000_000).connections, 20_000);
        assert_eq!(limits.with_streams_per_address(50).connections_per_address, 1_000);
        assert_eq!(limits.with_streams_per_address(5_000).connections_per_address, 5_100);
    }
}
