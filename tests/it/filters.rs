//! Properties of the filters.

use proptest::prelude::*;
use taskwatch::{
    clock::Clock,
    event::{Event, Filter, Kind, filter},
    model::{Name, Priority, Status},
};

fn event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let status = prop::sample::select(Status::ALL.to_vec());
    (
        kind,
        prop::option::of(name.clone()),
        prop::option::of(name),
        prop::option::of(0_i64..10),
        prop::option::of(status),
    )
        .prop_map(|(kind, project, queue, priority, status)| {
            let mut event = Event::new(kind, Clock::default().now());
            event.project_id = project.map(Name::literal);
            event.queue = queue.map(Name::literal);
            event.priority = priority.and_then(Priority::new);
            event.status = status;
            event
        })
}

fn filter(pairs: &[(&str, String)]) -> Filter {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Filter::from_query(&pairs, &[]).unwrap()
}

proptest! {
    #[test]
    fn fields_are_anded_and_values_ored(event in event(), low in 0_u8..10, high in 0_u8..10) {
        let (low, high) = (low.min(high), low.max(high));
        let queue = filter(&[("queue", "a,b".to_owned())]);
        let priority = filter(&[("priority", format!("{low}..{high}"))]);
        let both = filter(&[("queue", "a,b".to_owned()), ("priority", format!("{low}..{high}"))]);
        let in_queue = event.queue.as_ref().is_some_and(|queue| ["a", "b"].contains(&queue.as_str()));
        let in_range = event.priority.is_some_and(|priority| (low..=high).contains(&priority.get()));
        prop_assert_eq!(queue.matches(&event), in_queue);
        prop_assert_eq!(priority.matches(&event), in_range);
        prop_assert_eq!(both.matches(&event), in_queue && in_range);
    }

    #[test]
    fn every_kind_is_found_by_its_name_its_prefix_and_its_topic(event in event()) {
        let kind = event.event_type;
        prop_assert!(filter(&[("types", kind.name().to_owned())]).matches(&event));
        let prefix = [&kind.name()[..4], "*"].concat();
        prop_assert!(filter(&[("types", prefix)]).matches(&event));
        prop_assert!(filter(&[("topics", kind.row().topic.as_str().to_owned())]).matches(&event));
        prop_assert!(filter(&[("topics", "all".to_owned())]).matches(&event));
        prop_assert!(filter(&[]).matches(&event));
    }

    #[test]
    fn any_text_is_understood_or_refused_but_never_a_panic(name in "[a-z_.]{0,12}", value in ".{0,40}") {
        let _ = Filter::from_query(&[(name, value.clone())], &[]);
        for row in &filter::ROWS {
            let _ = Filter::from_query(&[(row.name.to_owned(), value.clone())], &[]);
        }
    }

    #[test]
    fn an_event_survives_its_encoding(event in event(), error in ".{0,80}", title in ".{0,80}") {
        let mut event = event;
        event.error = Some(error);
        event.data.title = Some(title);
        let json = taskwatch::event::truncate::encode(&event);
        prop_assert!(!json.contains(['\n', '\r', '\0']));
        prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn a_large_event_fits_and_says_what_it_lost(size in 0_usize..40_000, error in 0_usize..40_000) {
        let mut event = Event::new(Kind::TaskFailed, Clock::default().now());
        event.data.title = Some("t".repeat(size));
        event.error = Some("e".repeat(error));
        let (fitted, json) = taskwatch::event::truncate::fit(event.clone(), 8_192);
        prop_assert!(json.len() <= 8_192);
        prop_assert_eq!(fitted.truncated.contains(&"error".to_owned()), fitted.error.is_none());
        if size + error < 7_500 {
            prop_assert_eq!(fitted, event);
        }
    }
}
