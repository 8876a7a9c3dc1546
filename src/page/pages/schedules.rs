//! Schedules: last and next run, pause and resume.

use askama::Template;

use crate::page::{Content, PageError, Params, View, format};
use crate::{
    model::{Name, schedule::Schedule},
    store::schedules,
};

/// Maximum number of schedules shown.
const SHOWN: usize = 100;

#[derive(Template)]
#[template(path = "schedules.html")]
struct Schedules {
    schedules: Vec<Schedule>,
    next_url: Option<String>,
    is_first: bool,
}

/// Validates `after`.
pub(super) fn check_after(text: &str) -> Result<(), String> {
    Name::new(text).map(|_| ()).map_err(|error| error.to_string())
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let after = params.own("after").unwrap_or_default();
    let mut schedules = schedules::list(view.store.pool(), after).await?;
    let more = schedules.len() > SHOWN;
    schedules.truncate(SHOWN);
    let next = schedules.last().filter(|_| more).map(|last| vec![("after".to_owned(), last.name.to_string())]);
    let page = Schedules {
        schedules,
        next_url: next.map(|pairs| format!("/schedules?{}", format::query(&pairs))),
        is_first: after.is_empty(),
    };
    Content::new("Recurring tasks", &page)
}
