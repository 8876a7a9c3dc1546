//! Callbacks, and their isolation from each other.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use taskwatch::feed::Callbacks;

use crate::harness::{
    TestApp,
    app::{FnHook, settings},
    eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_panics_or_hangs_delays_nothing() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut callbacks = Callbacks::default();
    let (limit, short) = (Duration::from_secs(20), Duration::from_millis(50));
    callbacks.register(FnHook("fails", limit, |_| async { anyhow::bail!("no") }));
    callbacks.register(FnHook("panics", limit, |event: Arc<taskwatch::event::Event>| async move {
        assert!(event.position.is_none(), "a hook that always panics");
        Ok(())
    }));
    callbacks.register(FnHook("hangs", short, |_| std::future::pending()));
    let sees = seen.clone();
    callbacks.register(FnHook("sees", limit, move |event: Arc<taskwatch::event::Event>| {
        sees.lock().unwrap().push(event.position.unwrap());
        async { Ok(()) }
    }));
    let app = TestApp::with(settings(), callbacks.clone()).await;
    let mut stream = app.events("?after=now").await;
    app.creates_many(10, "t").await;
    let head = app.settles().await;
    assert_eq!(stream.events_to(head).await.len() as i64, head);
    eventually("the good hook saw all in order", || async { *seen.lock().unwrap() == (1..=head).collect::<Vec<_>>() })
        .await;
    let count = |name: &str, of: fn(&taskwatch::feed::callbacks::HookCounters) -> u64| {
        callbacks.counters().find(|(hook, _)| *hook == name).map(|(_, counters)| of(counters)).unwrap()
    };
    let all = u64::try_from(head).unwrap();
    eventually("failures are counted", || async {
        count("fails", |c| c.errors.load(Ordering::Relaxed)) == all
            && count("panics", |c| c.panics.load(Ordering::Relaxed)) == all
            && count("hangs", |c| c.timeouts.load(Ordering::Relaxed)) >= 1
    })
    .await;
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains(&format!("taskwatch_callback_events_total{{hook=\"fails\",outcome=\"error\"}} {all}")),
        "{metrics}"
    );
}
