//! How streams are fed: shared streams, pages, compression, slow readers, the registry, the end.

use std::io::Read;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Frame, Stream, TestApp, app::settings, eventually};

/// Events of the log that pass, by asking for all of them.
async fn expected(app: &TestApp, after: i64, passes: impl Fn(&Value) -> bool) -> Vec<String> {
    let head = app.settles().await;
    let mut all = app.events("?after=earliest").await;
    let frames = all.events_to(head).await.into_iter();
    frames.filter(|frame| frame.position() > Some(after) && passes(&frame.json())).map(|frame| frame.raw).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_begin_anywhere() {
    let app = TestApp::with(taskwatch::config::Settings { event_cache_mib: 1, ..settings() }, Default::default()).await;
    // A class that is there from the beginning keeps chunks; the others join it.
    let mut first = app.events("?after=now").await;
    for priority in [1, 5, 9] {
        let tasks = vec![json!({ "task_type": "t", "priority": priority }); 700];
        app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    }
    let head = app.settles().await;
    first.events_to(head).await;
    let epoch = app.state.subscriptions.epoch();
    for (filter, passes) in [
        ("", (|_| true) as fn(&Value) -> bool),
        ("&types=task_created", |event| event["event_type"] == "task_created"),
        ("&priority=7..9", |event| event["priority"] == 9),
        ("&types=task_failed", |_| false),
    ] {
        for after in [0, 1, 124, 125, 126, 999, 1_000, 1_001, 2_345, head - 130, head - 1, head] {
            let wanted = expected(&app, after, passes).await;
            let mut stream = app.events(&format!("?after={epoch}-{after}{filter}")).await;
            let mut got = Vec::new();
            while got.len() < wanted.len() {
                got.push(stream.event().await.raw);
            }
            assert!(got == wanted, "after {after} with {filter}: other events than in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_mean_the_same_share_a_class() {
    let app = TestApp::start().await;
    let mut one = app.events("?after=now&queue=a,b&types=task_created").await;
    let mut two = app.events("?after=now&types=task_created&queue=b,a").await;
    assert_eq!(app.state.byte_readers.streams(), 1);
    let _other = app.events("?after=now&queue=a").await;
    let _form = app.events("?after=now&queue=a&names=0").await;
    assert_eq!(app.state.byte_readers.streams(), 3);
    app.creates_as(json!({ "task_type": "t", "queue": "a" })).await;
    assert_eq!(one.event().await, two.event().await);
}

/// Reads a gzip stream until it has an event at a position; the frames, and how many bytes came.
async fn unzipped(app: &TestApp, query: &str, position: i64) -> (Vec<Frame>, usize) {
    unzipped_from(app, &format!("{}/events{query}", app.url), position).await
}

pub(crate) async fn unzipped_from(app: &TestApp, url: &str, position: i64) -> (Vec<Frame>, usize) {
    let response = app.http().get(url).header("accept-encoding", "gzip").send();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut body = response.bytes_stream();
    let mut bytes = Vec::new();
    loop {
        bytes.extend_from_slice(&body.next().await.unwrap().unwrap());
        let mut text = Vec::new();
        // It ends where the bytes end, in the middle of the stream; what came before is whole.
        let _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let whole = text.rfind("\n\n").map_or(0, |end| end + 2);
        let frames: Vec<_> =
            text[..whole].split_terminator("\n\n").map(|raw| Frame::parse(&format!("{raw}\n"))).collect();
        if frames.iter().any(|frame| frame.id.is_some() && frame.position() == Some(position)) {
            return (frames, bytes.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_stream_says_the_same_in_fewer_bytes() {
    let app = TestApp::start().await;
    app.creates_many(400, "t").await;
    let head = app.settles().await;
    let mut plain = app.events("?after=earliest").await;
    let raw: Vec<_> = plain.events_to(head).await.into_iter().map(|frame| frame.raw).collect();
    let (frames, bytes) = unzipped(&app, "?after=earliest", head).await;
    let zipped: Vec<_> =
        frames.iter().filter(|frame| frame.json()["event_type"].is_string()).map(|f| f.raw.clone()).collect();
    assert_eq!(zipped, raw);
    let size: usize = raw.iter().map(String::len).sum();
    println!("{} events: {size} bytes plain, {bytes} compressed", raw.len());
    assert!(bytes * 4 < size, "{bytes} of {size}");
    // Someone who joins in the middle, and one who gets the board first.
    let epoch = app.state.subscriptions.epoch();
    let (frames, _) = unzipped(&app, &format!("?after={epoch}-{}", head - 37), head).await;
    assert_eq!(frames.iter().filter(|frame| frame.json()["event_type"].is_string()).count(), 37);
    let (frames, _) = unzipped(&app, "?snapshot=always", head).await;
    assert_eq!(frames.last().unwrap().event, "snapshot_end");
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_can_be_refused() {
    let app = TestApp::start().await;
    let ask = |headers: &[(&'static str, &'static str)]| {
        let mut request = app.http().get(format!("{}/events?after=now", app.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    for headers in [
        &[("accept-encoding", "gzip"), ("cache-control", "no-transform")][..],
        &[("accept-encoding", "identity")],
        &[("accept-encoding", "gzip;q=0, br")],
        &[("accept-encoding", "gzip, deflate"), ("user-agent", "python-requests/2.32.5")],
        &[],
    ] {
        assert!(!ask(headers).await.unwrap().headers().contains_key("content-encoding"), "{headers:?}");
    }
    assert!(ask(&[("accept-encoding", "br, gzip;q=0.5")]).await.unwrap().headers().contains_key("content-encoding"));
    let off =
        TestApp::with(taskwatch::config::Settings { stream_compression: false, ..settings() }, Default::default())
            .await;
    let plain = off.http().get(format!("{}/events?after=now", off.url)).header("accept-encoding", "gzip").send().await;
    assert!(!plain.unwrap().headers().contains_key("content-encoding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_knows_who_is_there_and_how_they_went() {
    let app = TestApp::start().await;
    let mut stream = app.events("?after=now&types=task_failed").await;
    stream.next().await.unwrap();
    app.creates("t").await;
    let head = app.settles().await;
    eventually("the registry shows how far the reader is", || async {
        let streams = app.get("/api/v1/streams").await.expect(200);
        let row = &streams["open"][0];
        row["cursor"].as_str().unwrap().ends_with(&format!("-{head}")) && row["behind"] == 0
    })
    .await;
    let streams = app.get("/api/v1/streams").await.expect(200);
    let row = &streams["open"][0];
    assert_eq!((&row["purpose"], &row["wire"], &row["gzip"]), (&json!("events"), &json!("named"), &json!(false)));
    assert!(row["query"].as_str().unwrap().contains("types=task_failed") && row["bytes"].as_u64() > Some(0));
    let page = app.get("/streams").await;
    assert!(page.text.contains("types=task_failed") && page.text.contains("1 open"));
    drop(stream);
    eventually("the registry has taken the reader out", || async {
        let streams = app.get("/api/v1/streams").await.expect(200);
        streams["open"] == json!([]) && streams["ended"][0]["close_reason"] == "client_left"
    })
    .await;
    let metrics = app.get("/metrics").await.text;
    for line in [
        "taskwatch_streams_open 0",
        "taskwatch_streams_ended_total{reason=\"client_left\"} 1",
        "taskwatch_stream_delay_seconds_bucket",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_places() {
    let limited = taskwatch::config::Settings {
        stream_max_per_address: 2,
        stream_max_clients: 3,
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        ..settings()
    };
    let app = TestApp::with(limited, Default::default()).await;
    let (_one, _two) = (app.events("?after=now").await, app.events("?after=now").await);
    let mut third = app.events("?after=now").await;
    assert_eq!(third.headers["events-resume"], "refused");
    let bye = third.next().await.unwrap();
    assert_eq!((bye.event.as_str(), bye.json()["reason"].as_str()), ("bye", Some("too_many_streams_per_address")));
    assert!(bye.retry.is_some() && third.next().await.is_none() && third.was_cut);
    // A page polls meanwhile.
    assert_eq!(app.get("/live?page=overview").await.expect(503)["code"], "too_many_streams_per_address");
    // Behind a proxy on this machine, each client counts by its own address.
    let from = |address: &'static str| {
        let request = app.http().get(format!("{}/events?after=now", app.url)).header("x-forwarded-for", address);
        async { Stream::of(request.send().await.unwrap()) }
    };
    let mut other = from("203.0.113.9, 203.0.113.7:4711, 127.0.0.1").await;
    assert_eq!(other.next().await.unwrap().event, "hello");
    let streams = app.get("/api/v1/streams").await.expect(200);
    assert_eq!(streams["open"][2]["address"], "203.0.113.7", "the last that is no proxy of ours is what that saw");
    let mut fourth = from("203.0.113.8").await;
    assert_eq!(fourth.next().await.unwrap().json()["reason"], "too_many_streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_stream_is_asked_to_come_back() {
    let app =
        TestApp::with(taskwatch::config::Settings { stream_max_age_seconds: 1, ..settings() }, Default::default())
            .await;
    app.creates("t").await;
    app.settles().await;
    let mut stream = app.events("?after=earliest&types=task_created").await;
    let bye = stream.until("bye").await.pop().unwrap();
    assert_eq!((bye.json()["reason"].as_str(), bye.id.unwrap().split('-').nth(1)), (Some("rotation"), Some("2")));
    assert!(stream.next().await.is_none() && stream.was_cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lags_is_told_and_gets_everything() {
    let app = TestApp::start().await;
    let mut slow = app.events("?after=now").await;
    slow.next().await.unwrap();
    large_events(&app, 20).await;
    let head = app.settles().await;
    app.time_passes(11);
    let mut frames: Vec<Frame> = Vec::new();
    let last = format!("-{head}");
    while frames.last().and_then(|frame| frame.id.as_ref()).is_none_or(|id| !id.ends_with(&last)) {
        frames.push(slow.next().await.unwrap());
    }
    let positions: Vec<_> =
        frames.iter().filter(|f| f.json()["event_type"].is_string()).filter_map(Frame::position).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>());
    let lagging: Vec<_> = frames.iter().filter(|frame| frame.event == "lagging").collect();
    // Eleven seconds passed, before it was told first or after.
    assert!((1..=2).contains(&lagging.len()), "told {} times in ten seconds", lagging.len());
    assert!(lagging[0].json()["behind"].as_i64() > Some(0) && lagging[0].id.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_overtaken_by_retention_is_sent_away_and_told_when_it_comes_back() {
    let app = TestApp::start().await;
    app.creates("t").await;
    app.time_passes(3_600);
    app.creates_many(2_000, "t").await;
    let head = app.settles().await;
    // So slow that it has an hour to wait for its third event: it has not got it, and must not be told that it has.
    let mut slow = app.events("?from=1&speed=1&heartbeat=5").await;
    slow.events_to(2).await;
    let beat = slow.until("heartbeat").await.pop().unwrap();
    assert_eq!(beat.json()["position"], 2);
    app.keeps_from(3_000).await;
    let mut back = Stream::open(app.http(), &format!("{}/events", app.url), beat.id.as_deref()).await;
    let frames = back.until("snapshot_end").await;
    assert_eq!(frames[1].json()["reason"], "too_old");
    assert_eq!(frames.last().unwrap().json()["position"], head);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_takes_from_a_reader_that_does_not_read_is_not_passed_over() {
    let app = TestApp::with(taskwatch::config::Settings { event_cache_mib: 1, ..settings() }, Default::default()).await;
    large_events(&app, 20).await;
    let head = app.settles().await;
    let mut stuck = app.events("?after=earliest").await;
    stuck.next().await.unwrap();
    app.keeps_from(head).await;
    let frames = stuck.until("bye").await;
    let positions: Vec<_> =
        frames.iter().filter(|f| f.json()["event_type"].is_string()).filter_map(Frame::position).collect();
    let last = positions.last().copied().unwrap_or_default();
    assert_eq!(positions, (1..=last).collect::<Vec<_>>());
    let bye = frames.last().unwrap();
    assert_eq!(bye.json()["reason"], "too_old");
    assert!(bye.id.as_ref().unwrap().ends_with(&format!("-{last}")), "{bye:?}");
}

/// More than the sockets on both sides of a stream take.
/// So many thousand events of two kilobytes: more than the buffers between a server and a reader hold, from 8 on.
pub(crate) async fn large_events(app: &TestApp, thousands: usize) {
    let text = "x".repeat(240);
    for _ in 0..thousands {
        let labels = json!({ "a": text, "b": text, "c": text, "d": text, "e": text, "f": text });
        let tasks = vec![json!({ "task_type": "t", "labels": labels }); 500];
        app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_over_http2_as_well() {
    let app = TestApp::start().await;
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/events?after=now", app.url);
    let (mut one, mut two) = (Stream::open(&http, &url, None).await, Stream::open(&http, &url, None).await);
    let stats = http.get(format!("{}/api/v1/stats", app.url)).send().await.unwrap();
    assert_eq!((stats.status().as_u16(), stats.version()), (200, reqwest::Version::HTTP_2));
    app.creates("t").await;
    let head = app.settles().await;
    assert_eq!(one.events_to(head).await, two.events_to(head).await);
    let stopping = tokio::spawn(app.stopped());
    one.until("bye").await;
    two.until("bye").await;
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_opens_no_stream() {
    let app = TestApp::start().await;
    for http in [reqwest::Client::new(), reqwest::Client::builder().http2_prior_knowledge().build().unwrap()] {
        let head = http.head(format!("{}/events", app.url)).send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), head.headers()["content-type"].to_str().unwrap()),
            (200, "text/event-stream; charset=utf-8")
        );
        assert!(head.bytes().await.unwrap().is_empty());
    }
    eventually("no stream is left", || async { app.get("/api/v1/streams").await.json["open"] == json!([]) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_nobody_follows_any_more_are_forgotten() {
    let app = TestApp::start().await;
    for number in 0..150 {
        app.get(&format!("/events?poll=1&wait=0&after=now&queue=q{number}")).await.expect(200);
    }
    app.creates("t").await;
    eventually("few shared streams are kept", || async { app.state.byte_readers.streams() <= 64 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_carry_the_same_events() {
    let app = TestApp::start().await;
    app.creates_many(5, "t").await;
    let head = app.settles().await;
    let mut frames = app.events("?after=earliest").await;
    let data: Vec<_> = frames.events_to(head).await.into_iter().map(|frame| frame.data).collect();
    let lines = lines(&app, "after=earliest&max_events=10").await;
    assert_eq!(lines[1..lines.len() - 1], data);
    let hello: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&hello["event_type"], &hello["data"]["resume"]), (&json!("hello"), &json!("resumed")));
    assert!(hello["retry_ms"].is_u64() && hello["event_id"].is_string());
    assert!(lines.last().unwrap().contains("\"close\""));
    let gone = app.http().get(format!("{}/events?after=00000000-1", app.url)).header("accept", "application/x-ndjson");
    assert_eq!(gone.send().await.unwrap().status(), 410);
}

async fn lines(app: &TestApp, query: &str) -> Vec<String> {
    let request = app.http().get(format!("{}/events?{query}", app.url)).header("accept", "application/x-ndjson");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    response.text().await.unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_hold_the_events() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    let head = app.settles().await;
    let mut native = app.events("?after=earliest").await;
    let mut wrapped = app.events("?after=earliest&format=cloudevents").await;
    for frame in native.events_to(head).await {
        let cloud = wrapped.event().await;
        assert_eq!((&cloud.event, &cloud.id), (&frame.event, &frame.id));
        let (cloud, event) = (cloud.json(), frame.json());
        assert_eq!(cloud["specversion"], "1.0");
        assert_eq!(cloud["type"], format!("taskwatch.{}", frame.event));
        assert_eq!((&cloud["id"], &cloud["time"], &cloud["data"]), (&event["event_id"], &event["ts"], &event));
        assert_eq!((&cloud["subject"], &cloud["datacontenttype"]), (&json!(id), &json!("application/json")));
    }
    // Every line is a CloudEvent, those of the stream itself too; each has an id of its own.
    let lines = lines(&app, &format!("after=earliest&format=cloudevents&max_events={head}")).await;
    let mut ids = std::collections::BTreeSet::new();
    for line in &lines {
        let cloud: Value = serde_json::from_str(line).unwrap();
        assert!(cloud["specversion"] == "1.0" && cloud["source"] == "/taskwatch", "{line}");
        assert!(ids.insert(cloud["id"].as_str().unwrap().to_owned()), "{line}");
    }
    assert_eq!(lines.len() as i64, head + 2);
    // What goes out can come in elsewhere.
    let other = TestApp::start().await;
    let body = lines[1].clone();
    let taken = other
        .http()
        .post(format!("{}/api/v1/events", other.url))
        .header("content-type", "application/cloudevents+json")
        .body(body);
    let taken = taken.send().await.unwrap();
    assert_eq!(taken.status(), 200, "{}", taken.text().await.unwrap());
}
