//! Golden pages: each page of the table, rendered from a fixed board and fixed rows at a fixed time, equals its file in
//! `tests/pages`, byte for byte. `TASKWATCH_GOLDEN=write` writes the files anew.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use askama::Template;
use chrono::TimeDelta;
use uuid::Uuid;

use super::{Filters, PAGES, Params, View};
use crate::{
    base_path::BasePath,
    board::Board,
    clock::{Clock, Time},
    event::{Event, EventId, Filter, Kind, envelope::Epoch, frame::Form},
    feed::{
        stream_registry::{CloseReason, Purpose, StreamInfo, StreamRegistry, StreamSlot},
        time_travel::TimeTravel,
    },
    model::{Name, NewTask, Priority, Status, Task, lease::Lease, report::Progress},
    store::{EventLog, writing::Writing},
};

/// Text of someone who attacks a page: markup, quotes, an entity, and a character that turns the direction of writing.
pub(super) const HOSTILE: &str = "<script>alert('x')</script> \"q\" &amp; \u{202e}gpj.exe";

/// The same as a name, distinguished by a word.
pub(super) fn hostile(word: &str) -> Name {
    Name::new(&format!("{word}\"><script>\u{202e}'")).unwrap()
}

pub(super) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_b6a2_0000_7000_8000_0000_0000_0000 + number)
}

/// The time of all golden pages.
pub(super) fn now() -> Time {
    Time::from_timestamp(1_800_000_000, 0).unwrap()
}

/// A time before it.
pub(super) fn ago(seconds: i64) -> Time {
    now() - TimeDelta::seconds(seconds)
}

/// Compares a rendered page with its golden file, or writes the file.
pub(super) fn check(page: &str, html: &str) {
    let path = folder().join(format!("{page}.html"));
    if is_writing() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, html).unwrap();
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; TASKWATCH_GOLDEN=write writes it", path.display()));
    if let Some(difference) = difference(&golden, html) {
        panic!("the page {page} differs from {}; {difference}TASKWATCH_GOLDEN=write accepts it", path.display());
    }
}

/// Renders a template and compares it.
pub(super) fn check_template(page: &str, template: &impl Template) {
    check(page, &template.render().unwrap());
}

/// The files are being written, so that tests that read all of them have to wait for the next run.
fn is_writing() -> bool {
    std::env::var("TASKWATCH_GOLDEN").is_ok_and(|what| what == "write")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages")
}

/// The first lines that differ, at most three.
fn difference(golden: &str, html: &str) -> Option<String> {
    if golden == html {
        return None;
    }
    let (mut old, mut new) = (golden.split('\n'), html.split('\n'));
    let mut told = String::new();
    let mut found = 0;
    for number in 1.. {
        let (was, is) = (old.next(), new.next());
        if found == 3 || was.is_none() && is.is_none() {
            break;
        }
        if was != is {
            found += 1;
            told.push_str(&format!("line {number}:\n- {}\n+ {}\n", was.unwrap_or("(end)"), is.unwrap_or("(end)")));
        }
    }
    Some(told)
}

/// A story of events, folded into a board.
struct Story {
    board: Board,
    events: Vec<Arc<Event>>,
}

impl Story {
    /// An event happens so many seconds before now.
    fn happens(&mut self, kind: Kind, seconds: i64, fill: impl FnOnce(&mut Event)) {
        let mut event = Event::new(kind, ago(seconds));
        if kind.row().durable {
            let id = EventId { epoch: Epoch(0x5c1f_09ae), position: self.board.position + 1 };
            (event.position, event.event_id) = (Some(id.position), Some(id.to_string()));
        }
        fill(&mut event);
        let event = Arc::new(event);
        self.board.apply(&event).unwrap();
        if event.position.is_some() {
            self.events.push(event);
        }
    }

    fn task(&mut self, kind: Kind, number: u128, (from, to): (Option<Status>, Status), fill: impl FnOnce(&mut Event)) {
        let seconds = 600 - 10 * i64::try_from(self.events.len()).unwrap();
        self.happens(kind, seconds, |event| {
            event.task_id = Some(id(number));
            (event.project_id, event.task_type) = (Some(hostile("project")), Some(hostile("mail")));
            (event.queue, event.priority) = (Some(hostile("queue")), Priority::new(8));
            (event.old_status, event.status) = (from, Some(to));
            event.data.title = Some(HOSTILE.to_owned());
            fill(event);
        });
    }

