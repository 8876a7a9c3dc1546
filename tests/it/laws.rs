//! The laws of the architecture, one test each.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::harness::{TestApp, cluster, eventually};

/// Every source file with its text, tests inside it cut off.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code)
    };
    found.iter().map(read).collect()
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The paths of a use tree: `a::{b, c::d}` stands for `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut part, mut found) = (0, String::new(), Vec::new());
    for c in group.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = std::mem::take(&mut part);
                if !part.trim().is_empty() {
                    found.extend(paths(&part).into_iter().map(|rest| format!("{}{rest}", before.trim())));
                }
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    found
}

/// The paths that code names: those of its `use`, and those that begin with `crate` or `super` elsewhere.
fn named(code: &str) -> Vec<String> {
    let uses = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
    let mut named: Vec<_> = uses.flat_map(paths).collect();
    for start in ["crate::", "super::"] {
        for (index, _) in code.match_indices(start) {
            let is_path = |c: &char| c.is_alphanumeric() || *c == '_' || *c == ':';
            named.push(code[index..].chars().take_while(is_path).collect());
        }
    }
    named
}

/// The folders that a file reaches.
fn reaches(text: &str) -> BTreeSet<String> {
    let named = named(&code(text).collect::<Vec<_>>().join("\n"));
    let folders = named.iter().filter_map(|path| path.strip_prefix("crate::")?.split("::").next());
    folders.filter(|folder| !folder.is_empty()).map(str::to_owned).collect()
}

#[test]
fn folders_reach_only_what_lies_before_them() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("clock", &[][..]),
        ("base_path", &[]),
        ("telemetry", &[]),
        ("model", &["clock"]),
        ("config", &["base_path", "model"]),
        ("event", &["clock", "model"]),
        ("command", &["clock", "model", "event"]),
        ("board", &["clock", "model", "event"]),
        ("store", &["clock", "model", "event", "command", "board"]),
        ("embedded", &["clock"]),
        ("feed", &["clock", "model", "event", "board", "store"]),
        ("page", &["base_path", "clock", "model", "event", "board", "store", "feed"]),
        ("maintenance", &["clock", "model", "event", "command", "board", "store", "feed"]),
        ("metrics", &["clock", "model", "event", "board", "store", "feed"]),
        (
            "http",
            &["base_path", "clock", "config", "metrics", "model", "event", "command", "board", "store", "feed", "page"],
        ),
        ("demo", &["clock", "config"]),
        ("tail", &["config", "event"]),
        ("probe", &["config"]),
    ]);
    let mut looked_at = 0;
    for (path, text) in sources() {
        // The composition root and the program know everything.
        if ["app.rs", "lib.rs", "main.rs", "program.rs"].contains(&path.as_str()) {
            continue;
        }
        let folder = path.split('/').next().unwrap().trim_end_matches(".rs");
        let allowed = allowed.get(folder).unwrap_or_else(|| panic!("{path} has no place in the map of folders"));
        for reached in reaches(&text) {
            assert!(reached == folder || allowed.contains(&reached.as_str()), "{path} reaches {reached}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 100, "the test must see the arrows it checks, saw {looked_at}");
}

/// The modules of the crate by their paths, as in `store/writer`, and the module that each name of a `pub use` is from.
struct Modules {
    texts: BTreeMap<String, String>,
    exported: BTreeMap<(String, String), String>,
}

impl Modules {
    fn read() -> Self {
        let module = |path: &str| path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
        let code_of = |text: &str| code(text).collect::<Vec<_>>().join("\n");
        let texts = sources().into_iter().map(|(path, text)| (module(&path), code_of(&text)));
        let mut modules = Self { texts: texts.collect(), exported: BTreeMap::new() };
        let mut exported = BTreeMap::new();
        for (module, text) in &modules.texts {
            for tree in text.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
                for path in paths(tree) {
                    if let Some(target) = modules.target(module, &path) {
                        exported.insert((module.clone(), path.rsplit("::").next().unwrap().to_owned()), target);
                    }
                }
            }
        }
        modules.exported = exported;
        modules
    }

    /// The module that a path leads to, seen from another.
    fn target(&self, from: &str, path: &str) -> Option<String> {
        let mut at: Vec<_> = from.split('/').map(str::to_owned).collect();
        let mut parts = path.split("::").peekable();
        match parts.peek().copied() {
            Some("crate") => {
                at.clear();
                parts.next();
            }
            Some("self") => drop(parts.next()),
            Some("super") => {
                while parts.next_if_eq(&"super").is_some() {
                    at.pop();
                }
            }
            // A child of the module.
            _ => {}
        }
        for part in parts {
            if let Some(target) = self.exported.get(&(at.join("/"), part.to_owned())) {
                return Some(target.clone());
            }
            at.push(part.to_owned());
            if !self.texts.contains_key(&at.join("/")) {
                at.pop();
                break;
            }
        }
        let target = at.join("/");
        (target != from && self.texts.contains_key(&target)).then_some(target)
    }

    /// The modules that a module uses; not those above and below it, with which it is one.
    fn uses(&self, module: &str) -> BTreeSet<String> {
        let found = named(&self.texts[module]);
        let targets = found.iter().filter_map(|path| self.target(module, path));
        let is_kin =
            |other: &String| other.starts_with(&format!("{module}/")) || module.starts_with(&format!("{other}/"));
        targets.filter(|target| !is_kin(target)).collect()
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let modules = Modules::read();
    let uses: BTreeMap<_, _> = modules.texts.keys().map(|module| (module.clone(), modules.uses(module))).collect();
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 500, "the test must see what files use");
    // Modules that use nothing that is left, or that nothing uses that is left, are taken away until there are none.
    let mut left = uses;
    loop {
        let used: BTreeSet<_> = left.values().flatten().cloned().collect();
        let free = left.iter().find(|(module, uses)| uses.is_empty() || !used.contains(*module));
        let Some(free) = free.map(|(module, _)| module.clone()) else { break };
        left.remove(&free);
        for uses in left.values_mut() {
            uses.remove(&free);
        }
    }
    assert!(left.is_empty(), "these files use each other in a circle: {left:#?}");
}

#[test]
fn handlers_cannot_reach_the_hub() {
    for (path, text) in sources() {
        assert!(path.starts_with("feed/") || !text.contains("hub::"), "{path} names the hub");
    }
}

#[test]
fn only_the_writer_changes_tasks_or_appends_events() {
    let writers = [
        "store/task_columns.rs",
        "store/task_write.rs",
        "store/bulk.rs",
        "store/children.rs",
        "store/queues.rs",
        "store/schedules.rs",
        "store/dependencies.rs",
        "store/workers.rs",
        // A new epoch for a log that was replaced, and the checkpoints that it makes void.
        "store/identity.rs",
        "store/log.rs",
        "store/ready_queue.rs",
    ];
    let changes = ["INSERT INTO", "UPDATE taskwatch.", "DELETE FROM", "TRUNCATE"];
    for (path, text) in sources() {
        for line in code(&text).filter(|line| changes.iter().any(|change| line.contains(change))) {
            let checkpoint = path == "store/checkpoints.rs" && line.contains("taskwatch.checkpoints");
            // Retention removes what is over and old; tasks go through the writer there as well.
            let removes = path == "store/retention.rs" && !line.contains("taskwatch.tasks") && !line.contains("INSERT");
            assert!(writers.contains(&path.as_str()) || checkpoint || removes, "{path} writes: {line}");
        }
        assert!(path == "store/log.rs" || !text.contains("INSERT INTO taskwatch.events"), "{path} appends to the log");
        // Of these files only reading is public.
        if writers.contains(&path.as_str()) {
            for (index, _) in text.match_indices("pub async fn ") {
                let body: String = text[index..].lines().take_while(|line| *line != "}").collect::<Vec<_>>().join("\n");
                let writes = changes.iter().any(|change| body.contains(change));
                assert!(!writes, "{path} has a public way to write: {}", body.lines().next().unwrap());
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    let impure = [
        "sqlx",
        "tokio",
        "Utc::now",
        "Instant::now",
        "SystemTime",
        "fastrand",
        "std::fs",
        "std::net",
        "std::env",
        "tracing",
    ];
    let mut looked_at = 0;
    for (path, text) in sources() {
        if ["model/", "event/", "command/", "board/"].iter().any(|folder| path.starts_with(folder)) {
            looked_at += 1;
            for word in impure {
                assert!(!code(&text).any(|line| line.contains(word)), "{path} uses {word}");
            }
        }
    }
    assert!(looked_at > 15);
}

#[test]
fn no_request_counts_rows() {
    for (path, text) in sources() {
        // What runs in a queue with a concurrency limit is at most that limit.
        // The board is made from the tables at a start, where nothing else covers a trimmed log.
        let bounded =
            ["store/queues.rs", "store/rebuild.rs"].contains(&path.as_str()) || path.starts_with("store/verify/");
        assert!(bounded || !text.contains("count(*)"), "{path} counts rows");
        assert!(!text.contains("NOTIFY"), "{path} notifies inside a transaction");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_dense_and_in_commit_order() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..32 {
        let (http, url, worker) = (app.http().clone(), app.url.clone(), worker.clone());
        clients.spawn(async move {
            for round in 0..10 {
                let body = json!({ "task_type": format!("t{client}-{round}") });
                let created = http.post(format!("{url}/api/v1/tasks")).json(&body).send().await.unwrap();
                assert_eq!(created.status(), 201);
                // Half are refused: a refusal leaves no hole.
                let body = json!({ "worker_id": worker.id, "attempt": 99 });
                let id = uuid::Uuid::now_v7();
                let refused = http.post(format!("{url}/api/v1/tasks/{id}/complete")).json(&body).send().await.unwrap();
                assert_eq!(refused.status(), 404);
            }
        });
    }
    clients.join_all().await;
    let (first, last, count) = (
        cluster::number(&app.database, "SELECT min(position) FROM taskwatch.events").await,
        cluster::number(&app.database, "SELECT max(position) FROM taskwatch.events").await,
        cluster::number(&app.database, "SELECT count(*) FROM taskwatch.events").await,
    );
    assert_eq!((first, last), (1, count));
    // One transaction's events lie together, and later positions are not from earlier transactions' times.
    let backwards = "SELECT count(*) FROM (SELECT at, lag(at) OVER (ORDER BY position) AS before FROM taskwatch.events) e WHERE at < before";
    assert_eq!(cluster::number(&app.database, backwards).await, 0);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_bytes_equal_live_bytes() {
    let app = TestApp::start().await;
    let mut live = app.events("?after=now").await;
    let worker = app.worker("w1").await;
    app.creates_as(json!({ "task_type": "a", "title": "größer\n\u{2028}<b>", "labels": { "k": "id: 7\u{2028}" } }))
        .await;
    worker.claims("default").await.fails("line one\r\nid: 7\n\nevent: x").await;
    let head = app.settles().await;
    let sent: Vec<_> = live.events_to(head).await.into_iter().map(|frame| frame.raw).collect();
    assert!(sent.iter().all(|raw| !raw.contains(['\u{85}', '\u{2028}', '\u{2029}'])), "some readers split lines there");
    let mut again = app.events("?after=earliest").await;
    let replayed: Vec<_> = again.events_to(head).await.into_iter().map(|frame| frame.raw).collect();
    assert_eq!(sent, replayed);
    // And after a restart they come from the table.
    let app = app.restarted().await;
    let mut again = app.events("?after=earliest").await;
    let replayed: Vec<_> = again.events_to(head).await.into_iter().map(|frame| frame.raw).collect();
    assert_eq!(sent, replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_publish_the_same_log_in_the_same_order() {
    let one = TestApp::start().await;
    let two = one.twin().await;
    let (mut first, mut second) = (one.events("?after=now").await, two.events("?after=now").await);
    let (worker_one, worker_two) = (one.worker("w1").await, two.worker("w2").await);
    let work = |app: &TestApp, worker: &crate::harness::TestWorker| {
        let (url, http, worker) = (app.url.clone(), app.http().clone(), worker.clone());
        async move {
            for round in 0..40 {
                let body = json!({ "task_type": format!("t{round}") });
                http.post(format!("{url}/api/v1/tasks")).json(&body).send().await.unwrap();
                worker.claims("default").await.completes().await;
            }
        }
    };
    tokio::join!(work(&one, &worker_one), work(&two, &worker_two));
    let head = one.settles().await;
    assert_eq!(head, two.settles().await);
    let (first, second) = (first.events_to(head).await, second.events_to(head).await);
    let raw = |frames: &[crate::harness::Frame]| frames.iter().map(|frame| frame.raw.clone()).collect::<Vec<_>>();
    assert_eq!(raw(&first), raw(&second));
    let positions: Vec<_> = first.iter().map(|frame| frame.position().unwrap()).collect();
    let start = positions[0];
    assert_eq!(positions, (start..=head).collect::<Vec<_>>());
    one.is_clean().await;
}

async fn a_restart_shows_the_same_board(app: TestApp) {
    app.settles().await;
    let before = app.get("/api/v1/snapshot").await.expect(200);
    let app = app.restarted().await;
    assert_eq!(before, app.get("/api/v1/snapshot").await.expect(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_is_a_fold_of_the_log() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "p", "phases": ["a", "b"], "queue": "parents" })).await;
    for phase in ["a", "a", "b"] {
        app.creates_as(json!({ "task_type": "c", "parent_task_id": parent, "phase": phase })).await;
    }
    worker.claims("default").await.completes().await;
    worker.claims("default").await.fails("no").await;
    // No checkpoint is written yet: the next start folds the log.
    a_restart_shows_the_same_board(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_and_the_rest_of_the_log_give_the_same_board() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(20, "t").await;
    worker.claims("default").await.completes().await;
    app.settles().await;
    let checkpoint = {
        let board = taskwatch::feed::read(&app.state.board);
        taskwatch::store::checkpoints::Checkpoint {
            position: board.position,
            body: serde_json::to_string(&*board).unwrap(),
        }
    };
    let now = app.clock.now();
    let mut conn = app.state.store.pool().acquire().await.unwrap();
    let epoch = app.state.store.epoch();
    taskwatch::store::checkpoints::save(&mut conn, &checkpoint, taskwatch::board::VERSION, (epoch, now)).await.unwrap();
    worker.claims("default").await.fails("no").await;
    a_restart_shows_the_same_board(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_delays_nobody() {
    let app = TestApp::start().await;
    // Opened and never read.
    let _stuck = app.events("?after=earliest").await;
    let mut reader = app.events("?after=now").await;
    let large = "x".repeat(4_000);
    for _ in 0..20 {
        let tasks = vec![json!({ "task_type": "t", "title": &large[..500], "description": large }); 200];
        app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    }
    let head = app.settles().await;
    let frames = reader.events_to(head).await;
    assert_eq!(frames.len() as i64, head);
    eventually("the server still answers", || async { app.get("/readyz").await.status == 200 }).await;
}
