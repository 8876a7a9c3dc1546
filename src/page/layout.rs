//! The layout around a page: navigation, connection status, data age, preferences. Specific to each viewer.

use std::sync::{Arc, OnceLock};

use askama::Template;

use super::{
    Fragment, PAGES, Page, PageError, Params, Reach,
    done::Done,
    format,
    preferences::Preferences,
    project_choices::Projects,
    row::{Chrome, Filters},
    summary::Summary,
    switcher::Switcher,
};
use crate::{
    board::health::Level,
    clock::Time,
    model::{fingerprint::hash, instance::InstanceColour},
};

/// Refresh intervals to choose from, seconds; 0 is off.
pub const REFRESHES: [u32; 6] = [2, 5, 10, 30, 60, 0];

/// Server data used by the layout.
#[derive(Debug, Clone)]
pub struct Server<'a> {
    /// Whether live pages are enabled.
    pub live_allowed: bool,
    /// Default refresh interval, seconds.
    pub poll_seconds: u32,
    /// URLs of static files.
    pub asset: fn(&str) -> String,
    /// Version of taskwatch.
    pub version: &'static str,
    /// Current time.
    pub now: Time,
    /// Name of this instance, shown on every page; empty for none.
    pub instance: &'a str,
    /// Colour of the stripe on top of every page.
    pub colour: InstanceColour,
    /// Health and numbers.
    pub summary: Summary,
    /// The projects to choose from.
    pub projects: Arc<Projects>,
}

/// Viewer data used by the layout.
#[derive(Debug, Clone)]
pub struct RefreshChoice {
    /// Live updates instead of polling.
    pub live: bool,
    /// Chosen refresh interval, seconds.
    pub refresh: Option<u32>,
    /// Preferences.
    pub preferences: Preferences,
    /// Scheme, host and port of the request.
    pub origin: String,
    /// What a form has just done.
    pub done: Option<Done>,
}

/// URLs of the static files of every page.
struct Files {
    icon: String,
    icon_warn: String,
    icon_bad: String,
    icon_off: String,
    sprite: String,
    css: String,
    htmx: String,
    sse: String,
    js: String,
    keys: String,
    wall: String,
}

impl Files {
    fn new(asset: fn(&str) -> String) -> Self {
        Self {
            icon: asset("icon.svg"),
            icon_warn: asset("icon-warn.svg"),
            icon_bad: asset("icon-bad.svg"),
            icon_off: asset("icon-off.svg"),
            sprite: asset("icons.svg"),
            css: asset("taskwatch.css"),
            htmx: asset("vendor/htmx.min.js"),
            sse: asset("vendor/hx-sse.min.js"),
            js: asset("taskwatch.js"),
            keys: asset("keys.js"),
            wall: asset("wall.js"),
        }
    }
}

/// One refresh option.
struct RefreshOption {
    words: String,
    url: String,
    chosen: bool,
}

/// A text to copy.
struct ShareLink {
    name: &'static str,
    id: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "base.html")]
struct Base<'a> {
    title: &'a str,
    fragment: &'a str,
    pages: &'a [Page],
    here: &'a str,
    live: bool,
    is_past: bool,
    live_url: String,
    carried: String,
    refresh_seconds: u32,
    refresh_options: Vec<RefreshOption>,
    share_links: Vec<ShareLink>,
    switcher: Switcher,
    preferences: Preferences,
    files: Files,
    build: &'a str,
    version: &'a str,
    done: Option<Done>,
    back: String,
    /// Time of rendering, for viewers without JavaScript.
    rendered: String,
    server: &'a Server<'a>,
}

