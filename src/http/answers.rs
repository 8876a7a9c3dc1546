//! Limits on the memory of responses not yet sent: total, and per connection. Shared content is stored once and not
//! counted.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use super::{
    activity::Activity,
    assets::SharedBytes,
    bodies::Share,
    budget::{Budget, Part},
    caller,
    codes::ErrorCode,
    problem::Problem,
    state::AppState,
};
use crate::feed::stream_registry::Peer;

/// Smaller responses are not counted; the number of connections is limited instead.
const SMALL: usize = 16 * 1024;

/// Memory accounting of requests and responses.
#[derive(Debug)]
pub(super) struct Meter {
    state: AppState,
    bodies: Arc<Budget>,
    answers: Arc<Budget>,
}

/// Memory held by one request and its response.
pub(super) struct Measured {
    address: IpAddr,
    activity: Option<Arc<Activity>>,
    /// Held until the response is ready: the request data stays in memory that long, in one form or another.
    share: Option<Share>,
}

impl Meter {
    pub(super) fn new(state: &AppState) -> Self {
        let limits = state.limits;
        let bodies = Budget::new(limits.bodies, limits.bodies_per_address);
        Self { state: state.clone(), bodies, answers: Budget::new(limits.answers, limits.answers_per_address) }
    }

    /// Starts accounting for a request; its handler finds the memory share for bodies in the extensions.
    pub(super) fn begins(&self, request: &mut Request) -> Measured {
        let extensions = request.extensions();
        let (peer, activity) = (extensions.get::<Peer>(), extensions.get::<Arc<Activity>>().cloned());
        let address = caller::address(&self.state.settings, peer, request.headers());
        let is_empty = request.body().size_hint().exact() == Some(0);
        let share = (!is_empty).then(|| Share::new(&self.bodies, self.state.limits, address, activity.clone()));
        if let Some(share) = &share {
            request.extensions_mut().insert(share.clone());
        }
        Measured { address, activity, share }
    }

    /// Accounts for the response.
    pub(super) fn ends(&self, measured: Measured, response: Response) -> Response {
        drop(measured.share);
        self.counted(response, measured.address, measured.activity)
    }

    fn counted(&self, response: Response, address: IpAddr, activity: Option<Arc<Activity>>) -> Response {
        let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        if size <= SMALL || response.extensions().get::<SharedBytes>().is_some() {
            return response;
        }
        let most = self.state.limits.answers_per_connection;
        let has_room = activity.as_ref().is_none_or(|activity| {
            let unread = activity.unread.load(Ordering::Relaxed);
            unread == 0 || unread + size <= most
        });
        let part = if has_room { self.answers.take(address, size) } else { None };
        let Some(part) = part else {
            let detail = "too many unread responses, in total or to your IP address; read them, then retry";
            return Problem::new(ErrorCode::TooManyUnread, detail).into_response();
        };
        if let Some(activity) = &activity {
            activity.unread.fetch_add(size, Ordering::Relaxed);
        }
        response.map(|body| Body::new(Counted { body, activity, size, _part: part }))
    }
}

/// A body that is counted until it has been sent.
struct Counted {
    body: Body,
    activity: Option<Arc<Activity>>,
    size: usize,
    _part: Part,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.unread.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
