//! Tests of the folds: what each part of the board says after a history of events.

use std::sync::Arc;

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::{failures::HOURS, history::Range, recent, *};
use crate::{event::Kind, model::worker::WorkerStatus};

/// A board, and the events that it is given.
struct Story {
    board: Board,
    now: Time,
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

impl Story {
    fn new() -> Self {
        Self { board: Board::default(), now: Time::from_timestamp(1_800_000_000, 0).unwrap() }
    }

    /// Time passes.
    fn later(&mut self, seconds: i64) -> &mut Self {
        self.now += TimeDelta::seconds(seconds);
        self
    }

    /// The next event happens.
    fn happens(&mut self, kind: Kind, fill: impl FnOnce(&mut Event)) -> &mut Self {
        let mut event = Event::new(kind, self.now);
        event.position = kind.row().durable.then_some(self.board.position + 1);
        fill(&mut event);
        self.board.apply(&Arc::new(event)).unwrap();
        self
    }

    /// A task changes its status.
    fn task(&mut self, number: u128, kind: Kind, from: Option<Status>, to: Status) -> &mut Self {
        self.task_with(number, kind, from, to, |_| {})
    }

    fn task_with(
        &mut self,
        number: u128,
        kind: Kind,
        from: Option<Status>,
        to: Status,
        fill: impl FnOnce(&mut Event),
    ) -> &mut Self {
        self.happens(kind, |event| {
            event.task_id = Some(id(number));
            event.task_type = Some(name("mail"));
            event.queue = Some(name("q"));
            (event.old_status, event.status) = (from, Some(to));
            fill(event);
        })
    }

    /// A task is created and becomes pending.
    fn created(&mut self, number: u128) -> &mut Self {
        self.task(number, Kind::TaskCreated, None, Status::Pending)
    }

    /// A pending task is claimed by a worker.
    fn started(&mut self, number: u128, worker: u128) -> &mut Self {
        self.task_with(number, Kind::TaskStarted, Some(Status::Pending), Status::Running, |event| {
            event.worker_id = Some(id(worker));
            event.attempt = Some(1);
            event.data.wait_ms = Some(1_000);
        })
    }

    /// A running task fails permanently.
    fn failed(&mut self, number: u128, error: &str) -> &mut Self {
        let error = error.to_owned();
        self.task_with(number, Kind::TaskFailed, Some(Status::Running), Status::Failed, |event| {
            event.error = Some(error);
            event.duration_ms = Some(2_000);
        })
    }

