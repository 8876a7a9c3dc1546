//! `GET /live`: a page's fragment whenever it changes. The same bytes as a poll gets, rendered once for all viewers.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;

use super::{
    pages,
    problem::Problem,
    site::{OpenStream, Site},
    stream::Cut,
};
use crate::{
    config::Live,
    event::frame,
    page::{Fragment, PAGES},
};

/// Data is this fresh at least, or the page says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);

struct Viewer {
    site: Site,
    fragments: watch::Receiver<Fragment>,
    fresh: bool,
    ended: bool,
    _place: OpenStream,
}

/// Follow a page: `page` names it, `id` is the id in its path, the rest are its filters.
pub(super) async fn live(
    State(site): State<Site>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    if site.settings.live == Live::Off {
        return Err(Problem::new(StatusCode::NOT_FOUND, "live_off", "live pages are switched off here (--live off)"));
    }
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let page = PAGES.iter().find(|page| Some(page.name) == value("page")).ok_or_else(|| {
        Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", "page", "is not the name of a page")
    })?;
    let rest: Vec<_> = pairs.iter().filter(|(name, _)| name != "page" && name != "id").cloned().collect();
    let params = pages::params(page, value("id"), &rest)?;
    let place = site.open_stream().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many streams are open; the page polls meanwhile",
        )
    })?;
    let fragments = site.fragments.follow(&site.view(), page, &params).await?;
    let viewer = Viewer { site, fragments, fresh: true, ended: false, _place: place };
    let body = stream::unfold(viewer, |mut viewer| async move { viewer.next().await.map(|item| (item, viewer)) });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Viewer {
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        if self.ended {
            return None;
        }
        if self.fresh {
            self.fresh = false;
            return Some(Ok(self.fragments.borrow_and_update().frame.clone()));
        }
        tokio::select! {
            changed = self.fragments.changed() => match changed {
                Ok(()) => Some(Ok(self.fragments.borrow_and_update().frame.clone())),
                // The page is gone (its task was deleted); the client comes back and is told.
                Err(_) => self.cut(),
            },
            () = tokio::time::sleep(HEARTBEAT) => {
                let data = json!({ "age_ms": pages::age_ms(&self.site), "position": self.site.subscriptions.head() });
                Some(Ok(frame::named("heartbeat", &data.to_string(), None, None)))
            }
            () = self.site.stopping.cancelled() => self.cut(),
        }
    }

    fn cut(&mut self) -> Option<Result<Bytes, Cut>> {
        self.ended = true;
        Some(Err(Cut))
    }
}
