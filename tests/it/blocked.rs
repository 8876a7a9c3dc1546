//! Nothing waits for ever unseen: rings through groups are refused at every door, what has nothing left to wait for ends,
//! and what cannot end is told.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{TestApp, cluster};

fn ids<const N: usize>() -> [String; N] {
    std::array::from_fn(|_| Uuid::now_v7().to_string())
}

fn group(id: &str, parent: Option<&str>) -> Value {
    json!({ "id": id, "task_type": "g", "auto_complete": true, "parent_task_id": parent })
}

fn waiting(id: &str, parent: Option<&str>, on: &[&str]) -> Value {
    json!({ "id": id, "task_type": "t", "parent_task_id": parent, "depends_on": on })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_through_a_group_is_refused_by_every_call() {
    let app = TestApp::start().await;
    let [outer, inner, own, after, x] = ids();
    app.post("/api/v1/tasks", &json!([group(&outer, None), group(&inner, Some(&outer))])).await.expect(201);
    let refused = async |body: Value, along: &[&str]| {
        let reply = app.post("/api/v1/tasks", &body).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (422, "dependency_cycle"), "{}", reply.text);
        assert!(along.iter().all(|id| reply.text.contains(id)), "{}", reply.text);
    };
    let before = app.settles().await;
    // A child waits for its own group, for the group above that, and both within one request.
    refused(waiting(&x, Some(&inner), &[&inner]), &[&x, &inner]).await;
    refused(waiting(&x, Some(&inner), &[&outer]), &[&x, &inner, &outer]).await;
    refused(json!([group(&own, None), waiting(&x, Some(&own), &[&own])]), &[&x, &own]).await;
    // A child waits for what waits for its group, directly or by a task of the same request.
    app.creates_as(waiting(&after, None, &[&outer])).await;
    refused(waiting(&x, Some(&inner), &[&after]), &[&x, &after, &outer]).await;
    let [link] = ids();
    refused(json!([waiting(&link, None, &[&after]), waiting(&x, Some(&inner), &[&link])]), &[&x, &link]).await;
    assert_eq!(app.settles().await, before + 1, "what was refused changed something");
    // The same by an edit; and what is no ring is none.
    let gate = app.creates("gate").await;
    app.creates_as(waiting(&x, Some(&inner), &[&gate])).await;
    for on in [&inner, &outer, &after] {
        let reply = app.patch(&format!("/api/v1/tasks/{x}"), &json!({ "depends_on": [gate, on] })).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (422, "dependency_cycle"), "{}", reply.text);
    }
    let [sibling] = ids();
    app.creates_as(waiting(&sibling, Some(&inner), &[&x])).await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_through_a_group_is_refused_at_the_commit_of_an_enqueue() {
    let app = TestApp::start().await;
    let [outer, inner, after] = ids();
    app.post("/api/v1/tasks", &json!([group(&outer, None), group(&inner, Some(&outer))])).await.expect(201);
    app.creates_as(waiting(&after, None, &[&outer])).await;
    let before = app.settles().await;
    for on in [&inner, &outer, &after] {
        let statement =
            format!("SELECT taskwatch.enqueue('s', parent_task_id => '{inner}', depends_on => ARRAY['{on}']::uuid[])");
        assert!(!cluster::tries(&app.database, &statement).await, "a ring through {on} was taken");
    }
    assert_eq!(app.settles().await, before);
    let gate = app.creates("gate").await;
    let statement =
        format!("SELECT taskwatch.enqueue('s', parent_task_id => '{inner}', depends_on => ARRAY['{gate}']::uuid[])");
    assert!(cluster::tries(&app.database, &statement).await);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_do_not_close_a_ring_together() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    for _ in 0..10 {
        let [one, two, x, y] = ids();
        app.post("/api/v1/tasks", &json!([group(&one, None), group(&two, None)])).await.expect(201);
        let (first, second) = (waiting(&x, Some(&one), &[&two]), waiting(&y, Some(&two), &[&one]));
        let (a, b) = tokio::join!(app.post("/api/v1/tasks", &first), twin.post("/api/v1/tasks", &second));
        let mut statuses = [a.status.as_u16(), b.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 422], "{} {}", a.text, b.text);
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_for_what_is_open_and_closes_no_ring() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let first = app.creates("first").await;
    let [second] = ids();
    app.creates_as(waiting(&second, None, &[&first])).await;
    worker.claims("default").await.completes().await;
    app.becomes(&second, "pending").await;
    worker.claims("default").await.completes().await;
    let retry = async |id: &str| app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await;
    // What it depends on runs again, so it waits for that; by one call, by many, by the button.
    assert_eq!(retry(&first).await.expect(200)["task"]["status"], "pending");
    assert_eq!(retry(&second).await.expect(200)["task"]["status"], "blocked");
    app.post(&format!("/api/v1/tasks/{second}/cancel"), &json!({})).await.expect(200);
    app.post("/api/v1/tasks/bulk", &json!({ "action": "retry", "ids": [second] })).await.expect(200);
    assert!(app.is(&second, "blocked").await);
    app.post(&format!("/api/v1/tasks/{second}/cancel"), &json!({})).await.expect(200);
    let filter = json!({ "action": "retry", "filter": { "status": "cancelled" } });
    app.post("/api/v1/tasks/bulk", &filter).await.expect(202);
    app.becomes(&second, "blocked").await;
    // It failed this time: the policy decides, also for another retry.
    worker.claims("default").await.reports("fail", json!({ "error": "e", "retryable": false })).await.expect(200);
    app.becomes(&second, "failed").await;
    assert_eq!(retry(&second).await.expect(200)["task"]["status"], "failed");
    assert_eq!(retry(&first).await.expect(200)["task"]["status"], "pending");
    assert_eq!(retry(&second).await.expect(200)["task"]["status"], "blocked");
    worker.claims("default").await.completes().await;
    app.becomes(&second, "pending").await;
    // Now the first is made to wait for the second: running again in between would be a ring.
    let [a, b] = ids();
    let gate = app.creates_as(json!({ "task_type": "t", "queue": "gates" })).await;
    app.creates_as(json!({ "id": a, "task_type": "t", "queue": "gates", "depends_on": [gate] })).await;
    let ignoring = json!({ "id": b, "task_type": "t", "depends_on": [gate], "on_dependency_failure": "ignore" });
    app.creates_as(ignoring).await;
    app.patch(&format!("/api/v1/tasks/{a}"), &json!({ "depends_on": [gate, b] })).await.expect(200);
    app.post(&format!("/api/v1/tasks/{a}/cancel"), &json!({})).await.expect(200);
    app.patch(&format!("/api/v1/tasks/{b}"), &json!({ "depends_on": [gate, a] })).await.expect(200);
    let reply = retry(&a).await;
    assert_eq!((reply.status.as_u16(), reply.code()), (422, "dependency_cycle"), "{}", reply.text);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_ends_with_its_last_child_however_that_goes() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let create = async |children: usize| {
        let [id] = ids();
        app.creates_as(group(&id, None)).await;
        let child = json!({ "task_type": "c", "parent_task_id": id });
        let created = app.post("/api/v1/tasks", &json!(vec![child; children])).await.expect(201);
        let children: Vec<_> = (0..children).map(|n| created["tasks"][n]["id"].as_str().unwrap().to_owned()).collect();
        (id, children)
    };
    // The only child is deleted, while it waits and while it runs.
    let (lonely, children) = create(1).await;
    app.delete(&format!("/api/v1/tasks/{}", children[0])).await.expect(204);
    app.becomes(&lonely, "cancelled").await;
    let (running, children) = create(1).await;
    worker.claims("default").await;
    app.becomes(&running, "running").await;
    app.delete(&format!("/api/v1/tasks/{}", children[0])).await.expect(204);
    app.becomes(&running, "cancelled").await;
    // One is done and the last open one is deleted, or cancelled.
    for how in ["delete", "cancel"] {
        let (id, _) = create(2).await;
        let done = worker.claims("default").await;
        done.completes().await;
        let open = app.get(&format!("/api/v1/tasks?parent_task_id={id}&status=pending")).await.expect(200);
        let open = open["tasks"][0]["id"].as_str().unwrap().to_owned();
        match how {
            "delete" => drop(app.delete(&format!("/api/v1/tasks/{open}")).await.expect(204)),
            _ => drop(app.post(&format!("/api/v1/tasks/{open}/cancel"), &json!({})).await.expect(200)),
        }
        app.becomes(&id, "completed").await;
    }
    // All are cancelled.
    let (cancelled, children) = create(2).await;
    app.post("/api/v1/tasks/bulk", &json!({ "action": "cancel", "ids": children })).await.expect(200);
    app.becomes(&cancelled, "cancelled").await;
    // The only child, a reported one, is put under another parent.
    let [from, to] = ids();
    app.post("/api/v1/tasks", &json!([group(&from, None), group(&to, None)])).await.expect(201);
    let told = |parent: &str, second: u32| json!({ "event_type": "task_started", "task_id": "r1", "parent_task_id": parent, "ts": format!("2026-11-20T10:00:0{second}Z") });
    app.hears(json!([told(&from, 1)])).await;
    app.becomes(&from, "running").await;
    app.hears(json!([told(&to, 2)])).await;
    app.becomes(&from, "cancelled").await;
    app.becomes(&to, "running").await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_blocked_for_ever_is_told_everywhere() {
    let app = TestApp::start().await;
    let [empty, after, a, b] = ids();
    app.creates_as(group(&empty, None)).await;
    app.creates_as(waiting(&after, None, &[&empty])).await;
    let gate = app.creates_as(json!({ "task_type": "gate", "run_at": "2100-01-01T00:00:00Z" })).await;
    app.post("/api/v1/tasks", &json!([waiting(&a, None, &[&gate]), waiting(&b, None, &[&a])])).await.expect(201);
    assert_eq!(app.health().await.0, "ok");
    // A group without children may get some; after a minute that is worth a word, and what waits for it as well.
    app.time_passes(61);
    app.is_judged("stalled", "group_without_children").await;
    app.is_judged("stalled", "blocked_forever").await;
    assert_eq!(app.reason_of(&empty).await["code"], "group_without_children");
    let reason = app.reason_of(&after).await;
    assert_eq!(reason["code"], "blocked_forever");
    assert!(reason["text"].as_str().unwrap().contains(&empty), "{reason}");
    assert_eq!(app.reason_of(&b).await["code"], "blocked_by");
    for page in ["/", "/wall", &format!("/tasks/{after}"), &format!("/parents/{empty}")] {
        let html = app.get(page).await.text;
        assert!(html.contains("which can never complete") || html.contains("has no children"), "{page}: {html}");
    }
    app.creates_as(json!({ "task_type": "c", "parent_task_id": empty })).await;
    crate::harness::eventually("nothing is stuck any more", || async {
        let (_, codes) = app.health().await;
        !codes.iter().any(|code| code == "blocked_forever" || code == "group_without_children")
    })
    .await;
    // A ring that an older version let in.
    cluster::execute(
        &app.database,
        &format!("UPDATE taskwatch.tasks SET depends_on = ARRAY['{gate}', '{b}']::uuid[] WHERE id = '{a}'; INSERT INTO taskwatch.dependents VALUES ('{b}', '{a}')"),
    )
    .await;
    app.is_judged("stalled", "blocked_forever").await;
    let reason = app.reason_of(&a).await;
    assert!(reason["text"].as_str().unwrap().contains("waits for itself"), "{reason}");
    // And it can be broken.
    app.patch(&format!("/api/v1/tasks/{a}"), &json!({ "depends_on": [gate] })).await.expect(200);
    crate::harness::eventually("the ring is gone", || async { app.reason_of(&a).await["code"] == "blocked_by" }).await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_looked_at_again() {
    let app = TestApp::start().await;
    let [after] = ids();
    let gate = app.creates("gate").await;
    app.creates_as(waiting(&after, None, &[&gate])).await;
    // As if the note to look at it had been lost.
    let forget = "CREATE FUNCTION pg_temp.none() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
    let forget = forget.replace("pg_temp", "public");
    cluster::execute(&app.database, &format!("{forget}; CREATE TRIGGER forgets BEFORE INSERT ON taskwatch.rechecks FOR EACH ROW EXECUTE FUNCTION public.none()")).await;
    app.delete(&format!("/api/v1/tasks/{gate}")).await.expect(204);
    app.becomes(&after, "failed").await;
    app.settles().await;
    app.is_clean().await;
}
