//! Random histories: whatever is asked, in whatever order, the rows stay sound.

use proptest::prelude::*;

use super::{
    change_tasks::ChangeTasks,
    create_tasks::CreateTasks,
    deregister_worker::DeregisterWorker,
    expire_worker::ExpireWorker,
    heartbeat::{Heartbeat, HeldTask},
    rows::{Rows, id, new_task},
};
use crate::model::{Name, NewTask, Status, edit::Edit, report::Fence, transition::Transition};

/// Tasks of a history.
const TASKS: u128 = 12;

#[derive(Debug, Clone, Copy)]
enum Act {
    Create { number: u128, parent: Option<u128>, depends_on: Option<u128>, follows: bool, keyed: bool },
    Claim { worker: u128, limit: u32 },
    Report { number: u128, how: u8 },
    Ask { number: u128, how: u8 },
    Heartbeat { worker: u128 },
    Leave { worker: u128 },
    Expire { worker: u128 },
    Wait { seconds: i64 },
    Settle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let number = || 1..=TASKS;
    let worker = || 100..103u128;
    let act = prop_oneof![
        4 => (number(), proptest::option::of(number()), proptest::option::of(number()), any::<bool>(), any::<bool>())
            .prop_map(|(number, parent, depends_on, follows, keyed)| {
                Act::Create { number, parent, depends_on, follows, keyed }
            }),
        3 => (worker(), 1..4u32).prop_map(|(worker, limit)| Act::Claim { worker, limit }),
        4 => (number(), 0..5u8).prop_map(|(number, how)| Act::Report { number, how }),
        3 => (number(), 0..5u8).prop_map(|(number, how)| Act::Ask { number, how }),
        1 => worker().prop_map(|worker| Act::Heartbeat { worker }),
        1 => worker().prop_map(|worker| Act::Leave { worker }),
        1 => worker().prop_map(|worker| Act::Expire { worker }),
        2 => (1..90i64).prop_map(|seconds| Act::Wait { seconds }),
        2 => Just(Act::Settle),
    ];
    proptest::collection::vec(act, 1..60)
}

fn report(rows: &Rows, number: u128, how: u8) -> Transition {
    let task = rows.tasks.get(&id(number));
    let fence = task.and_then(|task| Some(Fence { worker_id: task.worker_id?, attempt: task.attempt }));
    let fence = fence.unwrap_or(Fence { worker_id: id(100), attempt: 1 });
    match how {
        0 => Transition::Complete { fence, result: None },
        1 => Transition::Fail { fence, error: "e".to_owned(), retryable: true, jitter: 0.5 },
        2 => Transition::Release { fence },
        3 => Transition::Extend { fence, lease_until: rows.now },
        _ => Transition::Complete { fence: Fence { attempt: fence.attempt + 1, ..fence }, result: None },
    }
}

fn ask(number: u128, how: u8) -> Transition {
    match how {
        0 => Transition::Cancel { reason: None },
        1 => Transition::Retry,
        2 => Transition::Reopen,
        3 => Transition::Delete,
        _ => {
            let depends_on = Some(vec![id(number % TASKS + 1)]);
            Transition::Edit(Box::new(Edit { depends_on, ..Edit::default() }))
        }
    }
}

fn act(rows: &mut Rows, act: Act) {
    match act {
        Act::Create { number, parent, depends_on, follows, keyed } => {
            let new = NewTask {
                parent_task_id: parent.map(id),
                depends_on: depends_on.map(id).into_iter().collect(),
                auto_complete: follows,
                unique_key: keyed.then(|| "k".to_owned()),
                max_attempts: 2,
                phase: parent.map(|parent| Name::literal(if parent % 2 == 0 { "even" } else { "odd" })),
                ..new_task(number)
            };
            // A refusal is fine: it changes nothing, as `Rows` checks.
            let _ = rows.run(&CreateTasks(vec![new]));
        }
        Act::Claim { worker, limit } => {
            if rows.workers.get(&id(worker)).is_none_or(|worker| !worker.status.is_online()) {
                rows.register(worker);
            }
            drop(rows.claim(worker, limit));
        }
        Act::Report { number, how } => {
            let _ = rows.change(number, report(rows, number, how));
        }
        Act::Ask { number, how } => {
            let _ = rows.change(number, ask(number, how));
        }
        Act::Heartbeat { worker } => {
            let held = rows.tasks.values().filter(|task| task.worker_id == Some(id(worker)));
            let held = held.map(|task| HeldTask { id: task.id, attempt: task.attempt, progress: None }).collect();
            let _ = rows.run(&Heartbeat { worker_id: id(worker), status: None, connectors: None, tasks: held });
        }
        Act::Leave { worker } => drop(rows.run(&DeregisterWorker(id(worker)))),
        Act::Expire { worker } => drop(rows.run(&ExpireWorker(id(worker)))),
        Act::Wait { seconds } => {
            rows.passes(seconds);
            let due = rows.tasks.values().filter(|task| task.run_at.is_some_and(|at| at <= rows.now));
            let due = due.map(|task| (task.id, Transition::Due)).collect();
            rows.run(&ChangeTasks::new(due)).unwrap();
        }
        Act::Settle => rows.reevaluate_all(),
    }
}

/// What holds whatever has happened.
fn check(rows: &Rows) {
    let unfinished = rows.tasks.values().filter(|task| !task.status.is_finished());
    assert!(unfinished.filter(|task| task.unique_key.is_some()).count() <= 1, "the unique key is held twice");
    for task in rows.tasks.values() {
        assert_eq!(task.lease.is_some(), task.status == Status::Running, "{task:?}");
        assert_eq!(task.finished_at.is_some(), task.status.is_finished(), "{task:?}");
        assert!(task.retry_count <= task.attempt, "{task:?}");
        assert!(!task.auto_complete || task.worker_id.is_none(), "a parent that follows was claimed: {task:?}");
        let is_parent = rows.tasks.values().any(|child| child.parent_task_id == Some(task.id));
        assert!(!is_parent || task.is_parent, "{task:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn whatever_is_asked_the_rows_stay_sound(history in acts()) {
        let mut rows = Rows::new();
        for step in history {
            act(&mut rows, step);
            check(&rows);
        }
        rows.reevaluate_all();
        check(&rows);
        for task in rows.tasks.values().filter(|task| task.status == Status::Blocked && !task.auto_complete) {
            let open = |dependency| rows.tasks.get(dependency).is_some_and(|task| !task.status.is_finished());
            prop_assert!(task.depends_on.iter().any(open), "blocked for nothing: {task:?}");
        }
    }
}