    /// Two workers: one with a broken connector, one that was lost.
    fn workers(&mut self) {
        for (number, status) in [(50, "active"), (51, "idle")] {
            self.happens(Kind::WorkerStarted, 900, |event| {
                (event.worker_id, event.machine_id) = (Some(id(number)), Some(hostile("machine")));
                (event.data.name, event.data.status) = (Some(hostile("worker")), Some(Name::literal(status)));
                (event.data.queues, event.data.version) = (Some(vec![hostile("queue")]), Some(HOSTILE.to_owned()));
            });
        }
        self.happens(Kind::ConnectorStatusChanged, 800, |event| {
            (event.worker_id, event.connector_id) = (Some(id(50)), Some(hostile("smtp")));
            (event.data.status, event.error) = (Some(Name::literal("error")), Some(HOSTILE.to_owned()));
        });
        self.happens(Kind::WorkerStopped, 100, |event| {
            (event.worker_id, event.data.status) = (Some(id(51)), Some(Name::literal("lost")));
        });
        self.happens(Kind::WorkerHeartbeat, 5, |event| event.worker_id = Some(id(50)));
    }

    /// Tasks that completed, failed, are retried, run and wait.
    fn tasks(&mut self) {
        let (pending, running) = (Some(Status::Pending), Some(Status::Running));
        for number in 1..=6 {
            self.task(Kind::TaskCreated, number, (None, Status::Pending), |_| {});
        }
        for number in 1..=4 {
            self.task(Kind::TaskStarted, number, (pending, Status::Running), |event| {
                (event.worker_id, event.machine_id, event.attempt) = (Some(id(50)), Some(hostile("machine")), Some(1));
                event.data.wait_ms = Some(1_500);
            });
        }
        let ends = |event: &mut Event| {
            (event.worker_id, event.attempt, event.duration_ms) = (Some(id(50)), Some(1), Some(61_500));
            event.error = (event.event_type != Kind::TaskCompleted).then(|| HOSTILE.to_owned());
        };
        self.task(Kind::TaskCompleted, 1, (running, Status::Completed), ends);
        self.task(Kind::TaskFailed, 2, (running, Status::Failed), ends);
        self.task(Kind::TaskRetry, 3, (running, Status::Retrying), ends);
        self.task(Kind::TaskProgress, 4, (running, Status::Running), |event| {
            (event.message, event.data.percent) = (Some(HOSTILE.to_owned()), Some(37.5));
        });
    }

    /// A parent with two phases, and a queue that is paused and limited.
    fn parent_and_limits(&mut self) {
        self.task(Kind::TaskStarted, 20, (Some(Status::Pending), Status::Running), |event| {
            event.data.phases = Some(vec![hostile("load"), hostile("send")]);
        });
        for (number, to) in
            [(21, Status::Completed), (22, Status::Running), (23, Status::Failed), (24, Status::Pending)]
        {
            self.task(Kind::TaskCreated, number, (None, to), |event| {
                let phase = if number < 23 { "load" } else { "send" };
                (event.parent_task_id, event.phase) = (Some(id(20)), Some(hostile(phase)));
            });
        }
        for (field, value) in [
            ("paused_at", serde_json::json!(ago(300))),
            ("concurrency_limit", 4.into()),
            ("rate_limit", 30.into()),
            ("rate_period_seconds", 60.into()),
        ] {
            self.happens(Kind::OperatorAction, 300, |event| {
                (event.queue, event.actor) = (Some(hostile("queue")), Some(HOSTILE.to_owned()));
                event.data.action = Some("limit_queue".to_owned());
                event.data.changes = Some([(field.to_owned(), [serde_json::Value::Null, value])].into());
            });
        }
    }
}

fn story() -> Story {
    let mut story = Story { board: Board { epoch: Epoch(0x5c1f_09ae), ..Board::default() }, events: Vec::new() };
    story.workers();
    story.tasks();
    story.parent_and_limits();
    story
}