impl Base<'_> {
    /// What the title of the window begins with while something is wrong, and its icon. Nothing of it is about the past.
    fn trouble(&self) -> (&'static str, &str) {
        let level = if self.is_past { Level::Ok } else { self.server.summary.level };
        match level {
            Level::Ok => ("", &self.files.icon),
            Level::Degraded => ("▲ Degraded · ", &self.files.icon_warn),
            Level::Stalled => ("✕ Stalled · ", &self.files.icon_bad),
        }
    }

    /// The name of the instance, or of the program.
    const fn owner(&self) -> &str {
        if self.server.instance.is_empty() { "taskwatch" } else { self.server.instance }
    }

    /// The number beside the name of a page; 0 for none.
    fn badge(&self, page: &Page) -> usize {
        if self.is_past { 0 } else { (page.badge)(&self.server.summary) }
    }
}

/// Changes when pages must be reloaded to work with this server: other static files or another layout.
pub fn build(asset: fn(&str) -> String) -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let files = Files::new(asset);
        let parts = [files.css, files.sprite, files.htmx, files.sse, files.js, files.keys, files.wall];
        let frames = [include_str!("../../templates/base.html"), include_str!("../../templates/wall_shell.html")];
        let texts = parts.iter().map(String::as_str).chain(frames).chain([env!("CARGO_PKG_VERSION")]);
        format!("{:016x}", hash(texts.flat_map(str::bytes)))
    })
}

fn with(pairs: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut pairs = pairs.to_vec();
    pairs.push((name.to_owned(), value.to_owned()));
    pairs
}

fn refresh_options(page: &Page, params: &Params, server: &Server<'_>, choice: &RefreshChoice) -> Vec<RefreshOption> {
    let path = page.address(params);
    let refresh = choice.refresh.unwrap_or(server.poll_seconds);
    let mut refresh_options = Vec::new();
    if server.live_allowed {
        let url = format::address(&path, &with(&params.pairs, "live", "1"));
        refresh_options.push(RefreshOption { words: "Live".to_owned(), url, chosen: choice.live });
    }
    let mut seconds = REFRESHES.to_vec();
    if !seconds.contains(&server.poll_seconds) {
        seconds.insert(0, server.poll_seconds);
    }
    refresh_options.extend(seconds.into_iter().map(|seconds| {
        let words = if seconds == 0 { "Off".to_owned() } else { format!("Every {seconds} s") };
        let polls = with(&params.pairs, "live", "0");
        let url = format::address(&path, &with(&polls, "refresh", &seconds.to_string()));
        RefreshOption { words, url, chosen: !choice.live && seconds == refresh }
    }));
    refresh_options
}

fn share_links(page: &Page, params: &Params, choice: &RefreshChoice, position: i64) -> Vec<ShareLink> {
    let origin = &choice.origin;
    let filled = |path: &str, pairs: &[(String, String)]| {
        let path = params.fill(path);
        let joint = if path.contains('?') { "&" } else { "?" };
        if pairs.is_empty() { path } else { format!("{path}{joint}{}", format::query(pairs)) }
    };
    let filters = match page.filters {
        // The API of what has no history has no projects either.
        Filters::None if page.from_tables || page.reach == Reach::Present => Vec::new(),
        Filters::None => params.filter.pairs().to_vec(),
        Filters::Tasks | Filters::Events => params.without(&["at", "play"]),
    };
    let listed = params.filter.pairs().to_vec();
    let (api, stream) = (page.api, page.stream);
    let shown = if choice.live { with(&params.pairs, "live", "1") } else { params.pairs.clone() };
    let mut share_links = vec![ShareLink {
        name: "Link",
        id: "copy-link",
        text: format!("{origin}{}", format::address(&page.address(params), &shown)),
    }];
    if params.at.is_some() {
        // The API returns current data only.
        return share_links;
    }
    if page.reach == Reach::Log {
        let moment = with(&params.pairs, "at", &position.to_string());
        share_links.push(ShareLink {
            name: "Link to this moment",
            id: "copy-moment",
            text: format!("{origin}{}", format::address(&page.address(params), &moment)),
        });
    }
    if let Some(api) = api {
        share_links.push(ShareLink {
            name: "API (curl)",
            id: "copy-curl",
            text: format!("curl '{origin}{}'", filled(api, &filters)),
        });
    }
    share_links.push(ShareLink {
        name: "Event stream (SSE)",
        id: "copy-stream",
        text: format!("{origin}{}", filled(stream, &listed)),
    });
    share_links
}

