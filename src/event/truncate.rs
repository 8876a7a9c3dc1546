//! Truncation of events that are too large: the largest fields are removed and listed in `truncated`.

use std::borrow::Cow;

use super::Event;
use crate::model::Name;

/// Encodes an event in at most `max_bytes`. Fields with free text from people or workers are removed first. Lists of
/// names and labels are removed last: their size is limited on input, and filters and the board need them. Single
/// names, IDs and timestamps are always kept; together they are far below the smallest configurable limit.
#[must_use]
pub fn fit(mut event: Event, max_bytes: usize) -> (Event, String) {
    loop {
        let json = encode(&event);
        if json.len() <= max_bytes {
            return (event, json);
        }
        let Some((_, field)) = candidates(&event).into_iter().max().or_else(|| lists(&event).into_iter().max()) else {
            return (event, json);
        };
        clear(&mut event, &field);
        event.truncated.push(field);
    }
}

/// Fields of an edit that are needed for counting; these edits are small.
const PLACES: [&str; 7] = ["is_parent", "parent_task_id", "phase", "priority", "project_id", "queue", "task_type"];

/// Removable fields, with their sizes.
fn candidates(event: &Event) -> Vec<(usize, String)> {
    let texts = [
        (event.data.result.as_ref().map(|v| v.as_str().len()), "data.result"),
        (event.data.title.as_ref().map(String::len), "data.title"),
        (event.data.reason.as_ref().map(String::len), "data.reason"),
        (event.data.depends_on.as_ref().map(|ids| ids.len() * 39), "data.depends_on"),
        (event.error.as_ref().map(String::len), "error"),
        (event.message.as_ref().map(String::len), "message"),
    ];
    let texts = texts.into_iter().filter_map(|(size, field)| Some((size?, field.to_owned())));
    let changes = event.data.changes.iter().flatten().filter(|(field, _)| !PLACES.contains(&field.as_str()));
    let changes = changes
        .map(|(field, [old, new])| (old.to_string().len() + new.to_string().len(), format!("data.changes.{field}")));
    texts.chain(changes).collect()
}

/// Fields removed as a last resort, with their sizes.
fn lists(event: &Event) -> Vec<(usize, String)> {
    let size = |names: &[Name]| names.iter().map(|name| name.as_str().len() + 3).sum();
    let data = &event.data;
    let lists: [(Option<usize>, &str); 6] = [
        (data.queues.as_deref().map(size), "data.queues"),
        (data.phases.as_deref().map(size), "data.phases"),
        (data.children.as_ref().map(|children| children.len() * 100), "data.children"),
        (data.stuck.as_ref().map(|stuck| stuck.len() * 100), "data.stuck"),
        (event.labels.as_ref().map(|labels| labels.values().map(|value| value.len() + 20).sum()), "labels"),
        (data.external_id.as_ref().map(String::len), "data.external_id"),
    ];
    lists.into_iter().filter_map(|(size, field)| Some((size?, field.to_owned()))).collect()
}

fn clear(event: &mut Event, field: &str) {
    match field {
        "data.queues" => event.data.queues = None,
        "data.phases" => event.data.phases = None,
        "data.children" => event.data.children = None,
        "data.stuck" => event.data.stuck = None,
        "data.external_id" => event.data.external_id = None,
        "labels" => event.labels = None,
        "data.result" => event.data.result = None,
        "data.title" => event.data.title = None,
        "data.reason" => event.data.reason = None,
        "data.depends_on" => event.data.depends_on = None,
        "error" => event.error = None,
        "message" => event.message = None,
        change => {
            let name = change.trim_start_matches("data.changes.");
            if let Some(changes) = &mut event.data.changes {
                changes.remove(name);
            }
        }
    }
}

/// The JSON of an event: a single line for every reader.
#[must_use]
pub fn encode(event: &Event) -> String {
    one_line(serde_json::to_string(event).expect("an event has string keys only and no failing serializer"))
}

/// Escapes characters that some readers treat as line breaks. serde_json escapes CR, LF and the like, but not these
/// three, and Python's `splitlines`, for one, splits at them (seen with sseclient 0.0.27). In JSON they occur only
/// within strings, so they can be escaped everywhere.
#[must_use]
pub fn one_line(json: String) -> String {
    match in_one_line(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(escaped) => escaped,
    }
}

