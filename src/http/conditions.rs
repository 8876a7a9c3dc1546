//! Headers for idempotent and conditional requests. Where one is not supported the request is rejected: a client that
//! relies on it must not be misled.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
};
use uuid::Uuid;

use super::{codes::ErrorCode, problem::Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Maximum length of a key, bytes.
const MAX_KEY_BYTES: usize = 256;
/// Namespace for IDs derived from keys, which are UUIDs of version 5.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d0e_9b27_4c1f_4aa8_93e6_18f2_7d64_b05a);

/// Calls that are not idempotent and have no IDs that could be derived from a key. All others are idempotent anyway.
const UNKEYED: [&str; 4] = ["/api/v1/workers", "/api/v1/claims", "/api/v1/tasks/bulk", "/api/v1/tasks/{id}/retry"];

/// The idempotency key of a request that creates something.
#[derive(Debug, Clone, Default)]
pub(super) struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The ID derived from the key for the item with an index; `None` without a key.
    pub(super) fn id(&self, actor: &str, number: usize) -> Option<Uuid> {
        let key = self.0.as_ref()?;
        Some(Uuid::new_v5(&NAMESPACE, format!("{actor}\0{number}\0{key}").as_bytes()))
    }

    /// Whether there is a key.
    pub(super) const fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(KEY) else { return Ok(Self(None)) };
        let is_plain = |byte: &u8| (b'!'..=b'~').contains(byte);
        let fits = !value.is_empty() && value.len() <= MAX_KEY_BYTES && value.as_bytes().iter().all(is_plain);
        let key = value.to_str().ok().filter(|_| fits && parts.headers.get_all(KEY).iter().count() == 1);
        let detail = "must be one value of 1–256 visible ASCII characters";
        key.map(|key| Self(Some(key.to_owned()))).ok_or_else(|| Problem::invalid_parameter("Idempotency-Key", detail))
    }
}

/// The versions of a task required by an edit; `None` if any version is accepted.
#[derive(Debug, Clone)]
pub(super) struct IfMatch(pub(super) Option<Vec<Uuid>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let values: Vec<_> = parts.headers.get_all(header::IF_MATCH).into_iter().collect();
        if values.is_empty() {
            return Ok(Self(None));
        }
        let mut versions = Vec::new();
        for value in values {
            let text = value
                .to_str()
                .map_err(|_| Problem::invalid_parameter("If-Match", "must be an ETag in quotes, or *"))?;
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Self(None));
                }
                let opaque =
                    tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                let opaque =
                    opaque.ok_or_else(|| Problem::invalid_parameter("If-Match", "must be an ETag in quotes, or *"))?;
                // A weak ETag never matches here, and an ETag in another format is not a version of a task.
                versions.extend(Uuid::parse_str(opaque).ok().filter(|_| !tag.starts_with("W/")));
            }
        }
        Ok(Self(Some(versions)))
    }
}

/// The ETag header of a version.
pub(super) fn etag(version: Uuid) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(format!("\"{}\"", version.as_simple()));
    (header::ETAG, value.expect("hex digits in quotes are a header value"))
}

/// Rejects these headers where they are not supported.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // The router may be mounted at a path of another program.
    let route = route.find("/api/v1/").map_or("", |at| &route[at..]);
    unsupported(request.method(), route, request.headers()).map_or(Ok(()), Err)
}

