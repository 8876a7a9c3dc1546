//! What people did: operator actions, pauses, edits, cancellations, retries and deletions.

use std::sync::Arc;

use askama::Template;

use crate::page::{Content, PageError, Params, View, format, log_range, row::Check};
use crate::{
    event::{Event, Filter, Kind},
    model::{Name, Status, step::EventReason},
};

/// Its own parameters.
pub(super) const OWN: [(&str, Check); 6] = [
    log_range::OWN[0],
    log_range::OWN[1],
    log_range::OWN[2],
    ("actor", |_| Ok(())),
    ("action", check_action),
    ("queue", |text| Name::new(text).map(|_| ()).map_err(|error| error.to_string())),
];

/// Maximum number of entries.
const ENTRIES: usize = 100;

/// Actions: the word of the filter, and what it means.
const ACTIONS: [(&str, &[Kind]); 6] = [
    ("pause", &[Kind::QueuePaused, Kind::QueueResumed]),
    ("operator", &[Kind::OperatorAction]),
    ("retry", &[Kind::TaskEnqueued, Kind::TaskUpdated]),
    ("cancel", &[Kind::TaskCancelled]),
    ("delete", &[Kind::TaskDeleted]),
    (
        "edit",
        &[
            Kind::TaskUpdated,
            Kind::TaskPriorityChanged,
            Kind::TaskAssigned,
            Kind::TaskCollaboratorsUpdated,
            Kind::TaskWatchersUpdated,
            Kind::TaskDependencyAdded,
            Kind::TaskDependencyRemoved,
        ],
    ),
];

fn check_action(text: &str) -> Result<(), String> {
    let words: Vec<_> = ACTIONS.iter().map(|(word, _)| *word).collect();
    if words.contains(&text) { Ok(()) } else { Err(format!("must be one of {}", words.join(", "))) }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit<'a> {
    entries: Vec<Arc<Event>>,
    params: &'a Params,
    actions: [(&'static str, &'static [Kind]); 6],
    is_filtered: bool,
    older: Option<String>,
    is_cut: bool,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let range = log_range::range(view, params, ENTRIES).await?;
    let queue = params.own("queue").map(|name| ("queue".to_owned(), format::filter_value(name)));
    let project = params.pairs.iter().filter(|(name, _)| name == crate::event::filter::PROJECT).cloned();
    let pairs: Vec<_> = project.chain(queue).collect();
    // The parameters were checked when they were read.
    let filter = Filter::from_query(&pairs, &[]).unwrap_or_default();
    let (actor, action) = (params.own("actor"), params.own("action"));
    let kinds = action.and_then(|action| ACTIONS.iter().find(|(word, _)| *word == action)).map(|(_, kinds)| *kinds);
    let passes = |event: &Event| {
        let is_meant =
            action.is_none_or(|action| (action == "retry") == is_retry(event) || !["retry", "edit"].contains(&action));
        actor.is_none_or(|actor| event.actor.as_deref() == Some(actor)) && is_meant
    };
    let found = view.event_log.audit(view.subscriptions.epoch(), (&filter, kinds), range, passes).await?;
    let older = found.next.map(|position| log_range::older("/audit", params, position));
    let is_filtered = !params.without(&["at", "play", "before", crate::event::filter::PROJECT]).is_empty();
    let page = Audit { entries: found.events, params, actions: ACTIONS, is_filtered, older, is_cut: found.is_cut };
    Content::new("Audit", &page)
}

/// Whether a task was retried: it is pending again, or blocked if it has to wait.
fn is_retry(event: &Event) -> bool {
    event.event_type == Kind::TaskEnqueued || event.data.reason.as_deref() == Some(EventReason::Retried.as_str())
}

/// What was done, in words.
fn done(event: &Event) -> String {
    if is_retry(event) {
        return "retried task".to_owned();
    }
    match event.event_type {
        Kind::OperatorAction => event.data.action.clone().unwrap_or_default().replace('_', " "),
        Kind::QueuePaused => "paused queue".to_owned(),
        Kind::QueueResumed => "resumed queue".to_owned(),
        Kind::TaskCancelled => "cancelled task".to_owned(),
        Kind::TaskDeleted => "deleted task".to_owned(),
        Kind::TaskPriorityChanged => "changed priority".to_owned(),
        Kind::TaskAssigned => "assigned task".to_owned(),
        kind => kind.name().trim_start_matches("task_").replace('_', " "),
    }
}

/// Number of tasks of a bulk action, in words.
fn counts(event: &Event) -> String {
    let data = &event.data;
    let parts = [(data.matched, "matched"), (data.succeeded, "succeeded"), (data.failed, "failed")];
    let told = parts.into_iter().filter_map(|(count, word)| Some(format!("{} {word}", format::count(&count?))));
    told.collect::<Vec<_>>().join(" · ")
}

/// Whether an event is one of the audit.
pub(super) fn is_concerned(params: &Params, event: &Event) -> bool {
    let is_known = ACTIONS.iter().any(|(_, kinds)| kinds.contains(&event.event_type));
    event.actor.is_some() && is_known && event.status != Some(Status::Running) && !log_range::is_asked_for(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        page::golden::{HOSTILE, check_template, hostile, id, now, params},
        store::event_log::AUDITED,
    };

    #[test]
    fn the_audit_is_as_it_was() {
        let mut position = 0;
        let mut event = |kind, fill: fn(&mut Event)| {
            position += 1;
            let mut event = Event { position: Some(position), ..Event::new(kind, now()) };
            event.actor = Some(HOSTILE.to_owned());
            fill(&mut event);
            Arc::new(event)
        };
        let entries = vec![
            event(Kind::QueuePaused, |event| {
                event.queue = Some(hostile("queue"));
                event.data.reason = Some(HOSTILE.to_owned());
            }),
            event(Kind::OperatorAction, |event| {
                (event.data.action, event.data.matched) = (Some("retry_tasks".to_owned()), Some(1_200));
                event.data.failed = Some(3);
            }),
            event(Kind::TaskPriorityChanged, |event| {
                (event.task_id, event.task_type) = (Some(id(3)), Some(hostile("mail")));
                event.data.changes = Some([("priority".to_owned(), [5.into(), HOSTILE.into()])].into());
            }),
        ];
        let params = params("audit", &[("actor", "ann"), ("action", "pause")]);
        let older = Some("/audit?before=7".to_owned());
        let page = Audit { entries, params: &params, actions: ACTIONS, is_filtered: true, older, is_cut: true };
        check_template("audit", &page);
    }

    #[test]
    fn every_audited_kind_has_an_action_and_words() {
        for kind in AUDITED {
            assert!(ACTIONS.iter().any(|(_, kinds)| kinds.contains(&kind)), "{kind}");
            let event = Event { actor: Some("ann".to_owned()), ..Event::new(kind, now()) };
            assert!(is_concerned(&params("audit", &[]), &event));
            assert!(!is_concerned(&params("audit", &[("before", "7")]), &event));
            assert!(kind == Kind::OperatorAction || !done(&event).is_empty());
        }
        assert_eq!(
            check_action("dance"),
            Err("must be one of pause, operator, retry, cancel, delete, edit".to_owned())
        );
    }
}
