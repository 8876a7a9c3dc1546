//! What goes out on a connection: the body of an answer, or a stream without the layers that answers pass through.
//!
//! A stream is polled for each of its events, so each layer around it would cost every delivery. Its handler leaves it
//! beside the answer, and the connection takes it up here.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::stream::Reader;

/// A body on its way to a connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Of an answer.
    Answer(Body),
    /// Of a stream.
    Stream(Box<Reader>),
}

/// A stream beside its answer. Extensions must be shareable, hence the lock; it is taken once.
#[derive(Clone)]
struct Beside(std::sync::Arc<Mutex<Option<Box<Reader>>>>);

/// An answer whose body is a stream.
pub(super) fn with_stream(reader: Reader) -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Beside(std::sync::Arc::new(Mutex::new(Some(Box::new(reader))))));
    response
}

impl Outgoing {
    /// The answer as the connection sends it; without a body to a `HEAD` request.
    pub(super) fn of(mut response: Response, head: bool) -> hyper::Response<Self> {
        let beside = response.extensions_mut().remove::<Beside>();
        let reader = beside.and_then(|beside| beside.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        match reader {
            Some(reader) if !head => {
                // That of the empty body.
                response.headers_mut().remove(hyper::header::CONTENT_LENGTH);
                response.map(|_| Self::Stream(reader))
            }
            Some(_) | None => response.map(Self::Answer),
        }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Answer(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Stream(reader) => Pin::new(&mut **reader).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Answer(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Answer(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
