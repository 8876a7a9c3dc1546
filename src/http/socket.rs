//! A socket with a timeout for peers that stop reading.
//!
//! hyper does not poll a response body while the socket is blocked, so no higher layer can notice a stuck reader
//! (hyperium/hyper#3121); the timeout has to be here.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::activity::Activity;

/// Start of the HTTP/2 preface, which no HTTP/1 request has.
const PREFACE: &[u8; 3] = b"PRI";

/// The first bytes of a connection: read once to detect the protocol, then replayed to its implementation.
#[derive(Debug, Default)]
pub(super) struct First {
    bytes: [u8; PREFACE.len()],
    read: usize,
    replayed: usize,
}

impl First {
    /// Reads until the protocol is known; returns whether it is HTTP/2.
    ///
    /// # Errors
    /// The connection fails or ends.
    pub(super) async fn read(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        loop {
            let read = self.read;
            if self.bytes[..read] != PREFACE[..read] {
                return Ok(false);
            }
            if read == PREFACE.len() {
                return Ok(true);
            }
            let count = stream.read(&mut self.bytes[read..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read += count;
        }
    }

    fn replay(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.bytes[self.replayed..self.read];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.replayed += count;
        count > 0
    }
}

/// The socket and, while a write is blocked, its deadline.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    first: First,
    /// Maximum time without write progress while there is something to send.
    patience: Duration,
    limit: Option<Pin<Box<Sleep>>>,
    /// A connection with a blocked write is not idle.
    activity: Arc<Activity>,
    /// Set when the connection is aborted for this reason.
    stuck: Arc<AtomicBool>,
}

impl Socket {
    pub(super) const fn new(
        stream: TcpStream,
        first: First,
        patience: Duration,
        activity: Arc<Activity>,
        stuck: Arc<AtomicBool>,
    ) -> Self {
        Self { stream, first, patience, limit: None, activity, stuck }
    }

    /// Records whether a write made progress.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.limit.take().is_some() {
                self.activity.writes_again();
            }
            return written;
        }
        if self.limit.is_none() {
            self.activity.is_blocked();
        }
        let patience = self.patience;
        let limit = self.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(limit.as_mut().poll(cx));
        self.stuck.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let replayed = self.first.replay(buf);
        // Also read what is already available: a reader that gets one byte first enlarges its buffer, and an idle
        // stream then uses twice the memory (measured by the load run "fanout").
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // An error is returned again by the next read.
        if replayed { Poll::Ready(Ok(())) } else { read }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> First {
        let mut first = First { read: bytes.len(), ..First::default() };
        first.bytes[..bytes.len()].copy_from_slice(bytes);
        first
    }

    #[test]
    fn the_first_bytes_are_read_again_whatever_the_size_of_the_buffer() {
        for size in 1..5 {
            let (mut first, mut read) = (first(b"GET"), Vec::new());
            loop {
                let mut bytes = vec![0; size];
                let mut buf = ReadBuf::new(&mut bytes);
                if !first.replay(&mut buf) {
                    break;
                }
                read.extend_from_slice(buf.filled());
            }
            assert_eq!(read, b"GET", "{size}");
        }
    }

    #[test]
    fn nothing_is_replayed_that_was_not_read_or_has_no_room() {
        let mut bytes = [0; 8];
        assert!(!first(b"").replay(&mut ReadBuf::new(&mut bytes)));
        let mut none = [0; 0];
        let mut one = first(b"P");
        assert!(!one.replay(&mut ReadBuf::new(&mut none)));
        let mut buf = ReadBuf::new(&mut bytes);
        buf.put_slice(b"1234567");
        assert!(one.replay(&mut buf));
        assert_eq!(buf.filled(), b"1234567P");
    }
}
