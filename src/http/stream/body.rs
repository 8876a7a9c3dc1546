//! Bodies sent on a connection: the body of a response, or a stream that bypasses the layers of responses.
//!
//! A stream is polled for each of its events, so each layer around it would add to the cost of every delivery. Its
//! handler puts it into the extensions of the response, where our own connection takes it. Another program's server, in
//! which this router may be mounted, ignores that and reads the stream through the response body.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use super::{Cut, reader::Reader};
use crate::http::activity::{InFlight, WriteProgress};

/// Maximum chunk passed to an HTTP/2 stream, bytes. It buffers a chunk as a whole, however little the client accepts.
const PIECE: usize = 16 * 1024;

/// A body being sent on a connection.
#[derive(Debug)]
pub(in crate::http) struct Outgoing {
    body: Kind,
    /// For an HTTP/2 stream.
    pieces: Option<Box<Pieces>>,
    /// Dropping it marks the request as finished.
    _answered: InFlight,
}

#[derive(Debug)]
enum Kind {
    /// Body of a response.
    Answer(Body),
    /// A stream.
    Stream(Box<Reader>),
}

/// The rest of a frame, and the write progress of the client.
#[derive(Debug)]
struct Pieces {
    rest: Bytes,
    progress: Arc<WriteProgress>,
}

/// A stream in the extensions of its response, taken once: by our connection, or by the response body. Extensions must
/// be `Sync`, hence the lock.
#[derive(Clone)]
struct Beside(Arc<Mutex<Option<Box<Reader>>>>);

impl Beside {
    fn take(&self) -> Option<Box<Reader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The response body of a stream that was not taken by our connection.
struct Deferred {
    beside: Beside,
    reader: Option<Box<Reader>>,
}

impl hyper::body::Body for Deferred {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.reader.is_none() {
            this.reader = this.beside.take();
        }
        match &mut this.reader {
            Some(reader) => Pin::new(&mut **reader).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

/// A response whose body is a stream.
pub(super) fn with_stream(reader: Reader) -> Response {
    let beside = Beside(Arc::new(Mutex::new(Some(Box::new(reader)))));
    let mut response = Response::new(Body::new(Deferred { beside: beside.clone(), reader: None }));
    response.extensions_mut().insert(beside);
    response
}

impl Outgoing {
    /// The response as sent by the connection; without a body for `HEAD`.
    pub(in crate::http) fn of(
        mut response: Response,
        head: bool,
        answered: InFlight,
        progress: Option<Arc<WriteProgress>>,
    ) -> hyper::Response<Self> {
        let pieces = progress.map(|progress| Box::new(Pieces { rest: Bytes::new(), progress }));
        let reader = response.extensions_mut().remove::<Beside>().and_then(|beside| beside.take());
        let kind = |body| match reader {
            Some(reader) if !head => Kind::Stream(reader),
            Some(_) | None => Kind::Answer(body),
        };
        response.map(|body| Self { body: kind(body), pieces, _answered: answered })
    }
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Answer(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Stream(reader) => Pin::new(&mut **reader).poll_frame(cx).map_err(Into::into),
        }
    }
}

impl Pieces {
    fn poll_frame(&mut self, body: &mut Kind, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.rest.is_empty() {
            let frame = match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Pending => {
                    // Everything available has been sent.
                    self.progress.waits_for_us();
                    return Poll::Pending;
                }
                ended @ Poll::Ready(_) => return ended,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        // A further poll means that the previous chunk was accepted.
        self.progress.waits_for_client();
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match &mut this.pieces {
            Some(pieces) => pieces.poll_frame(&mut this.body, cx),
            None => this.body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        let has_rest = self.pieces.as_ref().is_some_and(|pieces| !pieces.rest.is_empty());
        match &self.body {
            Kind::Answer(body) => !has_rest && body.is_end_stream(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Kind::Answer(body) => body.size_hint(),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