/// The board of all golden pages.
pub(super) fn board() -> Board {
    story().board
}

/// The events of a task.
pub(super) fn events_of(number: u128) -> Vec<Arc<Event>> {
    story().events.into_iter().filter(|event| event.task_id == Some(id(number))).collect()
}

/// What all golden pages are rendered from; the slot is a stream that is open as long as it is kept.
pub(super) async fn view() -> (View, StreamSlot) {
    let story = story();
    let clock = Clock::stopped(now());
    let store = crate::store::connect::tests::unconnected(clock.clone()).await;
    let subscriptions = crate::feed::subscription::tests::subscriptions(&story.events).await;
    let stream_registry = Arc::new(StreamRegistry::new(2, 2, clock.clone()));
    let open = streams(&stream_registry, story.board.position);
    let view = View {
        event_log: EventLog::new(store.clone()),
        board: Arc::new(RwLock::new(story.board)),
        time_travel: TimeTravel::new(store.clone()),
        store,
        byte_readers: subscriptions.byte_readers(),
        subscriptions,
        stream_registry,
        writing: Writing::new(clock.clone()),
        clock,
        heartbeat_seconds: 10,
        quiet: TimeDelta::seconds(25),
        url: "http://127.0.0.1:8080".to_owned(),
        base: BasePath::default(),
    };
    (view, open)
}

/// One stream that ended, one that was refused, and one that is open.
fn streams(registry: &Arc<StreamRegistry>, position: i64) -> StreamSlot {
    let info = |query: &str| StreamInfo {
        purpose: Purpose::Events,
        address: std::net::IpAddr::from([192, 0, 2, 7]),
        user_agent: Some(HOSTILE.into()),
        query: query.into(),
        form: Form::default(),
        gzip: true,
    };
    let ended = registry.enter(info(""), position, None).unwrap();
    ended.ends(CloseReason::TooOld);
    let open = registry.enter(info("queue=%3Cscript%3E\"><script>"), position, None).unwrap();
    open.sent(1_234, 56_789);
    registry.enter(info(""), position, None).unwrap_err();
    drop(ended);
    open
}

/// A task of which every part that a page shows is set.
pub(super) fn task(number: u128, status: Status) -> Task {
    let new = NewTask {
        title: Some(HOSTILE.to_owned()),
        description: Some(HOSTILE.to_owned()),
        project_id: Some(hostile("project")),
        phase: Some(hostile("load")),
        parent_task_id: Some(id(20)),
        priority: Priority::new(8).unwrap(),
        labels: [(hostile("label"), HOSTILE.to_owned())].into(),
        max_attempts: 3,
        timeout_seconds: Some(90),
        unique_key: Some(HOSTILE.to_owned()),
        assignee: Some(HOSTILE.to_owned()),
        collaborators: vec![HOSTILE.to_owned(), "a, b".to_owned()],
        watchers: vec![HOSTILE.to_owned()],
        ..NewTask::plain(id(number), hostile("mail"), hostile("queue"))
    };
    let task = new.into_task(None, false, ago(600));
    let ended = status.is_finished().then(|| ago(30));
    let progress = Progress { percent: Some(37.5), message: Some(HOSTILE.to_owned()), counts: None };
    let lease = Lease { expires_at: Some(now()), progress: Some(progress), stalled: true };
    Task {
        status,
        attempt: 2,
        retry_count: 1,
        worker_id: Some(id(50)),
        machine_id: Some(hostile("machine")),
        connector_id: Some(hostile("smtp")),
        started_at: Some(ago(100)),
        finished_at: ended,
        run_at: (status == Status::Retrying).then(|| ago(-60)),
        error: (status == Status::Failed).then(|| HOSTILE.to_owned()),
        lease: (status == Status::Running).then_some(lease),
        ..task
    }
}

