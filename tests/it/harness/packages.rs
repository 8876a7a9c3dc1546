//! Packages of others that tests need: fetched once, kept beside the build.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Runs something to its end, which must be good.
pub(crate) fn run(program: &Path, arguments: &[&str], folder: &Path) {
    let done = Command::new(program).args(arguments).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A folder made once. Tests that need it at the same time wait for the one that makes it.
pub(crate) fn made_once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let ready = folder.join("ready");
    if !ready.exists() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        make(&folder);
        std::fs::write(ready, "").unwrap();
    }
    folder
}

/// Packages from npm.
pub(crate) fn npm(name: &str, packages: &[&str]) -> PathBuf {
    made_once(name, |folder| {
        std::fs::write(folder.join("package.json"), "{\"private\":true}").unwrap();
        run(Path::new("npm"), &[&["install", "--silent", "--no-audit", "--no-fund"][..], packages].concat(), folder);
    })
}
