//! `GET /events`.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Stream, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn hello_comes_first_and_at_once() {
    let app = TestApp::start().await;
    let mut stream = app.events("?after=now").await;
    assert_eq!(stream.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(stream.headers["cache-control"], "no-cache, no-store, no-transform");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let hello = stream.next().await.unwrap();
    assert_eq!(hello.event, "hello");
    assert!((1_000..=15_000).contains(&hello.retry.unwrap()));
    assert_eq!(hello.json()["resume"], "live");
    assert_eq!(hello.id.as_deref(), hello.json()["head"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_continues_behind_the_last_event_id() {
    let app = TestApp::start().await;
    app.creates_many(5, "t").await;
    let head = app.settles().await;
    let first = app.events("?after=earliest&max_events=4").await;
    let mut first = first;
    let seen = first.events_to(4).await;
    assert_eq!(first.next().await.unwrap().event, "close");
    assert!(first.next().await.is_none() && !first.was_cut, "an end for good is a clean end");
    let last = seen.last().unwrap().id.clone().unwrap();
    for query in [format!("?last_event_id={last}"), format!("?lastEventId={last}"), format!("?after={last}")] {
        let mut next = app.events(&query).await;
        let hello = next.next().await.unwrap().json();
        assert_eq!((&hello["resume"], &hello["requested"]), (&json!("resumed"), &json!(last)));
        assert_eq!(next.events_to(head).await.len() as i64, head - 4);
    }
    // The header wins, because a browser's URL goes stale; an empty one says nothing.
    let url = format!("{}/events?after=earliest", app.url);
    let mut next = Stream::open(app.http(), &url, Some(&last)).await;
    assert_eq!(next.event().await.position(), Some(5));
    let mut next = Stream::open(app.http(), &url, Some("")).await;
    assert_eq!(next.event().await.position(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_served_is_answered_by_reset_and_snapshot() {
    let app = TestApp::start().await;
    app.creates("t").await;
    let head = app.settles().await;
    let epoch = app.state.subscriptions.epoch();
    for (cursor, reason) in [
        (format!("{epoch}-{}", head + 5), "ahead"),
        ("00000000-1".to_owned(), "epoch"),
        ("7".to_owned(), "malformed"),
        ("%0d%0aid:%201".to_owned(), "malformed"),
        (format!("{epoch}-99999999999999999999"), "malformed"),
    ] {
        let mut stream = app.events(&format!("?after={cursor}")).await;
        let frames = stream.until("snapshot_end").await;
        assert_eq!(frames[0].json()["resume"], "reset", "{cursor}");
        assert!(frames[0].id.is_none(), "an id before the snapshot would skip it");
        assert_eq!((frames[1].event.as_str(), &frames[1].json()["reason"]), ("reset", &json!(reason)), "{cursor}");
        assert_eq!(frames.last().unwrap().id, Some(format!("{epoch}-{head}")));
        let refused = app.get(&format!("/events?on_gap=error&after={cursor}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (410, "cursor_expired"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_the_events_after_it_leave_no_gap() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(30, "t").await;
    let working = tokio::spawn(async move {
        for _ in 0..30 {
            worker.claims("default").await.completes().await;
        }
    });
    let mut stream = app.events("").await;
    let frames = stream.until("snapshot_end").await;
    let at = frames.last().unwrap().position().unwrap();
    let counts = frames.iter().find(|frame| frame.event == "snapshot" && frame.json()["part"] == "counts").unwrap();
    let mut completed = counts.json()["items"][0]["completed"].as_i64().unwrap_or_default();
    assert!(frames[..frames.len() - 1].iter().all(|frame| frame.id.is_none()));
    working.await.unwrap();
    let head = app.settles().await;
    let mut expected = at;
    for frame in stream.events_to(head).await {
        expected += 1;
        assert_eq!(frame.position(), Some(expected));
        completed += i64::from(frame.event == "task_completed");
    }
    assert_eq!(completed, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_and_the_rest_is_not_missed() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut stream =
        app.events("?after=earliest&types=task_f*,task_retry&queue=default&label.tier=gold&priority=7..9").await;
    app.creates_as(json!({ "task_type": "a", "priority": 8, "labels": { "tier": "gold" }, "max_attempts": 1 })).await;
    worker.claims("default").await.fails("yes").await;
    app.creates_as(json!({ "task_type": "b", "priority": 8, "labels": { "tier": "silver" }, "max_attempts": 1 })).await;
    worker.claims("default").await.fails("no").await;
    app.creates_as(json!({ "task_type": "c", "priority": 9, "labels": { "tier": "gold" }, "max_attempts": 1 })).await;
    worker.claims("default").await.fails("yes").await;
    let (first, second) = (stream.event().await, stream.event().await);
    assert_eq!((first.json()["task_type"].as_str(), second.json()["task_type"].as_str()), (Some("a"), Some("c")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_beats_with_the_last_position_examined() {
    let app = TestApp::start().await;
    let mut stream = app.events("?after=now&heartbeat=5&types=task_failed").await;
    app.creates("t").await;
    let head = app.settles().await;
    let beat = stream.until("heartbeat").await.pop().unwrap();
    assert_eq!((&beat.json()["position"], &beat.json()["behind"]), (&json!(head), &json!(0)));
    assert!(beat.id.unwrap().ends_with(&format!("-{head}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_can_be_left_out() {
    let app = TestApp::start().await;
    app.creates("t").await;
    let mut stream = app.events("?after=earliest&names=0").await;
    for _ in 0..3 {
        let frame = stream.next().await.unwrap();
        assert!(frame.event.is_empty(), "{frame:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_alone_can_be_followed() {
    let app = TestApp::start().await;
    let mut stream = app.events("?after=now&stats_only=true").await;
    let frame = stream.until("stats_snapshot").await.pop().unwrap();
    assert!(frame.id.is_none(), "what can be computed again has no place in the log");
    assert!(frame.json()["data"]["stats"]["throughput_per_second"].is_number());
    app.creates("t").await;
    assert!(stream.stays_silent(Duration::from_millis(200)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_bye_and_cuts_the_body() {
    let app = TestApp::start().await;
    let mut stream = app.events("?after=now").await;
    stream.next().await.unwrap();
    let stopping = tokio::spawn(app.stopped());
    let bye = stream.until("bye").await.pop().unwrap();
    assert!(bye.retry.is_some());
    assert!(stream.next().await.is_none() && stream.was_cut, "a clean end would keep some clients away for good");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_cut_and_kept_whole_beside_it() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    let large = "y".repeat(30_000);
    task.reports("complete", json!({ "result": { "large": large } })).await.expect(200);
    let head = app.settles().await;
    let mut stream = app.events("?after=earliest").await;
    let last = stream.events_to(head).await.pop().unwrap();
    assert!(last.data.len() <= 8_192 + 100);
    assert_eq!(last.json()["truncated"], json!(["data.result"]));
    assert_eq!(app.task(&id).await["result"]["large"], large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_behind_the_memory_is_served_from_the_log() {
    let mut settings = crate::harness::app::settings();
    settings.event_cache_mib = 1;
    let app = TestApp::with(settings, taskwatch::feed::Callbacks::default()).await;
    app.creates_many(3_000, "t").await;
    let head = app.settles().await;
    assert_eq!(head, 6_000);
    let mut stream = app.events("?after=earliest").await;
    let positions: Vec<_> = stream.events_to(head).await.iter().map(|frame| frame.position().unwrap()).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>());
    // And it goes on live from there.
    app.creates("t").await;
    assert_eq!(stream.event().await.position(), Some(head + 1));
}