/// The same for JSON from other sources.
#[must_use]
pub fn in_one_line(json: &str) -> Cow<'_, str> {
    // The first UTF-8 bytes of all three; in chunks, which the compiler vectorises.
    let begins = |found, byte: &u8| found | matches!(byte, 0xc2 | 0xe2);
    let maybe = json.as_bytes().chunks(64).any(|piece| piece.iter().fold(false, begins));
    if !maybe || !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        clock::Time,
        event::Kind,
        model::{Status, phase::Counts, report::Json},
    };
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    /// The smallest configurable limit.
    const LIMIT: usize = 8_192;

    /// A name of up to 128 bytes, with characters that are longer in JSON.
    fn name() -> impl Strategy<Value = Name> {
        prop_oneof!["[a-z\"\\\\]{1,128}", "\u{2028}{1,42}", "[\u{e9}\u{1f600}]{1,32}"]
            .prop_map(|text| Name::new(&text).unwrap())
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[a-z\"\\\\\u{1}\u{2028}]{0,16000}")
    }

    prop_compose! {
        fn event()(
            names in prop::collection::vec(name(), 7),
            lists in (prop::collection::vec(name(), 0..64), prop::collection::vec(name(), 0..32)),
            children in prop::collection::btree_map(name(), any::<u64>(), 0..260),
            labels in prop::collection::btree_map(name(), "[a-z\"\u{2028}]{0,80}", 0..32),
            texts in prop::collection::vec(text(), 5),
            changes in prop::collection::btree_map("[a-z]{1,20}", text(), 0..5),
        ) -> Event {
            let mut event = Event::new(Kind::TaskUpdated, Time::from_timestamp(1, 0).unwrap());
            let mut names = names.into_iter();
            event.project_id = names.next();
            event.task_type = names.next();
            event.phase = names.next();
            event.queue = names.next();
            event.machine_id = names.next();
            event.connector_id = names.next();
            event.data.name = names.next();
            event.status = Some(Status::Running);
            event.task_id = Some(uuid::Uuid::max());
            event.labels = Some(labels);
            (event.data.queues, event.data.phases) = (Some(lists.0), Some(lists.1));
            let counts = |pending| Counts { pending, ..Counts::default() };
            event.data.children = Some(children.into_iter().map(|(name, pending)| (name, counts(pending))).collect());
            let mut texts = texts.into_iter();
            event.data.title = texts.next().flatten();
            event.error = texts.next().flatten();
            event.message = texts.next().flatten();
            event.data.reason = texts.next().flatten();
            event.data.result = texts.next().flatten().map(|text| {
                Json::new(RawValue::from_string(serde_json::to_string(&text).unwrap()).unwrap())
            });
            let values = changes.into_iter().map(|(field, text)| (field, [text.clone().into(), text.into()]));
            event.data.changes = Some(values.collect());
            event
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_event_is_above_the_limit(event in event()) {
            let all = event.clone();
            let (cut, json) = fit(event, LIMIT);
            prop_assert!(json.len() <= LIMIT, "{} bytes", json.len());
            let splits = json.contains(['\u{85}', '\u{2028}', '\u{2029}']);
            prop_assert!(!splits);
            prop_assert!(encode(&all).len() <= LIMIT || !cut.truncated.is_empty());
            // Fields that filters use to find an event are kept.
            prop_assert_eq!((cut.queue, cut.task_id, cut.status), (all.queue, all.task_id, all.status));
        }
    }

    fn plain() -> Event {
        Event::new(Kind::TaskUpdated, Time::from_timestamp(1, 0).unwrap())
    }

    #[test]
    fn an_event_of_exactly_the_limit_stays_whole() {
        let event = Event { error: Some("e".repeat(100)), ..plain() };
        let size = encode(&event).len();
        assert_eq!(fit(event.clone(), size), (event.clone(), encode(&event)));
        let (cut, json) = fit(event, size - 1);
        assert_eq!((cut.error, cut.truncated), (None, vec!["error".to_owned()]));
        assert!(json.len() < size && json.contains("\"truncated\":[\"error\"]"), "{json}");
    }

    #[test]
    fn the_largest_text_goes_first_and_no_more_than_is_needed() {
        let mut event = plain();
        event.error = Some("e".repeat(300));
        event.message = Some("m".repeat(200));
        event.data.title = Some("t".repeat(100));
        let (cut, _) = fit(event.clone(), 600);
        assert_eq!(cut.truncated, ["error"]);
        let (cut, _) = fit(event.clone(), 350);
        assert_eq!(cut.truncated, ["error", "message"]);
        let (cut, _) = fit(event, 200);
        assert_eq!(
            (cut.truncated, cut.data.is_empty()),
            (vec!["error".to_owned(), "message".to_owned(), "data.title".to_owned()], true)
        );
    }

    #[test]
    fn a_large_change_goes_alone_and_where_a_task_moved_stays() {
        let mut event = plain();
        let long = serde_json::Value::from("x".repeat(500));
        let changes = ["description", "queue", "parent_task_id", "title"]
            .map(|field| (field.to_owned(), [long.clone(), long.clone()]));
        event.data.changes = Some(changes.into());
        let (cut, _) = fit(event, 1_000);
        assert_eq!(cut.truncated, ["data.changes.title", "data.changes.description"]);
        let left: Vec<_> = cut.data.changes.iter().flatten().map(|(field, _)| field.as_str()).collect();
        assert_eq!(left, ["parent_task_id", "queue"], "the board counts by these");
    }

    #[test]
    fn lists_are_kept_while_texts_are_left() {
        let mut event = plain();
        event.data.reason = Some("r".to_owned());
        event.data.phases = Some((0..50).map(|n| Name::new(&format!("phase-{n}")).unwrap()).collect());
        event.labels = Some([(Name::literal("k"), "v".repeat(50))].into());
        let (cut, _) = fit(event, 200);
        assert_eq!(cut.truncated[..2], ["data.reason", "data.phases"]);
    }

    #[test]
    fn nothing_is_left_to_remove_and_the_event_is_still_written() {
        let event = Event { queue: Some(Name::literal("mails")), ..plain() };
        let (same, json) = fit(event.clone(), 0);
        assert_eq!((&same, serde_json::from_str(&json).ok()), (&event, Some(event.clone())));
    }

    #[test]
    fn only_what_some_reader_takes_for_a_line_break_is_escaped() {
        assert_eq!(in_one_line("a\u{85}b\u{2028}c\u{2029}"), "a\\u0085b\\u2028c\\u2029");
        for same in ["", "a\tb", "ä\u{84}\u{86}\u{a0}", "\u{2027}\u{202a}€"] {
            assert!(matches!(in_one_line(same), Cow::Borrowed(text) if text == same), "{same:?}");
        }
    }

    proptest! {
        /// Also across the pieces in which it is searched.
        #[test]
        fn a_line_means_the_same(text in "[a\u{e9}\u{85}\u{2028}\u{2029}\u{20ac}\"]{0,90}") {
            let json = serde_json::to_string(&text).unwrap();
            let line = one_line(json);
            let splits = line.contains(['\u{85}', '\u{2028}', '\u{2029}']);
            prop_assert!(!splits);
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
    }

    prop_compose! {
        fn short_event()(
            texts in prop::collection::vec(prop::option::of("[a-z\"\u{2028}]{0,200}"), 5),
        ) -> Event {
            let mut texts = texts.into_iter();
            let mut event = plain();
            event.error = texts.next().flatten();
            event.message = texts.next().flatten();
            event.data.title = texts.next().flatten();
            event.labels = texts.next().flatten().map(|text| [(Name::literal("k"), text)].into());
            event.data.result = texts.next().flatten().map(|text| {
                Json::new(RawValue::from_string(serde_json::to_string(&text).unwrap()).unwrap())
            });
            event
        }
    }

    proptest! {
        #[test]
        fn what_was_cut_is_listed_and_the_rest_is_unchanged(event in short_event(), limit in 0_usize..1_200) {
            let (cut, json) = fit(event.clone(), limit);
            let again = encode(&serde_json::from_str::<Event>(&json).unwrap());
            prop_assert_eq!(&again, &json, "it is read as it was written");
            let listed = |field: &str| cut.truncated.iter().any(|cut| cut == field);
            prop_assert_eq!(cut.error != event.error, listed("error"));
            prop_assert_eq!(cut.message != event.message, listed("message"));
            prop_assert_eq!(cut.data.title != event.data.title, listed("data.title"));
            prop_assert_eq!(cut.data.result != event.data.result, listed("data.result"));
            prop_assert_eq!(cut.labels != event.labels, listed("labels"));
            let again = fit(cut.clone(), json.len());
            prop_assert_eq!(again.0, cut, "what fits is not cut again");
        }
    }
}
