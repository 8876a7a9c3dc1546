//! What a client may cost: times, bytes and numbers. Tests shorten the times; a server takes the defaults.

use std::time::Duration;

/// Files that the rest of the program needs open: connections to the database, its own files, the listener.
const OTHER_FILES: usize = 96;
/// Connections that are served however few files may be open.
const LEAST: usize = 16;

/// Limits of the server on its clients.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// From the accept (or the end of the last answer) to the end of a request's headers.
    pub headers: Duration,
    /// Longest time without a byte taken by a client for which there is something to send.
    pub stuck: Duration,
    /// From the end of a request's headers to the end of its body.
    pub body: Duration,
    /// From then on a body must have come at [`Limits::body_floor`] on average.
    pub body_grace: Duration,
    /// Slowest speed of a body, bytes per second.
    pub body_floor: u32,
    /// Memory for request bodies that are read and not yet answered, bytes in all.
    pub bodies: usize,
    /// The same, of one address.
    pub bodies_per_address: usize,
    /// How long a body may wait for memory before it is refused.
    pub body_wait: Duration,
    /// Memory for answers that wait to be read, bytes in all.
    pub answers: usize,
    /// The same, of one address.
    pub answers_per_address: usize,
    /// The same, of one connection.
    pub answers_per_connection: usize,
    /// Connections open at once.
    pub connections: usize,
    /// The same, of one address.
    pub connections_per_address: usize,
    /// Connections beyond these limits that are answered `/healthz` and nothing else.
    pub reserve: usize,
    /// How long such a connection may stay.
    pub reserve_time: Duration,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// How long open connections may take to end when the server stops; then they are cut.
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
    /// The same for a program that may have so many files open: descriptors remain for the database and for `/healthz`.
    #[must_use]
    pub fn within(self, files: usize) -> Self {
        let connections = files.saturating_sub(OTHER_FILES + self.reserve).max(LEAST);
        Self { connections: self.connections.min(connections), ..self }
    }

    /// The same for a server that takes so many streams of one address: each needs a connection.
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
        assert_eq!(limits.within(10).connections, LEAST);
        assert_eq!(limits.within(1_000_000).connections, 20_000);
        assert_eq!(limits.with_streams_per_address(50).connections_per_address, 1_000);
        assert_eq!(limits.with_streams_per_address(5_000).connections_per_address, 5_100);
    }
}
