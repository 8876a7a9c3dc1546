//! Fragments: the changing part of a page, rendered once and shared by polls and live streams (law 6).

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use askama::Template;
use bytes::Bytes;
use chrono::TimeDelta;

use super::{Page, PageError, Params, Reach, View, format, page_links::keep_parameters};
use crate::{clock::Time, event::envelope::rfc3339, feed, model::Name, store::writing::Failing};

/// Pages show that writes fail once that has lasted this long.
const NOT_WRITING: Duration = Duration::from_secs(2);
/// Maximum number of cached fragments; the least recently used are evicted first.
const MAX_CACHED: usize = 500;
/// Maximum total size of cached fragments, bytes.
const KEEP_BYTES: usize = 64 * 1024 * 1024;

/// A rendered fragment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Changes if and only if the content changes.
    pub version: String,
    /// Page title.
    pub title: Arc<str>,
    /// Log position that it shows.
    pub position: i64,
    /// HTML.
    pub html: Bytes,
}

/// Required freshness of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Rendered for this request.
    Now,
    /// Rendered at most this long ago.
    Within(Duration),
}

pub(super) type Key = (&'static str, String);
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Fragment)>>>;

/// The fragment cache. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fragments {
    slots: Arc<Mutex<Slots>>,
}

/// Cached fragments by page and query.
#[derive(Debug, Default)]
struct Slots {
    kept: HashMap<Key, Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    used: Instant,
    bytes: usize,
    slot: Slot,
}

impl Slots {
    /// The slot of a fragment, marked as recently used.
    fn slot(&mut self, key: &Key) -> Slot {
        let new = || Kept { used: Instant::now(), bytes: 0, slot: Slot::default() };
        let kept = self.kept.entry(key.clone()).or_insert_with(new);
        kept.used = Instant::now();
        let slot = kept.slot.clone();
        self.fit(MAX_CACHED, KEEP_BYTES);
        slot
    }

    /// Records the size of a fragment.
    fn weigh(&mut self, key: &Key, slot: &Slot, bytes: usize) {
        let kept = self.kept.get_mut(key).filter(|kept| Arc::ptr_eq(&kept.slot, slot));
        if let Some(kept) = kept {
            self.bytes = self.bytes - kept.bytes + bytes;
            kept.bytes = bytes;
        }
        self.fit(MAX_CACHED, KEEP_BYTES);
    }

    /// Evicts the least recently used until both limits are met.
    fn fit(&mut self, most: usize, most_bytes: usize) {
        while self.kept.len() > most || self.bytes > most_bytes {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            let Some(removed) = oldest.and_then(|key| self.kept.remove(&key)) else { break };
            self.bytes -= removed.bytes;
        }
    }
}

#[derive(Template)]
#[template(path = "fragment.html")]
struct Wrapped<'a> {
    refresh_url: String,
    title: &'a str,
    historical: Option<Historical>,
    /// Since when writes fail, and why.
    not_writing: Option<Failing>,
    /// The projects that it is narrowed to.
    projects: Vec<Name>,
    content: &'a str,
}