/// A whole page around a fragment.
///
/// # Errors
/// The template failed.
pub fn page(
    page: &Page,
    params: &Params,
    server: &Server<'_>,
    choice: &RefreshChoice,
    fragment: &Fragment,
) -> Result<String, PageError> {
    let mut live = vec![("page".to_owned(), page.name.to_owned())];
    live.extend(params.id.map(|id| ("id".to_owned(), id.to_string())));
    live.extend(params.name.as_ref().map(|name| ("id".to_owned(), name.to_string())));
    live.extend(params.pairs.iter().cloned());
    let mut carried: Vec<_> =
        params.carried().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if choice.live && params.at.is_none() {
        carried.push(("live".to_owned(), "1".to_owned()));
    } else if let Some(seconds) = choice.refresh.filter(|_| params.at.is_none()) {
        carried.extend([("live".to_owned(), "0".to_owned()), ("refresh".to_owned(), seconds.to_string())]);
    }
    let base = Base {
        title: &fragment.title,
        fragment: std::str::from_utf8(&fragment.html).unwrap_or_default(),
        pages: &PAGES,
        here: page.name,
        live: choice.live && params.at.is_none(),
        is_past: params.at.is_some(),
        live_url: format!("/live?{}", format::query(&live)),
        carried: format::address("", &carried),
        refresh_seconds: choice.refresh.unwrap_or(server.poll_seconds),
        refresh_options: refresh_options(page, params, server, choice),
        share_links: share_links(page, params, choice, fragment.position),
        switcher: Switcher::of(page, params, &server.projects),
        preferences: choice.preferences,
        files: Files::new(server.asset),
        build: build(server.asset),
        version: server.version,
        done: choice.done,
        back: format::address(&page.address(params), &params.pairs),
        rendered: server.now.format("%H:%M:%S").to_string(),
        server,
    };
    if page.chrome == Chrome::Display {
        return Ok(Wall {
            base,
            rotate: params.own("rotate").unwrap_or("0"),
            scale: params.own("scale").unwrap_or("100"),
            theme: params.own("theme").unwrap_or("dark"),
            dim: dim(params),
            tz: params.own("tz").unwrap_or("UTC"),
        }
        .render()?);
    }
    Ok(base.render()?)
}

fn dim(params: &Params) -> String {
    match (params.own("dim_from"), params.own("dim_to")) {
        (Some(from), Some(to)) => format!("{from}-{to}"),
        _ => String::new(),
    }
}

/// The wall display has a layout without navigation.
#[derive(Template)]
#[template(path = "wall_shell.html")]
struct Wall<'a> {
    base: Base<'a>,
    rotate: &'a str,
    scale: &'a str,
    theme: &'a str,
    dim: String,
    /// Time zone of its clock.
    tz: &'a str,
}

