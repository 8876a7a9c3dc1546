//! `GET /live`: a page's fragment whenever it changes. Sends the same bytes as a poll, rendered once for all viewers.

use std::{collections::BTreeSet, time::Duration};

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
    page_context, page_params,
    problem::Problem,
    query,
    state::AppState,
    stream::{Cut, takes_gzip},
};
use crate::{
    config::LiveMode,
    event::frame::{self, Form, Wire},
    feed::{
        gzip,
        stream_registry::{CloseReason, Peer, Purpose, StreamInfo, StreamSlot},
    },
    model::Name,
    page::{self, PAGES, layout},
};

/// Interval at which the age of the data is sent to a page, regardless of other updates: a changing page is not
/// necessarily up to date.
const HEARTBEAT: Duration = Duration::from_secs(2);

struct Viewer {
    state: AppState,
    fragments: page::Viewer,
    projects: BTreeSet<Name>,
    gzip: bool,
    begun: bool,
    beats: tokio::time::Interval,
    ended: bool,
    slot: StreamSlot,
}

/// Follows a page: `page` is its name, `id` the ID in its path, the rest are its filters.
pub(super) async fn live(
    State(state): State<AppState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    if state.settings.live_pages == LiveMode::Off {
        return Err(Problem::new(ErrorCode::LiveDisabled, "live updates are disabled (--live-pages off)"));
    }
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let page = PAGES
        .iter()
        .find(|page| Some(page.name) == value("page"))
        .ok_or_else(|| Problem::invalid_parameter("page", "unknown page"))?;
    let rest: Vec<_> = pairs.iter().filter(|(name, _)| name != "page" && name != "id").cloned().collect();
    let params = page_params::params(&state, page, value("id"), &rest).await?;
    let peer = peer.map(|Extension(peer)| peer);
    let named = pairs.iter().filter(|(name, _)| name == "page" || name == "id");
    let shown: Vec<_> = named.chain(&params.pairs).cloned().collect();
    let gzip = state.settings.stream_compression && takes_gzip(&headers);
    let info = StreamInfo {
        purpose: Purpose::Page,
        address: caller::address(&state.settings, peer.as_ref(), &headers),
        user_agent: caller::user_agent(&headers),
        query: query::shown(&shown).into(),
        form: Form { wire: Wire::Unnamed, ..Form::default() },
        gzip,
    };
    let slot = state.stream_registry.enter(info, state.subscriptions.head(), peer.as_ref()).map_err(|full| {
        let detail = "stream limit reached; falling back to polling";
        Problem::new(full.into(), detail)
    })?;
    let fragments = state.live_pages.follow(&state.view(), page, &params).await?;
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let projects = params.filter.projects();
    let viewer = Viewer { state, fragments, projects, gzip, begun: false, beats, ended: false, slot };
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
            return Some(Ok(Bytes::from_static(gzip::HEADER)));
        }
        tokio::select! {
            biased;
            () = self.state.stopping.cancelled() => self.cut(CloseReason::Drain),
            // The page itself must be sent first: before that there is no data whose age could be reported.
            _ = self.beats.tick(), if self.fragments.has_begun() => {
                let failing = u64::try_from(self.fragments.failing_for().as_millis()).unwrap_or(u64::MAX);
                let data = json!({ "age_ms": page_context::age_ms(&self.state).max(failing), "position": self.state.subscriptions.head(),
                    "build": layout::build(super::assets::url), "summary": page_context::summary(&self.state, &self.projects) });
                let beat = frame::named("heartbeat", &data.to_string(), None, None);
                Some(Ok(if self.gzip { gzip::stored(&beat) } else { beat }))
            }
            update = self.fragments.next() => match update {
                Some(update) => {
                    let bytes = if self.gzip { update.frame.gzip() } else { update.frame.plain.clone() };
                    self.slot.sent(1, bytes.len());
                    self.slot.shows(update.position);
                    Some(Ok(bytes))
                }
                // The page no longer exists (its task was deleted); the client reconnects and gets a 404.
                None => self.cut(CloseReason::PageGone),
            },
        }
    }

    fn cut(&mut self, close_reason: CloseReason) -> Option<Result<Bytes, Cut>> {
        self.slot.ends(close_reason);
        self.ended = true;
        Some(Err(Cut))
    }
}
