//! The projects to choose from in the header of every page.

use std::cmp::Reverse;

use crate::{
    board::Board,
    model::{Name, Status},
};

/// Maximum number of projects listed; others are typed.
const LISTED: usize = 20;

/// The projects to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projects {
    /// Those with the most unfinished and failed tasks, by name.
    pub(super) busiest: Vec<Name>,
    /// Number of all projects.
    pub(super) total: usize,
}

impl Projects {
    /// The projects of a board.
    #[must_use]
    pub fn of(board: &Board) -> Self {
        let busy = |name: &&Name| {
            let counts = board.projects.get(name).map(|project| project.tasks.iter());
            let open =
                counts.into_iter().flatten().filter(|(status, _)| !status.is_finished() || *status == Status::Failed);
            Reverse(open.map(|(_, count)| count).sum::<u64>())
        };
        let mut names: Vec<_> = board.projects.names().collect();
        let total = names.len();
        if total > LISTED {
            names.sort_by_cached_key(busy);
            names.truncate(LISTED);
            names.sort_unstable();
        }
        Self { busiest: names.into_iter().cloned().collect(), total }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Event, Kind};

    /// A board with projects p00, p01, …; the one with number n has n pending tasks.
    fn board(projects: u32) -> Board {
        let mut board = Board::default();
        for (project, task) in (0..projects).flat_map(|project| (0..=project).map(move |task| (project, task))) {
            let mut event = Event::new(Kind::TaskCreated, crate::clock::Time::UNIX_EPOCH);
            event.position = Some(board.position + 1);
            event.task_id = Some(uuid::Uuid::from_u128(u128::from(project) * 1_000 + u128::from(task)));
            event.project_id = Some(Name::new(&format!("p{project:02}")).unwrap());
            event.status = Some(if task == 0 { Status::Completed } else { Status::Pending });
            board.apply(&Arc::new(event)).unwrap();
        }
        board
    }

    #[test]
    fn all_projects_are_listed_up_to_twenty_and_then_the_busiest() {
        let names = |board: &Board| Projects::of(board).busiest.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&board(3)), ["p00", "p01", "p02"]);
        let many = board(30);
        assert_eq!((names(&many).first().unwrap().as_str(), names(&many).len()), ("p10", 20), "by name");
        assert_eq!(Projects::of(&many).total, 30);
        assert_eq!(Projects::of(&Board::default()), Projects::default());
    }
}