/// The header of a historical page.
struct Historical {
    position: i64,
    time: Time,
    /// The page has no history.
    is_present: bool,
    /// Replay speed; 0 when paused.
    play: u32,
    /// URL of the page.
    url: String,
    now_url: String,
    stop_url: String,
    /// Steps in time: labels and URLs.
    steps: Vec<(&'static str, String)>,
    /// Replay speeds and URLs.
    speeds: Vec<(u32, String)>,
}

/// Available replay speeds.
const SPEEDS: [u32; 3] = [1, 10, 60];

const STEPS: [(&str, i64); 6] =
    [("−1 h", -3_600), ("−10 min", -600), ("−1 min", -60), ("+1 min", 60), ("+10 min", 600), ("+1 h", 3_600)];

impl Historical {
    fn of(page: &Page, params: &Params) -> Option<Self> {
        let moment = params.at?;
        let rest = params.without(&["at", "play"]);
        let path = page.address(params);
        let url = |at: Option<Time>, play: Option<u32>| {
            let mut pairs = rest.clone();
            pairs.extend(at.map(|at| ("at".to_owned(), rfc3339(at))));
            pairs.extend(play.map(|play| ("play".to_owned(), play.to_string())));
            format::address(&path, &pairs)
        };
        let time = moment.time;
        Some(Self {
            position: moment.position,
            time,
            is_present: page.reach == Reach::Present,
            play: params.play.unwrap_or_default(),
            url: url(Some(time), params.play),
            now_url: url(None, None),
            stop_url: url(Some(time), None),
            steps: STEPS.map(|(words, by)| (words, url(Some(time + TimeDelta::seconds(by)), None))).into(),
            speeds: SPEEDS.map(|speed| (speed, url(Some(time), Some(speed)))).into(),
        })
    }
}

impl Fragments {
    /// A fragment that is fresh enough. Concurrent requests wait for one rendering.
    ///
    /// # Errors
    /// [`PageError`] if the page cannot be rendered.
    pub async fn get(
        &self,
        view: &View,
        page: &'static Page,
        params: &Params,
        freshness: Freshness,
    ) -> Result<Fragment, PageError> {
        let asked = Instant::now();
        let key = key(page, params);
        let shared = self.slots().slot(&key);
        let mut slot = shared.lock().await;
        let oldest = match freshness {
            Freshness::Now => Some(asked),
            Freshness::Within(age) => asked.checked_sub(age),
        };
        // A rendering that started after this request arrived is fresh enough, also for this request.
        if let Some((begun, fragment)) = &*slot
            && oldest.is_none_or(|oldest| *begun >= oldest)
        {
            return Ok(fragment.clone());
        }
        let begun = Instant::now();
        let fragment = render(view, page, params, slot.as_ref().map(|(_, fragment)| fragment)).await?;
        *slot = Some((begun, fragment.clone()));
        self.slots().weigh(&key, &shared, fragment.html.len());
        Ok(fragment)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn key(page: &Page, params: &Params) -> Key {
    (page.name, format!("{}?{}", page.address(params), format::query(&params.pairs)))
}

async fn render(
    view: &View,
    page: &'static Page,
    params: &Params,
    last: Option<&Fragment>,
) -> Result<Fragment, PageError> {
    let position = params.at.map_or_else(|| feed::read(&view.board).position, |at| at.position);
    let content = page.content(view, params).await?;
    let mut hasher = DefaultHasher::new();
    (&content.title, &content.html).hash(&mut hasher);
    // During a replay time advances, whether or not an event occurred.
    params.at.map(|at| at.time).hash(&mut hasher);
    let not_writing = view.writing.failing_for(NOT_WRITING).filter(|_| params.at.is_none());
    not_writing.as_ref().map(|failing| &failing.reason).hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    if let Some(last) = last.filter(|last| last.version == version) {
        return Ok(Fragment { position, ..last.clone() });
    }
    let wrapped = Wrapped {
        refresh_url: refresh_url(page, params, &version, view.now()),
        title: &content.title,
        historical: Historical::of(page, params),
        not_writing,
        projects: params.filter.projects().into_iter().collect(),
        content: &match params.carried().as_slice() {
            [] => Cow::Borrowed(content.html.as_str()),
            carried => Cow::Owned(keep_parameters(&content.html, carried)),
        },
    };
    Ok(Fragment { html: wrapped.render()?.into(), version, title: content.title.into(), position })
}

/// URL of the next poll. During a replay it contains the time shown and when, so that the replay speed does not depend
/// on the polling interval.
fn refresh_url(page: &Page, params: &Params, version: &str, now: Time) -> String {
    let mut query = params.pairs.clone();
    if let (Some(moment), Some(_)) = (params.at, params.play) {
        query = params.without(&["at"]);
        query.push(("at".to_owned(), rfc3339(moment.time)));
        query.push(("played".to_owned(), now.timestamp_millis().to_string()));
    }
    query.push(("fragment".to_owned(), "1".to_owned()));
    query.push(("version".to_owned(), version.to_owned()));
    format!("{}?{}", page.address(params), format::query(&query))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        feed::time_travel::Moment,
        page::{
            PAGES,
            golden::{ago, id, now, params, view},
        },
    };

    #[test]
    fn what_is_kept_is_bounded_by_number_and_by_bytes() {
        let mut slots = Slots::default();
        let mut put = |name: usize, bytes: usize| {
            let key = ("tasks", name.to_string());
            let slot = slots.slot(&key);
            slots.weigh(&key, &slot, bytes);
            (slots.kept.len(), slots.bytes)
        };
        for name in 0..MAX_CACHED {
            put(name, 100);
        }
        assert_eq!(put(MAX_CACHED, 100), (MAX_CACHED, MAX_CACHED * 100), "the oldest went");
        assert_eq!(put(MAX_CACHED, 300), (MAX_CACHED, MAX_CACHED * 100 + 200), "the same grew");
        assert_eq!(put(0, KEEP_BYTES - 250), (1, KEEP_BYTES - 250), "all others went for one that is large");
        assert_eq!(put(1, KEEP_BYTES + 1), (0, 0), "one that is too large is not kept at all");
    }

    fn page(name: &str) -> &'static Page {
        PAGES.iter().find(|page| page.name == name).unwrap()
    }

