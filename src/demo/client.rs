//! The demo's HTTP client for JSON.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// Request timeout; longer than the longest long poll.
const TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Debug, Clone)]
pub(super) struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    pub(super) fn new(url: String) -> Self {
        Self { url, http: reqwest::Client::new() }
    }

    /// The server's URL without secrets.
    pub(super) fn place(&self) -> String {
        crate::config::shown(&self.url)
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.http.put(format!("{}{path}", self.url)).json(body), path).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.delete(format!("{}{path}", self.url)), path).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> anyhow::Result<Value> {
        // The error's own text contains the whole URL, which may include secrets.
        let sent = request.timeout(TIMEOUT).send().await.map_err(reqwest::Error::without_url);
        let response = sent.with_context(|| format!("{path} cannot be reached"))?;
        let status = response.status();
        let body = response.bytes().await?;
        if !status.is_success() {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}
