//! Clients that others' generators make of the API document: they compile, and a worker runs with each. Judges of such
//! documents find nothing wrong.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::harness::{TestApp, packages, program::Folder};

/// Runs something, in a thread that may wait.
async fn runs(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let run = move || command.output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Runs something whose end must be good; what it printed.
async fn succeeds(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = runs(command).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{shown}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn command(program: impl AsRef<Path>, arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(folder);
    command
}

/// The document of a server, as a file in a folder.
async fn document(app: &TestApp, folder: &Path, version: &str) -> Value {
    let document = app.get(&format!("/openapi.json?version={version}")).await.expect(200);
    std::fs::write(folder.join(format!("{version}.json")), document.to_string()).unwrap();
    document
}

fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_with_the_generated_python_client() {
    let Some(bin) = packages::python().await else { return };
    let app = TestApp::start().await;
    for version in ["3.1", "3.0"] {
        let folder = Folder::new();
        document(&app, &folder.0, version).await;
        let path = format!("{version}.json");
        let arguments = ["generate", "--path", &path, "--meta", "none", "--output-path", "taskwatch_client"];
        let said = succeeds(command(bin.join("openapi-python-client"), &arguments, &folder.0)).await;
        // It knows no NDJSON, and says so; everything else is there.
        let warnings = said.matches("WARNING").count();
        assert_eq!(warnings, said.matches("Unsupported content type application/x-ndjson").count(), "{said}");
        if version == "3.1" {
            let worker = client("generated_worker.py");
            let arguments = [worker.to_str().unwrap(), folder.0.to_str().unwrap(), &app.url];
            assert_eq!(succeeds(command(bin.join("python"), &arguments, &folder.0)).await.trim(), "completed 2");
        }
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_run_with_the_generated_typescript_clients() {
    let Some(modules) = packages::node().await else { return };
    let app = TestApp::start().await;
    let folder = Folder::new();
    document(&app, &folder.0, "3.1").await;
    std::os::unix::fs::symlink(&modules, folder.0.join("node_modules")).unwrap();
    for file in ["fetch_worker.ts", "hey_worker.ts", "tsconfig.json"] {
        std::fs::copy(client(file), folder.0.join(file)).unwrap();
    }
    let bin = |name: &str| modules.join(".bin").join(name);
    succeeds(command(bin("openapi-typescript"), &["3.1.json", "-o", "schema.d.ts"], &folder.0)).await;
    let arguments = ["-i", "3.1.json", "-o", "hey", "-c", "@hey-api/client-fetch"];
    succeeds(command(bin("openapi-ts"), &arguments, &folder.0)).await;
    succeeds(command(bin("tsc"), &["-p", "."], &folder.0)).await;
    for worker in ["fetch_worker", "hey_worker"] {
        let (source, bundle) = (format!("{worker}.ts"), format!("--outfile={worker}.mjs"));
        let arguments = [&source, "--bundle", "--platform=node", "--format=esm", "--log-level=error", &bundle];
        succeeds(command(bin("esbuild"), &arguments, &folder.0)).await;
        let arguments = [&format!("{worker}.mjs"), app.url.as_str()];
        assert_eq!(succeeds(command("node", &arguments, &folder.0)).await.trim(), "completed 2", "{worker}");
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn judges_of_api_documents_find_no_error() {
    let (Some(bin), Some(modules)) = (packages::python().await, packages::node().await) else { return };
    let app = TestApp::start().await;
    let folder = Folder::new();
    std::fs::write(folder.0.join("spectral.yaml"), "extends: [\"spectral:oas\"]\n").unwrap();
    let npm = |name: &str| modules.join(".bin").join(name);
    for version in ["3.1", "3.0"] {
        document(&app, &folder.0, version).await;
        let path = format!("{version}.json");
        succeeds(command(bin.join("python"), &["-m", "openapi_spec_validator", &path], &folder.0)).await;
        let arguments = ["lint", "--ruleset", "spectral.yaml", "--fail-severity", "error", &path];
        succeeds(command(npm("spectral"), &arguments, &folder.0)).await;
        let mut redocly = command(npm("redocly"), &["lint", &path, "--format", "summary"], &folder.0);
        redocly.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
        succeeds(redocly).await;
    }
}

/// What Schemathesis may complain of: its code, what the complaint holds, and why that is right as it is.
const EXCUSES: [(&str, &str, &str); 31] = [
    ("ST202", "\"code\":\"task_changed\"", "a schema does not know the task's present ETag"),
    ("ST202", "\"code\":\"idempotency_key_reused\"", "a schema does not know the keys that were used"),
    ("ST202", "dependency ", "a schema does not know which tasks exist"),
    ("ST202", "parent task ", "as above"),
    ("ST202", "\"code\":\"dependency_cycle\"", "as above"),
    ("ST202", "not supported in schedules", "fields that exclude each other"),
    ("ST202", "requires ", "fields that need each other"),
    ("ST202", "only valid with", "as above"),
    ("ST202", "not valid with", "as above"),
    ("ST202", "cannot be combined with", "as above"),
    ("ST202", "requires priority", "as above"),
    ("ST202", "provide either ids or filter", "fields that exclude each other"),
    ("ST202", "invalid cron expression", "a schema cannot say what a cron expression is"),
    ("ST202", "time_zone", "time zones are those of the IANA database"),
    ("ST202", "required for ", "which fields a report needs depends on its kind"),
    ("ST202", "must be a position, an event ID or an RFC 3339 time", "a schema cannot say what a time is"),
    (
        "ST202",
        "must be an RFC 3339 time, e.g.",
        "an empty text is sent for a time that may be null, whatever its format says",
    ),
    ("ST202", "\"field\":\"from\"", "a schema does not know what the log holds"),
    ("ST202", "\"code\":\"cursor_expired\"", "as above"),
    ("ST202", "must not be empty", "a label filter without a value; its name is free, so it has no schema of its own"),
    ("ST202", "unknown filter", "as above: any name is taken for one of a label"),
    ("ST202", "If-Match: must be", "an empty header is sent for one that is left out"),
    ("ST202", "must not start or end with white space", "what is white space differs between languages of patterns"),
    ("ST202", "must not be . or ..", "as above"),
    ("ST202", "duplicate connector", "unique by one field, which JSON Schema cannot say"),
    ("ST202", "bytes", "lengths are in bytes, in schemas they are in characters"),
    ("ST201", "\"outcomes\":[", "a batch is accepted, and each line has its own outcome"),
    ("ST201", "message: Value not matching", "NUL in the text of a report is mended, so that the report counts"),
    ("ST201", "error: Value not matching", "as above"),
    ("ST301", "\"event_type\"", "the events of a deleted task stay in the log"),
    ("ST301", "/api/v1/workers", "a worker that left is shown for a while, as stopped"),
];

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_that_is_not_excused() {
    let Some(bin) = packages::python().await else { return };
    let app = TestApp::start().await;
    let folder = Folder::new();
    std::fs::copy(client("schemathesis.toml"), folder.0.join("schemathesis.toml")).unwrap();
    let url = format!("{}/openapi.json", app.url);
    let arguments = ["--no-color", "run", &url, "--output-truncate", "false"];
    let output = runs(command(bin.join("st"), &arguments, &folder.0)).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let all = said.split("Selected: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let tested = said.split("Tested: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    assert!(all == format!("{tested}/{tested}") && !said.contains("Errors:"), "{said}");
    // Each complaint begins with its code and ends where the next one, or the next operation, begins.
    let failures =
        said.split("= FAILURES =").nth(1).unwrap_or_default().split("= SUMMARY =").next().unwrap_or_default();
    let complaints = failures.split("\n- ST").skip(1).map(|complaint| format!("ST{complaint}"));
    let excused = |complaint: &String| {
        EXCUSES.iter().any(|(code, holds, _)| complaint.starts_with(code) && complaint.contains(holds))
    };
    let open: Vec<_> = complaints.filter(|complaint| !excused(complaint)).collect();
    assert!(open.is_empty(), "{}", open.join("\n\n"));
    assert_eq!(output.status.success(), failures.is_empty(), "{said}");
    app.get("/readyz").await.expect(200);
    app.is_clean().await;
}
