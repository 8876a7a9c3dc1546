//! Parameters of a page: the ID or name in its path, filters and time in its query.

use std::str::FromStr;

use chrono::{Datelike, TimeDelta};
use uuid::Uuid;

use super::{problem::Problem, query, state::AppState};
use crate::{
    clock::Time,
    event::{
        Filter,
        envelope::rfc3339,
        filter::{self, PROJECT},
    },
    feed::time_travel::Moment,
    model::{Name, Timestamp},
    page::{self, Filters, Page, Params},
};

/// Parameters of every page that control refreshing.
const REFRESH_PARAMETERS: [&str; 5] = ["fragment", "version", "live", "refresh", "played"];
/// Parameters of every page for time travel.
const TIME_PARAMETERS: [&str; 2] = ["at", "play"];
/// Maximum step of a replay between two polls, milliseconds.
const LONGEST_STEP_MS: i64 = 10_000;

/// Parses the parameters of a page.
pub(super) async fn params(
    state: &AppState,
    page: &Page,
    id: Option<&str>,
    pairs: &[(String, String)],
) -> Result<Params, Problem> {
    let (id, name) = object(page, id)?;
    refuse_repeated(page, pairs)?;
    let played: Option<i64> = value(pairs, "played").and_then(|text| text.parse().ok());
    // A shared link may contain unknown parameters such as utm_source.
    let is_known = |name: &str| TIME_PARAMETERS.contains(&name) || page.takes(name);
    let named = pairs.iter().map(|(name, value)| (filter::full_name(name), value.clone()));
    let mut pairs: Vec<_> = named.filter(|(name, value)| is_known(name) && !value.is_empty()).collect();
    if page.filters == Filters::Tasks {
        pairs = with_typed(pairs);
    }
    let play = value(&pairs, "play").map(speed).transpose()?;
    if let (Some(speed), Some(played)) = (play, played) {
        pass(&mut pairs, speed, state.clock.now().timestamp_millis().saturating_sub(played));
    }
    let at = match value(&pairs, "at") {
        Some(text) => moment(state, text).await?,
        None => None,
    };
    let play = play.filter(|_| at.is_some());
    if at.is_none() {
        // The replay has reached the present.
        pairs.retain(|(name, _)| !TIME_PARAMETERS.contains(&name.as_str()));
    }
    for (name, check) in page.own {
        if let Some(value) = value(&pairs, name) {
            check(value).map_err(|detail| Problem::invalid_filter(*name, detail))?;
        }
    }
    let filters: Vec<_> = pairs.iter().filter(|(name, _)| !TIME_PARAMETERS.contains(&name.as_str())).cloned().collect();
    let own: Vec<_> = page.own.iter().map(|(name, _)| *name).collect();
    let mut params = Params { id, name, at, play, ..Params::default() };
    params.filter = match page.filters {
        Filters::None => {
            let project = filters.iter().filter(|(name, _)| name == PROJECT).cloned().collect::<Vec<_>>();
            Filter::from_query(&project, &[])?
        }
        Filters::Tasks => {
            params.tasks = query::tasks(&filters)?;
            Filter::from_query(&filters, &page::LIST_PARAMETERS)?
        }
        Filters::Events => Filter::from_query(&filters, &own)?.of_events()?,
    };
    params.pairs = pairs;
    Ok(params)
}

/// The ID or the name in the path.
fn object(page: &Page, text: Option<&str>) -> Result<(Option<Uuid>, Option<Name>), Problem> {
    match text {
        None => Ok((None, None)),
        Some(text) if page.path.contains("{name}") => match Name::new(text) {
            Ok(name) => Ok((None, Some(name))),
            Err(error) => Err(Problem::not_found(format!("Invalid name in the URL: {error}."))),
        },
        Some(text) => match Uuid::from_str(text) {
            Ok(id) => Ok((Some(id), None)),
            Err(_) => Err(Problem::not_found("Invalid ID in the URL: expected a UUID.")),
        },
    }
}

/// Parameters that are no filters have one value.
fn refuse_repeated(page: &Page, pairs: &[(String, String)]) -> Result<(), Problem> {
    let own = page.own.iter().map(|(own, _)| *own);
    let single: Vec<_> = REFRESH_PARAMETERS.into_iter().chain(TIME_PARAMETERS).chain(own).collect();
    let is_repeated = |at: usize, name: &str| pairs[..at].iter().any(|(before, _)| before == name);
    let mut given = pairs.iter().enumerate().filter(|(_, (name, _))| single.contains(&name.as_str()));
    match given.find(|(at, (name, _))| is_repeated(*at, name)) {
        Some((_, (name, _))) => Err(Problem::invalid_filter(name, "given more than once")),
        None => Ok(()),
    }
}

/// Filters that were typed into the search box become filters, before the text that is left.
fn with_typed(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, value) in pairs {
        if name != "q" {
            all.push((name, value));
            continue;
        }
        let (filters, rest) = filter::typed(&value);
        all.extend(filters);
        all.extend((!rest.is_empty()).then_some((name, rest)));
    }
    all
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Advances a replay at its speed by the time since the last poll, up to a maximum.
fn pass(pairs: &mut [(String, String)], speed: u32, elapsed_ms: i64) {
    let shown = pairs.iter_mut().find(|(name, _)| name == "at");
    if let Some((at, text)) = shown.and_then(|(_, text)| Some((time(text)?, text))) {
        let passed = elapsed_ms.clamp(0, LONGEST_STEP_MS) * i64::from(speed);
        // Beyond year 9999 it is in the future anyway: keep it unchanged.
        let at = at.checked_add_signed(TimeDelta::milliseconds(passed)).filter(|at| at.year() <= 9_999);
        *text = at.map_or(text.clone(), rfc3339);
    }
}

fn speed(text: &str) -> Result<u32, Problem> {
    let parsed = text.parse().ok().filter(|speed| (1..=3_600).contains(speed));
    parsed.ok_or_else(|| Problem::invalid_filter("play", "must be a replay speed between 1 and 3600"))
}

/// Parses a log position or a time; `None` if that is the present.
async fn moment(state: &AppState, text: &str) -> Result<Option<Moment>, Problem> {
    let head = state.subscriptions.head();
    if let Ok(position) = text.parse::<i64>() {
        if position >= head {
            return Ok(None);
        }
        let known = state.time_travel.at_position(position).await?;
        let oldest = state.subscriptions.oldest();
        return known.map(Some).ok_or_else(|| {
            Problem::invalid_filter("at", format!("log position out of range; the oldest is {oldest}"))
        });
    }
    let time = time(text).ok_or_else(|| Problem::invalid_filter("at", "must be an RFC 3339 time or a log position"))?;
    if time >= state.clock.now() {
        return Ok(None);
    }
    let moment = state.time_travel.at_time(time).await?;
    if moment.position < state.subscriptions.oldest() {
        return Err(Problem::invalid_filter("at", "is before the oldest event that the log holds"));
    }
    Ok(Some(moment))
}

/// RFC 3339; without a zone it is taken as UTC.
fn time(text: &str) -> Option<Time> {
    Timestamp::parse_utc(text).ok().map(Timestamp::get)
}
