//! A herd of streaming clients on raw sockets: lean enough that the server is what is measured.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as it comes.
    Fast,
    /// A kilobyte a second, until the herd is told to hurry.
    Slow,
    /// Not at all, until the herd is told to hurry.
    Stopped,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Herd {
    pub(crate) began: Instant,
    address: SocketAddr,
    path: String,
    /// Positions must rise.
    in_order: bool,
    /// Events that all clients together have read.
    pub(crate) read: AtomicU64,
    /// Bytes that came.
    pub(crate) bytes: AtomicU64,
    /// Connections that said hello.
    pub(crate) greeted: AtomicU64,
    /// Delays of every tenth client's events, milliseconds.
    delays: Mutex<Vec<f64>>,
    /// Slow clients read fast from now on.
    pub(crate) hurry: std::sync::atomic::AtomicBool,
    /// When each client came back after it was cut.
    pub(crate) back: Mutex<Vec<Instant>>,
}

/// A client, and what it has.
struct Client {
    herd: Arc<Herd>,
    number: usize,
    pace: Pace,
    goal: u64,
    /// Events that it has.
    seen: u64,
    position: Option<i64>,
    cursor: Option<String>,
    retry: Duration,
}

impl Herd {
    pub(crate) fn new(address: &str, path: &str, in_order: bool) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            address: address.parse().expect("an address"),
            path: path.to_owned(),
            in_order,
            read: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            greeted: AtomicU64::new(0),
            delays: Mutex::default(),
            hurry: false.into(),
            back: Mutex::default(),
        })
    }

    /// Clients that read until each has `goal` events, and come back when they are cut. It waits for their hello.
    pub(crate) async fn join(self: &Arc<Self>, count: usize, pace: Pace, goal: u64) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let before = self.greeted.load(Ordering::Relaxed);
        for number in 0..count {
            let client = Client {
                herd: self.clone(),
                number,
                pace,
                goal,
                seen: 0,
                position: None,
                cursor: None,
                retry: Duration::from_secs(3),
            };
            clients.spawn(client.run());
            if number % 100 == 99 {
                // Not more at once than a listener's queue takes.
                self.wait_for(&self.greeted, before + number as u64 + 1, 60).await;
            }
        }
        self.wait_for(&self.greeted, before + count as u64, 60).await;
        clients
    }

    async fn wait_for(&self, counter: &AtomicU64, value: u64, seconds: u64) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while counter.load(Ordering::Relaxed) < value {
            assert!(Instant::now() < deadline, "only {} of {value}", counter.load(Ordering::Relaxed));
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Delays so far, sorted.
    pub(crate) fn delays(&self) -> Vec<f64> {
        let mut delays = std::mem::take(&mut *self.delays.lock().unwrap_or_else(PoisonError::into_inner));
        delays.sort_unstable_by(f64::total_cmp);
        delays
    }
}

impl Client {
    async fn run(mut self) {
        let mut times = 0;
        while self.seen < self.goal {
            if times > 0 {
                sleep(self.retry).await;
            }
            times += 1;
            assert!(times < 100, "it is cut again and again");
            let _ = self.connection(times > 1).await;
        }
    }

    /// One connection to its end.
    async fn connection(&mut self, again: bool) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.herd.address).await?;
        let cursor = self.cursor.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{cursor}\r\n",
            self.herd.path, self.herd.address
        );
        stream.write_all(request.as_bytes()).await?;
        let mut greeted = false;
        let mut buffer = vec![0; 16 * 1024];
        let mut filled = 0;
        loop {
            let hurry = || self.herd.hurry.load(Ordering::Relaxed);
            let mut most = buffer.len();
            match self.pace {
                Pace::Stopped if greeted => {
                    while !hurry() {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
                Pace::Slow if greeted && !hurry() => {
                    sleep(Duration::from_secs(1)).await;
                    most = (filled + 1_024).min(most);
                }
                Pace::Fast | Pace::Slow | Pace::Stopped => {}
            }
            let count = timeout(Duration::from_secs(40), stream.read(&mut buffer[filled..most])).await??;
            if count == 0 {
                return Ok(());
            }
            self.herd.bytes.fetch_add(count as u64, Ordering::Relaxed);
            filled += count;
            if let Some(end) = memmem::rfind(&buffer[..filled], b"\n\n").map(|end| end + 2) {
                if !greeted {
                    greeted = true;
                    if again {
                        self.herd.back.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    }
                    self.herd.greeted.fetch_add(1, Ordering::Relaxed);
                }
                self.take(&buffer[..end]);
                buffer.copy_within(end..filled, 0);
                filled -= end;
            }
            if self.seen >= self.goal {
                return Ok(());
            }
            if filled == buffer.len() {
                buffer.resize(2 * filled, 0);
            }
        }
    }

    /// Whole frames.
    fn take(&mut self, frames: &[u8]) {
        let now = self.herd.began.elapsed().as_micros() as f64 / 1_000.0;
        let mut count = 0;
        let mut delays = Vec::new();
        for at in memmem::find_iter(frames, b"event: task_progress\n") {
            count += 1;
            // Every tenth looks at each event.
            if self.number.is_multiple_of(10) {
                let frame = &frames[at..(at + 2_000).min(frames.len())];
                let position = number(frame, b"\"position\":").expect("an event has a position");
                let follows = self.position.is_none_or(|last| position > last);
                assert!(follows || !self.herd.in_order, "twice, or out of order");
                self.position = Some(position);
                if let Some(sent) = number(frame, b"\"message\":\"") {
                    delays.push(now - sent as f64 / 1_000.0);
                }
            }
        }
        self.seen += count;
        self.herd.read.fetch_add(count, Ordering::Relaxed);
        if !delays.is_empty() {
            self.herd.delays.lock().unwrap_or_else(PoisonError::into_inner).extend(delays);
        }
        if let Some(at) = memmem::rfind(frames, b"\nid: ") {
            let id = &frames[at + 5..];
            let end = memchr::memchr(b'\n', id).unwrap_or(id.len());
            let cursor = self.cursor.get_or_insert_default();
            cursor.clear();
            cursor.push_str(&String::from_utf8_lossy(&id[..end]));
        }
        if let Some(ms) = memmem::find(frames, b"\nretry: ").and_then(|at| number(&frames[at..], b"retry: ")) {
            self.retry = Duration::from_millis(ms as u64);
        }
    }
}

/// The number behind a key.
fn number(text: &[u8], key: &[u8]) -> Option<i64> {
    let rest = &text[memmem::find(text, key)? + key.len()..];
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}
