//! Expressions that are not meant are refused by every door.

use serde_json::json;

use crate::harness::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_never_fires_is_refused() {
    let app = TestApp::start().await;
    for (cron, says) in [
        ("0 0 31 2 *", "never matches"),
        ("* * 31 4 *", "never matches"),
        ("0 0 0 1 1 * 2020", "never matches"),
        ("*/61 * * * *", "step"),
        ("0 */25 * * *", "step"),
        ("@reboot", "@hourly"),
        ("@every 5m", "@hourly"),
        ("nonsense", "@hourly"),
    ] {
        let body = json!({ "cron": cron, "task": { "task_type": "t" } });
        let reply = app.put("/api/v1/schedules/s", &body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["errors"][0]["field"]),
            (422, &json!("cron")),
            "{cron}: {}",
            reply.text
        );
        assert!(reply.json["detail"].as_str().unwrap().contains(says), "{cron}: {}", reply.text);
        let form: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("name", "s"), ("cron", cron), ("time_zone", "UTC"), ("task_type", "t")])
            .finish();
        let reply = app.sends("POST", "/schedules", Some("application/x-www-form-urlencoded"), form).await;
        assert!(reply.status.is_client_error(), "{cron}: {}", reply.text);
    }
    app.get("/api/v1/schedules/s").await.expect(404);
    for (cron, next) in [("@midnight", "T00:00:00Z"), ("@yearly", "-01-01T00:00:00Z"), ("30 2,14 * * *", ":30:00Z")] {
        let body = json!({ "cron": cron, "task": { "task_type": "t" } });
        let schedule = app.put("/api/v1/schedules/s", &body).await.expect(200);
        assert!(schedule["schedule"]["next_run_at"].as_str().unwrap().ends_with(next), "{schedule}");
    }
}
