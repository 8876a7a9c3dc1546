//! Error groups: what is breaking, since when, how much, and whether it is the same thing.

use askama::Template;
use chrono::TimeDelta;

use crate::page::{Content, PageError, Params, View, chart::Sparkline, format};
use crate::{board::failures::Group, clock::Time, feed, model::Name};

/// Maximum number of groups shown.
const SHOWN: usize = 100;
/// A group is new for this long after its first failure.
const NEW: TimeDelta = TimeDelta::minutes(15);

#[derive(Template)]
#[template(path = "failures.html")]
struct Failures {
    groups: Vec<Row>,
    more: usize,
    /// Failed tasks of the groups.
    open: u64,
    /// All failed tasks.
    failed: u64,
    shows_all: bool,
    overflowed: bool,
    is_past: bool,
}

/// One group.
pub(super) struct Row {
    pub(super) fingerprint: Name,
    pub(super) group: Group,
    pub(super) is_new: bool,
    /// Failures within the last 24 hours.
    pub(super) day: u64,
    pub(super) spark: Sparkline,
}

impl Row {
    pub(super) fn of(fingerprint: &Name, group: &Group, now: Time) -> Self {
        Self {
            fingerprint: fingerprint.clone(),
            is_new: group.first_seen_at > now - NEW,
            day: group.last_hours(now).iter().sum(),
            spark: spark(group, now),
            group: group.clone(),
        }
    }

    /// Some of its queues, as text.
    pub(super) fn queues(&self) -> String {
        let names = self.group.queues.iter().map(|name| format::clip(name.as_str(), 24));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Validates `show`.
pub(super) fn check_show(text: &str) -> Result<(), String> {
    if text == "all" { Ok(()) } else { Err("must be \"all\" or omitted".to_owned()) }
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let now = view.now();
    let shows_all = params.own("show").is_some();
    let (mut groups, failed, overflowed) = {
        let board = feed::read(&view.board);
        let found = board.failures.groups.iter().filter(|(_, group)| shows_all || group.open > 0);
        let rows = found.map(|(fingerprint, group)| Row::of(fingerprint, group, now)).collect::<Vec<_>>();
        (rows, board.count(crate::model::Status::Failed), board.failures.overflowed)
    };
    // Active groups first, newest first: a stable order that does not change with each failure.
    groups.sort_by_key(|row| {
        let quiet = row.group.last_seen_at < now - NEW;
        (quiet, std::cmp::Reverse(row.group.first_seen_at), row.fingerprint.clone())
    });
    let open: u64 = groups.iter().map(|row| row.group.open).sum();
    let more = groups.len().saturating_sub(SHOWN);
    groups.truncate(SHOWN);
    let title = if failed > 0 { format!("({failed}) Failures") } else { "Failures".to_owned() };
    Content::new(title, &Failures { groups, more, open, failed, shows_all, overflowed, is_past: params.at.is_some() })
}

fn spark(group: &Group, now: Time) -> Sparkline {
    let hours = group.last_hours(now);
    let sum: u64 = hours.iter().sum();
    Sparkline::new(&hours, format!("{sum} failures in the last 24 hours"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        page::golden::{board, now, view},
    };

    #[test]
    fn only_all_groups_can_be_asked_for() {
        assert_eq!(check_show("all"), Ok(()));
        for text in ["", "ALL", "open", "all "] {
            assert_eq!(check_show(text), Err("must be \"all\" or omitted".to_owned()), "{text}");
        }
    }

    #[test]
    fn a_line_says_how_many_failed_within_a_day() {
        let board = board();
        let group = board.failures.groups.values().next().unwrap();
        let sum: u64 = group.last_hours(now()).iter().sum();
        assert_eq!(spark(group, now()).sentence, format!("{sum} failures in the last 24 hours"));
        assert_eq!(spark(group, now() + TimeDelta::days(2)).sentence, "0 failures in the last 24 hours");
    }

    async fn html(minutes: i64, params: &Params) -> String {
        let (view, _open) = view().await;
        let view = View { clock: Clock::stopped(now() + TimeDelta::minutes(minutes)), ..view };
        render(&view, params).unwrap().html
    }

    #[tokio::test]
    async fn a_group_is_new_for_fifteen_minutes() {
        assert!(html(0, &Params::default()).await.contains(" new</span>"));
        assert!(!html(15, &Params::default()).await.contains(" new</span>"));
    }

    #[tokio::test]
    async fn a_hundred_groups_are_shown_and_the_others_counted() {
        let (view, _open) = view().await;
        {
            let mut board = view.board.write().unwrap();
            let group = board.failures.groups.values().find(|group| group.open > 0).unwrap().clone();
            for number in 0..110 {
                board.failures.groups.insert(Name::new(&format!("{number:016x}")).unwrap(), group.clone());
            }
        }
        let page = render(&view, &Params::default()).unwrap();
        assert_eq!(page.html.matches("<tr id=\"f-").count(), 100, "{}", page.html.len());
        assert_eq!(page.title, "(2) Failures", "tasks, not groups");
    }
}
