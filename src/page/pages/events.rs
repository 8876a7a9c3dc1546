//! The events page: the newest events, and a search through the whole log.

use std::sync::Arc;

use askama::Template;

use crate::page::{
    Content, PageError, Params, View, format,
    json_view::{JsonView, Line},
    log_range,
    row::Check,
};
use crate::{
    board::recent,
    event::{Event, filter, kind::Topic},
    feed,
};

/// Its own parameters: the part of the log, and an event to show as a whole.
pub(super) const OWN: [(&str, Check); 4] =
    [log_range::OWN[0], log_range::OWN[1], log_range::OWN[2], ("event", log_range::check_position)];

/// Topics that are left out unless they are asked for: most events are of these, and few look for them.
const NOISE: [Topic; 2] = [Topic::TasksProgress, Topic::Connectors];

#[derive(Template)]
#[template(path = "events.html")]
struct Events<'a> {
    events: Vec<Arc<Event>>,
    rows: &'a [filter::Row],
    params: &'a Params,
    /// Number of filters that are set.
    filtered: usize,
    position: i64,
    topics: Vec<TopicLink>,
    /// Part of the log is shown, not the newest events.
    is_search: bool,
    /// Where the search goes on, and how far it went if it ended before it had found enough.
    older: Option<String>,
    searched_to: Option<i64>,
    /// The newest events again.
    newest: String,
    /// One event as a whole.
    whole: Option<(i64, String, String, JsonView)>,
}

/// A link that shows events of one topic only.
struct TopicLink {
    words: &'static str,
    url: String,
    is_chosen: bool,
}

/// Whether an event is shown on a page with these parameters.
pub(super) fn shows(params: &Params, event: &Event) -> bool {
    let is_chosen = ["topics", "types", "task_id"].iter().any(|name| !params.filter.value(name).is_empty());
    params.filter.matches(event) && (is_chosen || !NOISE.contains(&event.event_type.row().topic))
}

/// Whether an event changes the page: not if a fixed part of the log is shown.
pub(super) fn is_concerned(params: &Params, event: &Event) -> bool {
    event.position.is_some() && !log_range::is_asked_for(params) && shows(params, event)
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let epoch = view.subscriptions.epoch();
    let position = feed::read(&view.board).position;
    let is_search = log_range::is_asked_for(params);
    let passes = |event: &Event| shows(params, event);
    let mut page = Events {
        events: Vec::new(),
        rows: &filter::ROWS,
        filtered: params.without(&["at", "play", "event", "topics", "before"]).len(),
        position,
        topics: topics(params),
        is_search: is_search || params.at.is_some(),
        older: None,
        searched_to: None,
        newest: format::address("/events-view", &params.without(&["before", "from", "until", "event"])),
        whole: whole(view, params).await?,
        params,
    };
    if is_search || params.at.is_some() {
        let range = log_range::range(view, params, recent::EVENTS).await?;
        let found = view.event_log.search(epoch, &params.filter, range, passes).await?;
        page.events = found.events;
        page.older = found.next.map(|position| older(params, position));
        page.searched_to = found.next.filter(|_| found.is_cut);
    } else {
        // Memory has far more than the newest events, and the log has all.
        page.events = view.subscriptions.newest(recent::EVENTS, passes);
        let last = page.events.last().and_then(|event| event.position).unwrap_or(position + 1);
        page.older = (last > 1).then(|| older(params, last));
    }
    Content::new("Events", &page)
}

/// The same page with the events before a position.
fn older(params: &Params, position: i64) -> String {
    log_range::older("/events-view", params, position)
}

/// The event that is shown as a whole.
async fn whole(view: &View, params: &Params) -> Result<Option<(i64, String, String, JsonView)>, PageError> {
    let Some(position) = params.own("event").and_then(|text| text.parse().ok()) else { return Ok(None) };
    let missing = || PageError::NotFound(format!("Event {position} is not in the log, or no longer."));
    let recorded = view.event_log.at(view.subscriptions.epoch(), position).await?.ok_or_else(missing)?;
    let without = format::address("/events-view", &params.without(&["event"]));
    Ok(Some((position, recorded.id.to_string(), without, JsonView::new(&recorded.json, ""))))
}

fn topics(params: &Params) -> Vec<TopicLink> {
    let chosen = params.filter.value("topics");
    let link = |(words, topic): (&'static str, &str)| {
        let mut pairs = params.without(&["topics", "before", "event"]);
        if !topic.is_empty() {
            pairs.push(("topics".to_owned(), topic.to_owned()));
        }
        TopicLink { words, url: format::address("/events-view", &pairs), is_chosen: chosen == topic }
    };
    [
        ("Main", ""),
        ("Status", "tasks:status"),
        ("Edits", "tasks:edits"),
        ("Progress", "tasks:progress"),
        ("Workers", "workers"),
        ("Connectors", "connectors"),
        ("Phases", "phases"),
        ("Queues", "queues"),
        ("All", "all"),
    ]
    .map(link)
    .into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        event::Kind,
        page::golden::{now, params},
    };

    fn event(kind: Kind) -> Event {
        Event { position: Some(1), ..Event::new(kind, now()) }
    }

    #[test]
    fn noise_is_shown_only_when_it_is_asked_for() {
        for (given, progress, paused) in [
            (&[][..], false, true),
            (&[("topics", "all")], true, true),
            (&[("topics", "tasks:progress")], true, false),
            (&[("types", "queue_*")], false, true),
            (&[("queue", "other")], false, false),
        ] {
            let params = params("events", given);
            let shown = [Kind::TaskProgress, Kind::QueuePaused].map(|kind| shows(&params, &event(kind)));
            assert_eq!(shown, [progress, paused], "{given:?}");
        }
    }

    #[test]
    fn a_part_of_the_log_stays_as_it_is() {
        let created = event(Kind::TaskCreated);
        assert!(is_concerned(&params("events", &[]), &created));
        for given in [("before", "7"), ("from", "-1h"), ("until", "2026-11-27T03:00Z")] {
            assert!(!is_concerned(&params("events", &[given]), &created), "{given:?}");
        }
        let ephemeral = Event { position: None, ..created };
        assert!(!is_concerned(&params("events", &[]), &ephemeral));
    }

    #[test]
    fn links_keep_the_filters_and_leave_the_place() {
        let params = params("events", &[("queue", "mail"), ("before", "70"), ("event", "60"), ("topics", "queues")]);
        assert_eq!(older(&params, 50), "/events-view?queue=mail&topics=queues&before=50");
        let topics = topics(&params);
        assert_eq!(topics[0].url, "/events-view?queue=mail");
        assert_eq!(topics.iter().find(|topic| topic.is_chosen).unwrap().words, "Queues");
    }
}
