//! `taskwatch tail`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    TestApp,
    program::{Folder, Program, command, output},
};

struct Tail {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Tail {
    fn start(url: &str, more: &[&str]) -> Self {
        let mut child = command(&[&["tail", "--url", url][..], more].concat()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end, beside the server that it talks to.
async fn ends(arguments: &[&str]) -> (i32, String, String) {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn create(url: &str) {
    let created =
        reqwest::Client::new().post(format!("{url}/api/v1/tasks")).json(&json!({ "task_type": "t" })).send().await;
    assert_eq!(created.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_events_and_stops_when_told() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates("resize").await;
    worker.claims("default").await.fails("no \u{1b}[31mdisk").await;
    app.settles().await;
    let (code, printed, _) =
        ends(&["tail", "--url", &app.url, "--after", "earliest", "--max-events", "2", "types=task_created,task_retry"])
            .await;
    assert_eq!(code, 0);
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("task_created") && lines[0].contains("resize"), "{printed}");
    assert!(lines[1].contains("! task_retry") && lines[1].contains("no \\u{1b}[31mdisk"), "{printed}");
    assert!(!printed.contains('\u{1b}'), "no colours outside a terminal, and none from others");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_is_wrong() {
    let app = TestApp::start().await;
    for (arguments, says) in [
        (vec!["tail", "--url", &app.url, "queues=default"], "queues: unknown filter"),
        (vec!["tail", "--url", &app.url, "default"], "expected name=value"),
        (vec!["tail", "--url", "nowhere"], "invalid --url"),
    ] {
        let (code, _, complaint) = ends(&arguments).await;
        assert_eq!(code, 2, "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_the_server_was_killed() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let (url, address) = (program.url.clone(), program.url.trim_start_matches("http://").to_owned());
    create(&url).await;
    let mut tail = Tail::start(&url, &["--after", "earliest", "--json", "topics=tasks"]);
    let position = |line: String| serde_json::from_str::<Value>(&line).unwrap()["position"].as_i64().unwrap();
    assert_eq!((position(tail.line()), position(tail.line())), (1, 2));
    program.kill();
    let program = Program::start_on(&folder.0, &address, &[]);
    create(&program.url).await;
    assert_eq!((position(tail.line()), position(tail.line())), (3, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_it_prints_steers_the_terminal() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_as(json!({ "task_type": "a\u{202e}b\u{200f}", "queue": "q\u{61c}\u{e0041}" })).await;
    let error = "\u{1b}[2J\u{9b}31m\u{202e}\u{feff}\r\n";
    worker.claims("q\u{61c}\u{e0041}").await.fails(error).await;
    app.settles().await;
    for more in [&[][..], &["--json"][..]] {
        let arguments = [&["tail", "--url", &app.url, "--after", "earliest", "--max-events", "5"][..], more].concat();
        let (code, printed, notes) = ends(&arguments).await;
        assert_eq!(code, 0, "{printed}{notes}");
        let steers = |c: char| taskwatch::event::visible::is_hidden(c) && c != '\n';
        assert!(printed.contains("202e") && !printed.contains(steers) && !notes.contains(steers), "{printed:?}");
    }
    let (_, printed, _) =
        ends(&["tail", "--url", &app.url, "--after", "earliest", "--max-events", "1", "--json", "types=task_retry"])
            .await;
    let event: Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!(event["error"], error, "what is escaped means the same");
}
