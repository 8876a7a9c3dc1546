//! Pages, without a browser: what they say, what they never say.

use taskwatch::page::PAGES;

use crate::harness::{DEADLINE, Stream, TestApp, eventually, fixture::Scene};

#[tokio::test(flavor = "multi_thread")]
async fn every_page_answers_and_shows_hostile_text_as_text() {
    let scene = Scene::on(TestApp::start().await, true).await;
    let app = &scene.app;
    for path in PAGES.iter().map(|page| scene.path(page)) {
        let reply = app.get(&path).await;
        assert_eq!(reply.status, 200, "{path}");
        let html = &reply.text;
        for never in [
            "<script>alert",
            "<img src=x",
            "<b>fetch",
            "<i>c</i>",
            "<u>down",
            "</pre><script",
            "\u{202e}",
            "\u{1b}",
            "' onmouseover='",
        ] {
            assert!(!html.contains(never), "{path} holds {never:?}");
        }
        assert!(
            !html.contains(" style=") && !html.contains("<style") && !html.contains("onclick="),
            "{path} has inline code"
        );
        assert!(html.matches("<h1").count() == 1, "{path} has one main heading");
        assert!(html.len() < 100_000, "{path} is {} bytes", html.len());
    }
    let csp = app.http().get(&app.url).send().await.unwrap().headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(csp.contains("default-src 'none'") && !csp.contains("unsafe"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_answers_when_there_is_nothing() {
    let app = TestApp::start().await;
    for page in &PAGES {
        let path = page.path.replace("{id}", &uuid::Uuid::now_v7().to_string()).replace("{name}", "unknown");
        let expected = if page.is_of_one() { 404 } else { 200 };
        assert_eq!(app.get(&path).await.status.as_u16(), expected, "{path}");
    }
    let overview = app.get("/").await.text;
    assert!(overview.contains("No tasks yet") && overview.matches("curl --json").count() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_and_live_get_the_same_bytes() {
    let scene = Scene::on(TestApp::start().await, true).await;
    let app = &scene.app;
    for (page, path) in PAGES.iter().map(|page| (page, scene.path(page))) {
        // Workers' signs of life and the figures fade with time; the same version must be the same bytes.
        let id = scene.id(page.name).map_or_else(String::new, |id| format!("&id={id}"));
        eventually(&format!("{path} is the same both ways"), || async {
            let mut live = Stream::open(app.http(), &format!("{}/live?page={}{id}", app.url, page.name), None).await;
            let pushed = live.next().await.unwrap().data;
            let polled = app.get(&format!("{path}?fragment=1")).await.text;
            pushed == format!("<hx-partial hx-target=\"#page\" hx-swap=\"innerMorph\">{polled}</hx-partial>")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_nothing_new_is_answered_by_nothing() {
    let scene = Scene::on(TestApp::start().await, true).await;
    let app = &scene.app;
    let fragment = app.get("/tasks?fragment=1&status=failed").await.text;
    let start = fragment.find("hx-get=\"").unwrap() + "hx-get=\"".len();
    let url = fragment[start..].split('"').next().unwrap().replace("&#38;", "&");
    assert!(url.contains("version=") && url.contains("status=failed"), "{url}");
    let reply = app.http().get(format!("{}{url}", app.url)).send().await.unwrap();
    assert_eq!(reply.status(), 204);
    assert!(reply.headers().contains_key("x-data-age-ms") && reply.headers().contains_key("x-data-position"));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_pages_are_pushed_at_once_and_not_too_often() {
    let app = TestApp::start().await;
    let url = format!("{}/live?page=overview", app.url);
    let mut live = Stream::open(app.http(), &url, None).await;
    live.next().await.unwrap();
    app.creates_many(500, "t").await;
    let shown = async {
        let mut messages = 0;
        loop {
            let frame = live.next().await.unwrap();
            messages += usize::from(frame.event.is_empty());
            if frame.data.contains("id=\"waiting-now\" data-live>500<") {
                break messages;
            }
        }
    };
    let messages = tokio::time::timeout(DEADLINE, shown).await.expect("the burst is shown in time");
    assert!(messages <= 4, "{messages} messages for one burst");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_address_is_a_page_that_says_so() {
    let app = TestApp::start().await;
    for (path, status, says) in [
        ("/tasks?status=fine", 400, "unknown status &#39;fine&#39;"),
        ("/events-view?types=x", 400, "unknown event type"),
        ("/analytics?range=2h", 400, "must be one of 1h, 24h, 7d"),
        ("/wall?boards=all", 400, "must be a comma-separated list of"),
        ("/?refresh=1", 400, "refresh: must be 0 (off)"),
        ("/?at=yesterday", 400, "at: must be an RFC 3339 time"),
        ("/?at=5&play=0", 400, "must be a replay speed"),
        ("/tasks/7", 404, "expected a UUID"),
        ("/live?page=nothing", 400, "page: unknown page"),
        ("/?at=1&at=x", 400, "at: given more than once"),
        ("/analytics?range=1h&range=7d", 400, "range: given more than once"),
        ("/tasks?label.a=%00", 400, "control characters"),
        ("/?at=2001-01-01T00:00:00Z", 400, "Go to the oldest available time"),
    ] {
        let reply = app.get(path).await;
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert!(reply.text.contains(says), "{path}: {}", reply.text);
    }
    let request = app.http().get(format!("{}/nowhere", app.url)).header("accept", "text/html");
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 404);
    assert!(reply.text().await.unwrap().contains("<h1>Page not found</h1>"));
    // The address of a form, opened in a browser.
    let request = app.http().get(format!("{}/queues/default/pause", app.url)).header("accept", "text/html");
    let reply = request.send().await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert!(reply.text().await.unwrap().contains("Method not allowed for this URL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_work_without_scripts() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    for (action, status) in [("cancel", "cancelled"), ("retry", "pending")] {
        let url = format!("{}/tasks/{id}/{action}", app.url);
        let reply =
            app.http().post(&url).header("sec-fetch-site", "same-origin").form(&[("x", "y")]).send().await.unwrap();
        assert_eq!(reply.status(), 200, "followed to the task's page");
        assert!(reply.text().await.unwrap().contains(status));
    }
    let reply = app.http().post(format!("{}/tasks/{id}/retry", app.url)).send().await.unwrap();
    assert_eq!(reply.status(), 409);
    assert!(reply.text().await.unwrap().contains("a pending task cannot be retried"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_for_ever_under_their_hash() {
    let app = TestApp::start().await;
    let html = app.get("/").await.text;
    let files: std::collections::BTreeSet<_> =
        html.split("\"/static/").skip(1).map(|rest| rest.split(['"', '#']).next().unwrap()).collect();
    // Four icons of the window, those of the page, its style, and four scripts.
    assert_eq!(files.len(), 10, "{files:?}");
    for file in files {
        let reply = app
            .http()
            .get(format!("{}/static/{file}", app.url))
            .header("accept-encoding", "gzip")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (reply.status().as_u16(), reply.headers()["content-encoding"].to_str().unwrap()),
            (200, "gzip"),
            "{file}"
        );
        assert!(reply.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        app.get(&format!("/static/{}", file.rsplit_once('.').unwrap().0)).await.expect(404);
    }
}