fn unsupported(method: &Method, route: &str, headers: &HeaderMap) -> Option<Problem> {
    let safe = method.is_safe() || route.is_empty();
    if !safe && headers.contains_key(KEY) && UNKEYED.contains(&route) {
        let detail = "not supported by this call; omit it";
        return Some(Problem::field(ErrorCode::IdempotencyKeyUnsupported, "Idempotency-Key", detail));
    }
    let conditional = *method == Method::PATCH && route == "/api/v1/tasks/{id}";
    if !safe && !conditional && headers.contains_key(header::IF_MATCH) {
        return Some(Problem::field(
            ErrorCode::IfMatchUnsupported,
            "If-Match",
            "only supported by PATCH /api/v1/tasks/{id}; omit it",
        ));
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::empty()).unwrap().into_parts().0
    }

    async fn key(headers: &[(&str, &str)]) -> Result<IdempotencyKey, Problem> {
        IdempotencyKey::from_request_parts(&mut parts(headers), &()).await
    }

    async fn versions(values: &[&str]) -> Result<Option<Vec<Uuid>>, Problem> {
        let headers: Vec<_> = values.iter().map(|value| ("if-match", *value)).collect();
        Ok(IfMatch::from_request_parts(&mut parts(&headers), &()).await?.0)
    }

    #[tokio::test]
    async fn a_key_gives_the_same_ids_again() {
        let key = async |text| key(&[("idempotency-key", text)]).await.unwrap();
        let (one, other) = (key("order-17").await, key("order-18").await);
        assert_eq!(one.id("local", 3), key("order-17").await.id("local", 3));
        let all = [one.id("local", 0), one.id("local", 1), other.id("local", 0), one.id("ann", 0)];
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 4, "each item, key and caller has its own");
        assert_eq!(one.id("local", 1).unwrap().get_version_num(), 5);
        assert!(one.is_given());
        let none = IdempotencyKey::default();
        assert!(!none.is_given() && none.id("local", 0).is_none());
    }

    #[tokio::test]
    async fn a_key_is_one_value_of_visible_characters() {
        let long = "k".repeat(MAX_KEY_BYTES);
        for right in ["!", "~", "a,b", &long] {
            assert!(key(&[("idempotency-key", right)]).await.is_ok(), "{right}");
        }
        let longer = "k".repeat(MAX_KEY_BYTES + 1);
        for wrong in ["", "a b", "a\tb", "ä", &longer] {
            let problem = key(&[("idempotency-key", wrong)]).await.unwrap_err();
            assert_eq!(problem.errors[0].field, "Idempotency-Key", "{wrong}");
            assert_eq!(problem.code, ErrorCode::InvalidParameter);
        }
        assert!(key(&[("idempotency-key", "a"), ("idempotency-key", "a")]).await.is_err(), "given twice");
        assert!(!key(&[]).await.unwrap().is_given());
    }

    #[tokio::test]
    async fn an_edit_may_name_the_versions_that_it_is_for() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tag = |version| etag(version).1.to_str().unwrap().to_owned();
        assert_eq!(versions(&[]).await.unwrap(), None);
        assert_eq!(versions(&[&tag(one)]).await.unwrap(), Some(vec![one]));
        assert_eq!(versions(&[&format!("{} , {}", tag(one), tag(two))]).await.unwrap(), Some(vec![one, two]));
        assert_eq!(versions(&[&tag(one), &tag(two)]).await.unwrap(), Some(vec![one, two]));
        assert_eq!(versions(&["*"]).await.unwrap(), None);
        assert_eq!(versions(&[&format!("{}, *", tag(one))]).await.unwrap(), None, "any will do");
    }

    #[tokio::test]
    async fn a_tag_that_is_no_version_of_a_task_matches_none() {
        let weak = format!("W/{}", etag(Uuid::from_u128(1)).1.to_str().unwrap());
        for tag in [weak.as_str(), "\"abc\"", "\"\""] {
            assert_eq!(versions(&[tag]).await.unwrap(), Some(vec![]), "{tag}");
        }
        for wrong in ["", "abc", "\"abc", "abc\"", "\"", "\"a\",", "**", "W/abc"] {
            let problem = versions(&[wrong]).await.unwrap_err();
            assert_eq!(problem.errors[0].field, "If-Match", "{wrong}");
        }
    }

    #[test]
    fn a_condition_is_refused_where_it_would_be_ignored() {
        let code = |method: Method, route: &str, header: &str| {
            unsupported(&method, route, &parts(&[(header, "x")]).headers).map(|problem| problem.code)
        };
        let (key, only_if) = ("idempotency-key", "if-match");
        for route in UNKEYED {
            assert_eq!(code(Method::POST, route, key), Some(ErrorCode::IdempotencyKeyUnsupported), "{route}");
        }
        assert_eq!(code(Method::POST, "/api/v1/tasks", key), None);
        assert_eq!(code(Method::GET, "/api/v1/workers", key), None, "reading needs no key");
        assert_eq!(code(Method::PATCH, "/api/v1/tasks/{id}", only_if), None);
        assert_eq!(code(Method::DELETE, "/api/v1/tasks/{id}", only_if), Some(ErrorCode::IfMatchUnsupported));
        assert_eq!(code(Method::POST, "/api/v1/tasks", only_if), Some(ErrorCode::IfMatchUnsupported));
        assert_eq!(code(Method::GET, "/api/v1/tasks/{id}", only_if), None);
        assert_eq!(code(Method::POST, "", only_if), None, "no route of the API");
    }
}
