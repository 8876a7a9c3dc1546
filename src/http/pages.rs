//! Pages over HTTP: as a whole, as a fragment for a poll, and as an error.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    assets,
    codes::ErrorCode,
    page_context::{age_ms, server, summary},
    page_params::params,
    problem::Problem,
    state::AppState,
};
use crate::{
    config::LiveMode,
    feed::time_travel::TimeTravelError,
    page::{
        self, Chrome, Freshness, PAGES, Page, PageError,
        layout::{self, RefreshChoice},
        preferences::Preferences,
        still::Failure,
    },
};

/// Name of the preferences cookie.
pub(super) const COOKIE: &str = "taskwatch_prefs";

/// Routes of every page in the table.
pub(super) fn router() -> Router<AppState> {
    let mut router = Router::new();
    for page in &PAGES {
        let handler = async move |State(state): State<AppState>,
                                  headers: HeaderMap,
                                  path: Option<Path<String>>,
                                  Query(pairs): Query<Vec<(String, String)>>| {
            show(&state, &headers, page, path.map(|Path(id)| id), pairs).await
        };
        router = router.route(page.path, get(handler));
    }
    router
}

async fn show(
    state: &AppState,
    headers: &HeaderMap,
    page: &'static Page,
    id: Option<String>,
    pairs: Vec<(String, String)>,
) -> Response {
    match try_show(state, headers, page, id, &pairs).await {
        Ok(response) => response,
        Err(problem) => {
            let kept: Vec<_> = pairs
                .into_iter()
                .filter(|(name, _)| !problem.errors.iter().any(|error| error.field == *name))
                .filter(|(name, _)| name != "fragment" && name != "version")
                .collect();
            let is_about_time = problem.errors.iter().any(|error| error.field == "at");
            let way = if page.is_of_one() || problem.errors.is_empty() {
                None
            } else if is_about_time {
                let oldest = [kept, vec![("at".to_owned(), state.subscriptions.oldest().to_string())]].concat();
                Some(("Go to the oldest available time", page::format::address(page.path, &oldest)))
            } else {
                Some(("Remove this filter", page::format::address(page.path, &kept)))
            };
            failure(state, headers, &problem, way)
        }
    }
}

async fn try_show(
    state: &AppState,
    headers: &HeaderMap,
    page: &'static Page,
    id: Option<String>,
    pairs: &[(String, String)],
) -> Result<Response, Problem> {
    let own = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let choice = refresh_choice(state, headers, page, own("live"), own("refresh"))?;
    // A word that is not known is of another version, or of a shared link.
    let choice = RefreshChoice { done: own("done").and_then(|word| word.parse().ok()), ..choice };
    let params = params(state, page, id.as_deref(), pairs).await?;
    let projects = params.filter.projects();
    let is_fragment = own("fragment") == Some("1");
    let freshness = match (is_fragment, page.from_tables) {
        // All viewers of a list share one read per refresh interval.
        (true, true) => Freshness::Within(Duration::from_secs(state.settings.poll_seconds.into())),
        (true, false) => Freshness::Within(page::REGION),
        // The viewer may have just changed something.
        (false, _) => Freshness::Now,
    };
    let fragment = state.fragments.get(&state.view(), page, &params, freshness).await?;
    let mut response = if is_fragment && own("version") == Some(&fragment.version) {
        StatusCode::NO_CONTENT.into_response()
    } else if is_fragment {
        fragment.html.clone().into_response()
    } else {
        layout::page(page, &params, &server(state, &projects), &choice, &fragment)?.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("HX-Request, Cookie"));
    headers.insert("x-data-position", HeaderValue::from(fragment.position));
    headers.insert("x-data-age-ms", HeaderValue::from(age_ms(state)));
    headers.insert("x-app-build", HeaderValue::from_static(layout::build(assets::url)));
    if let Ok(summary) = HeaderValue::try_from(summary(state, &projects).json()) {
        headers.insert("x-summary", summary);
    }
    Ok(response)
}

