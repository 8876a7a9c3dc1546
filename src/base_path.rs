//! The path at which a reverse proxy serves the site. Pages are rendered as if it were the root; links are prefixed when
//! they leave.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

/// Attributes that hold URLs.
const ADDRESSES: [&str; 12] = [
    "href",
    "src",
    "action",
    "formaction",
    "hx-get",
    "hx-sse:connect",
    "data-url",
    "data-root",
    "data-ok",
    "data-degraded",
    "data-stalled",
    "data-offline",
];

/// First segments of the server's own paths, except those of pages, which the table of pages knows.
const TAKEN: [&str; 12] = [
    "api",
    "events",
    "live",
    "static",
    "healthz",
    "readyz",
    "metrics",
    "openapi.json",
    "settings",
    "help",
    "docs",
    "jump",
];

/// What is wrong with a path that hides one of the server.
pub const CONFLICT: &str = "conflicts with a taskwatch route; choose another, e.g. /taskwatch";

/// A path such as `/taskwatch`, or nothing for the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

impl FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Ok(Self::default());
        }
        let Some(rest) = path.strip_prefix('/') else {
            return Err("must begin with /, as in /taskwatch".to_owned());
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if rest.split('/').any(|part| part.trim_matches('.').is_empty() || !part.chars().all(is_plain)) {
            return Err(r#"may only contain letters, digits, "-", ".", "_", "~" and "/""#.to_owned());
        }
        if rest.split('/').next().is_some_and(|first| TAKEN.contains(&first)) {
            return Err(CONFLICT.to_owned());
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BasePath {
    /// Its first segment; `None` for the root.
    #[must_use]
    pub fn first_segment(&self) -> Option<&str> {
        self.0.split('/').nth(1)
    }

    /// The site is at the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path without the base path; `None` for a request without it.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&*self.0).filter(|_| !self.is_root())?;
        if rest.is_empty() { Some("/") } else { Some(rest).filter(|rest| rest.starts_with('/')) }
    }

    /// HTML whose links are prefixed with the base path. It must be written as our templates are: texts and values hold no `"`.
    #[must_use]
    pub fn prefix_links<'a>(&self, html: &'a str) -> Cow<'a, str> {
        if self.is_root() {
            return Cow::Borrowed(html);
        }
        let mut led = String::with_capacity(html.len() + html.len() / 16);
        let mut done = 0;
        for (at, sign) in html.match_indices("=\"/") {
            let name = html[..at].rsplit(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
            let path = at + sign.len() - 1;
            if ADDRESSES.contains(&name) && !html[path..].starts_with("//") {
                led.push_str(&html[done..path]);
                led.push_str(&self.0);
                done = path;
            }
        }
        led.push_str(&html[done..]);
        Cow::Owned(led)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_led_to_the_base_path_and_nothing_else() {
        let base = BasePath("/ops/taskwatch".into());
        assert_eq!("/ops/taskwatch/".parse(), Ok(base.clone()));
        let html = "<a href=\"/\">x</a> <a class=\"b\" href=\"/tasks?q=/a\">y</a><input value=\"/tasks\"><a href=\"#q\"><a href=\"//other\"><a\nhref=\"https://x/\">";
        assert_eq!(
            base.prefix_links(html),
            "<a href=\"/ops/taskwatch/\">x</a> <a class=\"b\" href=\"/ops/taskwatch/tasks?q=/a\">y</a><input value=\"/tasks\"><a href=\"#q\"><a href=\"//other\"><a\nhref=\"https://x/\">"
        );
        assert!(matches!(BasePath::default().prefix_links(html), Cow::Borrowed(same) if same == html));
    }

    #[test]
    fn requests_come_with_the_base_path_or_without() {
        let base = BasePath("/taskwatch".into());
        assert_eq!(base.strip("/taskwatch"), Some("/"));
        assert_eq!(base.strip("/taskwatch/"), Some("/"));
        assert_eq!(base.strip("/taskwatch/tasks/7"), Some("/tasks/7"));
        assert_eq!(base.strip("/taskwatches"), None);
        assert_eq!(base.strip("/tasks"), None);
        assert_eq!(BasePath::default().strip("/tasks"), None);
    }

    #[test]
    fn base_paths_that_cannot_work_are_refused() {
        assert_eq!("/".parse(), Ok(BasePath::default()));
        for bad in ["taskwatch", "//x", "/a//b", "/a b", "/\"x", "/..", "/api/v2", "/events"] {
            assert!(bad.parse::<BasePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_path_is_read_as_people_write_it() {
        for (text, path) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b.c_d~e-F0", "/a/b.c_d~e-F0")] {
            assert_eq!(text.parse::<BasePath>().map(|base| base.to_string()), Ok(path.to_owned()), "{text}");
        }
        let first = |text: &str| text.parse::<BasePath>().ok()?.first_segment().map(str::to_owned);
        assert_eq!((first("/ops/watch"), first("/")), (Some("ops".to_owned()), None));
    }

    #[test]
    fn what_is_wrong_with_a_base_path_is_said() {
        let error = |text: &str| text.parse::<BasePath>().expect_err(text);
        assert!(error("taskwatch").contains("must begin with /"));
        for wrong in ["//", "/a//", "/a/../b", "/.", "/...", "/ä", "/a%20b", "/a?b", "/a#b", "/a\\b"] {
            assert!(error(wrong).starts_with("may only contain"), "{wrong}");
        }
        for taken in TAKEN {
            assert_eq!(error(&format!("/{taken}")), CONFLICT);
            assert_eq!(error(&format!("/{taken}/x")), CONFLICT);
            assert!(format!("/x/{taken}").parse::<BasePath>().is_ok(), "only the first part can hide a route");
        }
    }

    #[test]
    fn a_path_with_the_prefix_twice_loses_it_once() {
        let base = BasePath("/a/b".into());
        assert_eq!(base.strip("/a/b/a/b/tasks"), Some("/a/b/tasks"));
        assert_eq!(base.strip("/a"), None);
        assert_eq!(base.strip(""), None);
    }
}
