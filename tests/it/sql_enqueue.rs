//! taskwatch.enqueue is POST /api/v1/tasks, field by field.

use std::collections::HashMap;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::harness::{TestApp, cluster, eventually};

/// The arguments, in the order of their types below.
const FIELDS: [(&str, &str); 24] = [
    ("task_type", "text"),
    ("payload", "json"),
    ("queue", "text"),
    ("project_id", "text"),
    ("priority", "integer"),
    ("run_at", "timestamptz"),
    ("title", "text"),
    ("description", "text"),
    ("labels", "json"),
    ("max_attempts", "integer"),
    ("timeout_seconds", "integer"),
    ("parent_task_id", "uuid"),
    ("phase", "text"),
    ("depends_on", "uuid[]"),
    ("on_dependency_failure", "text"),
    ("id", "uuid"),
    ("unique_key", "text"),
    ("backoff_initial_seconds", "integer"),
    ("backoff_max_seconds", "integer"),
    ("phases", "text[]"),
    ("auto_complete", "boolean"),
    ("assignee", "text"),
    ("collaborators", "text[]"),
    ("watchers", "text[]"),
];

/// A literal of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The call that asks for what the JSON asks for.
fn call(task: &Map<String, Value>) -> String {
    let argument = |(name, value): (&String, &Value)| {
        let (_, kind) = FIELDS.iter().find(|(field, _)| field == name).unwrap();
        let value = match (*kind, value) {
            ("json", value) => quoted(&value.to_string()),
            ("text[]" | "uuid[]", Value::Array(items)) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item.as_str().unwrap())).collect();
                format!("ARRAY[{}]", items.join(","))
            }
            (_, Value::String(text)) => quoted(text),
            (_, value) => value.to_string(),
        };
        format!("{name} => {value}::{kind}")
    };
    format!("SELECT taskwatch.enqueue({})", task.iter().map(argument).collect::<Vec<_>>().join(", "))
}

fn text(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["[a-z '\"\\\\\n\t\u{2028}\u{85}é😀]", "\\PC"], 0..most).prop_map(
        move |parts| {
            let text = parts.concat();
            text[..text.floor_char_boundary(most)].to_owned()
        },
    )
}

fn name() -> impl Strategy<Value = String> {
    "[a-zé,.\\\\'\"😀]([a-z ,'é\u{2028}]{0,10}[a-zé0-9])?".prop_filter("a new name", |name| name != "." && name != "..")
}

/// Tasks as an application may ask for; what names other tasks is filled in later.
fn task() -> impl Strategy<Value = Value> {
    let names = || proptest::collection::btree_set(name(), 0..4);
    let some = |strategy: BoxedStrategy<Value>| proptest::option::of(strategy);
    let labels = proptest::collection::btree_map(name(), "[a-z'\"\\\\é😀\u{2028}]{0,12}", 0..4);
    let payload = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        text(20).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text(9).prop_map(|text| json!({ "a": [text, { "b": null, "c": 1.5e300 }] })),
    ];
    let first = (
        name(),
        some(name().prop_map(Value::from).boxed()),
        some(prop_oneof![Just("p1"), Just("p2")].prop_map(Value::from).boxed()),
        some((0..10).prop_map(Value::from).boxed()),
        some(text(60).prop_map(Value::from).boxed()),
        some(text(200).prop_map(Value::from).boxed()),
        some(labels.prop_map(|labels| json!(labels)).boxed()),
        some((1..=100).prop_map(Value::from).boxed()),
        some((1..=604_800).prop_map(Value::from).boxed()),
        some(payload.boxed()),
    );
    let second = (
        some(name().prop_map(Value::from).boxed()),
        some((0..9_000).prop_map(Value::from).boxed()),
        some((9_000..=604_800).prop_map(Value::from).boxed()),
        some(names().prop_map(|names| json!(names)).boxed()),
        some(name().prop_map(Value::from).boxed()),
        some(names().prop_map(|names| json!(names)).boxed()),
        some(names().prop_map(|names| json!(names)).boxed()),
        proptest::option::of(prop_oneof![
            Just("2020-01-01T00:00:00Z"),
            Just("2999-12-31T23:59:59.999999Z"),
            Just("0001-01-01T00:00:00Z"),
            Just("9999-12-31T23:59:59.999999Z")
        ]),
        prop_oneof![Just("fail"), Just("cancel"), Just("ignore")],
        (any::<bool>(), 0_u8..8),
    );
    (first, second).prop_map(|(first, second)| {
        let mut task = Map::new();
        task.insert("task_type".to_owned(), first.0.into());
        let fields = [
            ("queue", first.1),
            ("project_id", first.2),
            ("priority", first.3),
            ("title", first.4),
            ("description", first.5),
            ("labels", first.6),
            ("max_attempts", first.7),
            ("timeout_seconds", first.8),
            ("payload", first.9),
            ("phase", second.0),
            ("backoff_initial_seconds", second.1),
            ("backoff_max_seconds", second.2),
            ("phases", second.3),
            ("assignee", second.4),
            ("collaborators", second.5),
            ("watchers", second.6),
            ("run_at", second.7.map(Value::from)),
        ];
        task.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let (group, kind) = second.9;
        match kind {
            0 => {
                task.insert("auto_complete".to_owned(), true.into());
                task.remove("run_at");
            }
            1..=3 => {
                task.insert("depends_on".to_owned(), json!(kind));
                task.insert("on_dependency_failure".to_owned(), second.8.into());
            }
            4 => drop(task.insert("unique_key".to_owned(), json!("key"))),
            _ => {}
        }
        if group {
            task.insert("parent_task_id".to_owned(), json!("parent"));
        }
        Value::Object(task)
    })
}