/// Preferences of the viewer: from the URL first, then the server's defaults.
fn refresh_choice(
    state: &AppState,
    headers: &HeaderMap,
    page: &Page,
    live: Option<&str>,
    refresh: Option<&str>,
) -> Result<RefreshChoice, Problem> {
    if let Some(other) = live.filter(|word| !["0", "1", ""].contains(word)) {
        return Err(Problem::invalid_filter(
            "live",
            format!("must be 1 or 0, not '{}'", page::format::clip(other, 20)),
        ));
    }
    let refresh = refresh.filter(|text| !text.is_empty());
    let seconds =
        refresh.map(|text| text.parse::<u32>().ok().filter(|seconds| *seconds == 0 || (2..=3_600).contains(seconds)));
    let live = match (state.settings.live_pages, live) {
        (LiveMode::Off, _) => false,
        // A wall display has no operator to switch it on.
        (LiveMode::Allowed, None) if page.chrome == Chrome::Display => refresh.is_none(),
        (LiveMode::Allowed, choice) => choice == Some("1"),
        (LiveMode::Default, choice) => choice != Some("0"),
    };
    match seconds {
        Some(None) => Err(Problem::invalid_filter("refresh", "must be 0 (off) or between 2 and 3600 seconds")),
        seconds => Ok(RefreshChoice { live, refresh: seconds.flatten(), ..viewer(state, headers) }),
    }
}

/// Viewer data of a request without a URL.
pub(super) fn viewer(state: &AppState, headers: &HeaderMap) -> RefreshChoice {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let preferences = cookies.find(|(name, _)| *name == COOKIE).map(|(_, value)| Preferences::read(value));
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("127.0.0.1");
    let scheme = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let scheme = if scheme == Some("https") { "https" } else { "http" };
    RefreshChoice {
        live: false,
        refresh: None,
        preferences: preferences.unwrap_or_default(),
        origin: format!("{scheme}://{host}{}", state.settings.base_path),
        done: None,
    }
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        match error {
            PageError::NotFound(what) => Self::not_found(what),
            PageError::TimeTravel(TimeTravelError::Database(error)) | PageError::Database(error) => error.into(),
            PageError::TimeTravel(error) => Problem::invalid_filter("at", error.to_string()),
            PageError::Template(error) => {
                tracing::error!(%error, "page rendering failed");
                Self::new(ErrorCode::Internal, "This page could not be rendered. See the server log.")
            }
        }
    }
}

/// Human-readable heading of a status.
const fn heading(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "Page not found",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => "Invalid request",
        StatusCode::METHOD_NOT_ALLOWED => "Method not allowed",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
        _ => "Something went wrong",
    }
}

/// A problem as a page. `way` is a link to continue with: label and URL.
pub(super) fn failure(
    state: &AppState,
    headers: &HeaderMap,
    problem: &Problem,
    way: Option<(&'static str, String)>,
) -> Response {
    let status = problem.status();
    let mut refresh_options: Vec<_> = way.into_iter().collect();
    refresh_options.extend([("Overview", "/".to_owned()), ("Help", "/help".to_owned())]);
    let title = heading(status);
    let page = Failure { heading: title, detail: &problem.detail, refresh_options };
    let mut response = plain(state, headers, title, &page);
    *response.status_mut() = status;
    if let StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS = status {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A static page.
pub(super) fn plain(state: &AppState, headers: &HeaderMap, title: &str, page: &impl askama::Template) -> Response {
    let html = page.render().map_err(PageError::from);
    let html =
        html.and_then(|html| layout::plain(title, &html, &server(state, &BTreeSet::new()), &viewer(state, headers)));
    match html {
        Ok(html) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            ([kind], html).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Unknown path: a page for browsers, a problem for programs.
pub(super) async fn not_found(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Response {
    let problem = Problem::not_found("This page does not exist. API reference: /openapi.json.");
    refused(&state, &headers, &request, problem)
}

/// A path that supports other methods only, such as a form's target opened from the address bar.
pub(super) async fn method_not_allowed(
    State(state): State<AppState>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let problem = Problem::new(ErrorCode::MethodNotAllowed, "Method not allowed for this URL; see /openapi.json.");
    refused(&state, &headers, &request, problem)
}

fn refused(state: &AppState, headers: &HeaderMap, request: &Request, problem: Problem) -> Response {
    if is_browser(headers, request.uri().path()) {
        return failure(state, headers, &problem, None);
    }
    problem.into_response()
}

/// Whether the client wants a page rather than a response for programs.
pub(super) fn is_browser(headers: &HeaderMap, path: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("text/html") && !path.starts_with("/api/")
}
