//! The menu of projects in the header of every page.

use super::{Page, Params, format, project_choices::Projects};
use crate::{event::filter::PROJECT, model::Name};

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
