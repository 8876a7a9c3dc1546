//! Programs of others that tests run: fetched once, pinned by hash, kept beside the build.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// What npm and pip say when they cannot reach the registry; any other failure is ours.
const UNREACHABLE: [&str; 8] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "ENETUNREACH",
    "Failed to establish a new connection",
    "Name or service not known",
    "ConnectTimeoutError",
];

/// The folder with the programs of `tests/packages/requirements.txt` (PyPI), Python among them. `None`, with a line on
/// standard error, if the registry cannot be reached: the test that asks is skipped then.
pub(crate) async fn python() -> Option<PathBuf> {
    let folder = fetched("python", &["requirements.txt"], |folder| {
        run("python3", &["-m", "venv", "."], folder)?;
        let arguments =
            ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements.txt"];
        run("bin/pip", &arguments, folder)
    });
    Some(folder.await?.join("bin"))
}

/// The folder with the modules of `tests/packages/package-lock.json` (npm). `None` as for [`python`].
pub(crate) async fn node() -> Option<PathBuf> {
    let folder = fetched("node", &["package.json", "package-lock.json"], |folder| {
        run("npm", &["ci", "--silent", "--no-audit", "--no-fund"], folder)
    });
    Some(folder.await?.join("node_modules"))
}

/// Makes a folder once from files of `tests/packages`, anew when they have changed. Tests that need it at the same time
/// wait for the one that makes it.
async fn fetched(
    name: &'static str,
    files: &'static [&'static str],
    make: fn(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    let work = move || {
        static FETCHING: Mutex<()> = Mutex::new(());
        let _fetching = FETCHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let wanted: String = files.iter().map(|file| std::fs::read_to_string(source.join(file)).unwrap()).collect();
        let ready = folder.join("ready");
        if std::fs::read_to_string(&ready).is_ok_and(|made| made == wanted) {
            return Some(folder);
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for file in files {
            std::fs::copy(source.join(file), folder.join(file)).unwrap();
        }
        if let Err(error) = make(&folder) {
            assert!(UNREACHABLE.iter().any(|sign| error.contains(sign)), "{name}: {error}");
            // Past the capture of the test runner.
            let _ = writeln!(std::io::stderr(), "SKIPPED: the registry of the {name} packages cannot be reached");
            return None;
        }
        std::fs::write(ready, wanted).unwrap();
        Some(folder)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Runs a program of the folder, or of the path, to its end.
fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let local = folder.join(program);
    let program = if local.exists() { local } else { program.into() };
    let done = Command::new(&program).args(arguments).current_dir(folder).output();
    let done = done.map_err(|error| format!("{}: {error}", program.display()))?;
    let said = || [done.stdout.as_slice(), &done.stderr].map(String::from_utf8_lossy).concat();
    if done.status.success() { Ok(()) } else { Err(format!("{arguments:?}: {}", said())) }
}
