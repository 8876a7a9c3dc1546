//! Servers as processes of their own, so that what they use can be told from what the load uses.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server that runs on the first core; the load and the database have the other.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_kib: u64,
}

/// Keeps this process, and what it starts from now on, off the servers' core.
pub(crate) fn leave_the_first_core() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 {
        let pid = std::process::id().to_string();
        let rest = format!("1-{}", cores - 1);
        let _ = Command::new("taskset").args(["-acp", &rest, &pid]).stdout(Stdio::null()).status();
    }
}

impl Server {
    /// The product, on a database; `listen` with port 0 for any.
    pub(crate) fn taskwatch(database: &str, listen: &str, more: &[&str]) -> Self {
        let arguments =
            ["--database-url", database, "--listen", listen, "--stream-max-per-address", "20000", "--log", "warn"];
        Self::start(env!("CARGO_BIN_EXE_taskwatch"), &[&arguments, more].concat())
    }

    /// The product with its usual limits, on any core.
    pub(crate) fn start_anywhere(database: &str) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_taskwatch"), database)
    }

    /// Another binary of the product.
    pub(crate) fn start_program(program: &str, database: &str) -> Self {
        let command = Command::new(program);
        let arguments = ["--database-url", database, "--listen", "127.0.0.1:0", "--log", "error"];
        Self::begin(command, &arguments)
    }

    /// The usual way, in this program.
    pub(crate) fn plain() -> Self {
        let this = std::env::current_exe().expect("the program has a path");
        Self::start(this.to_str().expect("its path is text"), &["plain-server"])
    }

    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", program]);
        Self::begin(command, arguments)
    }

    fn begin(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it says where");
        let address = line.trim().rsplit_once("http://").expect("an address").1.to_owned();
        Self { address, child }
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime and stime are fields 14 and 15, in hundredths of a second; the first two are before the bracket.
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Usage {
            cpu: Duration::from_millis(10 * (ticks(11) + ticks(12))),
            resident_kib: resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default(),
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits.
    pub(crate) fn terminate(mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