/// A database with what others can name: a parent, and a task of each fate.
async fn scene(app: &TestApp) -> (String, Vec<String>) {
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "parent", "project_id": "p1", "queue": "parents" })).await;
    app.creates_as(json!({ "task_type": "child", "parent_task_id": parent, "queue": "parents" })).await;
    let open = app.creates_as(json!({ "task_type": "open", "queue": "elsewhere" })).await;
    let done = app.creates_as(json!({ "task_type": "done", "queue": "d" })).await;
    worker.claims("d").await.completes().await;
    let failed = app.creates_as(json!({ "task_type": "failed", "queue": "f", "max_attempts": 1 })).await;
    worker.claims("f").await.fails("no").await;
    (parent, vec![open, done, failed])
}

/// Rows and events of the tasks asked for, without what must differ: ids, places and times.
async fn outcome(app: &TestApp, ids: &[String], scene: &(String, Vec<String>)) -> Vec<(Value, Vec<Value>)> {
    let named = |text: String| {
        let mut text = text.replace(&scene.0, "parent");
        for (n, id) in scene.1.iter().enumerate() {
            text = text.replace(id.as_str(), &format!("other-{n}"));
        }
        text
    };
    let rows = "SELECT jsonb_build_object('id', id, 'row', to_jsonb(t)
            - '{id, created_at, enqueued_at, finished_at, payload}'::text[]
            || jsonb_build_object('enqueued', enqueued_at IS NOT NULL, 'kept', payload::text))::text
        FROM taskwatch.tasks t";
    let mut by_id: HashMap<String, (Value, Vec<Value>)> = HashMap::new();
    for row in cluster::texts(&app.database, rows).await {
        let row: Value = serde_json::from_str(&row).unwrap();
        let told = serde_json::from_str(&named(row["row"].to_string())).unwrap();
        by_id.insert(row["id"].as_str().unwrap().to_owned(), (told, Vec::new()));
    }
    let events = "SELECT body FROM taskwatch.events WHERE task_id IS NOT NULL ORDER BY position";
    for body in cluster::texts(&app.database, events).await {
        let id = serde_json::from_str::<Value>(&body).unwrap()["task_id"].as_str().unwrap().to_owned();
        let mut event: Value = serde_json::from_str(&named(body)).unwrap();
        let fields = event.as_object_mut().unwrap();
        for field in ["event_id", "position", "ts", "task_id"] {
            fields.remove(field);
        }
        by_id.get_mut(&id).unwrap().1.push(event);
    }
    ids.iter().map(|id| by_id[id].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_by_http_and_by_sql_are_the_same() {
    let (by_http, by_sql) = (TestApp::start().await, TestApp::start().await);
    let scenes = [scene(&by_http).await, scene(&by_sql).await];
    let mut runner = TestRunner::deterministic();
    let tasks: Vec<Value> = (0..1_000).map(|_| task().new_tree(&mut runner).unwrap().current()).collect();
    let asked = |task: &Value, (parent, others): &(String, Vec<String>)| {
        let mut task = task.as_object().unwrap().clone();
        if task.contains_key("parent_task_id") {
            task.insert("parent_task_id".to_owned(), json!(parent));
        }
        if let Some(kind) = task.get("depends_on").and_then(Value::as_u64) {
            // On one that is open, one that is done, and one that failed beside one that is done.
            let others: &[&String] = match kind {
                1 => &[&others[0]],
                2 => &[&others[1]],
                _ => &[&others[2], &others[1], &others[2]],
            };
            task.insert("depends_on".to_owned(), json!(others));
        }
        task
    };
    let mut ids = [Vec::new(), Vec::new()];
    let mut conn = PgConnection::connect_with(&by_sql.database).await.unwrap();
    for tasks in tasks.chunks(50) {
        let bodies: Vec<_> = tasks.iter().map(|task| asked(task, &scenes[0])).collect();
        let created = by_http.post("/api/v1/tasks", &json!(bodies)).await.expect(201);
        ids[0].extend(created["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        let mut transaction = conn.begin().await.unwrap();
        for task in tasks {
            let call = call(&asked(task, &scenes[1]));
            let id: Uuid = sqlx::query_scalar(sqlx::AssertSqlSafe(call.clone()))
                .fetch_one(&mut *transaction)
                .await
                .unwrap_or_else(|error| panic!("{call}: {error}"));
            ids[1].push(id.to_string());
        }
        transaction.commit().await.unwrap();
    }
    eventually("maintenance has evaluated all", || async {
        cluster::number(&by_sql.database, "SELECT count(*) FROM taskwatch.rechecks").await == 0
    })
    .await;
    let (http, sql) = (outcome(&by_http, &ids[0], &scenes[0]).await, outcome(&by_sql, &ids[1], &scenes[1]).await);
    for (n, (http, sql)) in http.iter().zip(&sql).enumerate() {
        for (field, value) in http.0.as_object().unwrap() {
            assert_eq!(value, &sql.0[field], "{field} of {}", tasks[n]);
        }
        assert_eq!(http.1, sql.1, "{}", tasks[n]);
    }
    for app in [&by_http, &by_sql] {
        app.settles().await;
        app.is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_refuses_sql_refuses_and_names() {
    let app = TestApp::start().await;
    let mut conn = PgConnection::connect_with(&app.database).await.unwrap();
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let right = format!("{}1{}", "[{\"a\":".repeat(32), "}]".repeat(32));
    let long = "x".repeat(257);
    for (field, value) in [
        ("payload", json!("a\u{0}")),
        ("task_type", json!(" a")),
        ("queue", json!("..")),
        ("labels", json!({ "k": long })),
        ("labels", json!({ " k": "v" })),
        ("labels", json!({ "k": 7 })),
        ("labels", json!({ "k": "a\nb" })),
        ("unique_key", json!("")),
        ("unique_key", json!(long)),
        ("backoff_initial_seconds", json!(604_801)),
        ("backoff_max_seconds", json!(0)),
        ("phases", json!(["a", "a"])),
        ("phases", json!(["."])),
        ("assignee", json!("x".repeat(129))),
        ("collaborators", json!([""])),
        ("watchers", json!((0..33).map(|n| n.to_string()).collect::<Vec<_>>())),
        ("run_at", json!("10000-01-01T00:00:00Z")),
    ] {
        let mut task = Map::from_iter([("task_type".to_owned(), json!("t"))]);
        task.insert(field.to_owned(), value);
        let reply = app.post("/api/v1/tasks", &json!(task)).await;
        assert_eq!(reply.status.as_u16(), 422, "{task:?}: {}", reply.text);
        let call = call(&task);
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(call.clone())).execute(&mut conn).await.unwrap_err().to_string();
        assert!(error.contains("taskwatch.enqueue") && error.contains(field), "{call}: {error}");
    }
    for (arguments, says) in [
        (r#"payload => '"\ud83d"'"#, Some("payload must not contain half")),
        (r#"payload => '{"a":"\ude00\ud83d"}'"#, Some("payload must not contain half")),
        (r#"payload => '"\ud83d\\\ude00"'"#, Some("payload must not contain half")),
        (r#"payload => '"\\\u0000"'"#, Some("payload must not contain NUL")),
        (r#"labels => '{"k":"\ud83d"}'"#, Some("labels")),
        (r#"labels => '{"k":"1","k":"2"}'"#, Some("labels")),
        (&format!("payload => '{deep}'"), Some("payload must not be nested deeper")),
        ("auto_complete => true, run_at => now()", Some("auto_complete")),
        ("auto_complete => NULL", Some("auto_complete")),
        ("depends_on => ARRAY[NULL]::uuid[]", Some("depends_on")),
        ("collaborators => NULL", Some("collaborators")),
        (r#"payload => '"\ud83d\ude00 \\ud83d \\u0000 [[[["'"#, None),
        (&format!("payload => '{right}'"), None),
        ("payload => '1e999999'", None),
        (r#"payload => '{"a":1,"a":2}'"#, None),
    ] {
        let call = format!("SELECT taskwatch.enqueue('t', {arguments})");
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(call.clone())).execute(&mut conn).await;
        match says {
            Some(says) => {
                assert!(done.as_ref().is_err_and(|error| error.to_string().contains(says)), "{call}: {done:?}")
            }
            None => assert!(done.is_ok(), "{call}: {done:?}"),
        }
    }
    assert_eq!(cluster::number(&app.database, "SELECT count(*) FROM taskwatch.tasks").await, 4);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_returned_and_nothing_is_aborted() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut conn = PgConnection::connect_with(&app.database).await.unwrap();
    let id = Uuid::from_u128(7);
    let mut asking = PgConnection::connect_with(&app.database).await.unwrap();
    let mut asks = async |arguments: &str| -> Uuid {
        let call = format!("SELECT taskwatch.enqueue({arguments})");
        sqlx::query_scalar(sqlx::AssertSqlSafe(call)).fetch_one(&mut asking).await.unwrap()
    };
    assert_eq!(asks(&format!("'t', id => '{id}'")).await, id);
    assert_eq!(asks(&format!("'other', id => '{id}'")).await, id);
    let first = asks("'t', unique_key => 'k', queue => 'keyed'").await;
    assert_eq!(asks("'t', unique_key => 'k'").await, first);
    assert_ne!(asks("'t', unique_key => 'k', project_id => 'elsewhere'").await, first);
    // The same key by HTTP.
    let created = app.post("/api/v1/tasks", &json!({ "task_type": "t", "unique_key": "k" })).await.expect(200);
    assert_eq!(created["task"]["id"], json!(first));
    worker.claims("keyed").await.completes().await;
    assert_ne!(asks("'t', unique_key => 'k'").await, first);
    // Twice within one transaction.
    asks("'t'").await;
    let made = "SELECT count(DISTINCT id) FROM (SELECT taskwatch.enqueue('t', unique_key => 'twice') AS id
        FROM generate_series(1, 3)) AS made";
    assert_eq!(cluster::number(&app.database, made).await, 1);
    assert_eq!(
        cluster::number(&app.database, "SELECT count(*) FROM taskwatch.tasks WHERE unique_key = 'twice'").await,
        1
    );
    // Somebody else creates it between the call and the commit: the same id stays, the same key fails and can be repeated.
    let mut open = conn.begin().await.unwrap();
    let late = Uuid::from_u128(8);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SELECT taskwatch.enqueue('late', id => '{late}')")))
        .execute(&mut *open)
        .await
        .unwrap();
    app.post("/api/v1/tasks", &json!({ "task_type": "soon", "id": late })).await.expect(201);
    open.commit().await.unwrap();
    assert_eq!(app.task(&late.to_string()).await["task_type"], "soon");
    let mut open = conn.begin().await.unwrap();
    sqlx::raw_sql("SELECT taskwatch.enqueue('late', unique_key => 'race')").execute(&mut *open).await.unwrap();
    app.creates_as(json!({ "task_type": "soon", "unique_key": "race" })).await;
    let error = open.commit().await.unwrap_err();
    assert!(error.to_string().contains("taskwatch.enqueue: another transaction"), "{error}");
    app.settles().await;
    app.is_clean().await;
}
