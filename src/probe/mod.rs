//! `taskwatch health` and `taskwatch status`: query a running server over its public API.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Response, Url};
use serde_json::Value;

use crate::config::{HealthSettings, ServerSettings, shown};

/// Request timeout: shorter than the usual timeout of container health checks.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Health in one line, and whether it is OK.
#[derive(Debug)]
pub struct Status {
    /// Health status and reasons.
    pub line: String,
    /// Health is `ok`.
    pub ok: bool,
}

/// Checks liveness, or with `ready` readiness.
///
/// # Errors
/// The check fails or the server does not respond; the message says why.
pub async fn health(settings: &HealthSettings) -> anyhow::Result<()> {
    let path = if settings.ready { "/readyz" } else { "/healthz" };
    let response = get(&settings.server, path).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    bail!("{path} answers {status}: {}", text.trim())
}

/// Queries the health.
///
/// # Errors
/// The server does not respond.
pub async fn status(settings: &ServerSettings) -> anyhow::Result<Status> {
    let path = "/api/v1/health";
    let response = get(settings, path).await?;
    ensure!(response.status().is_success(), "{path} answers {}", response.status());
    let body: Value = response.json().await.map_err(reqwest::Error::without_url)?;
    let status = body["status"].as_str().with_context(|| format!("{path} gives no status"))?;
    let reasons = body["reasons"].as_array().into_iter().flatten();
    let reasons: Vec<_> = reasons.filter_map(|reason| reason["text"].as_str()).collect();
    let line = if reasons.is_empty() { status.to_owned() } else { format!("{status}: {}", reasons.join("; ")) };
    Ok(Status { line, ok: status == "ok" })
}

async fn get(settings: &ServerSettings, path: &str) -> anyhow::Result<Response> {
    let address = settings.address();
    let place = || shown(&address);
    let url = Url::parse(&format!("{address}{path}")).with_context(|| format!("invalid --url {}", place()))?;
    let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let sent = http.get(url).send().await.map_err(reqwest::Error::without_url);
    sent.with_context(|| format!("no taskwatch answers at {}; start one there or name another with --url", place()))
}
