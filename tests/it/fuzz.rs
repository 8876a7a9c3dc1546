//! Random bytes into every text door: a clear answer, nothing changed that was refused, no reader stopped.

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use taskwatch::{
    event::{Filter, filter, visible},
    http::input::{Free, Mended, Text, parse},
    model::{NewName, Timestamp, recurrence::Recurrence},
};

use crate::harness::TestApp;

/// Pieces that broke something somewhere.
const PIECES: [&str; 36] = [
    "\\ud83d",
    "\\u0000",
    "\\ude00",
    "\u{feff}",
    "1e999",
    "-0",
    "[[[[[[",
    "{\"a\":",
    "null",
    "-1",
    "18446744073709551616",
    "true",
    "\"",
    "\\",
    ",",
    "\u{202e}",
    "%ff",
    "%00",
    "+01:00",
    "infinity",
    "12000-01-01T00:00:00Z",
    "2026-11-20T16:05:00Z",
    "..",
    " ",
    "\u{a0}",
    "'",
    "$1",
    "\n",
    "\r\n\r\n",
    "\u{2028}",
    "{}",
    "]",
    "}",
    "*/61 * * * *",
    "\u{0}",
    "9999-12-31T23:59:60Z",
];

/// Good requests to spoil: method, path, content type, body.
const SEEDS: [(&str, &str, &str, &str); 16] = [
    (
        "POST",
        "/api/v1/tasks",
        "application/json",
        r#"{"task_type":"t","queue":"q","priority":5,"payload":{"a":[1,"x"]},"labels":{"k":"v"},"run_at":"2026-11-20T16:05:00Z"}"#,
    ),
    ("POST", "/api/v1/tasks", "application/x-ndjson", "{\"task_type\":\"t\"}\n{\"task_type\":\"u\",\"title\":\"x\"}\n"),
    (
        "POST",
        "/api/v1/events",
        "application/json",
        r#"{"event_type":"task_started","task_id":17,"ts":"2023-11-14T22:13:20Z","data":{"run_at":"2026-11-20T16:05:00Z","title":"x"}}"#,
    ),
    (
        "POST",
        "/api/v1/events",
        "application/x-ndjson",
        "{\"event_type\":\"task_failed\",\"task_id\":\"a\",\"error\":\"e\"}\n{\"event_type\":\"worker_heartbeat\",\"worker_id\":\"w\"}",
    ),
    (
        "POST",
        "/api/v1/events",
        "application/cloudevents+json",
        r#"{"specversion":"1.0","type":"a.task_completed","source":"s","id":"1","subject":"b","data_base64":"e30="}"#,
    ),
    (
        "POST",
        "/api/v1/events",
        "application/cloudevents-batch+json",
        r#"[{"specversion":"1.0","type":"a.task_created","source":"s","id":"1","subject":"b","data":{"queue":"q"}}]"#,
    ),
    (
        "POST",
        "/api/v1/reports",
        "application/json",
        r#"[{"report":"fail","task_id":"00000000-0000-0000-0000-000000000001","worker_id":"00000000-0000-0000-0000-000000000002","attempt":1,"error":"e"}]"#,
    ),
    (
        "POST",
        "/api/v1/workers",
        "application/json",
        r#"{"name":"w","machine_id":"m","queues":["q"],"connectors":[{"connector_id":"c","status":"error","error":"x"}]}"#,
    ),
    (
        "POST",
        "/api/v1/claims",
        "application/json",
        r#"{"worker_id":"00000000-0000-0000-0000-000000000002","queues":["q"],"limit":1}"#,
    ),
    (
        "PUT",
        "/api/v1/schedules/s",
        "application/json",
        r#"{"cron":"0 0 1 1 *","time_zone":"Europe/Berlin","task":{"task_type":"t","payload":[1]},"paused":true}"#,
    ),
    (
        "PATCH",
        "/api/v1/queues/q",
        "application/json",
        r#"{"concurrency_limit":5,"rate_limit":3,"rate_period_seconds":2}"#,
    ),
    (
        "POST",
        "/api/v1/tasks/bulk",
        "application/json",
        r#"{"action":"cancel","filter":{"queue":"a\\,b","status":"pending"},"preview":true}"#,
    ),
    (
        "POST",
        "/schedules",
        "application/x-www-form-urlencoded",
        "name=s&cron=0+0+1+1+*&time_zone=UTC&task_type=t&payload=%7B%7D",
    ),
    ("POST", "/tasks/bulk", "application/x-www-form-urlencoded", "action=cancel&queue=nowhere&max_per_second=5"),
    (
        "GET",
        "/tasks?queue=a%5C,b&q=x&status=pending&label.k=v&priority=3..7&limit=5&at=2026-11-20T16:05:00+01:00",
        "",
        "",
    ),
    ("GET", "/events?poll=1&wait=0&after=earliest&types=task_*&queue=a,b&format=cloudevents&max_events=2", "", ""),
];

fn spoil(random: &mut fastrand::Rng, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        match random.u8(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.extend((0..random.usize(0..9)).map(|_| random.u8(..))),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let piece = PIECES[random.usize(..PIECES.len())];
                let end = (at + random.usize(..4)).min(bytes.len());
                bytes.splice(at..end, piece.bytes());
            }
        }
    }
    bytes
}

