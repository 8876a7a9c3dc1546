//! Properties of the filters.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use taskwatch::{
    clock::Clock,
    event::{Event, Filter, Kind, filter},
    model::{Name, Priority, Status},
};

use crate::harness::TestApp;

fn event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let status = prop::sample::select(Status::ALL.to_vec());
    (
        kind,
        prop::option::of(name.clone()),
        prop::option::of(name),
        prop::option::of(0_i64..10),
        prop::option::of(status),
    )
        .prop_map(|(kind, project, queue, priority, status)| {
            let mut event = Event::new(kind, Clock::default().now());
            event.project_id = project.map(Name::literal);
            event.queue = queue.map(Name::literal);
            event.priority = priority.and_then(Priority::new);
            event.status = status;
            event
        })
}

fn filter(pairs: &[(&str, String)]) -> Filter {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Filter::from_query(&pairs, &[]).unwrap()
}

proptest! {
    #[test]
    fn fields_are_anded_and_values_ored(event in event(), low in 0_u8..10, high in 0_u8..10) {
        let (low, high) = (low.min(high), low.max(high));
        let queue = filter(&[("queue", "a,b".to_owned())]);
        let priority = filter(&[("priority", format!("{low}..{high}"))]);
        let both = filter(&[("queue", "a,b".to_owned()), ("priority", format!("{low}..{high}"))]);
        let in_queue = event.queue.as_ref().is_some_and(|queue| ["a", "b"].contains(&queue.as_str()));
        let in_range = event.priority.is_some_and(|priority| (low..=high).contains(&priority.get()));
        prop_assert_eq!(queue.matches(&event), in_queue);
        prop_assert_eq!(priority.matches(&event), in_range);
        prop_assert_eq!(both.matches(&event), in_queue && in_range);
    }

    #[test]
    fn every_kind_is_found_by_its_name_its_prefix_and_its_topic(event in event()) {
        let kind = event.event_type;
        prop_assert!(filter(&[("types", kind.name().to_owned())]).matches(&event));
        let prefix = [&kind.name()[..4], "*"].concat();
        prop_assert!(filter(&[("types", prefix)]).matches(&event));
        prop_assert!(filter(&[("topics", kind.row().topic.as_str().to_owned())]).matches(&event));
        prop_assert!(filter(&[("topics", "all".to_owned())]).matches(&event));
        prop_assert!(filter(&[]).matches(&event));
    }

    #[test]
    fn any_text_is_understood_or_refused_but_never_a_panic(name in "[a-z_.]{0,12}", value in ".{0,40}") {
        let _ = Filter::from_query(&[(name, value.clone())], &[]);
        for row in &filter::ROWS {
            let _ = Filter::from_query(&[(row.name.to_owned(), value.clone())], &[]);
        }
    }

    #[test]
    fn an_event_survives_its_encoding(event in event(), error in ".{0,80}", title in ".{0,80}") {
        let mut event = event;
        event.error = Some(error);
        event.data.title = Some(title);
        let json = taskwatch::event::truncate::encode(&event);
        prop_assert!(!json.contains(['\n', '\r', '\0']));
        prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn a_large_event_fits_and_says_what_it_lost(size in 0_usize..40_000, error in 0_usize..40_000) {
        let mut event = Event::new(Kind::TaskFailed, Clock::default().now());
        event.data.title = Some("t".repeat(size));
        event.error = Some("e".repeat(error));
        let (fitted, json) = taskwatch::event::truncate::fit(event.clone(), 8_192);
        prop_assert!(json.len() <= 8_192);
        prop_assert_eq!(fitted.truncated.contains(&"error".to_owned()), fitted.error.is_none());
        if size + error < 7_500 {
            prop_assert_eq!(fitted, event);
        }
    }
}

/// The parameters of an operation in the API document.
async fn documented(app: &TestApp, path: &str) -> Vec<String> {
    let document = app.get("/openapi.json").await.expect(200);
    let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
    parameters.iter().map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_is_in_the_api_document_and_in_the_form() {
    let app = TestApp::start().await;
    let (events, tasks) = (documented(&app, "/events").await, documented(&app, "/api/v1/tasks").await);
    let page = app.get("/tasks").await.text;
    for row in &filter::ROWS {
        let name = row.name.to_owned();
        assert_eq!(events.contains(&name), !row.is_of_tasks_only(), "{name} in /events");
        if row.is_of_tasks_only() {
            assert_eq!(app.get(&format!("/events?poll=1&{name}=-1h..")).await.status, 400, "{name}");
        }
        assert_eq!(tasks.contains(&name), row.column.is_some(), "{name} in /api/v1/tasks");
        assert_eq!(page.contains(&format!("name=\"{name}\"")), row.column.is_some(), "{name} on the tasks page");
        if row.column.is_none() {
            assert_eq!(app.get(&format!("/api/v1/tasks?{name}=x")).await.status, 400, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_finds_the_same_tasks_in_the_table_and_in_the_log() {
    let app = TestApp::start().await;
    let parent =
        app.creates_as(json!({ "task_type": "order", "project_id": "shop", "phases": ["pick", "pack"] })).await;
    for (number, phase) in ["pick", "pack", "pick", "pack"].into_iter().enumerate() {
        let task = json!({
            "task_type": format!("type-{}", number % 3), "queue": format!("q{}", number % 2), "parent_task_id": parent,
            "phase": phase, "priority": number, "labels": { "tenant": format!("t,{number}") },
            "backoff_initial_seconds": 3_600,
        });
        app.creates_as(task).await;
    }
    app.creates("other").await;
    let connector = json!([{ "connector_id": "smtp" }]);
    let body = json!({ "name": "w", "machine_id": "m1", "queues": ["q0", "q1"], "connectors": connector });
    let worker = app.post("/api/v1/workers", &body).await.expect(201)["worker"]["id"].as_str().unwrap().to_owned();
    let claim = json!({ "worker_id": worker, "queues": ["q0"], "limit": 2, "connector_id": "smtp" });
    let claimed = app.post("/api/v1/claims", &claim).await.expect(200);
    for (task, error) in claimed["tasks"].as_array().unwrap().iter().zip(["disk full", "no route"]) {
        let report = json!({ "worker_id": worker, "attempt": 1, "error": error, "retryable": error == "no route" });
        app.post(&format!("/api/v1/tasks/{}/fail", task["id"].as_str().unwrap()), &report).await.expect(200);
    }
    app.settles().await;
    let events = app.get("/events?poll=1&wait=0&after=earliest&topics=tasks").await.expect(200);
    let events = events["events"].as_array().unwrap();
    // A task is as its last event says.
    let mut last = std::collections::BTreeMap::new();
    for event in events {
        last.insert(event["task_id"].as_str().unwrap().to_owned(), event.clone());
    }
    let value = |name: &str, event: &Value| {
        // In the table only what has failed belongs to an error group.
        let field = match name {
            "fingerprint" if event["status"] == "failed" => &event["data"][name],
            "fingerprint" => &Value::Null,
            _ => &event[name],
        };
        field.as_str().map(str::to_owned).or_else(|| field.as_i64().map(|number| number.to_string()))
    };
    let listed = async |query: String| {
        let found = app.get(&format!("/api/v1/tasks?{query}")).await.expect(200);
        let ids = found["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned());
        ids.collect::<BTreeSet<_>>()
    };
    for row in filter::ROWS.iter().filter(|row| row.column.is_some() && !row.is_of_tasks_only()) {
        let name = row.name;
        let values: BTreeSet<_> = last.values().filter_map(|event| value(name, event)).collect();
        assert!(!values.is_empty(), "no task has a {name}");
        for wanted in &values {
            let expected: BTreeSet<_> = last
                .iter()
                .filter(|(_, event)| value(name, event).as_ref() == Some(wanted))
                .map(|(id, _)| id.clone())
                .collect();
            assert_eq!(listed(format!("{name}={wanted}")).await, expected, "{name}={wanted}");
            let sent = app.get(&format!("/events?poll=1&wait=0&after=earliest&{name}={wanted}")).await.expect(200);
            let sent: BTreeSet<_> =
                sent["events"].as_array().unwrap().iter().map(|event| event["position"].as_i64()).collect();
            let all: BTreeSet<_> = events
                .iter()
                .filter(|event| value(name, event).as_ref() == Some(wanted))
                .map(|event| event["position"].as_i64())
                .collect();
            assert!(sent.is_superset(&all), "{name}={wanted}");
        }
    }
    assert_eq!(listed("label.tenant=t\\,1,t\\,2".to_owned()).await.len(), 2);
    assert_eq!(listed("priority=1..2".to_owned()).await.len(), 2);
    assert_eq!(listed(format!("parent_task_id={parent}&phase=pick&status=pending,retrying,failed")).await.len(), 2);
    assert_eq!(listed("q=NO+ROUTE".to_owned()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_found_by_keys_times_beginnings_and_what_they_are_not() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let done = app.creates_as(json!({ "task_type": "send-mail", "queue": "mail", "unique_key": "order/1" })).await;
    worker.claims("mail").await.completes().await;
    let failed = app.creates_as(json!({ "task_type": "send-sms", "queue": "sms", "max_attempts": 1 })).await;
    worker.claims("sms").await.fails("no route").await;
    let later = app
        .creates_as(
            json!({ "task_type": "sync", "queue": "mail", "run_at": "2099-01-01T00:00:00Z", "project_id": "b" }),
        )
        .await;
    let report = json!({ "event_type": "task_started", "task_id": "job 12", "task_type": "watched", "queue": "mail" });
    app.post("/api/v1/events", &report).await.expect(200);
    app.settles().await;
    let watched =
        app.get("/api/v1/tasks?type=watched").await.expect(200)["tasks"][0]["id"].as_str().unwrap().to_owned();
    let found = async |query: &str| -> BTreeSet<String> {
        let reply = app.get(&format!("/api/v1/tasks?{query}")).await.expect(200);
        // The page of tasks finds the same.
        let page = app.get(&format!("/tasks?{query}")).await;
        let tasks = reply["tasks"].as_array().unwrap();
        let ids: BTreeSet<_> = tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect();
        for id in [&done, &failed, &later, &watched] {
            assert_eq!(page.text.contains(&format!("id=\"task-{id}\"")), ids.contains(id), "{query}");
        }
        ids
    };
    let all = [&done, &failed, &later, &watched];
    for (query, expected) in [
        ("key=order/1", &[&done][..]),
        ("unique_key=order/1,order/2", &[&done]),
        ("external=job%2012", &[&watched]),
        ("type=send-*", &[&done, &failed]),
        ("task_type=*", &all),
        ("-queue=mail", &[&failed]),
        ("-type=send-*", &[&later, &watched]),
        ("-worker=00000000-0000-0000-0000-000000000001", &all),
        ("-status=completed,failed", &[&later, &watched]),
        ("-project=default", &[&later]),
        ("status=failed,scheduled", &[&failed, &later]),
        ("finished=-1h..", &[&done, &failed]),
        ("finished=..-1h", &[]),
        ("created=-1h..%2B1h", &all),
        ("due=%2B365d..", &[&later]),
        ("started=-5m..&status=running", &[&watched]),
        ("status=failed&queue=sms&finished=-1h..", &[&failed]),
        ("status=failed&queue=mail", &[]),
        ("id=00000000-0000-0000-0000-000000000001", &[]),
    ] {
        let expected: BTreeSet<_> = expected.iter().map(|id| (*id).clone()).collect();
        assert_eq!(found(query).await, expected, "{query}");
    }
    assert_eq!(found(&format!("id={done},{later}&queue=mail")).await, [done.clone(), later.clone()].into());
    for bad in
        ["finished=yesterday", "-stats_only=false", "-colour=red", "created=-1h..-2h", "-=x", "key=%01", "type=a*,b"]
    {
        app.get(&format!("/api/v1/tasks?{bad}")).await.expect(400);
    }
    // A bulk action concerns what was within its times when it was asked for.
    let bulk = json!({ "action": "retry", "filter": { "finished": "-1h..", "-type": "send-mail" } });
    let begun = app.post("/api/v1/tasks/bulk", &bulk).await.expect(202);
    let path = format!("/api/v1/bulk/{}", begun["bulk"]["id"].as_str().unwrap());
    crate::harness::eventually("it is over", || async { app.get(&path).await.expect(200)["bulk"]["state"] == "done" })
        .await;
    assert_eq!(app.get(&path).await.expect(200)["bulk"]["succeeded"], 1);
    assert_eq!(app.task(&failed).await["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_finds_little_ends_after_a_bounded_number_and_goes_on() {
    let app = TestApp::start().await;
    crate::harness::cluster::execute(
        &app.database,
        "INSERT INTO taskwatch.tasks (id, project_id, task_type, priority, max_attempts, queue, status, created_at)
             SELECT gen_random_uuid(), 'p', 't', 5, 1, CASE WHEN n = 1 THEN 'rare' ELSE 'q' END, 'cancelled', now() - n * interval '1 second'
             FROM generate_series(1, 45000) AS n;
         UPDATE taskwatch.tasks SET queue = 'rare' WHERE created_at = (SELECT min(created_at) FROM taskwatch.tasks)",
    )
    .await;
    let (mut pages, mut found, mut cursor) = (0, 0, String::new());
    loop {
        let page = app.get(&format!("/api/v1/tasks?queue=rare&limit=10{cursor}")).await.expect(200);
        pages += 1;
        found += page["tasks"].as_array().unwrap().len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(found == 2 && pages >= 3, "{pages} pages of 20,000 tasks at most, {found} found");
    let page = app.get("/tasks?queue=rare").await.text;
    assert!(page.contains("Searched back to") && page.contains(">Search older</a>"), "{page}");
}
