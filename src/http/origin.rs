//! Cross-site checks: whether a browser's request was initiated by this site, its user, or another site. Programs other
//! than browsers send no such information and are served: until there is authentication they have no user's rights that
//! could be abused.

use axum::http::{HeaderMap, HeaderName, Method, Request, header};

use super::{codes::ErrorCode, hosts::Authority, problem::Problem};

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Initiator of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// This site, or the user directly.
    Ours,
    /// Another site.
    Other,
    /// Unknown.
    Unknown,
}

/// Rejects requests initiated by another site, except following a link to a page.
///
/// # Errors
/// A 403 with the reason.
pub(super) fn check<B>(request: &Request<B>, host: Option<&Authority>, scheme: &str) -> Result<(), Problem> {
    let (method, headers) = (request.method(), request.headers());
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    let detail = match maker(headers, host, scheme) {
        Maker::Ours => return Ok(()),
        Maker::Unknown if is_safe || !headers.contains_key(header::COOKIE) => return Ok(()),
        Maker::Unknown => "a write with a cookie requires the header Origin or Sec-Fetch-Site",
        Maker::Other if is_safe && is_link(request) => return Ok(()),
        Maker::Other => {
            "another site may link to pages here, and nothing else; behind a proxy that ends TLS, name it with --trusted-proxies and let it set X-Forwarded-Proto"
        }
    };
    Err(Problem::new(ErrorCode::CrossSite, detail))
}

fn maker(headers: &HeaderMap, host: Option<&Authority>, scheme: &str) -> Maker {
    let (Ok(site), Ok(origin)) = (single(headers, &SITE), single(headers, &header::ORIGIN)) else {
        return Maker::Other;
    };
    let own = |origin: &str, any_scheme: bool| {
        let Some((named, rest)) = origin.split_once("://") else { return false };
        let same = host.zip(Authority::parse(rest)).is_some_and(|(host, other)| {
            // A proxy may have terminated TLS: then the default port is that of https.
            host.is_same(&other, named)
        });
        same && (any_scheme && matches!(named, "http" | "https") || named == scheme)
    };
    match (site, origin) {
        (None, None) => Maker::Unknown,
        // The browser's own assessment, which takes the scheme into account.
        (Some("same-origin" | "none"), None) => Maker::Ours,
        (Some("same-origin" | "none"), Some(origin)) if own(origin, true) => Maker::Ours,
        (None, Some(origin)) if own(origin, false) => Maker::Ours,
        (Some(_), _) | (None, Some(_)) => Maker::Other,
    }
}

/// The value of a header that occurs once, as non-empty text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().filter(|text| !text.is_empty()).map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The user follows a link to a page: not to an API endpoint, and not in a frame.
fn is_link<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_page = path != "/events" && path != "/live" && !path.starts_with("/api/");
    let says = |name: &HeaderName, word: &str| request.headers().get(name).is_some_and(|value| value == word);
    let is_document = says(&DEST, "document") || !request.headers().contains_key(&DEST);
    is_page && is_document && says(&MODE, "navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let host = Authority::parse("127.0.0.1:8080");
        let scheme = if headers.contains(&("x-forwarded-proto", "https")) { "https" } else { "http" };
        check(&request, host.as_ref(), scheme).is_ok()
    }

    #[test]
    fn only_this_site_its_user_and_programs_change_things() {
        let post = |headers: &[(&str, &str)]| allowed("POST", "/settings", headers);
        assert!(post(&[]));
        assert!(post(&[("sec-fetch-site", "same-origin")]));
        assert!(post(&[("sec-fetch-site", "none")]));
        assert!(post(&[("origin", "http://127.0.0.1:8080")]));
        assert!(post(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin"), ("cookie", "a=b")]));
        // Behind a proxy that terminates TLS.
        assert!(post(&[("origin", "https://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(post(&[("origin", "https://127.0.0.1:8080"), ("x-forwarded-proto", "https")]));
        for refused in [
            &[("cookie", "a=b")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8080")],
            &[("origin", "")],
            &[("origin", "null")],
            &[("origin", "https://")],
            &[("origin", "http://")],
            &[("origin", "https://127.0.0.1:8080")],
            &[("origin", "http://127.0.0.1:8081")],
            &[("origin", "http://127.0.0.1")],
            &[("origin", "http://127.0.0.1:8080.evil.example")],
            &[("origin", "http://127.0.0.1:8080/")],
            &[("origin", "127.0.0.1:8080")],
            &[("origin", "http://127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        ] {
            assert!(!post(refused), "{refused:?}");
        }
    }

    #[test]
    fn other_sites_may_link_to_pages_and_read_nothing() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(allowed("GET", "/tasks", &link));
        for path in ["/events", "/live", "/api/v1/tasks"] {
            assert!(!allowed("GET", path, &link), "{path}");
            assert!(!allowed("GET", path, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")]), "{path}");
            assert!(!allowed("GET", path, &[("origin", "http://evil.example")]), "{path}");
            assert!(!allowed("HEAD", path, &[("origin", "null")]), "{path}");
            assert!(allowed("GET", path, &[("sec-fetch-site", "same-origin")]), "{path}");
            assert!(allowed("GET", path, &[("cookie", "a=b")]), "{path}");
        }
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!allowed("GET", "/tasks", &frame));
        assert!(!allowed("GET", "/tasks", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")]));
    }
}
