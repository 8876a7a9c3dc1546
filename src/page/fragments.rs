//! Fragments: a page's changing part, rendered once and shared by polls and live streams (law 6).

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

use super::{Page, PageError, Params, Reach, View, carry::carry, format};
use crate::{clock::Time, event::envelope::rfc3339, feed, store::writing::Failing};

/// Pages say that reports are refused once that has lasted for so long.
const NOT_WRITING: Duration = Duration::from_secs(2);
/// Fragments kept; the oldest go first.
const KEEP: usize = 500;
/// Their bytes in all.
const KEEP_BYTES: usize = 64 * 1024 * 1024;

/// A rendered fragment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Changes with the content, and only then.
    pub version: String,
    /// Its title.
    pub title: Arc<str>,
    /// Position of the log that it shows.
    pub position: i64,
    /// Its bytes.
    pub html: Bytes,
}

/// How new a fragment must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Rendered for this request.
    Now,
    /// Rendered at most this long ago.
    Within(Duration),
}

pub(super) type Key = (&'static str, String);
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Fragment)>>>;

/// All fragments. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fragments {
    slots: Arc<Mutex<Slots>>,
}

/// What is kept, by page and query.
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
    /// The slot of a fragment, which is used now.
    fn slot(&mut self, key: &Key) -> Slot {
        let new = || Kept { used: Instant::now(), bytes: 0, slot: Slot::default() };
        let kept = self.kept.entry(key.clone()).or_insert_with(new);
        kept.used = Instant::now();
        let slot = kept.slot.clone();
        self.fit(KEEP, KEEP_BYTES);
        slot
    }

    /// Takes note of how large a fragment has become.
    fn weigh(&mut self, key: &Key, slot: &Slot, bytes: usize) {
        let kept = self.kept.get_mut(key).filter(|kept| Arc::ptr_eq(&kept.slot, slot));
        if let Some(kept) = kept {
            self.bytes = self.bytes - kept.bytes + bytes;
            kept.bytes = bytes;
        }
        self.fit(KEEP, KEEP_BYTES);
    }

    /// Removes the oldest until the rest is no more than it may be.
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
    past: Option<Past>,
    /// Reports are refused, since when and why.
    not_writing: Option<Failing>,
    content: &'a str,
}

/// What a page says that looks at the past.
struct Past {
    position: i64,
    time: Time,
    /// The page knows the present only.
    is_present: bool,
    /// How fast time passes; 0 when it stands still.
    play: u32,
    /// Its own address.
    url: String,
    now_url: String,
    stop_url: String,
    /// Steps in time: words and addresses.
    steps: Vec<(&'static str, String)>,
    /// Speeds and addresses.
    speeds: Vec<(u32, String)>,
}

/// How fast the past can be played.
const SPEEDS: [u32; 3] = [1, 10, 60];

const STEPS: [(&str, i64); 6] =
    [("−1 h", -3_600), ("−10 min", -600), ("−1 min", -60), ("+1 min", 60), ("+10 min", 600), ("+1 h", 3_600)];

impl Past {
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
    /// A fragment that is new enough. Whoever comes while it is being rendered waits for that one.
    ///
    /// # Errors
    /// When the page cannot be shown.
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
        // What was begun after this was asked for is new enough, whoever began it.
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
    let id = params.id.map(|id| id.to_string()).unwrap_or_default();
    (page.name, format!("{id}?{}", format::query(&params.pairs)))
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
    // The past goes on while it is played, whether something happened or not.
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
        past: Past::of(page, params),
        not_writing,
        content: &match params.own("at") {
            Some(at) => Cow::Owned(carry(&content.html, at)),
            None => Cow::Borrowed(content.html.as_str()),
        },
    };
    Ok(Fragment { html: wrapped.render()?.into(), version, title: content.title.into(), position })
}

/// Where the next poll goes. While the past is played it tells what was shown and when, so that the past passes as fast
/// as is said, however often it is asked for.
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
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_number_and_by_bytes() {
        let mut slots = Slots::default();
        let mut put = |name: usize, bytes: usize| {
            let key = ("tasks", name.to_string());
            let slot = slots.slot(&key);
            slots.weigh(&key, &slot, bytes);
            (slots.kept.len(), slots.bytes)
        };
        for name in 0..KEEP {
            put(name, 100);
        }
        assert_eq!(put(KEEP, 100), (KEEP, KEEP * 100), "the oldest went");
        assert_eq!(put(KEEP, 300), (KEEP, KEEP * 100 + 200), "the same grew");
        assert_eq!(put(0, KEEP_BYTES - 250), (1, KEEP_BYTES - 250), "all others went for one that is large");
        assert_eq!(put(1, KEEP_BYTES + 1), (0, 0), "one that is too large is not kept at all");
    }
}