/// A static page: a form, a text, an error.
///
/// # Errors
/// The template failed.
pub fn plain(title: &str, html: &str, server: &Server<'_>, choice: &RefreshChoice) -> Result<String, PageError> {
    let base = Base {
        title,
        fragment: html,
        pages: &PAGES,
        here: "",
        live: false,
        is_past: false,
        live_url: String::new(),
        carried: String::new(),
        refresh_seconds: 0,
        refresh_options: Vec::new(),
        share_links: Vec::new(),
        switcher: Switcher::default(),
        preferences: choice.preferences,
        files: Files::new(server.asset),
        build: build(server.asset),
        // An error page must not trigger a reload for a new version.
        version: "",
        done: choice.done,
        back: String::new(),
        rendered: String::new(),
        server,
    };
    Ok(base.render()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        feed::time_travel::Moment,
        page::golden::{HOSTILE, id, now, params},
    };

    fn server() -> Server<'static> {
        Server {
            live_allowed: true,
            poll_seconds: 5,
            asset: |name| format!("/static/{name}"),
            version: "1.2.3",
            now: now(),
            instance: "",
            colour: InstanceColour::None,
            summary: Summary::default(),
            projects: Arc::default(),
        }
    }

    fn choice() -> RefreshChoice {
        let preferences = Preferences::default();
        RefreshChoice { live: false, refresh: None, preferences, origin: "https://tw.example".to_owned(), done: None }
    }

    fn page_of(name: &str) -> &'static Page {
        PAGES.iter().find(|page| page.name == name).unwrap()
    }

    fn whole(name: &str, params: &Params, choice: &RefreshChoice) -> String {
        let html = Bytes::from_static(b"<p id=\"content\">x</p>");
        let fragment = Fragment { version: "v".to_owned(), title: HOSTILE.into(), position: 1, html };
        page(page_of(name), params, &server(), choice, &fragment).unwrap()
    }

    fn at(params: Params) -> Params {
        Params { at: Some(Moment { position: 7, time: now() }), ..params }
    }

    fn words(server: &Server<'_>, choice: &RefreshChoice) -> Vec<(String, bool)> {
        let options = refresh_options(page_of("tasks"), &Params::default(), server, choice);
        options.into_iter().map(|option| (option.words, option.chosen)).collect()
    }

    #[test]
    fn exactly_one_way_to_refresh_is_chosen() {
        for refresh in REFRESHES.map(Some).into_iter().chain([None]) {
            for live in [true, false] {
                let words = words(&server(), &RefreshChoice { live, refresh, ..choice() });
                assert_eq!(words.iter().filter(|(_, chosen)| *chosen).count(), 1, "{refresh:?} {live}: {words:?}");
                assert_eq!(words[0], ("Live".to_owned(), live));
            }
        }
    }

    #[test]
    fn the_interval_of_the_server_is_offered_even_if_it_is_unusual() {
        let words_of = |poll_seconds| words(&Server { poll_seconds, ..server() }, &choice());
        assert_eq!(words_of(5).len(), 7);
        assert_eq!(words_of(7)[1], ("Every 7 s".to_owned(), true));
        assert_eq!(words_of(0).last(), Some(&("Off".to_owned(), true)));
        let without = words(&Server { live_allowed: false, ..server() }, &choice());
        assert!(without.iter().all(|(words, _)| words != "Live"));
    }

    fn shared(name: &str, params: &Params, live: bool) -> Vec<(&'static str, String)> {
        let choice = RefreshChoice { live, ..choice() };
        share_links(page_of(name), params, &choice, 42).into_iter().map(|link| (link.id, link.text)).collect()
    }

    #[test]
    fn what_is_shared_is_what_is_shown() {
        let params = params("tasks", &[("status", "failed"), ("q", "a b")]);
        let mut links = shared("tasks", &params, true);
        assert_eq!(links[0], ("copy-link", "https://tw.example/tasks?status=failed&q=a%20b&live=1".to_owned()));
        let moment = "https://tw.example/tasks?status=failed&q=a%20b&at=42";
        assert_eq!(links.remove(1), ("copy-moment", moment.to_owned()));
        assert_eq!(links[1], ("copy-curl", "curl 'https://tw.example/api/v1/tasks?status=failed&q=a%20b'".to_owned()));
        assert_eq!(links[2], ("copy-stream", "https://tw.example/events?topics=tasks&status=failed".to_owned()));
    }

    #[test]
    fn a_page_of_one_object_shares_its_id() {
        let params = Params { id: Some(id(1)), ..Params::default() };
        let links = shared("task", &params, false);
        let id = id(1);
        assert_eq!(links[0].1, format!("https://tw.example/tasks/{id}"));
        assert_eq!(links[2].1, format!("curl 'https://tw.example/api/v1/tasks/{id}'"));
        assert_eq!(links[3].1, format!("https://tw.example/events?task_id={id}"));
    }

    #[test]
    fn the_past_has_no_api_and_no_stream() {
        let past = at(params("overview", &[("at", "7")]));
        assert_eq!(shared("overview", &past, false), [("copy-link", "https://tw.example/?at=7".to_owned())]);
    }

    #[test]
    fn a_shared_command_cannot_leave_its_quotes() {
        let params = params("tasks", &[("q", "'; rm -rf / #\u{202e}")]);
        for (_, text) in shared("tasks", &params, false) {
            assert!(!text.contains("'; rm") && !text.contains('\u{202e}') && !text.contains("%27 "), "{text}");
        }
    }

    #[test]
    fn every_page_has_its_fragment_and_hides_what_is_hostile_in_its_title() {
        for page in &PAGES {
            let html = whole(page.name, &Params { id: Some(id(1)), ..Params::default() }, &choice());
            assert!(html.contains("<p id=\"content\">x</p>"), "{}", page.name);
            assert!(!html.contains("<script>alert") && !html.contains('\u{202e}'), "{}", page.name);
            assert_eq!(html.contains("<nav"), page.chrome == Chrome::Full, "{}", page.name);
        }
    }

    #[test]
    fn links_of_the_navigation_carry_what_the_viewer_chose() {
        let live = RefreshChoice { live: true, refresh: Some(60), ..choice() };
        assert!(whole("queues", &Params::default(), &live).contains("href=\"/tasks?live=1\""));
        let polls = RefreshChoice { refresh: Some(60), ..choice() };
        assert!(whole("queues", &Params::default(), &polls).contains("href=\"/tasks?live=0&#38;refresh=60\""));
        assert!(whole("queues", &Params::default(), &choice()).contains("href=\"/tasks\""));
        let past = at(params("queues", &[("at", "7")]));
        assert!(whole("queues", &past, &live).contains("href=\"/tasks?at=7\""), "the past before all else");
    }

    #[test]
    fn title_and_icon_tell_trouble_but_not_of_the_past() {
        let told = |level, params: &Params| {
            let server = Server { instance: "prod-eu", summary: Summary { level, ..Summary::default() }, ..server() };
            let html = Bytes::new();
            let fragment = Fragment { version: "v".to_owned(), title: "Queues".into(), position: 1, html };
            let html = page(page_of("queues"), params, &server, &choice(), &fragment).unwrap();
            let between =
                |start: &str, end: char| html.split(start).nth(1).unwrap().split(end).next().unwrap().to_owned();
            (between("<title>", '<'), between("id=\"icon\" href=\"", '"'))
        };
        let now = Params::default();
        let of = |title: &str, icon: &str| (title.to_owned(), format!("/static/{icon}.svg"));
        assert_eq!(told(Level::Ok, &now), of("Queues · prod-eu", "icon"));
        assert_eq!(told(Level::Degraded, &now), of("▲ Degraded · Queues · prod-eu", "icon-warn"));
        assert_eq!(told(Level::Stalled, &now), of("✕ Stalled · Queues · prod-eu", "icon-bad"));
        let past = at(params("queues", &[("at", "7")]));
        assert_eq!(told(Level::Stalled, &past), of("Queues · prod-eu", "icon"));
    }

    #[test]
    fn hours_of_a_dim_wall_need_both_ends() {
        let hours = |pairs: &[(&str, &str)]| dim(&params("wall", pairs));
        assert_eq!(hours(&[("dim_from", "22:00"), ("dim_to", "06:00")]), "22:00-06:00");
        assert_eq!((hours(&[("dim_from", "22:00")]), hours(&[])), (String::new(), String::new()));
    }

    #[test]
    fn a_plain_page_never_reloads_itself() {
        let html = plain("Not found", "<p>x</p>", &server(), &choice()).unwrap();
        assert!(html.contains("<p>x</p>") && !html.contains("1.2.3"), "{html}");
    }
}
