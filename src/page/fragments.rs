//! Fragments: a page's changing part, rendered once and shared by polls and live streams (law 6).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use askama::Template;
use bytes::Bytes;
use tokio::sync::watch;

use super::{LIVE_EVERY, Page, PageError, Params, View, format};
use crate::{
    event::{envelope::rfc3339, frame},
    feed,
};

/// Fragments kept; the oldest go first.
const KEEP: usize = 500;
/// A live page is looked at this often even when nothing happens: rates and states fade with time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A rendered fragment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Changes with the content, and only then.
    pub version: String,
    /// Its title.
    pub title: Arc<str>,
    /// Position of the log that it shows.
    pub position: i64,
    /// Its bytes, as a poll gets them.
    pub html: Bytes,
    /// The same as a message of a live stream.
    pub frame: Bytes,
}

/// How new a fragment must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Rendered for this request.
    Now,
    /// Rendered at most this long ago.
    Within(Duration),
}

type Key = (&'static str, String);
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Fragment)>>>;

/// All fragments, and the renderers of live pages. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fragments {
    slots: Arc<Mutex<HashMap<Key, (Instant, Slot)>>>,
    live: Arc<Mutex<HashMap<Key, watch::Receiver<Fragment>>>>,
}

#[derive(Template)]
#[template(path = "fragment.html")]
struct Wrapped<'a> {
    refresh_url: String,
    title: &'a str,
    position: i64,
    at: String,
    content: &'a str,
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
        let slot = self.slot(key(page, params));
        let mut slot = slot.lock().await;
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
        Ok(fragment)
    }

    /// Follows a page. All its viewers share one renderer, which ends with the last of them.
    ///
    /// # Errors
    /// When the page cannot be shown.
    pub async fn follow(
        &self,
        view: &View,
        page: &'static Page,
        params: &Params,
    ) -> Result<watch::Receiver<Fragment>, PageError> {
        let key = key(page, params);
        // Rendered before the lock is taken: a slow page must not keep other pages waiting.
        let first = self.get(view, page, params, Freshness::Within(LIVE_EVERY)).await?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fragments) = live.get(&key).filter(|fragments| fragments.has_changed().is_ok()) {
            return Ok(fragments.clone());
        }
        let (sender, fragments) = watch::channel(first);
        live.retain(|_, fragments| fragments.has_changed().is_ok());
        // The map's own receiver is not a viewer; the renderer counts one more than there are.
        live.insert(key, fragments.clone());
        tokio::spawn(keep_rendering(self.clone(), view.clone(), page, params.clone(), sender));
        Ok(fragments)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= KEEP && !slots.contains_key(&key) {
            let oldest = slots.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| slots.remove(&key));
        }
        let entry = slots.entry(key).or_insert_with(|| (Instant::now(), Slot::default()));
        entry.0 = Instant::now();
        entry.1.clone()
    }
}

fn key(page: &Page, params: &Params) -> Key {
    let id = params.id.map(|id| id.to_string()).unwrap_or_default();
    (page.name, format!("{id}?{}", format::query(&params.pairs)))
}

async fn render(
    view: &View,
    page: &'static Page,
    params: &Params,
    last: Option<&Fragment>,
) -> Result<Fragment, PageError> {
    let (position, now) = (feed::read(&view.board).position, view.clock.now());
    let content = (page.render)(view, params).await?;
    let mut hasher = DefaultHasher::new();
    (&content.title, &content.html).hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    if let Some(last) = last.filter(|last| last.version == version) {
        return Ok(Fragment { position, ..last.clone() });
    }
    let mut query = params.pairs.clone();
    query.push(("fragment".to_owned(), "1".to_owned()));
    query.push(("version".to_owned(), version.clone()));
    let refresh_url = format!("{}?{}", page.address(params), format::query(&query));
    let wrapped =
        Wrapped { refresh_url, title: &content.title, position, at: rfc3339(now), content: &content.html }.render()?;
    let partial = format!("<hx-partial hx-target=\"#page\" hx-swap=\"innerMorph\">{wrapped}</hx-partial>");
    let frame = frame::html(&partial);
    Ok(Fragment { version, title: content.title.into(), position, html: wrapped.into(), frame })
}

/// Renders at once after quiet, then at most every [`LIVE_EVERY`], as long as someone looks.
async fn keep_rendering(
    fragments: Fragments,
    view: View,
    page: &'static Page,
    params: Params,
    sender: watch::Sender<Fragment>,
) {
    let mut feed = view.subscriptions.follow(view.subscriptions.head(), crate::event::Filter::default());
    let mut look_again = tokio::time::Instant::now() + LOOK_AGAIN;
    // One receiver is the map's.
    while sender.receiver_count() > 1 {
        let concerned = tokio::select! {
            next = feed.next() => match next {
                Ok(next) => next.events.iter().any(|published| (page.concerned)(&params, &published.event)),
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
        match fragments.get(&view, page, &params, Freshness::Now).await {
            Ok(fragment) => {
                sender.send_if_modified(|last| {
                    let changed = last.version != fragment.version;
                    *last = fragment;
                    changed
                });
            }
            Err(PageError::NotFound(_)) => return,
            Err(error) => {
                tracing::warn!(page = page.name, %error, "a live page could not be rendered; it is tried again")
            }
        }
        look_again = tokio::time::Instant::now() + LOOK_AGAIN;
        tokio::time::sleep(LIVE_EVERY).await;
    }
}
