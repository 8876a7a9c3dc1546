//! What is refused at the door, how it is said, and what is found although it is written otherwise.

use serde_json::json;
use taskwatch::{config::Settings, feed::Callbacks};

use crate::harness::{TestApp, app::settings};

const HTML: &str = "text/html,application/xhtml+xml";

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_take_no_place_and_read_nothing() {
    let app = TestApp::start().await;
    app.creates("t").await;
    for path in ["/events?after=earliest", "/live?page=overview", "/api/v1/tasks?q=t", "/tasks?at=1", "/metrics"] {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", ""),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", ""),
        ] {
            let request = app.http().get(format!("{}{path}", app.url)).header(name, value);
            let reply = request.header("accept", "text/event-stream, */*").send().await.unwrap();
            assert_eq!(reply.status(), 403, "{path} {name}: {value:?}");
            assert_eq!(reply.headers()["content-type"], "application/problem+json");
            assert!(reply.headers().get("access-control-allow-origin").is_none());
        }
    }
    let streams = app.get("/api/v1/streams").await.expect(200);
    assert_eq!((&streams["open"], &streams["ended"]), (&json!([]), &json!([])), "no place was held");
    let link = app.http().get(format!("{}/tasks", app.url)).header("sec-fetch-site", "cross-site");
    let link = link.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document").send().await.unwrap();
    assert_eq!(link.status(), 200, "a link is followed");
    let own = app.http().get(format!("{}/events?max_events=1", app.url)).header("origin", &app.url);
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_comes_from_here_or_from_a_program() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    let post = async |headers: &[(&str, &str)]| {
        let mut request = app.http().post(format!("{}/api/v1/tasks/{id}/cancel", app.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let secure = app.url.replace("http://", "https://");
    for headers in [
        &[("origin", "https://")][..],
        &[("origin", "")],
        &[("sec-fetch-site", "")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", &secure)],
        &[("cookie", "a=b")],
    ] {
        let refused = post(headers).await;
        assert_eq!(refused.status(), 403, "{headers:?}");
        assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], "cross_site");
    }
    let page = post(&[("origin", "https://evil.example"), ("accept", HTML)]).await;
    assert_eq!(page.headers()["content-type"], "application/problem+json", "the API speaks JSON");
    let form = app.http().post(format!("{}/settings", app.url)).header("origin", "https://evil.example");
    let form = form.header("accept", HTML).form(&[("theme", "dark")]).send().await.unwrap();
    assert_eq!(
        (form.status().as_u16(), &form.headers()["content-type"]),
        (403, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert_eq!(app.task(&id).await["status"], "pending");
    assert_eq!(post(&[("origin", &app.url), ("cookie", "a=b")]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_browsers_may_do_with_it() {
    let app = TestApp::start().await;
    let headers = ["x-content-type-options", "cross-origin-resource-policy"];
    let of_documents = [
        "content-security-policy",
        "referrer-policy",
        "cross-origin-opener-policy",
        "permissions-policy",
        "cache-control",
    ];
    for (path, host, status, is_stream) in [
        ("/", "", 200, false),
        ("/healthz", "", 200, false),
        ("/metrics", "", 200, false),
        ("/openapi.json", "", 200, false),
        ("/nothing", "", 404, false),
        ("/api/v1/tasks?limit=0", "", 400, false),
        ("/settings/x", "evil.example", 421, false),
        ("/events?max_events=1", "", 200, true),
        ("/live?page=nothing", "", 400, false),
    ] {
        for accept in [HTML, "*/*"] {
            let mut request = app.http().get(format!("{}{path}", app.url)).header("accept", accept);
            if !host.is_empty() {
                request = request.header("host", host);
            }
            let reply = request.send().await.unwrap();
            if reply.status() == 406 {
                continue;
            }
            assert_eq!(reply.status(), status, "{path}");
            for name in headers.iter().chain(of_documents.iter().filter(|_| !is_stream)) {
                assert!(reply.headers().contains_key(*name), "{path} {accept}: {name}");
            }
            if status >= 400 && accept == HTML && !path.starts_with("/api") && !path.starts_with("/live") {
                let text = reply.text().await.unwrap();
                assert!(text.contains("<h1>") && !text.contains(env!("CARGO_PKG_VERSION")), "{path}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_one_and_ours() {
    let mut settings = settings();
    settings.allowed_hosts = vec![String::new()];
    let app = TestApp::with(settings, Callbacks::default()).await;
    let status = async |request: &str| app.raw(format!("{request}\r\n\r\n")).await.status().await;
    for (request, expected) in [
        ("GET /healthz HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0", 200),
        ("GET /readyz/ HTTP/1.1", 200),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example", 421),
        ("GET /tasks HTTP/1.0", 421),
        ("GET /tasks HTTP/1.1\r\nHost:", 421),
        ("GET /tasks HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET /tasks HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
        ("GET http://evil.example/tasks HTTP/1.1\r\nHost: localhost", 400),
        ("GET http://localhost/tasks HTTP/1.1\r\nHost: localhost", 200),
        ("GET /tasks HTTP/1.1\r\nHost: [[[127.0.0.1", 421),
        ("GET /tasks HTTP/1.1\r\nHost: 127.1", 200),
        ("GET /tasks HTTP/1.1\r\nHost: localhost.:80", 200),
        ("GET /tasks HTTP/1.1\r\nHost: [::ffff:127.0.0.1]", 200),
    ] {
        assert_eq!(status(request).await, expected, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_codings_are_refused_by_name() {
    let app = TestApp::start().await;
    let get = |path: String| app.http().get(format!("{}{path}", app.url));
    assert_eq!(get(format!("/tasks?q={}", "a".repeat(9_000))).send().await.unwrap().status(), 414);
    let large = get("/tasks".to_owned()).header("x-large", "a".repeat(17_000)).send().await.unwrap();
    assert_eq!(large.status(), 431);
    for (path, kind) in [
        ("/api/v1/tasks", "application/json"),
        ("/api/v1/tasks", "application/x-ndjson"),
        ("/api/v1/events", "application/cloudevents+json"),
        ("/api/v1/events", "application/cloudevents-batch+json"),
        ("/settings", "application/x-www-form-urlencoded"),
    ] {
        let request = app.http().post(format!("{}{path}", app.url)).header("content-type", kind);
        let reply = request.header("content-encoding", "gzip").body("{}").send().await.unwrap();
        assert_eq!(reply.status(), 415, "{path} {kind}");
    }
    let text = app.http().post(format!("{}/settings", app.url)).header("content-type", "text/plain").body("theme=dark");
    assert_eq!(text.send().await.unwrap().status(), 415);
    let many = app.http().post(format!("{}/settings", app.url)).form(&vec![("theme", "dark"); 3_000]);
    assert_eq!(many.send().await.unwrap().status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_at_the_end_makes_no_difference() {
    let base = Settings { base_path: "/watch".parse().unwrap(), ..settings() };
    for (app, roots) in
        [(TestApp::start().await, &[""][..]), (TestApp::with(base, Callbacks::default()).await, &["", "/watch"][..])]
    {
        for root in roots {
            for path in [
                "/",
                "/tasks/",
                "/tasks/?limit=1",
                "/wall/",
                "/healthz/",
                "/readyz/",
                "/metrics/",
                "/openapi.json/",
                "/events/?after=now&poll=1&wait=0",
                "/api/v1/tasks/",
                "/settings/",
                "/help/",
            ] {
                assert_eq!(app.get(&format!("{root}{path}")).await.status, 200, "{root}{path}");
            }
            app.post(&format!("{root}/api/v1/tasks/"), &json!({ "task_type": "t" })).await.expect(201);
            assert_eq!(app.get(&format!("{root}/nothing/")).await.status, 404);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_overlook_what_others_add_to_a_link() {
    let app = TestApp::start().await;
    for page in taskwatch::page::PAGES.iter().filter(|page| !page.is_of_one()) {
        let reply = app.get(&format!("{}?utm_source=x&fbclid=y&utm_source=z", page.path)).await;
        assert_eq!(reply.status, 200, "{}", page.path);
        assert!(!reply.text.contains("utm_source"), "{}", page.path);
    }
    app.get("/api/v1/tasks?utm_source=x").await.expect(400);
    app.get("/events?utm_source=x").await.expect(400);
    // An action on many tasks is not done to more because a filter was mistyped.
    assert_eq!(app.get("/tasks/bulk?action=retry&scope=filter&quee=a").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_repeats_filters_and_no_secrets() {
    let app = TestApp::start().await;
    let query = "?after=hunter2&queue=größe&label.team=a%20b&max_events=1&types=task_failed";
    let _stream = app.events(query).await;
    let _page =
        app.http().get(format!("{}/live?page=tasks&status=failed&token=hunter2", app.url)).send().await.unwrap();
    let streams = app.get("/api/v1/streams").await.expect(200);
    let shown = streams["open"].to_string();
    assert!(
        shown.contains("label.team=a%20b") && shown.contains("types=task_failed") && shown.contains("status=failed")
    );
    assert!(!shown.contains("hunter2") && !app.get("/streams").await.text.contains("hunter2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_form_leads_is_known_before_anything_is_done() {
    let app = TestApp::start().await;
    app.creates_as(json!({ "task_type": "t", "queue": "test-client" })).await;
    let head = app.settles().await;
    for ids in ["a\0b", "größe", "//evil.example", "a b", "\r\nSet-Cookie: a=b"] {
        let form = app.http().post(format!("{}/test-client/work", app.url)).form(&[("task_id", ids)]);
        let reply = form.send().await.unwrap();
        assert_eq!(reply.status(), 422, "{ids:?}");
    }
    assert_eq!(app.settles().await, head, "nothing was done");
    let id = uuid::Uuid::now_v7().to_string();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let form = client.post(format!("{}/test-client/work", app.url)).form(&[("task_id", &id)]).send().await.unwrap();
    assert_eq!(form.status(), 303);
    assert!(form.headers()["location"].to_str().unwrap().starts_with(&format!("/test-client?task_id={id}%2C")));
}