#[test]
fn random_bytes_into_every_parser() {
    let mut random = fastrand::Rng::with_seed(17);
    let texts = [
        "2026-11-20T16:05:00.123+01:00",
        r"a\,b, c",
        "größe",
        "{\"a\":[1,\"\\ud83d\\ude00\"]}",
        "\"text\"",
        "0 0 1 1 *",
    ];
    let mut accepted = 0;
    for round in 0..100_000 {
        let bytes = spoil(&mut random, texts[round % texts.len()].as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(free) = parse::<Free>(&bytes, "") {
            accepted += 1;
            let read = serde_json::from_str::<Value>(free.0.as_str());
            // Only numbers beyond all floats are JSON for Postgres and not for Rust.
            assert!(
                read.as_ref().is_ok_and(|read| !read.to_string().contains("\\u0000"))
                    || free.0.as_str().contains(['e', 'E']),
                "{text:?}"
            );
        }
        if let Ok(mended) = parse::<Mended<16>>(&bytes, "") {
            assert!(mended.0.len() <= 16 && !mended.0.contains('\0'), "{text:?}");
        }
        if let Ok(kept) = parse::<Text<16>>(&bytes, "") {
            assert!(kept.0.len() <= 16 && !kept.0.contains('\0'), "{text:?}");
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            assert!(Timestamp::parse_utc(&taskwatch::event::envelope::rfc3339(time.get())) == Ok(time), "{text:?}");
        }
        for value in filter::values(&text) {
            assert_eq!(filter::values(&filter::escaped(&value)), [value]);
        }
        let pairs = [("queue".to_owned(), text.to_string()), ("types".to_owned(), text.to_string())];
        let _ = Filter::from_query(&pairs, &[]).map(|filter| filter.canonical());
        if let Ok(name) = NewName::new(&text) {
            assert_eq!(filter::values(&filter::escaped(name.0.as_str())), [name.0.as_str()]);
        }
        assert!(
            !visible::visible_line(&visible::visible_line(&text)).chars().any(|c| c.is_control() || c == '\u{202e}')
        );
        if round % 200 == 5 {
            let now = "2026-11-20T00:00:00Z".parse().unwrap();
            if let Ok(recurrence) = Recurrence::parse_new(&text, "Europe/Berlin", now) {
                assert!(recurrence.after(now).is_some_and(|next| next > now), "{text:?}");
            }
        }
    }
    assert!(accepted > 1_000, "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_into_every_door() {
    let app = TestApp::start().await;
    let mut random = fastrand::Rng::with_seed(18);
    let mut stream = app.events("?after=now&snapshot=never&types=task_created&task_type=last").await;
    let mut conn = PgConnection::connect_with(&app.database).await.unwrap();
    // What maintenance may do by itself meanwhile is left out.
    let count = "SELECT count(*) FROM taskwatch.events
        WHERE event_type IN ('task_created', 'task_started', 'task_progress', 'task_completed', 'task_failed')";
    let mut before = 0;
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for round in 0..640 {
        let (method, path, kind, body) = SEEDS[round % SEEDS.len()];
        let (path, body) = if body.is_empty() {
            let (path, query) = path.split_once('?').unwrap();
            let query: String = spoil(&mut random, query.as_bytes())
                .iter()
                .map(|byte| match byte {
                    b'!'..=b'~' if *byte != b'#' => char::from(*byte).to_string(),
                    byte => format!("%{byte:02x}"),
                })
                .collect();
            (format!("{path}?{query}"), Vec::new())
        } else {
            (path.to_owned(), spoil(&mut random, body.as_bytes()))
        };
        let shown = String::from_utf8_lossy(&body).into_owned();
        let reply = app.sends(method, &path, Some(kind).filter(|kind| !kind.is_empty()), body).await;
        let status = reply.status.as_u16();
        *statuses.entry(status).or_default() += 1;
        assert!(status < 500, "{method} {path} {shown:?}: {}", reply.text);
        let after: i64 = sqlx::query_scalar(count).fetch_one(&mut conn).await.unwrap();
        if (400..500).contains(&status) {
            assert_eq!(before, after, "{method} {path} {shown:?} was refused and changed something: {}", reply.text);
        }
        before = after;
    }
    assert!(statuses[&422] > 20 && statuses[&400] > 20 && statuses[&200] > 20, "{statuses:?}");
    println!("random bytes over HTTP: {statuses:?}");
    // The door in SQL.
    for _ in 0..300 {
        let argument = |random: &mut fastrand::Rng, seed: &str| {
            String::from_utf8_lossy(&spoil(random, seed.as_bytes())).replace('\0', "").replace('\'', "''")
        };
        let arguments = [
            ("task_type", argument(&mut random, "mail")),
            ("payload", argument(&mut random, "{\"a\":[1,\"x\"]}")),
            ("labels", argument(&mut random, "{\"k\":\"v\"}")),
            ("run_at", argument(&mut random, "2026-11-20T16:05:00Z")),
            ("unique_key", argument(&mut random, "key")),
        ];
        let (name, value) = &arguments[random.usize(..arguments.len())];
        let task_type = if *name == "task_type" { "" } else { "task_type => 't', " };
        let statement = format!("SELECT taskwatch.enqueue({task_type}{name} => '{value}')");
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await;
    }
    // Everybody still reads.
    app.creates("last").await;
    stream.until("task_created").await;
    app.settles().await;
    for path in [
        "/",
        "/tasks?limit=200",
        "/queues",
        "/workers",
        "/schedules",
        "/events-view",
        "/api/v1/tasks?limit=200",
        "/api/v1/snapshot",
    ] {
        assert_eq!(app.get(path).await.status.as_u16(), 200, "{path}");
    }
    let twin = app.twin().await;
    twin.settles().await;
    app.is_clean().await;
}