    fn worker(&mut self, number: u128, kind: Kind, status: &'static str) -> &mut Self {
        self.happens(kind, |event| {
            event.worker_id = Some(id(number));
            event.machine_id = Some(name("m"));
            event.data.name = Some(name("w"));
            event.data.status = Some(name(status));
        })
    }
}

#[test]
fn an_event_that_is_not_the_next_changes_nothing() {
    let mut story = Story::new();
    story.created(1);
    let before = story.board.clone();
    for position in [1, 3, 0] {
        let mut event = Event::new(Kind::TaskCreated, story.now);
        (event.position, event.task_id, event.status) = (Some(position), Some(id(2)), Some(Status::Pending));
        assert_eq!(story.board.apply(&Arc::new(event)), Err(OutOfOrder { expected: 2, got: position }));
    }
    assert_eq!(story.board, before);
}

#[test]
fn an_ephemeral_event_has_no_position_and_moves_none() {
    let mut story = Story::new();
    story.worker(7, Kind::WorkerStarted, "idle");
    let position = story.board.position;
    story.later(3).happens(Kind::WorkerHeartbeat, |event| event.worker_id = Some(id(7)));
    assert_eq!(story.board.position, position);
    assert_eq!(story.board.workers.0[&id(7)].last_seen_at, Some(story.now));
    assert_eq!(story.board.recent.events.len(), 1, "it is not among the newest events");
}

#[test]
fn tasks_are_counted_by_status_until_they_are_deleted() {
    let mut story = Story::new();
    story.created(1).created(2).started(1, 7).failed(1, "disk full");
    assert_eq!((story.board.count(Status::Pending), story.board.count(Status::Failed)), (1, 1));
    story.happens(Kind::TaskDeleted, |event| {
        (event.task_id, event.old_status) = (Some(id(1)), Some(Status::Failed));
    });
    assert_eq!((story.board.count(Status::Pending), story.board.count(Status::Failed)), (1, 0));
}

#[test]
fn a_running_task_leaves_with_whatever_ends_its_attempt() {
    let mut story = Story::new();
    story.created(1).started(1, 7);
    story.happens(Kind::TaskProgress, |event| {
        (event.task_id, event.message) = (Some(id(1)), Some("half".to_owned()));
        event.data.percent = Some(50.0);
    });
    story.happens(Kind::TaskProgress, |event| event.task_id = Some(id(1)));
    let running = &story.board.running.0[&id(1)];
    assert_eq!(
        (running.percent, running.message.as_deref()),
        (Some(50.0), Some("half")),
        "a report keeps what it lacks"
    );
    assert_eq!(story.board.running.of_worker(id(7)).count(), 1);
    assert_eq!(story.board.running.of_worker(id(8)).count(), 0);
    story.happens(Kind::TaskStalled, |event| {
        (event.task_id, event.message) = (Some(id(1)), Some("lease expired".to_owned()));
    });
    assert_eq!(story.board.running.0[&id(1)].stalled.as_deref(), Some("lease expired"));
    story.failed(1, "e");
    assert!(story.board.running.0.is_empty());
}

#[test]
fn rates_are_of_the_last_seconds_only() {
    let mut story = Story::new();
    for number in 0..10 {
        story.created(number).started(number, 7);
    }
    for number in 0..8 {
        story.task(number, Kind::TaskCompleted, Some(Status::Running), Status::Completed);
    }
    story.failed(8, "e").later(1);
    story.task(9, Kind::TaskRetry, Some(Status::Running), Status::Retrying);
    let stats = story.board.stats(story.now);
    assert_eq!((stats.completed, stats.failed, stats.retrying), (8, 1, 1));
    assert!((stats.error_rate_1m_percent - 20.0).abs() < 1e-9, "{stats:?}");
    assert!((stats.throughput_per_second - 8.0 / 60.0).abs() < 1e-9, "{stats:?}");
    let stats = story.board.stats(story.now + TimeDelta::minutes(2));
    assert!(stats.error_rate_1m_percent == 0.0 && stats.throughput_per_second == 0.0);
    assert!((stats.error_rate_5m_percent - 20.0).abs() < 1e-9);
    assert_eq!(story.board.rates.over(story.now + TimeDelta::hours(2), 3_600).completed, 0);
}

#[test]
fn a_late_event_of_another_clock_counts_for_the_newest_bucket() {
    let mut story = Story::new();
    story.created(1).later(-30);
    story.created(2).later(30);
    assert_eq!(story.board.rates.over(story.now, 5).created, 2);
    let hour = story.board.history.over(Range::Hour, story.now);
    assert_eq!(hour.iter().map(|slot| slot.tally.created).collect::<Vec<_>>()[59], 2);
}

#[test]
fn a_series_has_every_bucket_and_carries_the_backlog_over_empty_ones() {
    let mut story = Story::new();
    story.created(1).created(2).created(3).later(180);
    story.started(1, 7).later(120);
    for range in Range::ALL {
        let slots = story.board.history.over(range, story.now);
        assert_eq!(slots.len(), range.slots());
        assert!(slots.windows(2).all(|pair| pair[1].number == pair[0].number + 1));
        assert_eq!(slots.iter().map(|slot| slot.tally.created).sum::<u64>(), 3);
    }
    let hour = story.board.history.over(Range::Hour, story.now);
    let pending: Vec<_> = hour[54..].iter().map(|slot| slot.max_pending).collect();
    assert_eq!(pending, [3, 3, 3, 3, 2, 2], "the most in each minute, also in minutes without an event");
    assert_eq!(hour[57].waits.samples(), 1);
    let tomorrow = story.board.history.over(Range::Hour, story.now + TimeDelta::days(1));
    assert!(tomorrow.iter().all(|slot| slot.max_pending == 2 && slot.tally.created == 0));
}

#[test]
fn failures_that_differ_in_numbers_only_are_one_group() {
    let mut story = Story::new();
    for (number, error) in [(1, "timeout after 31 s"), (2, "timeout after 7 s"), (3, "disk full")] {
        story.created(number).started(number, 7).failed(number, error).later(60);
    }
    let open = story.board.failures.open();
    assert_eq!(open.iter().map(|(_, group)| group.open).collect::<Vec<_>>(), [1, 2], "the latest first");
    assert_eq!((open[1].1.error.as_str(), open[1].1.task_id), ("timeout after 7 s", Some(id(2))));
    assert_eq!(open[1].1.last_hours(story.now).iter().sum::<u64>(), 2);
    assert_eq!(open[1].1.last_hours(story.now + TimeDelta::hours(HOURS as i64)).iter().sum::<u64>(), 0);
    let key = open[1].0.clone();
    // Retried: it leaves its group, which stays known.
    story.task_with(1, Kind::TaskEnqueued, Some(Status::Failed), Status::Pending, |event| {
        event.data.fingerprint = Some(key.clone());
    });
    let group = &story.board.failures.groups[&key];
    assert_eq!((group.open, group.failed), (1, 2));
}

#[test]
fn a_failed_attempt_that_is_retried_is_in_no_list_of_failed_tasks() {
    let mut story = Story::new();
    story.created(1).started(1, 7);
    story.task_with(1, Kind::TaskRetry, Some(Status::Running), Status::Retrying, |event| {
        event.error = Some("disk full".to_owned());
    });
    assert!(story.board.failures.open().is_empty());
    let group = story.board.failures.groups.values().next().unwrap();
    assert_eq!((group.open, group.failed, group.retried), (0, 0, 1));
}

#[test]
fn groups_without_failed_tasks_are_forgotten_first() {
    let mut story = Story::new();
    let letters = |number: u128| {
        format!(
            "{}{}",
            char::from(b'a' + u8::try_from(number / 26).unwrap()),
            char::from(b'a' + u8::try_from(number % 26).unwrap())
        )
    };
    story.created(0).started(0, 7);
    story.task_with(0, Kind::TaskRetry, Some(Status::Running), Status::Retrying, |event| {
        event.error = Some("retried".to_owned());
    });
    for number in 1..=200 {
        story.created(number).started(number, 7).failed(number, &letters(number)).later(1);
    }
    assert_eq!(story.board.failures.groups.len(), 200);
    assert!(!story.board.failures.overflowed, "the group without failed tasks went");
    story.created(201).started(201, 7).failed(201, "zzz");
    assert!(story.board.failures.groups.len() == 200 && story.board.failures.overflowed);
}

#[test]
fn workers_come_work_and_go() {
    let mut story = Story::new();
    story.worker(7, Kind::WorkerStarted, "idle").created(1).started(1, 7);
    story.task_with(1, Kind::TaskCompleted, Some(Status::Running), Status::Completed, |event| {
        event.worker_id = Some(id(7));
    });
    story.happens(Kind::ConnectorStatusChanged, |event| {
        (event.worker_id, event.connector_id) = (Some(id(7)), Some(name("smtp")));
        (event.data.status, event.error) = (Some(name("error")), Some("HTTP 503".to_owned()));
    });
    let worker = &story.board.workers.0[&id(7)];
    assert_eq!((worker.completed, worker.failed, worker.serves().count()), (1, 0, 1), "it serves what it claimed from");
    assert_eq!(worker.connectors[&name("smtp")].error.as_deref(), Some("HTTP 503"));
    assert_eq!(story.board.workers.online(), 1);
    story.later(5).worker(7, Kind::WorkerStopped, "lost");
    let worker = &story.board.workers.0[&id(7)];
    assert_eq!((worker.status, worker.since), (WorkerStatus::Lost, story.now));
    assert_eq!(story.board.workers.online(), 0);
}

#[test]
fn the_newest_events_are_kept_without_their_results() {
    let mut story = Story::new();
    for number in 0..recent::EVENTS as u128 {
        story.created(number).started(number, 7);
        story.task_with(number, Kind::TaskCompleted, Some(Status::Running), Status::Completed, |event| {
            event.data.result = serde_json::from_str("{\"large\":true}").ok();
        });
    }
    let recent = &story.board.recent;
    assert_eq!((recent.events.len(), recent.completed.len(), recent.failed.len()), (recent::EVENTS, recent::ENDS, 0));
    assert!(recent.events.iter().chain(&recent.completed).all(|event| event.data.result.is_none()));
    assert_eq!(recent.events[0].position, Some(story.board.position), "newest first");
}

proptest! {
    /// A board read back from its checkpoint equals the original, now and after further events.
    #[test]
    fn a_board_survives_its_checkpoint(steps in prop::collection::vec((0_u8..6, 0_u128..8), 1..60), cut in 0_usize..60) {
        let mut story = Story::new();
        let mut status = std::collections::BTreeMap::<u128, Status>::new();
        let mut copy = None;
        for (at, (what, number)) in steps.into_iter().enumerate() {
            if at == cut {
                let body = serde_json::to_string(&story.board).unwrap();
                copy = Some(serde_json::from_str::<Board>(&body).unwrap());
                prop_assert_eq!(copy.as_ref(), Some(&story.board));
            }
            let before = story.board.position;
            match (what, status.get(&number).copied()) {
                (0, None) => { story.created(number); status.insert(number, Status::Pending); },
                (1, Some(Status::Pending)) => { story.started(number, 7); status.insert(number, Status::Running); },
                (2, Some(Status::Running)) => { story.failed(number, "e 1"); status.insert(number, Status::Failed); },
                (3, _) => { story.later(7); }
                (4, _) => { story.worker(number, Kind::WorkerStarted, "idle"); }
                _ => {}
            }
            if let Some(copy) = copy.as_mut().filter(|_| story.board.position > before) {
                copy.apply(&story.board.recent.events[0]).unwrap();
            }
        }
        for wanted in Status::ALL {
            let counted = status.values().filter(|status| **status == wanted).count() as u64;
            prop_assert_eq!(story.board.count(wanted), counted);
        }
        if let Some(copy) = copy {
            prop_assert_eq!(copy, story.board);
        }
    }
}

/// Any event at all: also what no server would write.
fn any_event() -> impl Strategy<Value = Event> {
    let kinds: Vec<_> = Kind::ALL.iter().copied().filter(|kind| kind.row().durable).collect();
    let status = || prop::option::of(prop::sample::select(&Status::ALL[..]));
    let word = || prop::option::of(prop::sample::select(&["a", "b", "idle", "active", "lost", "error"][..]));
    let few = || prop::option::of(0_u128..4);
    let changes = prop::option::of((
        prop::sample::select(
            &["queue", "priority", "phase", "parent_task_id", "is_parent", "paused_at", "rate_limit"][..],
        ),
        prop::sample::select(&["null", "3", "\"a\"", "true", "\"2027-01-15T08:00:00Z\"", "-1", "{}"][..]),
    ));
    let what = (prop::sample::select(kinds), -20_i64..4_000, status(), status(), 0_i64..=9);
    let who = (few(), few(), few(), word(), word());
    let data = (word(), word(), prop::option::of(any::<u32>()), prop::option::of(0_u8..=200), changes);
    (what, who, data).prop_map(|(what, who, data)| {
        let mut event = Event::new(what.0, Time::from_timestamp(1_800_000_000 + what.1, 0).unwrap());
        (event.old_status, event.status) = (what.2, what.3);
        event.priority = crate::model::Priority::new(what.4);
        (event.task_id, event.parent_task_id, event.worker_id) = (who.0.map(id), who.1.map(id), who.2.map(id));
        (event.queue, event.phase) = (who.3.map(name), who.4.map(name));
        event.connector_id.clone_from(&event.phase);
        (event.data.status, event.data.fingerprint) = (data.0.map(name), data.1.map(name));
        event.data.old_fingerprint = event.data.status.clone().filter(|_| what.4 > 6);
        event.data.phases = (what.4 < 4).then(|| event.phase.clone().into_iter().collect());
        event.error = data.1.map(str::to_owned);
        (event.duration_ms, event.data.wait_ms) = (data.2.map(u64::from), data.2.map(u64::from));
        event.data.percent = data.3.map(|half| f64::from(half) / 2.0);
        event.data.changes = data.4.map(|(field, value)| {
            let value: serde_json::Value = serde_json::from_str(value).unwrap();
            [(field.to_owned(), [value.clone(), value])].into()
        });
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the log holds: no event stops the board, and a start from a checkpoint leads to the same board as a
    /// fold of the whole log.
    #[test]
    fn a_checkpoint_and_the_events_after_it_equal_the_whole_log(
        events in prop::collection::vec(any_event(), 1..30), cut in 0_usize..30,
    ) {
        let (mut whole, mut restarted) = (Board::default(), Board::default());
        for (index, mut event) in events.into_iter().enumerate() {
            if index == cut {
                let body = serde_json::to_string(&whole).unwrap();
                restarted = serde_json::from_str(&body).unwrap();
                prop_assert_eq!(serde_json::to_string(&restarted).unwrap(), body, "the same bytes again");
            }
            event.position = Some(whole.position + 1);
            let event = Arc::new(event);
            whole.apply(&event).unwrap();
            restarted.apply(&event).unwrap();
        }
        prop_assert_eq!(restarted, whole);
    }

    /// Whatever positions arrive: each next one is folded once, and no other.
    #[test]
    fn positions_are_folded_one_by_one(positions in prop::collection::vec(0_i64..6, 1..40)) {
        let mut board = Board::default();
        for position in positions {
            let before = board.position;
            let mut event = Event::new(Kind::TaskCreated, Time::from_timestamp(1_800_000_000, 0).unwrap());
            (event.position, event.task_id, event.status) = (Some(position), Some(id(1)), Some(Status::Pending));
            match board.apply(&Arc::new(event)) {
                Ok(()) => prop_assert_eq!(board.position, before + 1),
                Err(error) => {
                    prop_assert_eq!(error, OutOfOrder { expected: before + 1, got: position });
                    prop_assert_eq!(board.position, before);
                }
            }
            prop_assert_eq!(board.count(Status::Pending), u64::try_from(board.position).unwrap());
        }
    }

    /// The counts of a board and those of its queues are of the same tasks.
    #[test]
    fn queues_count_the_tasks_of_the_board(steps in prop::collection::vec((0_u128..6, 0_usize..8, any::<bool>()), 0..40)) {
        let mut story = Story::new();
        let mut tasks = std::collections::BTreeMap::new();
        for (number, status, deletes) in steps {
            let (from, to) = (tasks.get(&number).copied(), Status::ALL[status]);
            let kind = if from.is_some() { Kind::TaskUpdated } else { Kind::TaskCreated };
            story.happens(if deletes && from.is_some() { Kind::TaskDeleted } else { kind }, |event| {
                (event.task_id, event.old_status) = (Some(id(number)), from);
                event.status = Some(to);
                event.queue = Some(name(["x", "y"][usize::from(number > 3)]));
                event.priority = crate::model::Priority::new(i64::try_from(number).unwrap());
            });
            if deletes && from.is_some() { tasks.remove(&number) } else { tasks.insert(number, to) };
            for status in Status::ALL {
                let of_queues: u64 = story.board.queues.0.values().map(|queue| queue.count(status)).sum();
                let counted = tasks.values().filter(|of| **of == status).count() as u64;
                prop_assert_eq!((story.board.count(status), of_queues), (counted, counted), "{}", status);
            }
            let waiting: u64 = story.board.queues.0.values().map(|queue| queue.waiting()).sum();
            prop_assert_eq!(waiting, story.board.count(Status::Pending));
        }
    }
}

#[test]
fn an_event_tells_which_status_a_task_left_and_which_it_has() {
    let pending = Some(Status::Pending);
    let done = Some(Status::Completed);
    for (kind, old, new, expected) in [
        (Kind::TaskCreated, None, pending, Some((None, pending))),
        (Kind::TaskCreated, pending, pending, Some((None, pending))),
        (Kind::TaskDeleted, done, None, Some((done, None))),
        (Kind::TaskDeleted, done, done, Some((done, None))),
        (Kind::TaskUpdated, pending, pending, None),
        (Kind::TaskUpdated, pending, done, Some((pending, done))),
        (Kind::TaskUpdated, None, None, None),
    ] {
        let mut event = Event::new(kind, Story::new().now);
        (event.old_status, event.status) = (old, new);
        assert_eq!(moved(&event), None, "{kind} of no task");
        event.task_id = Some(id(1));
        assert_eq!(moved(&event), expected, "{kind}");
    }
}

#[test]
fn stuck_tasks_are_what_was_measured_last() {
    let mut story = Story::new();
    let stuck = crate::model::stuck::Stuck {
        project_id: None,
        task_id: id(1),
        task_type: name("mail"),
        reason: crate::model::stuck::StuckReason::Ring,
        on: None,
    };
    story.happens(Kind::TasksStuck, |event| (event.data.stuck, event.data.matched) = (Some(vec![stuck]), Some(7)));
    assert_eq!((story.board.stuck.len(), story.board.stuck_total, story.board.position), (1, 7, 0));
    story.happens(Kind::TasksStuck, |_| {});
    assert_eq!((story.board.stuck.len(), story.board.stuck_total), (0, 0), "none any more");
}
