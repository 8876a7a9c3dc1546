//! Pages over HTTP: whole, as a fragment for a poll, and the forms on them.

use std::{str::FromStr, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use uuid::Uuid;

use super::{api, assets, caller::Caller, input::Id, problem::Problem, query, site::Site};
use crate::{
    config::Live,
    model::transition,
    page::{self, Freshness, PAGES, Page, PageError, Params, Shell},
};

/// Parameters of every page that are no filters.
const OWN: [&str; 3] = ["fragment", "version", "live"];

/// Routes of every page in the table, and of the forms.
pub(super) fn router() -> Router<Site> {
    let mut router = Router::new()
        .route("/tasks/{id}/cancel", post(cancel))
        .route("/tasks/{id}/retry", post(retry))
        .route("/tasks/{id}/delete", post(delete));
    for page in &PAGES {
        let handler = async move |State(site): State<Site>,
                                  path: Option<Path<String>>,
                                  Query(pairs): Query<Vec<(String, String)>>| {
            show(&site, page, path.map(|Path(id)| id), pairs).await
        };
        router = router.route(page.path, get(handler));
    }
    router
}

/// Reads what a page is asked to show: an id in its path, filters in its query.
pub(super) fn params(page: &Page, id: Option<&str>, pairs: &[(String, String)]) -> Result<Params, Problem> {
    let id = match id {
        Some(text) => Some(
            Uuid::from_str(text)
                .map_err(|_| Problem::not_found("there is no such page: the id in its address is not a UUID"))?,
        ),
        None => None,
    };
    let pairs: Vec<_> = pairs.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).cloned().collect();
    let mut params = Params { id, ..Params::default() };
    match page.filters {
        page::Filters::None => {
            if let Some((name, _)) = pairs.first() {
                let detail = "is not known on this page";
                return Err(Problem::field(StatusCode::BAD_REQUEST, "invalid_filter", name.as_str(), detail));
            }
        }
        page::Filters::Tasks => {
            params.tasks = query::tasks(&pairs)?;
            params.filter = crate::event::Filter::from_query(&pairs, &query::LIST)?;
        }
        page::Filters::Events => params.filter = crate::event::Filter::from_query(&pairs, &[])?,
    }
    params.pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Ok(params)
}

async fn show(site: &Site, page: &'static Page, id: Option<String>, pairs: Vec<(String, String)>) -> Response {
    let own = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let params = match params(page, id.as_deref(), &pairs) {
        Ok(params) => params,
        Err(problem) => return failure(site, problem),
    };
    let is_fragment = own("fragment") == Some("1");
    let freshness = match (is_fragment, page.from_tables) {
        // Every viewer of a list shares one reading per refresh.
        (true, true) => Freshness::Within(Duration::from_secs(site.settings.poll_seconds.into())),
        (false, true) => Freshness::Now,
        (_, false) => Freshness::Within(page::LIVE_EVERY),
    };
    let fragment = match site.fragments.get(&site.view(), page, &params, freshness).await {
        Ok(fragment) => fragment,
        Err(error) => return failure(site, error.into()),
    };
    let mut response = if is_fragment && own("version") == Some(&fragment.version) {
        StatusCode::NO_CONTENT.into_response()
    } else if is_fragment {
        fragment.html.clone().into_response()
    } else {
        let live = match (site.settings.live, own("live")) {
            (Live::Off, _) => false,
            (Live::Allowed, wish) => wish == Some("1"),
            (Live::Default, wish) => wish != Some("0"),
        };
        match page::shell(&shell(site, page, &params, live), &fragment) {
            Ok(html) => html.into_response(),
            Err(error) => return failure(site, error.into()),
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("HX-Request"));
    headers.insert("x-data-position", HeaderValue::from(fragment.position));
    headers.insert("x-data-age-ms", HeaderValue::from(age_ms(site)));
    response
}

/// How long ago everything in the log was known here, milliseconds.
pub(super) fn age_ms(site: &Site) -> u64 {
    u64::try_from(site.subscriptions.age().as_millis()).unwrap_or(u64::MAX)
}

fn shell<'a>(site: &Site, page: &'a Page, params: &'a Params, live: bool) -> Shell<'a> {
    Shell {
        page,
        params,
        live,
        live_allowed: site.settings.live != Live::Off,
        poll_seconds: site.settings.poll_seconds,
        asset: assets::url,
        version: env!("CARGO_PKG_VERSION"),
    }
}

impl Site {
    /// What pages are rendered from.
    pub(super) fn view(&self) -> page::View {
        page::View {
            store: self.store.clone(),
            board: self.board.clone(),
            subscriptions: self.subscriptions.clone(),
            ledger: self.ledger.clone(),
            deliveries: self.deliveries.clone(),
            clock: self.clock.clone(),
            heartbeat_seconds: self.settings.heartbeat_seconds,
            quiet: self.settings.quiet(),
            url: self.url.clone(),
        }
    }
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        match error {
            PageError::NotFound(what) => Self::not_found(what),
            PageError::Database(error) => error.into(),
            PageError::Template(error) => {
                tracing::error!(%error, "a page could not be written");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the server could not write this page; its log says more",
                )
            }
        }
    }
}

/// A problem as a page.
fn failure(site: &Site, problem: Problem) -> Response {
    let status = problem.status();
    match page::error_page(&problem.detail, site.settings.poll_seconds, assets::url) {
        Ok(html) => {
            let mut response = (status, html).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        Err(_) => problem.into_response(),
    }
}

/// Nothing is at this address: a page for browsers, a problem for programs.
pub(super) async fn not_found(State(site): State<Site>, headers: HeaderMap, request: Request) -> Response {
    let problem = Problem::not_found("there is nothing at this address; see /openapi.json for the API");
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") && !request.uri().path().starts_with("/api/") {
        return failure(&site, problem);
    }
    problem.into_response()
}

async fn act(site: &Site, caller: &Caller, id: Uuid, command: transition::Command, next: &str) -> Response {
    match api::change(site, id, command, caller).await {
        Ok(_) => Redirect::to(next).into_response(),
        Err(problem) => failure(site, problem),
    }
}

async fn cancel(State(site): State<Site>, caller: Caller, Id(id): Id) -> Response {
    act(&site, &caller, id, transition::Command::Cancel { reason: None }, &format!("/tasks/{id}")).await
}

async fn retry(State(site): State<Site>, caller: Caller, Id(id): Id) -> Response {
    act(&site, &caller, id, transition::Command::Retry, &format!("/tasks/{id}")).await
}

async fn delete(State(site): State<Site>, caller: Caller, Id(id): Id) -> Response {
    act(&site, &caller, id, transition::Command::Delete, "/tasks").await
}
