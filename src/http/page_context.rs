//! What pages are rendered with: the state of the server, and what their frames tell.

use std::{collections::BTreeSet, sync::Arc};

use super::{assets, state::AppState};
use crate::{
    config::LiveMode,
    feed,
    model::Name,
    page::{
        self,
        layout::Server,
        project_choices::Projects,
        summary::{Frame, Summary},
    },
};

/// Time since this process was last known to be up to date with the log, milliseconds.
pub(super) fn age_ms(state: &AppState) -> u64 {
    u64::try_from(state.subscriptions.age().as_millis()).unwrap_or(u64::MAX)
}

/// Server data for the layout of a page of some projects.
pub(super) fn server<'a>(state: &'a AppState, projects: &BTreeSet<Name>) -> Server<'a> {
    let frame = frame(state, projects);
    Server {
        live_allowed: state.settings.live_pages != LiveMode::Off,
        poll_seconds: state.settings.poll_seconds,
        asset: assets::url,
        version: env!("CARGO_PKG_VERSION"),
        now: state.clock.now(),
        instance: &state.settings.instance_name,
        colour: state.settings.instance_colour,
        summary: frame.summary,
        projects: frame.projects,
    }
}

/// Health and numbers of some projects as they are now.
pub(super) fn summary(state: &AppState, projects: &BTreeSet<Name>) -> Summary {
    frame(state, projects).summary
}

fn frame(state: &AppState, projects: &BTreeSet<Name>) -> Frame {
    state.frames.get(projects, || {
        let board = feed::narrowed(&state.board, projects);
        let summary = Summary::of(&feed::read(&board), state.settings.quiet(), state.clock.now());
        Frame { summary, projects: Arc::new(Projects::of(&feed::read(&state.board))) }
    })
}

impl AppState {
    /// Dependencies of page rendering.
    pub(super) fn view(&self) -> page::View {
        page::View {
            store: self.store.clone(),
            event_log: self.event_log.clone(),
            board: self.board.clone(),
            time_travel: self.time_travel.clone(),
            subscriptions: self.subscriptions.clone(),
            stream_registry: self.stream_registry.clone(),
            byte_readers: self.byte_readers.clone(),
            writing: self.writer.writing().clone(),
            clock: self.clock.clone(),
            heartbeat_seconds: self.settings.heartbeat_seconds,
            quiet: self.settings.quiet(),
            url: self.url.clone(),
            base: self.settings.base_path.clone(),
        }
    }
}
