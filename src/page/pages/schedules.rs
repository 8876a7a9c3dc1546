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
    Content::new("Schedules", &page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Time,
        model::NewTask,
        page::golden::{HOSTILE, ago, check_template, hostile, id},
    };

    fn schedule(word: &str, paused_at: Option<Time>) -> Schedule {
        Schedule {
            name: hostile(word),
            cron: HOSTILE.to_owned(),
            time_zone: HOSTILE.to_owned(),
            task: NewTask::plain(id(1), hostile("mail"), hostile("queue")),
            paused_at,
            next_run_at: paused_at.is_none().then(|| ago(-60)),
            last_run_at: Some(ago(60)),
            last_task_id: paused_at.map(|_| id(1)),
            created_at: ago(600),
        }
    }

    #[test]
    fn the_page_of_schedules_is_as_it_was() {
        let schedules = vec![schedule("active", None), schedule("paused", Some(ago(30)))];
        check_template(
            "schedules",
            &Schedules { schedules, next_url: Some("/schedules?after=x".to_owned()), is_first: false },
        );
    }

    #[test]
    fn a_page_begins_after_a_name() {
        assert_eq!(check_after("nightly"), Ok(()));
        assert_eq!(check_after(""), Err("must not be empty".to_owned()));
        assert_eq!(check_after("a\nb"), Err("must not contain control characters".to_owned()));
    }
}
