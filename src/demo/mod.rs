//! Demo load over the public API only: producers, workers on a few machines, parents with phases, several types of
//! failures, an occasional worker crash. At a high rate it is the load generator.

mod client;
mod content;
mod pipeline;
mod scenes;
mod work;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::{DemoSettings, shown};
use client::Client;

/// Task types: type, queue and title.
const KINDS: [(&str, &str, &str); 8] = [
    ("render-preview", "media", "Render preview"),
    ("transcode", "media", "Transcode clip"),
    ("send-mail", "mail", "Send confirmation"),
    ("index-document", "default", "Index document"),
    ("sync-inventory", "default", "Sync inventory"),
    ("score-lead", "default", "Score lead"),
    ("create-invoice", "default", "Invoice"),
    ("export-ledger", "default", "Export ledger"),
];
/// At higher rates the demo is a load generator: only tasks, workers and parents.
const SCENES_UP_TO: f64 = 10.0;
/// Projects of the tasks.
const PROJECTS: [&str; 3] = ["atlas", "borealis", "cobalt"];
/// Maximum requests per second of the producers; at higher rates each request creates several tasks.
const REQUESTS_PER_SECOND: f64 = 50.0;

/// The demo.
#[derive(Debug)]
pub struct Demo {
    client: Client,
    rate: f64,
    workers: u32,
}

impl Demo {
    /// Five tasks per second and twelve workers.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self { client: Client::new(url), rate: 5.0, workers: 12 }
    }

    /// From command line settings.
    ///
    /// # Errors
    /// The rate is invalid.
    pub fn of(settings: &DemoSettings) -> anyhow::Result<Self> {
        let sane = settings.rate.is_finite() && settings.rate > 0.0 && settings.rate <= 100_000.0;
        ensure!(sane, "--rate must be more than 0 and at most 100000 tasks per second");
        let url = settings.url.trim_end_matches('/').to_owned();
        let usable = reqwest::Url::parse(&url).is_ok_and(|url| url.has_host() && url.scheme().starts_with("http"));
        ensure!(usable, "invalid --url {}; write it as http://127.0.0.1:8080", shown(&url));
        Ok(Self { client: Client::new(url), rate: settings.rate, workers: settings.workers })
    }

    /// Runs until stopped; workers then deregister.
    ///
    /// # Errors
    /// No server responded before that.
    pub async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        self.wait_for_server(&stopping).await?;
        let pace = work::Pace::new(self.rate, self.workers);
        let mut parts = JoinSet::new();
        for number in 0..self.workers {
            parts.spawn(work::keep_working(self.client.clone(), number, pace, stopping.clone()));
        }
        parts.spawn(pipeline::orchestrate(self.client.clone(), self.rate, stopping.clone()));
        if self.rate <= SCENES_UP_TO {
            parts.spawn(scenes::play(self.client.clone(), stopping.clone()));
        }
        parts.spawn(produce(self.client.clone(), self.rate, stopping.clone()));
        tracing::info!(rate = self.rate, workers = self.workers, "demo load started");
        while parts.join_next().await.is_some() {}
        Ok(())
    }

    async fn wait_for_server(&self, stopping: &CancellationToken) -> anyhow::Result<()> {
        let nothing =
            || format!("no taskwatch answers at {}; start one there or name another with --url", self.client.place());
        for _ in 0..40 {
            let asked = tokio::select! {
                asked = self.client.get("/readyz") => asked,
                () = stopping.cancelled() => bail!(nothing()),
            };
            if asked.is_ok() {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
                () = stopping.cancelled() => bail!(nothing()),
            }
        }
        self.client.get("/readyz").await.map(|_| ()).with_context(nothing)
    }
}

/// Creates tasks at a rate. Tasks delayed by a slow server are not made up for.
async fn produce(client: Client, rate: f64, stopping: CancellationToken) {
    let requests = rate.min(REQUESTS_PER_SECOND);
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / requests));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut owed = 0.0;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stopping.cancelled() => return,
        }
        owed += rate / requests;
        let mut tasks = Vec::new();
        while owed >= 1.0 && tasks.len() < 1_000 {
            owed -= 1.0;
            tasks.push(task());
        }
        if !tasks.is_empty()
            && let Err(error) = client.post("/api/v1/tasks", &json!(tasks)).await
        {
            tracing::warn!(error = format!("{error:#}"), "demo tasks not created");
        }
    }
}

fn task() -> serde_json::Value {
    let (kind, queue, title) = KINDS[fastrand::usize(..KINDS.len())];
    let number = fastrand::u32(1_000..10_000);
    // Mostly normal, a few urgent or low.
    let priority = [5, 5, 5, 5, 4, 6, 8, 9, 2, 0][fastrand::usize(..10)];
    let tier = if fastrand::bool() { "gold" } else { "silver" };
    let tenant = content::tenant();
    json!({
        "task_type": kind,
        "queue": queue,
        "project_id": PROJECTS[fastrand::usize(..PROJECTS.len())],
        "title": format!("{title} {number}"),
        "priority": priority,
        "payload": content::payload(kind, number, tenant),
        "labels": { "tenant": tenant, "tier": tier },
    })
}
