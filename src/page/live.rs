//! Live pages: one renderer per followed page. It sends changes region by region, the same bytes to all viewers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::broadcast, time::Instant};

use super::{
    Page, PageError, Params, View, fragment_diff,
    fragments::{Fragments, Freshness, Key},
};
use crate::{
    base_path::BasePath,
    event::{Filter, frame},
    feed::gzip::Gzipped,
};

/// A live page is rendered at least this often even without events: rates and states change with time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Maximum lag of a viewer, messages; beyond it the viewer gets the whole page.
const MAX_LAG_MESSAGES: usize = 64;
/// The region with the URL of the next poll. It changes with everything else and is never sent alone.
const REFRESH: &str = "refresh";

/// The followed pages, each with one renderer for all its viewers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LivePages {
    fragments: Fragments,
    followed: Arc<Mutex<HashMap<Key, Arc<LivePage>>>>,
}

/// State shared by all viewers of a page.
#[derive(Debug)]
struct LivePage {
    state: Arc<Mutex<State>>,
    updates: broadcast::Sender<Update>,
}

#[derive(Debug)]
struct State {
    sequence: u64,
    html: Arc<str>,
    position: i64,
    base: BasePath,
    /// The same as a message, once requested.
    whole: Option<Arc<Gzipped>>,
    /// Since when rendering fails.
    failing_since: Option<Instant>,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Update {
    sequence: u64,
    /// Its bytes, compressed at most once for all viewers.
    pub frame: Arc<Gzipped>,
    /// Log position that it shows.
    pub position: i64,
}

/// One viewer of a live page.
#[derive(Debug)]
pub struct Viewer {
    state: Arc<Mutex<State>>,
    updates: broadcast::Receiver<Update>,
    has: Option<u64>,
}

impl Viewer {
    /// How long rendering has been failing; zero while it works.
    #[must_use]
    pub fn failing_for(&self) -> Duration {
        read(&self.state).failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the whole page has been sent.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has.is_some()
    }

