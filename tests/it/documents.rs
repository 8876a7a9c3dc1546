//! What is written down agrees with what is built.

use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory;
use sha2::{Digest, Sha256};
use taskwatch::{
    config::Cli,
    event::{Kind, envelope::Data, filter},
    http::codes,
};

use crate::harness::{TestApp, cluster};

/// A file of the repository.
fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of a document's table below a heading, as cells.
fn table(name: &str, heading: &str) -> Vec<Vec<String>> {
    let text = document(name);
    let below = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("{name} has no '{heading}'"));
    let rows = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_setting_is_documented() {
    let rows = table("docs/operations.md", "Configuration");
    let cli = Cli::command();
    let flags: Vec<_> = cli
        .get_arguments()
        .filter(|argument| argument.get_long().is_some_and(|long| long != "help" && long != "version"))
        .collect();
    for flag in &flags {
        let long = format!("`--{}`", flag.get_long().unwrap());
        let row =
            rows.iter().find(|row| row[0] == long).unwrap_or_else(|| panic!("operations.md does not list {long}"));
        let default: Vec<_> = flag.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let default = if default.is_empty() || default == ["false"] || default == [""] {
            String::new()
        } else {
            format!("`{}`", default.join(" "))
        };
        if !default.is_empty() {
            assert_eq!(row[1], default, "{long}");
        }
        assert_eq!(row[2], flag.get_help().unwrap().to_string(), "{long}");
        assert_eq!(row[2], flag.get_help().unwrap().to_string(), "{long}");
        let variable = flag.get_env().and_then(|env| env.to_str()).unwrap_or_else(|| panic!("{long} has no variable"));
        assert_eq!(variable, format!("TASKWATCH_{}", flag.get_long().unwrap().replace('-', "_").to_uppercase()));
    }
    assert_eq!(rows.len(), flags.len(), "operations.md lists settings that do not exist");
}

#[test]
fn every_knob_of_the_tests_is_documented() {
    let folders =
        ["tests/it", "benches/load", "src/page"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
    let development = document("docs/development.md");
    let settings: BTreeSet<_> =
        Cli::command().get_arguments().filter_map(|flag| flag.get_env()?.to_str().map(str::to_owned)).collect();
    let mut seen = 0;
    for file in files.filter(|file| file.path().is_file()) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for call in ["env::var(\"", "number(\""] {
            for rest in text.split(call).skip(1) {
                let knob = rest.split('"').next().unwrap();
                let is_knob =
                    (knob.starts_with("TASKWATCH_") && !settings.contains(knob)) || knob.starts_with("BENCH_");
                assert!(!is_knob || development.contains(&format!("`{knob}`")), "development.md does not list {knob}");
                seen += usize::from(is_knob);
            }
        }
    }
    assert!(seen >= 12, "the test must see the knobs, saw {seen}");
}

#[test]
fn links_of_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().flatten().map(|entry| entry.path());
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name));
    for path in docs.chain(top) {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            let is_local = !file.is_empty() && !file.contains("://");
            assert!(!is_local || path.parent().unwrap().join(file).exists(), "{} links to {target}", path.display());
        }
    }
}

#[test]
fn every_event_is_documented() {
    let rows = table("docs/stream.md", "Events");
    let names: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(names, Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    for (kind, row) in Kind::ALL.iter().zip(&rows) {
        assert_eq!(row[1], kind.row().topic.as_str());
        assert_eq!(row[2], if kind.row().durable { "yes" } else { "no" }, "{kind}");
        assert_eq!(row[3], kind.row().sentence);
    }
}

#[test]
fn every_filter_is_documented() {
    let rows = table("docs/stream.md", "Filters");
    let names: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let of_events: Vec<_> = filter::ROWS.iter().filter(|row| !row.is_of_tasks_only()).collect();
    let expected: Vec<_> = of_events.iter().map(|row| row.name.to_owned()).chain(["label.<key>".to_owned()]).collect();
    assert_eq!(names, expected);
    for (row, cells) in of_events.iter().zip(&rows) {
        assert_eq!(cells[1], row.help);
    }
    let rows = table("docs/api.md", "Filters of tasks");
    let of_tasks: Vec<_> = filter::ROWS.iter().filter(|row| row.is_of_tasks_only()).collect();
    assert_eq!(rows.len(), of_tasks.len());
    for (row, cells) in of_tasks.iter().zip(&rows) {
        let names = format!(
            "`{}`{}",
            row.name,
            if row.short.is_empty() { String::new() } else { format!(", `{}`", row.short) }
        );
        assert_eq!((cells[0].as_str(), cells[1].as_str()), (names.as_str(), row.help));
    }
}

#[test]
fn every_error_code_is_documented() {
    let rows = table("docs/api.md", "Error codes");
    let codes: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(codes, codes::ROWS.iter().map(|row| row.code).collect::<Vec<_>>());
    for (row, cells) in codes::ROWS.iter().zip(&rows) {
        assert_eq!(cells[1..], [row.status.to_string(), row.meaning.to_owned(), row.action.to_owned()], "{}", row.code);
    }
}

#[test]
fn data_fields_of_kinds_exist_and_each_belongs_to_a_kind() {
    let named: BTreeSet<_> = Kind::ALL.iter().flat_map(|kind| kind.row().data.iter().copied()).collect();
    let fields: BTreeSet<_> = Data::FIELDS.iter().copied().collect();
    assert_eq!(named, fields);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_only_what_their_kind_may() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(serde_json::json!({ "task_type": "t", "title": "x", "phases": ["a"] })).await;
    let task = worker.claims("default").await;
    task.progresses(10).await;
    task.fails("e").await;
    app.post(&format!("/api/v1/tasks/{id}/cancel"), &serde_json::json!({ "reason": "r" })).await.expect(200);
    worker.leaves().await;
    let head = app.settles().await;
    let mut stream = app.events("?after=earliest").await;
    let mut seen = BTreeSet::new();
    for frame in stream.events_to(head).await {
        let event: taskwatch::event::Event = serde_json::from_str(&frame.data).unwrap();
        for field in event.data.set_fields() {
            assert!(event.event_type.row().data.contains(&field), "{} carries {field}", event.event_type);
        }
        seen.insert(event.event_type);
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_has_a_comment() {
    let app = TestApp::start().await;
    let without = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                   WHERE c.relnamespace = 'taskwatch'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
                   AND c.relname <> '_sqlx_migrations' AND a.attnum > 0 AND NOT a.attisdropped \
                   AND col_description(c.oid, a.attnum) IS NULL";
    assert_eq!(cluster::number(&app.database, without).await, 0);
    let all = "SELECT count(*) FROM pg_class WHERE relnamespace = 'taskwatch'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";
    assert!(cluster::number(&app.database, all).await >= 7);
}

#[test]
fn vendored_files_are_what_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("static/vendor");
    let record = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        let hash: String =
            Sha256::digest(std::fs::read(entry.path()).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        let row = record
            .lines()
            .find(|line| line.contains(&format!("`{name}`")))
            .unwrap_or_else(|| panic!("{name} is not recorded"));
        assert!(row.contains(&hash), "{name} is {hash}");
        checked += 1;
    }
    assert_eq!(checked, 3);
}
