//! `GET /live`: a page's fragment whenever it changes. Sends the same bytes as a poll, rendered once for all viewers.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Extension, Query, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;

use super::{
    caller,
    codes::ErrorCode,
    pages,
    problem::Problem,
    query,
    site::Site,
    stream::{Cut, takes_gzip},
};
use crate::{
    config::Live,
    event::frame::{self, Form, Wire},
    feed::{
        ledger::{Ending, Opening, Peer, Place, Purpose},
        pack,
    },
    page::{self, PAGES, shell},
};

/// Interval at which the age of the data is sent to a page, regardless of other updates: a changing page is not
/// necessarily up to date.
const HEARTBEAT: Duration = Duration::from_secs(2);

struct Viewer {
    site: Site,
    fragments: page::Viewer,
    gzip: bool,
    begun: bool,
    beats: tokio::time::Interval,
    ended: bool,
    place: Place,
}

/// Follows a page: `page` is its name, `id` the ID in its path, the rest are its filters.
pub(super) async fn live(
    State(site): State<Site>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    if site.settings.live == Live::Off {
        return Err(Problem::new(ErrorCode::LiveDisabled, "live updates are disabled (--live-pages off)"));
    }
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let page = PAGES
        .iter()
        .find(|page| Some(page.name) == value("page"))
        .ok_or_else(|| Problem::invalid_parameter("page", "unknown page"))?;
    let rest: Vec<_> = pairs.iter().filter(|(name, _)| name != "page" && name != "id").cloned().collect();
    let params = pages::params(&site, page, value("id"), &rest).await?;
    let peer = peer.map(|Extension(peer)| peer);
    let named = pairs.iter().filter(|(name, _)| name == "page" || name == "id");
    let shown: Vec<_> = named.chain(&params.pairs).cloned().collect();
    let gzip = site.settings.stream_compression && takes_gzip(&headers);
    let opening = Opening {
        purpose: Purpose::Page,
        address: caller::address(&site.settings, peer.as_ref(), &headers),
        user_agent: caller::user_agent(&headers),
        query: query::shown(&shown).into(),
        form: Form { wire: Wire::Unnamed, ..Form::default() },
        gzip,
    };
    let place = site.ledger.enter(opening, site.subscriptions.head(), peer.as_ref()).map_err(|full| {
        let detail = "stream limit reached; falling back to polling";
        Problem::new(full.into(), detail)
    })?;
    let fragments = site.live_pages.follow(&site.view(), page, &params).await?;
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let viewer = Viewer { site, fragments, gzip, begun: false, beats, ended: false, place };
    let body = stream::unfold(viewer, |mut viewer| async move { viewer.next().await.map(|item| (item, viewer)) });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

impl Viewer {
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        if self.ended {
            return None;
        }
        if self.gzip && !self.begun {
            self.begun = true;
            return Some(Ok(Bytes::from_static(pack::HEADER)));
        }
        tokio::select! {
            biased;
            () = self.site.stopping.cancelled() => self.cut(Ending::Drain),
            // The page itself must be sent first: before that there is no data whose age could be reported.
            _ = self.beats.tick(), if self.fragments.has_begun() => {
                let failing = u64::try_from(self.fragments.failing_for().as_millis()).unwrap_or(u64::MAX);
                let data = json!({ "age_ms": pages::age_ms(&self.site).max(failing), "position": self.site.subscriptions.head(),
                    "build": shell::build(super::assets::url) });
                let beat = frame::named("heartbeat", &data.to_string(), None, None);
                Some(Ok(if self.gzip { pack::stored(&beat) } else { beat }))
            }
            update = self.fragments.next() => match update {
                Some(update) => {
                    let bytes = if self.gzip { update.frame.gzip() } else { update.frame.plain.clone() };
                    self.place.sent(1, bytes.len());
                    self.place.shows(update.position);
                    Some(Ok(bytes))
                }
                // The page no longer exists (its task was deleted); the client reconnects and gets a 404.
                None => self.cut(Ending::PageGone),
            },
        }
    }

    fn cut(&mut self, ending: Ending) -> Option<Result<Bytes, Cut>> {
        self.place.ends(ending);
        self.ended = true;
        Some(Err(Cut))
    }
}