    /// The next message: the whole page first, and again after too many were missed. `None` if the page no longer
    /// exists.
    pub async fn next(&mut self) -> Option<Update> {
        let Some(has) = self.has else { return Some(self.whole()) };
        loop {
            match self.updates.recv().await {
                Ok(update) if update.sequence <= has => {}
                Ok(update) if update.sequence == has + 1 => {
                    self.has = Some(update.sequence);
                    return Some(update);
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return Some(self.whole()),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn whole(&mut self) -> Update {
        let mut state = read(&self.state);
        let State { sequence, html, position, whole, base, .. } = &mut *state;
        self.has = Some(*sequence);
        let frame = whole.get_or_insert_with(|| Arc::new(Gzipped::new(self::whole(base, html)))).clone();
        Update { sequence: *sequence, frame, position: *position }
    }
}

/// A whole fragment as a message.
fn whole(base: &BasePath, html: &str) -> Bytes {
    let html = base.prefix_links(html);
    frame::html(&format!("<hx-partial hx-target=\"#page\" hx-swap=\"innerMorph\">{html}</hx-partial>"))
}

fn read(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LivePage {
    fn viewer(&self) -> Viewer {
        Viewer { updates: self.updates.subscribe(), state: self.state.clone(), has: None }
    }

    fn send(&self, html: String, frame: Bytes, position: i64) {
        let mut state = read(&self.state);
        state.sequence += 1;
        (state.html, state.position) = (html.into(), position);
        (state.whole, state.failing_since) = (None, None);
        // Fails only without viewers; the renderer stops then.
        let frame = Arc::new(Gzipped::new(frame));
        let _ = self.updates.send(Update { sequence: state.sequence, frame, position });
    }
}

impl LivePages {
    /// Live pages based on a fragment cache.
    #[must_use]
    pub fn new(fragments: Fragments) -> Self {
        Self { fragments, followed: Arc::default() }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<Key, Arc<LivePage>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a page. All its viewers share one renderer, which stops with the last of them.
    ///
    /// # Errors
    /// [`PageError`] if the page cannot be rendered.
    pub async fn follow(&self, view: &View, page: &'static Page, params: &Params) -> Result<Viewer, PageError> {
        let key = super::fragments::key(page, params);
        // Rendered before the lock is taken: a slow page must not block other pages.
        let first = self.fragments.get(view, page, params, Freshness::Within(page.pace.region)).await?;
        let mut followed = self.followed();
        if let Some(live) = followed.get(&key) {
            return Ok(live.viewer());
        }
        let html = std::str::from_utf8(&first.html).unwrap_or_default().into();
        let (position, base) = (first.position, view.base.clone());
        let state = Arc::new(Mutex::new(State { sequence: 0, html, position, base, whole: None, failing_since: None }));
        let live = Arc::new(LivePage { state, updates: broadcast::Sender::new(MAX_LAG_MESSAGES) });
        let viewer = live.viewer();
        followed.insert(key.clone(), live.clone());
        drop(followed);
        let (pages, view, params) = (self.clone(), view.clone(), params.clone());
        tokio::spawn(Renderer { pages, view, page, params, key, live, sent: HashMap::new() }.run());
        Ok(viewer)
    }
}

struct Renderer {
    pages: LivePages,
    view: View,
    page: &'static Page,
    params: Params,
    key: Key,
    live: Arc<LivePage>,
    /// When each region was last sent.
    sent: HashMap<String, Instant>,
}

impl Renderer {
    /// Renders immediately after an idle period, then at the page's pace, while there are viewers.
    async fn run(mut self) {
        let mut feed = self.view.subscriptions.follow(self.view.subscriptions.head(), Filter::default());
        let mut look_again = Instant::now() + LOOK_AGAIN;
        while !self.is_over() {
            let concerned = tokio::select! {
                next = feed.next() => match next {
                    Ok(next) => next.reset || next.events.iter().any(|published| (self.page.concerned)(&self.params, &published.event)),
                    Err(_) => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        true
                    }
                },
                () = tokio::time::sleep_until(look_again) => true,
            };
            if !concerned {
                continue;
            }
            let rendered = self.pages.fragments.get(&self.view, self.page, &self.params, Freshness::Now).await;
            let now = Instant::now();
            look_again = now + LOOK_AGAIN;
            match rendered {
                Ok(fragment) => {
                    read(&self.live.state).failing_since = None;
                    let html = std::str::from_utf8(&fragment.html).unwrap_or_default();
                    if let Some(due) = self.send(html, fragment.position, now) {
                        look_again = look_again.min(due);
                    }
                }
                Err(PageError::NotFound(_)) => return,
                Err(error) => {
                    read(&self.live.state).failing_since.get_or_insert(now);
                    tracing::warn!(page = self.page.name, %error, "live page rendering failed; will retry");
                }
            }
            let pace = if self.params.tasks.is_wide() { LOOK_AGAIN } else { self.page.pace.page };
            tokio::time::sleep(pace).await;
        }
    }

    /// Whether there are no viewers left. Checked under the lock that joining requires.
    fn is_over(&self) -> bool {
        let mut followed = self.pages.followed();
        let over = self.live.updates.receiver_count() == 0;
        if over {
            followed.remove(&self.key);
        }
        over
    }

    /// Sends the changes that the pace allows; returns when the rest may be sent.
    fn send(&mut self, html: &str, position: i64, now: Instant) -> Option<Instant> {
        let shown = read(&self.live.state).html.clone();
        let pace = self.page.pace.region;
        let mut due = None;
        let mut patches = fragment_diff::diff(&shown, html, REFRESH);
        patches.retain(|patch| {
            let free = self.sent.get(patch.id).map_or(now, |sent| *sent + pace);
            if free > now {
                due = Some(due.map_or(free, |due: Instant| due.min(free)));
            }
            free <= now
        });
        if patches.is_empty() {
            return due;
        }
        self.sent.retain(|_, sent| *sent + pace > now);
        self.sent.extend(patches.iter().map(|patch| (patch.id.to_owned(), now)));
        if patches.iter().any(fragment_diff::Patch::is_whole) {
            self.live.send(html.to_owned(), whole(&self.view.base, html), position);
            return None;
        }
        let message: String = patches.iter().map(fragment_diff::Patch::partials).collect();
        self.live.send(
            fragment_diff::apply(&shown, &patches),
            frame::html(&self.view.base.prefix_links(&message)),
            position,
        );
        due
    }
}

impl Drop for Renderer {
    /// Viewers must be notified, however the renderer ends.
    fn drop(&mut self) {
        let mut followed = self.pages.followed();
        if followed.get(&self.key).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            followed.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn live_page() -> LivePage {
        let state = State {
            sequence: 0,
            html: "<p>0</p>".into(),
            position: 7,
            base: BasePath::default(),
            whole: None,
            failing_since: None,
        };
        LivePage { state: Arc::new(Mutex::new(state)), updates: broadcast::Sender::new(MAX_LAG_MESSAGES) }
    }

    /// The page changes to a number, as one message.
    fn send(page: &LivePage, number: u64) {
        page.send(format!("<p>{number}</p>"), Bytes::from(format!("change {number}")), 7);
    }

    fn text(update: &Update) -> String {
        String::from_utf8(update.frame.plain.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_viewer_gets_the_whole_page_first_and_then_each_change() {
        let page = live_page();
        let mut viewer = page.viewer();
        assert!(!viewer.has_begun());
        let first = viewer.next().await.unwrap();
        assert!(text(&first).contains("<p>0</p>") && text(&first).contains("hx-target=\"#page\""));
        assert_eq!((first.position, viewer.has_begun()), (7, true));
        send(&page, 1);
        send(&page, 2);
        assert_eq!(text(&viewer.next().await.unwrap()), "change 1");
        assert_eq!(text(&viewer.next().await.unwrap()), "change 2");
    }

    #[tokio::test]
    async fn a_change_that_the_whole_page_has_already_is_not_sent_again() {
        let page = live_page();
        let mut viewer = page.viewer();
        send(&page, 1);
        assert!(text(&viewer.next().await.unwrap()).contains("<p>1</p>"));
        send(&page, 2);
        assert_eq!(text(&viewer.next().await.unwrap()), "change 2");
    }

    #[tokio::test]
    async fn a_viewer_that_missed_too_much_gets_the_whole_page() {
        let page = live_page();
        let mut viewer = page.viewer();
        viewer.next().await.unwrap();
        for number in 1..=MAX_LAG_MESSAGES as u64 + 1 {
            send(&page, number);
        }
        assert!(text(&viewer.next().await.unwrap()).contains("<p>65</p>"));
        let nothing = tokio::select! {
            biased;
            update = viewer.next() => update,
            () = std::future::ready(()) => None,
        };
        assert!(nothing.is_none(), "it has all of the changes that it missed");
        send(&page, 66);
        assert_eq!(text(&viewer.next().await.unwrap()), "change 66", "and goes on from there");
    }

    #[tokio::test]
    async fn a_viewer_that_missed_one_message_gets_the_whole_page() {
        let page = live_page();
        let mut viewer = page.viewer();
        viewer.next().await.unwrap();
        read(&page.state).sequence += 1;
        send(&page, 9);
        assert!(text(&viewer.next().await.unwrap()).contains("<p>9</p>"));
    }

    #[tokio::test]
    async fn viewers_are_told_when_the_page_is_gone() {
        let page = live_page();
        let mut viewer = page.viewer();
        viewer.next().await.unwrap();
        drop(page);
        assert!(viewer.next().await.is_none());
    }

    #[tokio::test]
    async fn all_viewers_share_the_same_bytes() {
        let page = live_page();
        let (mut one, mut two) = (page.viewer(), page.viewer());
        let whole = [one.next().await.unwrap(), two.next().await.unwrap()];
        assert!(Arc::ptr_eq(&whole[0].frame, &whole[1].frame));
        send(&page, 1);
        let change = [one.next().await.unwrap(), two.next().await.unwrap()];
        assert!(Arc::ptr_eq(&change[0].frame, &change[1].frame));
    }

    #[test]
    fn a_change_ends_a_failure() {
        let page = live_page();
        let viewer = page.viewer();
        assert_eq!(viewer.failing_for(), Duration::ZERO);
        read(&page.state).failing_since = Some(Instant::now());
        send(&page, 1);
        assert_eq!(viewer.failing_for(), Duration::ZERO);
    }

    #[test]
    fn links_of_a_whole_page_lead_below_the_base_path() {
        let base: BasePath = "/ops".parse().unwrap();
        let frame = whole(&base, "<a href=\"/tasks\">x</a>\n<p>y</p>");
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.contains("href=\"/ops/tasks\"") && text.ends_with("\n\n"), "{text}");
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{text}");
    }
}
