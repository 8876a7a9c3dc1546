//! Parents steer their children when asked to, and say what becomes of them.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{TestApp, cluster, eventually};

/// A group with two children and a group of two more: parent, inner group, leaves.
async fn family(app: &TestApp) -> (String, String, Vec<String>) {
    let [outer, inner] = [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.to_string());
    let group = |id: &str, parent: Option<&str>| json!({ "id": id, "task_type": "g", "auto_complete": true, "parent_task_id": parent });
    let leaf = |parent: &str| json!({ "task_type": "leaf", "parent_task_id": parent, "max_attempts": 1 });
    let tasks = json!([
        group(&outer, None),
        group(&inner, Some(&outer)),
        leaf(&outer),
        leaf(&outer),
        leaf(&inner),
        leaf(&inner)
    ]);
    let created = app.post("/api/v1/tasks", &tasks).await.expect(201);
    let leaves = (2..6).map(|n| created["tasks"][n]["id"].as_str().unwrap().to_owned()).collect();
    app.settles().await;
    (outer, inner, leaves)
}

async fn all_become(app: &TestApp, ids: &[String], status: &str) {
    for id in ids {
        app.becomes(id, status).await;
    }
}

fn told(reply: &Value) -> (u64, u64, bool) {
    let children = &reply["children"];
    let number = |field: &str| children[field].as_u64().unwrap();
    (number("concerned"), number("open"), children["bulk_id"].is_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_parent_takes_its_children_along_when_asked() {
    let app = TestApp::start().await;
    let (outer, inner, leaves) = family(&app).await;
    let cancel = async |id: &str, body: Value| app.post(&format!("/api/v1/tasks/{id}/cancel"), &body).await.expect(200);
    // Without being asked nothing happens to them, and the answer says so.
    let reply = cancel(&outer, json!({})).await;
    assert_eq!((reply["task"]["status"].as_str(), told(&reply)), (Some("cancelled"), (0, 5, false)));
    let (page, _) = (app.get(&format!("/tasks/{outer}")).await.text, ());
    assert!(page.contains("5 descendants are unfinished"), "{page}");
    // Asked again, with the children: the whole family, and the worker that has one learns so.
    let worker = app.worker("w1").await;
    let held = worker.claims("default").await;
    let reply = cancel(&outer, json!({ "children": true, "reason": "over" })).await;
    assert_eq!(told(&reply), (5, 0, true));
    all_become(&app, &leaves, "cancelled").await;
    app.becomes(&inner, "cancelled").await;
    let beat = worker.beats(json!({ "tasks": [{ "task_id": held.id, "attempt": held.attempt }] })).await;
    assert_eq!(beat["cancelled"], json!([held.id]));
    let bulk = reply["children"]["bulk_id"].as_str().unwrap();
    eventually("the action is over", || async {
        app.get(&format!("/api/v1/bulk/{bulk}")).await.expect(200)["bulk"]["state"] == "done"
    })
    .await;
    // A task without children has nothing to tell.
    let lonely = app.creates("t").await;
    assert!(cancel(&lonely, json!({ "children": true })).await.get("children").is_none());
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_runs_again_with_what_failed_below_it() {
    let app = TestApp::start().await;
    let (outer, inner, leaves) = family(&app).await;
    let retry = async |body: Value| app.post(&format!("/api/v1/tasks/{outer}/retry"), &body).await;
    // While it goes on, and nothing failed, there is nothing to do again.
    assert_eq!(retry(json!({ "children": true })).await.code(), "illegal_transition");
    app.post(&format!("/api/v1/tasks/{outer}/cancel"), &json!({ "children": true })).await.expect(200);
    all_become(&app, &leaves, "cancelled").await;
    app.becomes(&inner, "cancelled").await;
    eventually("nothing goes on in the background", || async {
        let bulks = app.get("/api/v1/bulk").await.expect(200);
        bulks["bulks"].as_array().unwrap().iter().all(|bulk| bulk["state"] == "done")
    })
    .await;
    assert_eq!(retry(json!({})).await.code(), "task_is_parent");
    let reply = retry(json!({ "children": true })).await.expect(200);
    assert_eq!(told(&reply), (5, 0, true));
    all_become(&app, &leaves, "pending").await;
    let worker = app.worker("w1").await;
    for task in worker.claims_up_to(3, &["default"], 5).await {
        task.completes().await;
    }
    worker.claims("default").await.fails("broken").await;
    app.becomes(&outer, "failed").await;
    // Once more: only the one that failed runs again, and the groups above it open.
    let reply = retry(json!({ "children": true })).await.expect(200);
    assert!(told(&reply).0 <= 2, "{reply}");
    worker.claims("default").await.completes().await;
    app.becomes(&inner, "completed").await;
    app.becomes(&outer, "completed").await;
    assert_eq!(retry(json!({ "children": true })).await.code(), "illegal_transition");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_parent_takes_its_children_along_when_asked() {
    let app = TestApp::start().await;
    let (outer, inner, leaves) = family(&app).await;
    let bad = app.delete(&format!("/api/v1/tasks/{inner}?children=perhaps")).await;
    assert_eq!((bad.status.as_u16(), bad.code()), (400, "invalid_parameter"));
    let reply = app.delete(&format!("/api/v1/tasks/{inner}")).await.expect(200);
    assert_eq!(told(&reply), (0, 2, false));
    let reply = app.delete(&format!("/api/v1/tasks/{outer}?children=true")).await.expect(200);
    assert_eq!(told(&reply), (2, 0, true));
    for gone in &leaves[..2] {
        eventually("the child is gone", || async { app.get(&format!("/api/v1/tasks/{gone}")).await.status == 404 })
            .await;
    }
    // Those of the group that was deleted alone are still there.
    assert!(app.is(&leaves[2], "pending").await && app.is(&leaves[3], "pending").await);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parents_take_their_children_along() {
    let app = TestApp::start().await;
    let (named, _, first) = family(&app).await;
    let (found, _, second) = family(&app).await;
    let by_ids = json!({ "action": "cancel", "ids": [named], "children": true });
    assert_eq!(told(&app.post("/api/v1/tasks/bulk", &by_ids).await.expect(200)), (5, 0, true));
    all_become(&app, &first, "cancelled").await;
    assert!(app.is(&second[0], "pending").await);
    // What a filter finds: groups that wait, with all below them.
    let by_filter =
        json!({ "action": "delete", "filter": { "task_type": "g", "status": "blocked" }, "children": true });
    app.post("/api/v1/tasks/bulk", &by_filter).await.expect(202);
    for gone in second.iter().chain([&found]) {
        eventually("the family is gone", || async { app.get(&format!("/api/v1/tasks/{gone}")).await.status == 404 })
            .await;
    }
    assert!(app.is(&first[0], "cancelled").await);
    let wrong = json!({ "action": "edit", "priority": 3, "ids": [named], "children": true });
    assert_eq!(app.post("/api/v1/tasks/bulk", &wrong).await.expect(422)["errors"][0]["field"], "children");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_offer_the_children() {
    let app = TestApp::start().await;
    let (outer, inner, leaves) = family(&app).await;
    let page = app.get(&format!("/tasks/{outer}")).await.text;
    assert!(page.contains("with the 5 unfinished descendants") && page.contains("Also all 5 descendants"), "{page}");
    let send = async |path: String, fields: &[(&str, &str)]| {
        let reply = app.http().post(format!("{}{path}", app.url)).form(fields).send().await.unwrap();
        (reply.status().as_u16(), reply.url().path().to_owned())
    };
    let (status, at) = send(format!("/tasks/{inner}/cancel"), &[("children", "true")]).await;
    assert!(status == 200 && at.starts_with("/bulk/"), "{status} {at}");
    all_become(&app, &leaves[2..], "cancelled").await;
    assert!(app.is(&leaves[0], "pending").await);
    let (status, at) = send(format!("/tasks/{outer}/cancel"), &[]).await;
    assert_eq!((status, at), (200, format!("/tasks/{outer}")));
    assert!(app.is(&leaves[0], "pending").await);
    let preview = app.get(&format!("/tasks/bulk?action=cancel&ids={outer}")).await.text;
    assert!(preview.contains("Also all descendants"), "{preview}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_deleted_parent_comes_with_its_children() {
    let app = TestApp::start().await;
    let orphaned = async || {
        let [parent, child] = [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.to_string());
        let tasks = json!([
            { "id": parent, "task_type": "g" },
            { "id": child, "task_type": "leaf", "parent_task_id": parent, "phase": "load" }
        ]);
        app.post("/api/v1/tasks", &tasks).await.expect(201);
        app.delete(&format!("/api/v1/tasks/{parent}")).await.expect(200);
        (parent, child)
    };
    let (parent, child) = orphaned().await;
    let below = json!({ "id": parent, "task_type": "g", "parent_task_id": child });
    let refused = app.post("/api/v1/tasks", &below).await.expect(409);
    assert_eq!(refused["code"], "id_taken", "{refused}");
    let again = json!({ "id": parent, "task_type": "g", "auto_complete": true });
    let created = app.post("/api/v1/tasks", &again).await.expect(201);
    assert_eq!(created["task"]["status"], "blocked");
    assert!(app.history(&parent).await.ends_with(&["task_created", "task_updated"].map(str::to_owned)));
    app.post(&format!("/api/v1/tasks/{child}/cancel"), &json!({})).await.expect(200);
    app.becomes(&parent, "cancelled").await;

    let (parent, child) = orphaned().await;
    let below = format!("SELECT taskwatch.enqueue('g', id => '{parent}', parent_task_id => '{child}')");
    assert!(!cluster::tries(&app.database, &below).await);
    cluster::execute(&app.database, &format!("SELECT taskwatch.enqueue('g', id => '{parent}', auto_complete => true)"))
        .await;
    app.post(&format!("/api/v1/tasks/{child}/cancel"), &json!({})).await.expect(200);
    app.becomes(&parent, "cancelled").await;
    app.is_clean().await;
}
