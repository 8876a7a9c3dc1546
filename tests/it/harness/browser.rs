//! A real browser: Chromium, driven through its own driver.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
};
use serde_json::{Value, json};

use super::{eventually, packages, program::Folder};

/// One browser window. Two tests at a time have one: two cores carry no more.
pub(crate) struct Browser {
    pub(crate) page: Client,
    driver: Child,
    _profile: Folder,
    _turn: tokio::sync::SemaphorePermit<'static>,
}

static TURN: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

impl Browser {
    pub(crate) async fn open() -> Self {
        let turn = TURN.acquire().await.unwrap();
        let profile = Folder::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the tests need chromedriver (tests/run installs it)");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,1000",
            &format!("--user-data-dir={}", profile.0.display()),
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object was written above") };
        let url = format!("http://127.0.0.1:{port}");
        let mut page = None;
        for _ in 0..200 {
            match ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
                .capabilities(capabilities.clone())
                .connect(&url)
                .await
            {
                Ok(client) => {
                    page = Some(client);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Self { page: page.expect("the browser did not start"), driver, _profile: profile, _turn: turn }
    }

    /// Opens a page.
    pub(crate) async fn goes_to(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// Waits until an element's text holds something.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} shows {text:?}"), || async { self.text(selector).await.contains(text) }).await;
    }

    /// An element's text; empty while there is none.
    pub(crate) async fn text(&self, selector: &str) -> String {
        match self.page.find(Locator::Css(selector)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Runs a script in the page.
    pub(crate) async fn runs(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// One of Chromium's own commands.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.page.issue_cmd(Devtools(json!({ "cmd": command, "params": parameters }))).await.unwrap()
    }

    /// Scripts of pages do not run from the next page on.
    pub(crate) async fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// How a page looks: light or dark, with motion or without.
    pub(crate) async fn prefers(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// The window, in CSS pixels.
    pub(crate) async fn sized(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Presses a key, as someone at the keyboard does.
    pub(crate) async fn presses(&self, key: &str) {
        let keys = match key {
            "Tab" => "\u{e004}",
            "Enter" => "\u{e007}",
            "Escape" => "\u{e00c}",
            "Space" => " ",
            key => key,
        };
        let keys: Vec<_> = keys.chars().collect();
        for key in keys {
            let press = KeyActions::new("keys".to_owned())
                .then(KeyAction::Down { value: key })
                .then(KeyAction::Up { value: key });
            self.page.perform_actions(press).await.unwrap();
        }
    }

    /// Goes on with the Tab key until an element has the focus.
    pub(crate) async fn tabs_to(&self, selector: &str) {
        let script = format!("return document.activeElement?.matches({}) ?? false", json!(selector));
        for _ in 0..120 {
            if self.runs(&script).await == true {
                return;
            }
            self.presses("Tab").await;
        }
        panic!("the Tab key never comes to {selector}");
    }

    /// What axe-core finds wrong on the page as it is.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        let Some(modules) = packages::node().await else { return Vec::new() };
        if self.runs("return !window.axe").await == true {
            self.runs(&std::fs::read_to_string(modules.join("axe-core/axe.min.js")).unwrap()).await;
        }
        self.runs("document.getAnimations().forEach((animation) => animation.finish())").await;
        let check = "const done = arguments[0]; \
            axe.run(document, { runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }, \
                rules: { 'target-size': { enabled: true } }, resultTypes: ['violations'] }) \
              .then((found) => done(found.violations.flatMap((rule) => rule.nodes.map((node) => \
                `${rule.id}: ${node.target.join(' ')}: ${node.failureSummary}`))), (error) => done([String(error)]))";
        let found = self.page.execute_async(check, Vec::new()).await.unwrap();
        found.as_array().unwrap().iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Everything the browser complained about (scripts, styles, refused by policy).
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.page.issue_cmd(BrowserLog).await.unwrap_or(Value::Null);
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver and every process of the browser that it started.
        let group = i32::try_from(self.driver.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

/// Chromium's own commands through its driver.
#[derive(Debug)]
struct Devtools(Value);

impl fantoccini::wd::WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

/// Chromium's own command for its console.
#[derive(Debug)]
struct BrowserLog;

impl fantoccini::wd::WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
