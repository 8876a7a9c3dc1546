//! The projects to choose from in the header of every page.

use std::cmp::Reverse;

use super::{Page, Params, format};
use crate::{
    board::Board,
    event::filter::PROJECT,
    model::{Name, Status},
};

/// Maximum number of projects listed; others are typed.
const LISTED: usize = 20;

/// The projects to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projects {
    /// Those with the most unfinished and failed tasks, by name.
    busiest: Vec<Name>,
    /// Number of all projects.
    total: usize,
}

/// The menu of projects on a page.
#[derive(Debug, Default)]
pub(super) struct Switcher {
    /// What the page shows.
    pub(super) shown: String,
    /// Whether there is anything to choose.
    pub(super) is_needed: bool,
    /// Names, URLs, and whether the page shows it.
    pub(super) choices: Vec<(String, String, bool)>,
    /// URL path of the page, to which the name of another project is sent.
    pub(super) path: String,
    /// Other parameters of the page.
    pub(super) others: Vec<(String, String)>,
    /// There are more projects than are listed.
    pub(super) more: usize,
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

impl Switcher {
    /// The menu on a page that shows what its parameters say.
    pub(super) fn of(page: &Page, params: &Params, projects: &Projects) -> Self {
        let chosen = params.filter.projects();
        // A place in a list is of the list as it was.
        let others = params.without(&[PROJECT, "cursor"]);
        let path = page.address(params);
        let url = |project: Option<&Name>| {
            let mut pairs = others.clone();
            pairs.extend(project.map(|name| (PROJECT.to_owned(), format::filter_value(name.as_str()))));
            format::address(&path, &pairs)
        };
        let mut choices = vec![("All projects".to_owned(), url(None), chosen.is_empty())];
        let listed = projects.busiest.iter().chain(chosen.iter().filter(|name| !projects.busiest.contains(name)));
        choices.extend(listed.map(|name| (name.to_string(), url(Some(name)), chosen.contains(name))));
        Self {
            shown: match chosen.len() {
                0 => "All projects".to_owned(),
                1 => chosen.iter().map(ToString::to_string).collect(),
                several => format!("{several} projects"),
            },
            is_needed: projects.total > 1 || !chosen.is_empty(),
            choices,
            path,
            others,
            more: projects.total.saturating_sub(projects.busiest.len()),
        }
    }
}
