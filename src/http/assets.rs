//! Static files: inside the binary, named by their hash, compressed once.

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

#[derive(RustEmbed)]
#[folder = "static"]
#[exclude = "*.md"]
#[exclude = "*.LICENSE"]
struct Files;

struct File {
    kind: &'static str,
    plain: Bytes,
    gzip: Bytes,
}

/// Files by the path below `/static/`, which ends in their hash: `taskwatch.css.1a2b3c4d5e6f`.
static ASSETS: LazyLock<BTreeMap<String, File>> = LazyLock::new(|| {
    let load = |name: std::borrow::Cow<'static, str>| {
        let file = Files::get(&name)?;
        let hash: String = file.metadata.sha256_hash().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&file.data).ok()?;
        let kind = match name.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        };
        let loaded = File { kind, plain: Bytes::from(file.data.into_owned()), gzip: gzip.finish().ok()?.into() };
        Some((format!("{name}.{hash}"), loaded))
    };
    Files::iter().filter_map(load).collect()
});

/// The address of a file; it changes with the file.
#[must_use]
pub fn url(name: &str) -> String {
    let prefix = format!("{name}.");
    let found = ASSETS.keys().find(|key| key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.')));
    format!("/static/{}", found.map_or(name, String::as_str))
}

/// One file. It never changes under its name, so it may be kept for ever.
pub(super) async fn serve(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = ASSETS.get(&path) else {
        return Problem::not_found("there is no such file; reload the page").into_response();
    };
    let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let gzip = accepts.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"));
    let body = if gzip { file.gzip.clone() } else { file.plain.clone() };
    let mut response = (StatusCode::OK, Body::from(body)).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
