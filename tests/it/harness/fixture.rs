//! A server with something of everything on it.

use serde_json::json;

use super::{TestApp, app::TestWorker};

/// What is there.
pub(crate) struct Scene {
    pub(crate) app: TestApp,
    pub(crate) worker: TestWorker,
    pub(crate) parent: String,
    /// A failed child of it.
    pub(crate) child: String,
    /// An action in the background that is over.
    pub(crate) bulk: String,
    /// The error group of the failed child.
    pub(crate) group: String,
}

impl Scene {
    /// Fills a server. Texts are hostile on request: markup, control characters, characters that turn the writing.
    pub(crate) async fn on(app: TestApp, hostile: bool) -> Self {
        let text = |evil: &str, good: &str| if hostile { evil.to_owned() } else { good.to_owned() };
        let worker = app.worker(&text("<img src=x onerror=alert(1)>", "worker-1")).await;
        let phase = text("<b>fetch</b>", "fetch");
        let parent = app
            .creates_as(json!({ "task_type": "p", "queue": "parents", "title": text("\"><script>alert(1)</script>", "Nightly import"), "phases": [&phase] }))
            .await;
        worker.claims("parents").await;
        let child = app
            .creates_as(json!({ "task_type": text("' onmouseover='x", "send-mail"), "parent_task_id": parent, "phase": phase, "title": text("{{7*7}} hx-get=/x", "Mail to 4711"), "max_attempts": 1, "payload": "</pre><script>", "labels": { "team": "a" } }))
            .await;
        let task = worker.claims("default").await;
        task.reports("progress", json!({ "percent": 50, "message": "\u{202e}evil\u{1b}[31m" })).await.expect(200);
        task.fails(&text("<script>alert('error')</script>\u{202e}", "HTTP 503 from upstream 17")).await;
        worker
            .beats(json!({ "connectors": [{ "connector_id": text("<i>c</i>", "smtp"), "status": "error", "error": text("<u>down</u>", "refused") }] }))
            .await;
        app.creates("waiting").await;
        app.creates_as(json!({ "task_type": "later", "run_at": "2099-01-01T00:00:00Z" })).await;
        let running = app.creates_as(json!({ "task_type": "long", "queue": "slow" })).await;
        worker.claims("slow").await.progresses(40).await;
        app.creates_as(json!({ "task_type": "blocked", "depends_on": [running] })).await;
        app.post("/api/v1/queues/slow/pause", &json!({})).await.expect(200);
        app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 4 })).await.expect(200);
        let schedule = json!({ "cron": "@hourly", "task": { "task_type": "report" } });
        app.put("/api/v1/schedules/hourly-report", &schedule).await.expect(200);
        let filter = json!({ "action": "edit", "priority": 6, "filter": { "task_type": "waiting" } });
        let begun = app.post("/api/v1/tasks/bulk", &filter).await.expect(202);
        let bulk = begun["bulk"]["id"].as_str().unwrap().to_owned();
        super::eventually("the bulk action is over", || async {
            app.get(&format!("/api/v1/bulk/{bulk}")).await.expect(200)["bulk"]["state"] == "done"
        })
        .await;
        app.settles().await;
        let groups = app.get("/api/v1/failures").await.expect(200);
        let group = groups["groups"][0]["fingerprint"].as_str().unwrap().to_owned();
        Self { app, worker, parent, child, bulk, group }
    }

    /// The ID or the name that a page is about.
    pub(crate) fn id(&self, page: &str) -> Option<&str> {
        match page {
            "task" => Some(&self.child),
            "parent" => Some(&self.parent),
            "bulk" => Some(&self.bulk),
            "queue" => Some("default"),
            "worker" => Some(&self.worker.id),
            "failure" => Some(&self.group),
            _ => None,
        }
    }

    /// The address of a page.
    pub(crate) fn path(&self, page: &taskwatch::page::Page) -> String {
        self.id(page.name)
            .map_or_else(|| page.path.to_owned(), |id| page.path.replace("{id}", id).replace("{name}", id))
    }
}
