//! The log again: ranges, at a speed, and as answers of a long poll.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::TestApp;

async fn positions(app: &TestApp, query: &str) -> Vec<i64> {
    let mut stream = app.events(query).await;
    let frames = stream.until("close").await;
    assert!(stream.next().await.is_none() && !stream.was_cut, "a range that is over ends cleanly");
    frames
        .iter()
        .filter(|frame| frame.json()["event_type"].is_string())
        .map(|frame| frame.position().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_sent_again_with_the_same_bytes() {
    let app = TestApp::start().await;
    let mut live = app.events("?after=now").await;
    app.creates_many(300, "t").await;
    let head = app.settles().await;
    let sent = live.events_to(head).await;
    assert_eq!(positions(&app, "?from=10&until=20").await, (10..=20).collect::<Vec<_>>());
    let epoch = app.state.subscriptions.epoch();
    let by_id = format!("?from={epoch}-10&until={epoch}-20&types=task_created");
    assert!(positions(&app, &by_id).await.iter().all(|position| sent[*position as usize - 1].event == "task_created"));
    let mut again = app.events("?from=1&until=600&speed=max").await;
    let frames = again.until("close").await;
    let raw: Vec<_> = frames[1..frames.len() - 1].iter().map(|frame| &frame.raw).collect();
    assert_eq!(raw, sent.iter().map(|frame| &frame.raw).collect::<Vec<_>>());
    // What lies ahead is not waited for.
    assert_eq!(positions(&app, "?from=599&until=9999").await, [599, 600]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_may_be_given_in_times() {
    let app = TestApp::start().await;
    for _ in 0..5 {
        app.creates("t").await;
        app.time_passes(60);
    }
    app.settles().await;
    let mut all = app.events("?after=earliest&max_events=10").await;
    let events: Vec<Value> = all.events_to(10).await.iter().map(crate::harness::Frame::json).collect();
    let ts = |index: usize| events[index]["ts"].as_str().unwrap();
    // Each task is two events of one time: those of the second to the fourth task.
    let query = format!("?from={}&until={}", ts(2), ts(6));
    assert_eq!(positions(&app, &query).await, [3, 4, 5, 6, 7, 8]);
    assert_eq!(positions(&app, "?from=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z").await, [] as [i64; 0]);
    let refused = app.get(&format!("/events?from={}&until={}", ts(6), ts(2))).await;
    assert_eq!((refused.status.as_u16(), refused.json["errors"][0]["field"].as_str()), (400, Some("until")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_the_time_between_events_and_goes_on_live() {
    let app = TestApp::start().await;
    app.creates("t").await;
    app.time_passes(3);
    app.creates("t").await;
    app.settles().await;
    let began = Instant::now();
    let mut stream = app.events("?from=1&speed=2").await;
    let hello = stream.next().await.unwrap();
    assert_eq!(hello.json()["resume"], "replay");
    stream.events_to(4).await;
    assert!(began.elapsed() >= Duration::from_millis(1_500), "three seconds take one and a half at twice the speed");
    app.creates("t").await;
    assert_eq!(stream.events_to(6).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_replay_goes_on_through_live_events_and_ends_with_the_server() {
    let app = TestApp::start().await;
    // An hour back, so that live events wait for their turn as well.
    app.creates("t").await;
    app.settles().await;
    let mut stream = app.events("?from=1&speed=1&heartbeat=5").await;
    stream.events_to(2).await;
    for _ in 0..3 {
        app.time_passes(1);
        app.creates("t").await;
    }
    let frames = stream.events_to(8).await;
    assert_eq!(frames.len(), 6);
    app.time_passes(3_600);
    app.creates("t").await;
    // The next event has an hour to wait; the stream still beats, and says bye.
    stream.until("heartbeat").await;
    let stopping = tokio::spawn(app.stopped());
    let bye = stream.until("bye").await.pop().unwrap();
    assert_eq!((bye.json()["reason"].as_str(), bye.id.unwrap().ends_with("-8")), (Some("drain"), true));
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_to_its_replay_continues_it() {
    let app = TestApp::start().await;
    app.creates_many(20, "t").await;
    app.settles().await;
    let epoch = app.state.subscriptions.epoch();
    let url = format!("{}/events?from=1&until=30", app.url);
    let mut stream = crate::harness::Stream::open(app.http(), &url, Some(&format!("{epoch}-12"))).await;
    let frames = stream.until("close").await;
    let positions: Vec<_> = frames[1..frames.len() - 1].iter().map(|frame| frame.position().unwrap()).collect();
    assert_eq!(positions, (13..=30).collect::<Vec<_>>());
    assert_eq!(frames.last().unwrap().json()["reason"], "replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_what_has_gone_says_so_and_begins_with_what_is_left() {
    let app = TestApp::start().await;
    app.creates_many(20, "t").await;
    app.settles().await;
    app.keeps_from(11).await;
    let mut stream = app.events("?from=3&until=14").await;
    let frames = stream.until("close").await;
    assert_eq!((frames[1].event.as_str(), frames[1].json()["reason"].as_str()), ("reset", Some("too_old")));
    assert_eq!(frames[2].position(), Some(11));
    assert_eq!(app.get("/events?from=3&on_gap=error").await.expect(410)["code"], "cursor_expired");
    let polled = app.get("/events?poll=1&from=3&until=14").await.expect(200);
    let positions: Vec<_> =
        polled["events"].as_array().unwrap().iter().map(|event| event["position"].clone()).collect();
    assert_eq!((json!(positions), &polled["done"]), (json!([11, 12, 13, 14]), &json!(true)));
    // A cursor that is none does not make the range larger.
    let url = format!("{}/events?from=30&until=32", app.url);
    let mut again = crate::harness::Stream::open(app.http(), &url, Some("nonsense")).await;
    let frames = again.until("close").await;
    let positions: Vec<_> = frames[2..frames.len() - 1].iter().filter_map(crate::harness::Frame::position).collect();
    assert_eq!(positions, [30, 31, 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_a_replay_is_named() {
    let app = TestApp::start().await;
    for (query, field) in [
        ("from=yesterday", "from"),
        ("from=0", "from"),
        ("from=-3", "from"),
        ("from=9223372036854775807", "from"),
        ("until=5", "until"),
        ("speed=2", "speed"),
        ("from=1&speed=0", "speed"),
        ("from=1&speed=NaN", "speed"),
        ("from=1&speed=1e99", "speed"),
        ("from=00000000-1", "from"),
        ("from=1&until=2026-13-01T00:00:00Z", "until"),
        ("poll=2", "poll"),
        ("wait=3", "wait"),
        ("poll=1&wait=56", "wait"),
        ("format=xml", "format"),
        ("names=0&names=1", "names"),
    ] {
        let refused = app.get(&format!("/events?{query}")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json["errors"][0]["field"].as_str()),
            (400, Some(field)),
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_waits_for_the_next_event() {
    let app = TestApp::start().await;
    let first = app.get("/events?poll=1").await.expect(200);
    assert_eq!((&first["resume"], &first["events"]), (&json!("snapshot"), &json!([])));
    assert!(first["snapshot"]["counts"].is_object());
    let cursor = first["cursor"].as_str().unwrap();
    let path = format!("/events?poll=1&wait=30&after={cursor}");
    let (answer, _) = tokio::join!(app.get(&path), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.creates("t").await
    });
    let answer = answer.expect(200);
    let types: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| event["event_type"].clone()).collect();
    assert!(types.contains(&json!("task_created")), "{answer}");
    assert_eq!(answer["resume"], "resumed");
    let cursor = answer["cursor"].as_str().unwrap();
    let empty = app.get(&format!("/events?poll=1&wait=0&types=task_failed&after={cursor}")).await.expect(200);
    assert_eq!(empty["events"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_one_after_the_other_miss_nothing() {
    let app = TestApp::start().await;
    app.creates_many(1_200, "t").await;
    let head = app.settles().await;
    let mut cursor = "earliest".to_owned();
    let mut seen = Vec::new();
    while seen.len() < head as usize {
        let answer = app.get(&format!("/events?poll=1&wait=5&max_events=700&after={cursor}")).await.expect(200);
        let events = answer["events"].as_array().unwrap();
        assert!(events.len() <= 700);
        seen.extend(events.iter().filter_map(|event| event["position"].as_i64()));
        answer["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
    assert_eq!(seen, (1..=head).collect::<Vec<_>>());
    let reset = app.get("/events?poll=1&after=00000000-7").await.expect(200);
    assert_eq!((&reset["resume"], &reset["reason"]), (&json!("reset"), &json!("epoch")));
    assert_eq!(app.get("/events?poll=1&on_gap=error&after=00000000-7").await.expect(410)["code"], "cursor_expired");
}
