//! One parent task: a bar per phase, and its children.

use std::collections::BTreeSet;

use askama::Template;

use super::{overview::ParentCard, tasks::as_of};
use crate::page::{Content, PageError, Params, View, format};
use crate::{
    board::health::{self, Health},
    clock::Time,
    feed,
    model::{
        Name, Status, Task,
        phase::Counts,
        task_query::{Condition, TaskQuery},
    },
    store::search,
};

/// Maximum number of children shown: newest ones, and newest failed ones.
const CHILDREN: i64 = 50;

/// Maximum number of phases shown.
const PHASES: usize = 200;

/// Historical view: children examined for failed ones.
const MAX_EXAMINED: i64 = 500;

#[derive(Template)]
#[template(path = "parent.html")]
struct ParentPage {
    task: Task,
    card: Option<ParentCard>,
    phases: Vec<Phase>,
    /// Number of phases not shown.
    more_phases: usize,
    rolled_up: Option<Counts>,
    chosen: Option<String>,
    children: Vec<Task>,
    failed: Vec<Task>,
    health: Health,
    is_past: bool,
}

struct Phase {
    name: Name,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    is_current: bool,
}

/// Validates `phase`.
pub(super) fn check_phase(text: &str) -> Result<(), String> {
    Name::new(text).map(|_| ()).map_err(|error| error.to_string())
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("There is no such task. It may have been deleted.".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let pool = view.store.pool();
    let mut task = search::task(pool, id).await?.ok_or_else(missing)?;
    let phases: BTreeSet<_> = params.own("phase").and_then(|name| Name::new(name).ok()).into_iter().collect();
    let before = params.at.map(|at| (at.time, uuid::Uuid::max()));
    let mut below = TaskQuery { before, limit: CHILDREN, ..TaskQuery::default() }
        .having("parent_task_id", Condition::Ids([id].into()));
    if !phases.is_empty() {
        below = below.having("phase", Condition::Names(phases));
    }
    let mut children = search::tasks(pool, &below).await?;
    // Tasks that had failed then may have been retried since.
    let failed = match params.at {
        Some(_) => TaskQuery { limit: MAX_EXAMINED, ..below },
        None => below.in_status([Status::Failed]),
    };
    let mut failed = search::tasks(pool, &failed).await?;
    if let Some(moment) = params.at {
        let unborn = || PageError::NotFound("This task did not exist yet at that time.".to_owned());
        task = as_of(view, vec![task], moment).await?.pop().ok_or_else(unborn)?;
        children = as_of(view, children, moment).await?;
        failed = as_of(view, failed, moment).await?;
        failed.retain(|task| task.status == Status::Failed);
        failed.truncate(usize::try_from(CHILDREN).unwrap_or_default());
    }
    let now = view.now();
    let name = format::clip(task.title.as_deref().unwrap_or(task.task_type.as_str()), 80);
    let page = {
        let board = feed::read(&view.board);
        let parent = board.parents.get(id);
        let current = parent.and_then(|parent| parent.current_phase()).map(|phase| phase.name.clone());
        let phase = |phase: &crate::board::parents::Phase| Phase {
            is_current: current.as_ref() == Some(&phase.name),
            name: phase.name.clone(),
            started_at: phase.started_at,
            completed_at: phase.completed_at,
        };
        ParentPage {
            card: parent.map(|parent| ParentCard::new(id, parent, PHASES, now)),
            phases: parent.into_iter().flat_map(|parent| parent.phases.iter().map(phase)).take(PHASES).collect(),
            more_phases: parent.map_or(0, |parent| parent.phases.len().saturating_sub(PHASES)),
            rolled_up: board.parents.rolled_up(id),
            health: health::of_task(&board, &task, &[], view.quiet, now),
            chosen: params.own("phase").map(str::to_owned),
            task,
            children,
            failed,
            is_past: params.at.is_some(),
        }
    };
    let title = match &page.card {
        Some(card) => format!("({} %) {name}", card.total.percent()),
        None => name,
    };
    Content::new(title, &page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::golden::{board, check_template, hostile, id, now, task};

    #[test]
    fn the_page_of_a_parent_is_as_it_was() {
        let board = board();
        let parent = board.parents.get(id(20)).cloned();
        let phase = |phase: &crate::board::parents::Phase| Phase {
            name: phase.name.clone(),
            started_at: Some(now()),
            completed_at: None,
            is_current: phase.name == hostile("load"),
        };
        let task_of_parent = task(20, Status::Running);
        let page = ParentPage {
            card: parent.as_ref().map(|parent| ParentCard::new(id(20), parent, PHASES, now())),
            phases: parent.iter().flat_map(|parent| parent.phases.iter().map(phase)).collect(),
            more_phases: 1,
            rolled_up: Some(Counts { pending: 3, completed: 4, ..Counts::default() }),
            chosen: Some(hostile("load").to_string()),
            children: vec![task(22, Status::Running), task(21, Status::Completed)],
            failed: vec![task(23, Status::Failed)],
            health: health::of_task(&board, &task_of_parent, &[], chrono::TimeDelta::seconds(25), now()),
            task: task_of_parent,
            is_past: false,
        };
        check_template("parent", &page);
    }

    #[test]
    fn a_phase_is_chosen_by_its_name() {
        assert_eq!(check_phase("load/1, 2"), Ok(()));
        assert!(check_phase("").is_err() && check_phase(&"x".repeat(129)).is_err() && check_phase("a\0").is_err());
    }
}
