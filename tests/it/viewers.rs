//! Viewers cost the database nothing.

use std::time::Duration;

use crate::harness::{TestApp, cluster};

/// Statements that this database was sent so far.
async fn statements(app: &TestApp) -> i64 {
    let query = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
                 WHERE d.datname = current_database() AND query ILIKE '%taskwatch.%'";
    cluster::number(&app.database, query).await
}

/// Statements sent while so many dashboards poll and as many are live, and the work goes on.
async fn cost(app: &TestApp, viewers: usize) -> i64 {
    let mut live = Vec::new();
    for _ in 0..viewers {
        let url = format!("{}/live?page=overview", app.url);
        live.push(crate::harness::Stream::open(app.http(), &url, None).await);
    }
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..viewers {
        let (http, url) = (app.http().clone(), format!("{}/?fragment=1", app.url));
        polls.spawn(async move {
            for _ in 0..5 {
                assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    let before = statements(app).await;
    let at_a_fixed_pace = async {
        for _ in 0..20 {
            // Two events each: 200 a second.
            app.creates_many(5, "t").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(at_a_fixed_pace, async { while polls.join_next().await.is_some() {} });
    statements(app).await - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_dashboards_send_as_many_statements_as_one() {
    let app = TestApp::start().await;
    cluster::execute(&app.database, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await;
    // One stream is open throughout, so that the tailer polls at the same pace.
    let _reader = app.events("?after=now").await;
    let one = cost(&app, 1).await;
    let hundred = cost(&app, 100).await;
    println!("statements in a second of 200 events: {one} with 1 + 1 dashboards, {hundred} with 100 + 100");
    // The tailer's own poll runs by time, and a hundred viewers take longer to serve; what must not be is a statement
    // for each of the 500 polls and 2,000 live messages.
    assert!(hundred < one + 150, "{one} with one viewer, {hundred} with a hundred");
}