/// Parameters of a request, with the filters among them.
pub(super) fn params(page: &str, pairs: &[(&str, &str)]) -> Params {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let page = PAGES.iter().find(|known| known.name == page).unwrap();
    let filter = match page.filters {
        Filters::None => Filter::default(),
        Filters::Tasks | Filters::Events => {
            let own = page.own.iter().map(|(name, _)| *name).chain(super::LIST_PARAMETERS);
            Filter::from_query(&pairs, &own.collect::<Vec<_>>()).unwrap()
        }
    };
    Params { filter, pairs, ..Params::default() }
}

#[tokio::test]
async fn every_page_of_the_board_is_as_it_was() {
    let (view, _open) = view().await;
    for page in PAGES.iter().filter(|page| !page.from_tables && !page.is_of_one()) {
        let params = match page.name {
            "test-client" => params(page.name, &[("task_id", &id(3).to_string())]),
            "failures" => params(page.name, &[("show", "all")]),
            _ => params(page.name, &[]),
        };
        let content = (page.render)(&view, &params).await.unwrap();
        check(page.name, &content.html);
    }
}

#[tokio::test]
async fn titles_tell_the_state_before_the_name() {
    let (view, _open) = view().await;
    let mut titles = Vec::new();
    for page in PAGES.iter().filter(|page| !page.from_tables && !page.is_of_one()) {
        titles.push((page.render)(&view, &params(page.name, &[])).await.unwrap().title);
    }
    assert_eq!(
        titles,
        [
            "Overview",
            "(2) Failures",
            "(1) Queues",
            "(1 online) Workers",
            "Events",
            "Metrics",
            "(1 open) Stream clients",
            "Test client",
            "(degraded) Wall",
        ]
    );
}

#[tokio::test]
async fn a_page_without_its_object_is_not_found() {
    let (view, _open) = view().await;
    for page in PAGES.iter().filter(|page| page.is_of_one()) {
        let refused = (page.render)(&view, &Params::default()).await;
        assert!(matches!(refused, Err(super::PageError::NotFound(_))), "{}", page.name);
    }
}

#[tokio::test]
async fn an_empty_server_renders_every_page_of_the_board() {
    let (view, open) = view().await;
    let registry = Arc::new(StreamRegistry::new(1, 1, view.clock.clone()));
    let view = View { board: Arc::default(), stream_registry: registry, ..view };
    drop(open);
    for page in PAGES.iter().filter(|page| !page.from_tables && !page.is_of_one()) {
        let content = (page.render)(&view, &params(page.name, &[])).await.unwrap();
        assert!(!content.html.is_empty() && !content.html.contains("<script"), "{}", page.name);
    }
}

#[test]
fn every_page_has_a_golden_file_and_no_file_is_without_a_page() {
    if is_writing() {
        return;
    }
    let mut files: Vec<_> =
        std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort_unstable();
    let mut pages: Vec<_> = PAGES.iter().map(|page| format!("{}.html", page.name)).collect();
    pages.sort_unstable();
    assert_eq!(files, pages);
}

/// The page without the values of its form fields, which must be sent back as they are.
fn without_values(html: &str) -> String {
    let mut parts = html.split(" value=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('"').map_or("", |(_, rest)| rest))
}

#[test]
fn nothing_hostile_gets_through_to_any_page() {
    if is_writing() {
        return;
    }
    for page in &PAGES {
        let html = std::fs::read_to_string(folder().join(format!("{}.html", page.name))).unwrap();
        assert!(!html.contains("<script"), "{}", page.name);
        assert!(!without_values(&html).contains('\u{202e}'), "{}", page.name);
        assert_eq!(html.contains("script"), page.name != "analytics", "{} must show what was attacked", page.name);
        for tag in html.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()) {
            assert!(tag.matches('"').count().is_multiple_of(2), "{}: <{tag}>", page.name);
        }
    }
}

#[test]
fn a_difference_shows_the_first_three_lines_of_it() {
    assert_eq!(difference("a\nb", "a\nb"), None);
    assert_eq!(difference("a\nb", "a\nc").unwrap(), "line 2:\n- b\n+ c\n");
    assert_eq!(difference("a", "a\n").unwrap(), "line 2:\n- (end)\n+ \n");
    assert_eq!(difference("a\nb\nc\nd\ne", "1\nb\n2\n3\n4").unwrap().matches("line ").count(), 3);
}
