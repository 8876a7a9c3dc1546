//! Static files: embedded in the binary, named by their hash, compressed once.

use std::{collections::BTreeMap, io::Write, sync::LazyLock};

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use rust_embed::RustEmbed;

use super::problem::Problem;

/// Marks a response whose bytes are shared.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedBytes;

#[derive(RustEmbed)]
#[folder = "static"]
struct Files;

/// Constant content: created once, compressed once, and shared by all responses.
#[derive(Debug, Clone)]
pub(super) struct Document {
    kind: &'static str,
    plain: Bytes,
    gzip: Bytes,
}

impl Document {
    pub(super) fn new(kind: &'static str, plain: impl Into<Bytes>) -> Self {
        let plain = plain.into();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail.
        let gzip = gzip.write_all(&plain).and_then(|()| gzip.finish()).unwrap_or_default();
        Self { kind, plain, gzip: gzip.into() }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::new("application/json", value.to_string())
    }

    /// The response, compressed if the client accepts that.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let gzip = accepts.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            is_gzip && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        });
        let body = if gzip { self.gzip.clone() } else { self.plain.clone() };
        let mut response = (StatusCode::OK, Body::from(body)).into_response();
        response.extensions_mut().insert(SharedBytes);
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Files by their path below `/static/`, with a hash at the end: `taskwatch.css.1a2b3c4d5e6f`.
static ASSETS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let load = |name: std::borrow::Cow<'static, str>| {
        let file = Files::get(&name)?;
        let hash: String = file.metadata.sha256_hash().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let kind = match name.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            // Licences and records of what is vendored.
            _ => return None,
        };
        Some((format!("{name}.{hash}"), Document::new(kind, file.data.into_owned())))
    };
    Files::iter().filter_map(load).collect()
});

/// URL of a file; it changes with the content.
#[must_use]
pub fn url(name: &str) -> String {
    let prefix = format!("{name}.");
    let found = ASSETS.keys().find(|key| key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.')));
    format!("/static/{}", found.map_or(name, String::as_str))
}

/// Serves one file. It is immutable under its name, so it may be cached forever.
pub(super) async fn serve(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = ASSETS.get(&path) else {
        return Problem::not_found("there is no such file; reload the page").into_response();
    };
    let mut response = file.answer(&headers);
    let cache = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn asking(coding: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, coding.parse().unwrap())])
    }

    async fn body(response: Response) -> Vec<u8> {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
    }

    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(bytes).unwrap();
        decoder.finish().unwrap()
    }

    #[test]
    fn the_name_of_a_file_changes_with_its_content() {
        let url = url("taskwatch.css");
        let hash = url.strip_prefix("/static/taskwatch.css.").unwrap();
        assert!(hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{url}");
        assert_eq!(super::url("nothing.css"), "/static/nothing.css");
        assert_eq!(super::url("taskwatch"), "/static/taskwatch", "a part of a name is no name");
        for key in ASSETS.keys() {
            let (name, _) = key.rsplit_once('.').unwrap();
            assert_eq!(super::url(name), format!("/static/{key}"));
        }
    }

    #[tokio::test]
    async fn a_file_under_its_name_may_be_kept_forever() {
        let path = url("taskwatch.css").strip_prefix("/static/").unwrap().to_owned();
        let response = serve(Path(path.clone()), HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        assert!(response.extensions().get::<SharedBytes>().is_some());
        for other in ["taskwatch.css", "../Cargo.toml", "taskwatch.css.000000000000", ""] {
            let missing = serve(Path(other.to_owned()), HeaderMap::new()).await;
            assert_eq!(missing.status(), StatusCode::NOT_FOUND, "{other}");
            assert!(!missing.headers().contains_key(header::CACHE_CONTROL), "{other}");
        }
    }

    #[tokio::test]
    async fn a_document_is_compressed_for_those_who_take_it() {
        let text = "a line\n".repeat(500);
        let document = Document::new("text/plain", text.clone());
        for coding in ["gzip", "br, GZIP", "gzip;q=0.1", "gzip; x=y"] {
            let response = document.answer(&asking(coding));
            assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip", "{coding}");
            let bytes = body(response).await;
            assert!(bytes.len() < 200 && unzipped(&bytes) == text.as_bytes());
        }
        for coding in ["", "identity", "gzip;q=0", "gzip; q=0.0", "deflate"] {
            let response = document.answer(&asking(coding));
            assert!(!response.headers().contains_key(header::CONTENT_ENCODING), "{coding}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            assert_eq!(body(response).await, text.as_bytes());
        }
    }
}
