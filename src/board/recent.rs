//! The newest events, completions and failures.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::event::{Event, Kind};

/// Number of events kept.
pub const EVENTS: usize = 200;
/// Number of completions and of failures kept.
pub const ENDS: usize = 100;

/// The newest events, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// All stored events.
    pub events: VecDeque<Arc<Event>>,
    /// `task_completed` events.
    pub completed: VecDeque<Arc<Event>>,
    /// `task_failed` events.
    pub failed: VecDeque<Arc<Event>>,
}

impl Recent {
    pub(super) fn apply(&mut self, event: &Arc<Event>) {
        if event.position.is_none() {
            return;
        }
        let event = without_result(event);
        match event.event_type {
            Kind::TaskCompleted => push(&mut self.completed, &event, ENDS),
            Kind::TaskFailed => push(&mut self.failed, &event, ENDS),
            _ => {}
        }
        push(&mut self.events, &event, EVENTS);
    }
}

/// Results can be large, and these lists do not show them.
fn without_result(event: &Arc<Event>) -> Arc<Event> {
    if event.data.result.is_none() {
        return event.clone();
    }
    let mut event = Event::clone(event);
    event.data.result = None;
    Arc::new(event)
}

fn push(line: &mut VecDeque<Arc<Event>>, event: &Arc<Event>, keep: usize) {
    line.push_front(event.clone());
    line.truncate(keep);
}
