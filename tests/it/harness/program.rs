//! The real binary.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A running `taskwatch serve`.
pub(crate) struct Program {
    pub(crate) url: String,
    running: Running,
}

/// A `taskwatch` that may not be up yet, or not be a server.
pub(crate) struct Running {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tw-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The binary with arguments, without settings of the environment.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskwatch"));
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end: exit code, what it printed, what it complained.
pub(crate) fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

impl Program {
    /// Starts it and waits for its first line.
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_on(data, "127.0.0.1:0", more)
    }

    pub(crate) fn start_on(data: &Path, listen: &str, more: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        Self::up(&mut command(&[&["--data-dir", data, "--listen", listen, "--log", "warn"], more].concat()))
    }

    /// Starts a server as the command says and waits for its first line.
    pub(crate) fn up(command: &mut Command) -> Self {
        let mut running = Running::start(command);
        let mut line = String::new();
        BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("taskwatch listening on ") else {
            running.child.wait().unwrap();
            panic!("it printed {line:?} and complained: {}", running.logged());
        };
        Self { url: url.to_owned(), running }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.running.signal(signal);
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.running.child.kill().unwrap();
        self.running.child.wait().unwrap();
    }

    /// Asks it to stop and waits.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ends()
    }

    /// Waits for its end.
    pub(crate) fn ends(self) -> ExitStatus {
        self.running.ends().0
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        // What it logs must not fill the pipe.
        let mut stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut part) {
                kept.lock().unwrap().extend_from_slice(&part[..read]);
            }
        });
        Self { child, log, reader }
    }

    /// What it logged and complained so far.
    pub(crate) fn logged(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Waits until it logged a text.
    pub(crate) async fn says(&self, text: &str) {
        super::eventually(&format!("it says '{text}'"), || async { self.logged().contains(text) }).await;
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end: how it ended, and what it logged.
    pub(crate) fn ends(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Its last words may still be in the pipe, which a process that it left behind may hold open.
                for _ in 0..100 {
                    if self.reader.is_finished() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                return (status, self.logged());
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
