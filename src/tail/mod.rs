//! `taskwatch tail`: follows the stream in a terminal. Uses only the public stream and resumes after the last event it
//! printed, even after a server outage.

mod line;
mod parse;

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use parse::{Message, Parser};
use reqwest::{StatusCode, header};
use serde_json::Value;

use crate::{
    config::{TailSettings, shown},
    event::visible::{visible_json, visible_line},
};

/// User agent, shown in the stream registry.
const AGENT: &str = concat!("taskwatch-tail/", env!("CARGO_PKG_VERSION"));
/// Time without data after which a connection counts as dead: more than two of the longest heartbeat intervals.
const SILENCE: Duration = Duration::from_secs(150);
/// Connect timeout.
const CONNECT: Duration = Duration::from_secs(10);
/// Delay before reconnecting to a server that does not respond.
const PAUSE: Duration = Duration::from_secs(2);

/// How a connection ended.
enum End {
    /// The stream is finished; do not reconnect.
    Closed,
    /// The connection was lost or the server sent `bye`: reconnect after this delay.
    Broken(String),
}

struct Tail {
    settings: TailSettings,
    colour: bool,
    cursor: Option<String>,
    retry: Duration,
}

/// Prints events until the stream is finished, which happens only with `--max-events`.
///
/// # Errors
/// The server rejects the filters, or the output cannot be written.
pub async fn run(settings: TailSettings) -> anyhow::Result<()> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let http = reqwest::Client::builder().user_agent(AGENT).connect_timeout(CONNECT).read_timeout(SILENCE).build()?;
    let mut tail = Tail { colour, cursor: None, retry: PAUSE, settings };
    loop {
        match tail.connection(&http).await? {
            End::Closed => return Ok(()),
            End::Broken(why) => {
                note(&format!("{why}; trying again in {:.1} s", tail.retry.as_secs_f64()));
                tokio::time::sleep(tail.retry).await;
            }
        }
    }
}

/// Prints a message about the connection, separate from the events.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "taskwatch tail: {}", visible_line(text));
}

impl Tail {
    async fn connection(&mut self, http: &reqwest::Client) -> anyhow::Result<End> {
        let mut url = reqwest::Url::parse(&format!("{}/events", self.settings.url.trim_end_matches('/')))
            .with_context(|| format!("invalid --url {}", shown(&self.settings.url)))?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("after", &self.settings.after).append_pair("snapshot", "never");
            if let Some(max) = self.settings.max_events {
                query.append_pair("max_events", &max.to_string());
            }
            for filter in &self.settings.filters {
                let Some((name, value)) = filter.split_once('=') else {
                    bail!("invalid filter '{filter}': expected name=value, e.g. queue=default");
                };
                query.append_pair(name, value);
            }
        }
        let mut request = http.get(url).header(header::ACCEPT, "text/event-stream");
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                self.retry = PAUSE;
                return Ok(End::Broken(format!("cannot connect to {}: {}", shown(&self.settings.url), root(&error))));
            }
        };
        if response.status().is_client_error() && response.status() != StatusCode::TOO_MANY_REQUESTS {
            let problem: Value = response.json().await.unwrap_or_default();
            bail!("request rejected: {}", visible_line(problem["detail"].as_str().unwrap_or("no details given")));
        }
        if !response.status().is_success() {
            return Ok(End::Broken(format!("server returned {}", response.status())));
        }
        let mut parser = Parser::default();
        loop {
            let bytes = match response.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(End::Broken("stream closed".to_owned())),
                Err(error) => return Ok(End::Broken(format!("stream interrupted: {}", root(&error)))),
            };
            for message in parser.push(&bytes) {
                if let Some(end) = self.take(&message)? {
                    return Ok(end);
                }
            }
        }
    }

    /// Handles one message of the stream.
    fn take(&mut self, message: &Message) -> anyhow::Result<Option<End>> {
        if let Some(retry) = message.retry_ms {
            self.retry = Duration::from_millis(retry.min(60_000));
        }
        let json = || serde_json::from_str::<Value>(&message.data).unwrap_or_default();
        match message.event.as_str() {
            "hello" => {
                let hello = json();
                let word = hello["resume"].as_str().unwrap_or("?");
                note(&format!("{word} at {}", message.id.as_deref().unwrap_or("?")));
            }
            "reset" => {
                let reset = json();
                let text = |field: &str| reset[field].as_str().unwrap_or("?").to_owned();
                note(&format!(
                    "gap: cannot resume after {} ({}); the log covers {} to {}",
                    text("requested"),
                    text("reason"),
                    text("oldest"),
                    text("head")
                ));
            }
            "lagging" => note(&format!("lagging by {} events (none lost)", json()["behind"])),
            "heartbeat" | "snapshot" | "snapshot_end" => {}
            "bye" => return Ok(Some(End::Broken(format!("server closed the stream ({})", json()["reason"])))),
            "close" => return Ok(Some(End::Closed)),
            _ => {
                // A result may contain valid JSON numbers outside the range of floats: it is then printed unchanged.
                let event = serde_json::from_str::<Value>(&message.data).ok().filter(|_| !self.settings.json);
                let line = match event {
                    Some(event) => line::readable(&event, self.colour),
                    None => visible_json(&message.data).into_owned(),
                };
                writeln!(std::io::stdout().lock(), "{line}")?;
                if let Some(left) = &mut self.settings.max_events {
                    *left = left.saturating_sub(1);
                }
            }
        }
        if message.id.is_some() {
            self.cursor.clone_from(&message.id);
        }
        // The `close` frame may be lost with the connection.
        Ok((self.settings.max_events == Some(0)).then_some(End::Closed))
    }
}

/// The innermost cause, which is the most specific.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
