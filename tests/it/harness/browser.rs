//! A real browser: Chromium, driven through its own driver.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use super::{eventually, program::Folder};

/// One browser window. One test at a time has one: two cores carry no more.
pub(crate) struct Browser {
    pub(crate) page: Client,
    driver: Child,
    _profile: Folder,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Browser {
    pub(crate) async fn open() -> Self {
        let turn = TURN.lock().await;
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
