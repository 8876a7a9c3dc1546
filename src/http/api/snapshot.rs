//! The board as JSON: as one object for `GET /api/v1/snapshot`, as frames at the start of a stream.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    board::{Board, parents::Parent, queues::Queue},
    clock::Time,
    event::{EventId, envelope::rfc3339, frame::Form},
    feed::{self, SharedBoard, gzip::Gzipped},
    model::{Name, phase::Counts},
};

/// How long a snapshot is reused, even after new events: these follow in the stream, so nothing is missed, and many
/// concurrent clients cost one encoding.
const REUSE: Duration = Duration::from_millis(500);
/// Maximum number of snapshots kept for reuse.
const MAX_KEPT: usize = 16;
/// Maximum size of a snapshot frame, bytes of JSON.
const MAX_CHUNK: usize = 48 * 1024;

/// The board as one JSON object, with its last event.
pub async fn json(board: &SharedBoard) -> (EventId, String) {
    let board = feed::read(board).clone();
    aside(move || whole(&board)).await
}

/// Runs slow work outside the threads that serve requests.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn whole(board: &Board) -> (EventId, String) {
    let mut whole = serde_json::Map::new();
    whole.insert("event_id".to_owned(), board.id().to_string().into());
    whole.insert("position".to_owned(), board.position.into());
    whole.insert("ts".to_owned(), board.ts.map(rfc3339).into());
    whole.insert("counts".to_owned(), value(board.tasks));
    for (part, items) in parts(board) {
        whole.insert(part.to_owned(), Value::Array(items));
    }
    (board.id(), Value::Object(whole).to_string())
}

/// The frames of the last snapshot, shared by all readers that start at the same position.
#[derive(Debug, Default)]
pub struct Snapshots(Mutex<HashMap<Key, Arc<Mutex<Option<Frames>>>>>);

/// What a snapshot looks like, and which projects it is of; none means all.
type Key = (Form, BTreeSet<Name>);

/// A snapshot as frames. Only the last one has an ID: a client that is disconnected earlier has no snapshot and starts
/// over.
#[derive(Debug, Clone)]
pub struct Frames {
    /// The last event it contains.
    pub id: EventId,
    at: Instant,
    /// The bytes.
    pub frames: Arc<[Arc<Gzipped>]>,
}

impl Snapshots {
    /// The current snapshot. Concurrent callers wait for one encoding, without blocking a thread.
    pub async fn frames(&self, board: &SharedBoard, form: Form, projects: &BTreeSet<Name>) -> Frames {
        let last = {
            let mut kept = self.0.lock().await;
            if kept.len() >= MAX_KEPT {
                kept.retain(|_, frames| Arc::strong_count(frames) > 1);
            }
            kept.entry((form, projects.clone())).or_default().clone()
        };
        let mut last = last.lock().await;
        let id = feed::read(board).id();
        let usable = |frames: &&Frames| frames.id == id || (frames.id.epoch == id.epoch && frames.at.elapsed() < REUSE);
        if let Some(frames) = last.as_ref().filter(usable) {
            return frames.clone();
        }
        // A copy, so that the encoding does not block the tailer.
        let board = feed::read(board).narrowed(projects);
        let id = board.id();
        let frames = aside(move || encode(&board, form).into()).await;
        last.insert(Frames { id, at: Instant::now(), frames }).clone()
    }
}

fn encode(board: &Board, form: Form) -> Vec<Arc<Gzipped>> {
    let id = board.id();
    let mut frames = vec![chunk(form, "counts", &[value(board.tasks)])];
    for (part, items) in parts(board) {
        let mut rest = items.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = rest.iter().take_while(|item| {
                let first = size == 0;
                size += item.to_string().len() + 1;
                first || size <= MAX_CHUNK
            });
            let (now, later) = rest.split_at(fits.count());
            frames.push(chunk(form, part, now));
            rest = later;
        }
    }
    let end = json!({ "position": id.position, "ts": board.ts.map(rfc3339) });
    frames.push(form.control("snapshot_end", &end, Some(id), None));
    frames.into_iter().map(|frame| Arc::new(Gzipped::new(frame))).collect()
}

fn chunk(form: Form, part: &str, items: &[Value]) -> Bytes {
    form.control("snapshot", &json!({ "part": part, "items": items }), None, None)
}

/// The parts of a snapshot: name and items.
fn parts(board: &Board) -> [(&'static str, Vec<Value>); 6] {
    // The time of its last event, so that the snapshot at a position is the same for everyone.
    let now = board.ts.unwrap_or_default();
    let sums = board.parents.all_rolled_up();
    [
        ("workers", board.workers.0.iter().map(|(id, worker)| with("worker_id", id, worker)).collect()),
        ("queues", board.queues.0.iter().map(|(name, queue)| queue_item(name, queue, now)).collect()),
        ("running", board.running.0.iter().map(|(id, task)| with("task_id", id, task)).collect()),
        (
            "parents",
            board.parents.open.iter().map(|(id, parent)| parent_item(*id, parent, sums.get(id), now)).collect(),
        ),
        ("completed", board.recent.completed.iter().map(|event| value(&**event)).collect()),
        ("failed", board.recent.failed.iter().map(|event| value(&**event)).collect()),
    ]
}

/// A queue with derived statistics in place of raw counters.
fn queue_item(name: &Name, queue: &Queue, now: Time) -> Value {
    let mut item = with("queue", name, queue);
    if let (Value::Object(fields), Value::Object(rates)) = (&mut item, value(queue.rates(now))) {
        fields.retain(|field, _| !["waits", "runs", "ended"].contains(&field.as_str()));
        fields.extend(rates);
    }
    item
}

/// A parent with values derived from its counts.
fn parent_item(id: Uuid, parent: &Parent, below: Option<&Counts>, now: Time) -> Value {
    let mut item = with("task_id", id, parent);
    if let Value::Object(fields) = &mut item {
        fields.remove("finishes");
        fields.insert("rate_per_second".to_owned(), value(parent.rate(now)));
        fields.insert("eta_seconds".to_owned(), value(parent.eta(now).map(|eta| [eta.low_seconds, eta.high_seconds])));
        fields.insert("current_phase".to_owned(), value(parent.current_phase().map(|phase| &phase.name)));
        if let Some(all) = below {
            fields.insert("rolled_up".to_owned(), value(all));
        }
    }
    item
}

fn with(key: &str, id: impl Serialize, item: impl Serialize) -> Value {
    let mut item = value(&item);
    if let Value::Object(fields) = &mut item {
        fields.insert(key.to_owned(), value(&id));
    }
    item
}

fn value(item: impl Serialize) -> Value {
    serde_json::to_value(item).expect("the board has text keys only and no failing serializer")
}
