//! Behind nginx as it comes: frames arrive at once, also when it compresses, and clients continue where they were.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use taskwatch::{config::Settings, feed::Callbacks, page::PAGES};

use crate::{
    delivery::unzipped_from,
    harness::{Stream, TestApp, app::settings, browser::Browser, eventually, fixture::Scene, program::Folder},
};

struct Nginx {
    url: String,
    child: Child,
    _folder: Folder,
}

impl Nginx {
    /// In front of a server, with nothing set but what it cannot do without; `more` goes into its `http` block.
    async fn before(app: &TestApp, more: &str) -> Self {
        Self::at("", app, more, &format!("location / {{ proxy_pass {}; }}", app.url)).await
    }

    /// With a location of its own, below which the server is found.
    async fn at(base: &str, app: &TestApp, more: &str, location: &str) -> Self {
        let folder = Folder::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = folder.0.display();
        let configuration = format!(
            "daemon off; pid {at}/pid; error_log {at}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; {more}\n\
             server {{ listen 127.0.0.1:{port}; {location} }} }}"
        );
        let file = folder.0.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        // Its workers belong to another user.
        for path in ["body", "proxy"] {
            std::fs::create_dir_all(folder.0.join(path)).unwrap();
        }
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let child = Command::new(program.unwrap_or_else(|| Path::new("nginx").to_owned()))
            .args(["-c", file.to_str().unwrap(), "-e", folder.0.join("start.log").to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { url: format!("http://127.0.0.1:{port}{base}"), child, _folder: folder };
        let health = format!("{}/healthz", nginx.url);
        eventually("nginx answers", || async { app.http().get(&health).send().await.is_ok_and(|r| r.status() == 200) })
            .await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_at_once_and_streams_continue() {
    let app = TestApp::start().await;
    let nginx = Nginx::before(&app, "").await;
    let url = format!("{}/events?after=now", nginx.url);
    let mut stream = Stream::open(app.http(), &url, None).await;
    assert_eq!(stream.next().await.unwrap().event, "hello");
    let mut last = None;
    for _ in 0..5 {
        // Each is there before the next is made.
        app.creates("t").await;
        stream.event().await;
        last = stream.event().await.id;
    }
    drop(stream);
    app.creates("t").await;
    let mut stream = Stream::open(app.http(), &url, last.as_deref()).await;
    assert_eq!(stream.next().await.unwrap().json()["resume"], "resumed");
    assert_eq!(stream.event().await.position(), Some(11));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_at_once_when_nginx_compresses() {
    for ours in [true, false] {
        let compression = Settings { stream_compression: ours, ..settings() };
        let app = TestApp::with(compression, Callbacks::default()).await;
        let nginx = Nginx::before(&app, "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;").await;
        let url = format!("{}/events?after=earliest", nginx.url);
        for head in [2, 4, 6] {
            app.creates("t").await;
            app.reaches(head).await;
            // Nothing more is sent before this has come.
            let (frames, _) = unzipped_from(&app, &url, head).await;
            assert_eq!(frames.last().unwrap().position(), Some(head));
        }
    }
}

/// The server at a sub-path, whether the proxy hands that path on or takes it off.
#[tokio::test(flavor = "multi_thread")]
async fn the_site_is_whole_below_a_path_of_its_own() {
    let below = || Settings { base_path: "/ops/taskwatch".parse().unwrap(), poll_seconds: 2, ..settings() };
    for end in ["", "/"] {
        let scene = Scene::on(TestApp::with(below(), Callbacks::default()).await, false).await;
        let app = &scene.app;
        let location =
            format!("location /ops/taskwatch/ {{ proxy_pass {}{end}; proxy_set_header Host $http_host; }}", app.url);
        let nginx = Nginx::at("/ops/taskwatch", app, "", &location).await;
        let browser = Browser::open().await;
        for page in &PAGES {
            let path = scene.path(page);
            browser.goes_to(&format!("{}{path}", nginx.url)).await;
            let astray = "return [...document.querySelectorAll('[href],[src],[action],[hx-get]')].flatMap((element) => \
                ['href', 'src', 'action', 'hx-get'].map((name) => element.getAttribute(name) ?? '#')).filter((address) => \
                address.startsWith('/') && !address.startsWith('/ops/taskwatch/'))";
            assert_eq!(browser.runs(astray).await, json!([]), "{path}");
        }
        // Followed live, it leads there too.
        browser.goes_to(&format!("{}/?live=1", nginx.url)).await;
        browser.shows("#link-state", "Live").await;
        app.creates_as(json!({ "task_type": "t", "queue": "fresh" })).await;
        browser.shows("#q-fresh a", "fresh").await;
        let link = "return [...document.querySelectorAll('#q-fresh a')].map((a) => a.getAttribute('href'))";
        assert_eq!(browser.runs(link).await, json!(["/ops/taskwatch/queues/fresh"]));
        let share = browser.runs("return document.getElementById('copy-curl').value").await;
        assert_eq!(share, json!(format!("curl '{}/api/v1/stats'", nginx.url)));
        // Keys, forms, redirects and the cookie of preferences stay below it.
        browser.presses("g").await;
        browser.presses("q").await;
        browser.shows("h1", "Queues").await;
        browser.runs("document.querySelector('#q-fresh .act a').click()").await;
        browser.shows("h1", "fresh").await;
        browser.runs("document.querySelector('#queue-pause button').click()").await;
        browser.shows("h1", "Paused").await;
        browser.goes_to(&format!("{}/settings", nginx.url)).await;
        browser
            .runs("document.getElementById('theme-dark').click(); document.querySelector('main form').submit()")
            .await;
        eventually("the theme is kept", || async {
            browser.runs("return document.documentElement.dataset.theme").await == "dark"
        })
        .await;
        assert_eq!(browser.runs("return location.pathname").await, json!("/ops/taskwatch/settings"));
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        let document: serde_json::Value =
            app.http().get(format!("{}/openapi.json", nginx.url)).send().await.unwrap().json().await.unwrap();
        assert_eq!(document["servers"], json!([{ "url": "/ops/taskwatch", "description": "This server" }]));
        let mut stream =
            Stream::open(app.http(), &format!("{}/events?after=earliest&max_events=1", nginx.url), None).await;
        assert_eq!(stream.event().await.position(), Some(1));
    }
}