    fn past(pairs: &[(&str, &str)], play: Option<u32>) -> Params {
        Params { at: Some(Moment { position: 7, time: now() }), play, ..params("overview", pairs) }
    }

    #[test]
    fn a_fragment_is_known_by_its_page_its_id_and_its_query() {
        let of = |name, params: &Params| key(page(name), params);
        let plain = Params::default();
        let with_id = |number| Params { id: Some(id(number)), ..Params::default() };
        let all = [
            of("overview", &plain),
            of("queues", &plain),
            of("task", &with_id(1)),
            of("task", &with_id(2)),
            of("tasks", &params("tasks", &[("queue", "a"), ("status", "failed")])),
            of("tasks", &params("tasks", &[("queue", "a&status=failed")])),
            of("tasks", &params("tasks", &[("queue", "a")])),
        ];
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len(), "{all:?}");
    }

    #[test]
    fn the_next_poll_asks_for_the_same_and_says_what_it_has() {
        let params = params("tasks", &[("q", "a b")]);
        assert_eq!(refresh_url(page("tasks"), &params, "00ff", now()), "/tasks?q=a%20b&fragment=1&version=00ff");
        assert_eq!(refresh_url(page("overview"), &Params::default(), "1", now()), "/?fragment=1&version=1");
    }

    #[test]
    fn a_replay_polls_from_the_time_shown_and_says_since_when() {
        let played = past(&[("at", "7"), ("play", "10")], Some(10));
        let url = refresh_url(page("overview"), &played, "1", ago(-3));
        assert_eq!(url, "/?play=10&at=2027-01-15T08%3A00%3A00.000000Z&played=1800000003000&fragment=1&version=1");
        let paused = past(&[("at", "7")], None);
        assert_eq!(refresh_url(page("overview"), &paused, "1", now()), "/?at=7&fragment=1&version=1");
    }

    #[test]
    fn the_present_has_no_historical_header() {
        assert!(Historical::of(page("overview"), &Params::default()).is_none());
    }

    #[test]
    fn steps_lead_both_ways_in_time_and_stop_a_replay() {
        let header =
            Historical::of(page("overview"), &past(&[("at", "7"), ("play", "10"), ("x", "y")], Some(10))).unwrap();
        assert_eq!((header.now_url.as_str(), header.play, header.position), ("/?x=y", 10, 7));
        assert_eq!(header.url, "/?x=y&at=2027-01-15T08%3A00%3A00.000000Z&play=10");
        assert_eq!(header.stop_url, "/?x=y&at=2027-01-15T08%3A00%3A00.000000Z");
        let steps: Vec<_> = header.steps.iter().map(|(words, url)| (*words, url.as_str())).collect();
        assert_eq!(steps[0], ("−1 h", "/?x=y&at=2027-01-15T07%3A00%3A00.000000Z"));
        assert_eq!(steps[5], ("+1 h", "/?x=y&at=2027-01-15T09%3A00%3A00.000000Z"));
        assert!(header.speeds.iter().all(|(speed, url)| url.ends_with(&format!("&play={speed}"))));
    }

    #[test]
    fn only_pages_without_history_say_that_they_show_the_present() {
        for page in &PAGES {
            let header = Historical::of(page, &past(&[], None)).unwrap();
            assert_eq!(header.is_present, page.reach == Reach::Present, "{}", page.name);
        }
    }

    #[tokio::test]
    async fn what_did_not_change_keeps_its_version_and_its_bytes() {
        let (view, _open) = view().await;
        let fragments = Fragments::default();
        let same = Params::default();
        let get = |freshness| fragments.get(&view, page("queues"), &same, freshness);
        let first = get(Freshness::Now).await.unwrap();
        let again = get(Freshness::Now).await.unwrap();
        assert_eq!((&again.version, again.html.as_ptr()), (&first.version, first.html.as_ptr()), "not even copied");
        view.board.write().unwrap().queues.0.clear();
        let kept = get(Freshness::Within(Duration::from_secs(3_600))).await.unwrap();
        assert_eq!(kept.version, first.version, "fresh enough");
        let changed = get(Freshness::Now).await.unwrap();
        assert_ne!(changed.version, first.version);
    }

    #[tokio::test]
    async fn a_title_alone_makes_another_version() {
        let (view, _open) = view().await;
        let fragments = Fragments::default();
        let first = fragments.get(&view, page("failures"), &Params::default(), Freshness::Now).await.unwrap();
        let again = fragments.get(&view, page("failures"), &Params::default(), Freshness::Now).await.unwrap();
        assert_eq!((&first.title, first.position), (&again.title, view.board.read().unwrap().position));
        let html = String::from_utf8(first.html.to_vec()).unwrap();
        assert!(html.contains(&format!("version={}", first.version)), "the next poll says what it has");
    }
}
