//! Parameters of a stream request, from headers and query.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderMap, HeaderName, header};

use crate::{
    clock::Time,
    event::{
        EventId, Filter,
        frame::{Form, Format, Wire},
    },
    http::{codes::ErrorCode, problem::Problem, state::AppState},
    model::{Timestamp, timestamp::BadTimestamp},
};

/// Parameters that are not filters.
pub const PARAMETERS: [&str; 14] = [
    "last_event_id",
    "lastEventId",
    "after",
    "snapshot",
    "on_gap",
    "heartbeat",
    "max_events",
    "names",
    "format",
    "from",
    "until",
    "speed",
    "poll",
    "wait",
];
/// Maximum long poll timeout, seconds: below the usual timeout of proxies (60 s).
const LONGEST_WAIT: u64 = 55;
/// Maximum number of events in one response of a long poll.
pub(super) const POLLED: u64 = 1_000;

/// Requested start of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    Absent,
    Now,
    Earliest,
    At(EventId),
    Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshot {
    Auto,
    Always,
    Never,
}

/// One end of a replay range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Position(i64),
    Id(EventId),
    Time(Time),
}

/// A replay of a part of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Replay {
    pub(super) from: Option<Moment>,
    pub(super) until: Option<Moment>,
    /// Multiple of the original speed; `None`: as fast as possible.
    pub(super) speed: Option<f64>,
}

/// All parameters of a stream request.
#[derive(Debug, Clone)]
pub(super) struct StreamRequest {
    pub(super) filter: Filter,
    pub(super) form: Form,
    pub(super) gzip: bool,
    pub(super) cursor: Cursor,
    /// The cursor as given, sanitised for display.
    pub(super) requested: Option<String>,
    pub(super) snapshot: Snapshot,
    pub(super) gap_is_error: bool,
    pub(super) heartbeat: Duration,
    pub(super) max_events: Option<u64>,
    pub(super) replay: Replay,
    /// Long poll timeout, if it is a long poll.
    pub(super) wait: Option<Duration>,
}

struct Query<'a>(&'a [(String, String)]);

impl Query<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Parses one of several values.
    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, Problem> {
        let Some(value) = self.value(name) else { return Ok(words[0].1) };
        words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Problem::invalid_parameter(name, format!("must be one of {}", words.join(", ")))
        })
    }

    fn number<T: FromStr>(
        &self,
        name: &str,
        detail: &'static str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.parse().ok().filter(fits).map(Some).ok_or_else(|| Problem::invalid_parameter(name, detail))
    }

    fn moment(&self, name: &str) -> Result<Option<Moment>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let id = || value.parse().ok().map(Moment::Id);
        let position = value.parse().ok().filter(|position| *position >= 1).map(Moment::Position);
        if let Some(moment) = position.or_else(id) {
            return Ok(Some(moment));
        }
        match value.parse::<Timestamp>() {
            Ok(time) => Ok(Some(Moment::Time(time.get()))),
            Err(BadTimestamp::Malformed) => {
                Err(Problem::invalid_parameter(name, "must be a position, an event ID or an RFC 3339 time"))
            }
            Err(error) => Err(Problem::invalid_parameter(name, error.to_string())),
        }
    }
}

impl StreamRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// 400 that names the parameter, or 406.
    pub(super) fn read(state: &AppState, headers: &HeaderMap, pairs: &[(String, String)]) -> Result<Self, Problem> {
        let filter = Filter::from_query(pairs, &PARAMETERS)?.of_events()?;
        if let Some((name, _)) = pairs
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| PARAMETERS.contains(&name.as_str()))
            .find(|(n, (name, _))| pairs[..*n].iter().any(|(known, _)| known == name))
            .map(|(_, pair)| pair)
        {
            return Err(Problem::invalid_parameter(name, "given more than once"));
        }
        let query = Query(pairs);
        let header =
            headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?")).filter(|value| !value.is_empty());
        let requested =
            header.or_else(|| ["last_event_id", "lastEventId", "after"].into_iter().find_map(|n| query.value(n)));
        let cursor = match requested {
            None => Cursor::Absent,
            Some("now") => Cursor::Now,
            Some("earliest") => Cursor::Earliest,
            Some(text) => text.parse().map_or(Cursor::Malformed, Cursor::At),
        };
        let polls = query.word("poll", &[("0", false), ("1", true)])?;
        let waits = query.number("wait", "must be between 0 and 55 seconds", |n| *n <= LONGEST_WAIT)?;
        if waits.is_some() && !polls {
            return Err(Problem::invalid_parameter("wait", "requires poll=1"));
        }
        let names = query.word("names", &[("1", true), ("0", false)])?;
        let format = query.word("format", &[("native", Format::Native), ("cloudevents", Format::CloudEvents)])?;
        let wire = if polls { Wire::Lines } else { wire(headers, names)? };
        let heartbeat = query.number("heartbeat", "must be between 5 and 60 seconds", |n| (5..=60).contains(n))?;
        let max_events = query.number("max_events", "must be an integer of at least 1", |n| *n > 0)?;
        let replay = replay(&query)?;
        let endless = max_events.is_none() && replay.until.is_none() && !polls;
        Ok(Self {
            filter,
            form: Form { wire, format },
            gzip: endless && state.settings.stream_compression && takes_gzip(headers),
            cursor,
            requested: requested.map(|text| text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()),
            snapshot: query.word(
                "snapshot",
                &[
                    ("auto", Snapshot::Auto),
                    ("always", Snapshot::Always),
                    ("true", Snapshot::Always),
                    ("never", Snapshot::Never),
                    ("false", Snapshot::Never),
                ],
            )?,
            gap_is_error: query.word("on_gap", &[("reset", false), ("error", true)])?
                || (wire == Wire::Lines && !polls),
            heartbeat: Duration::from_secs(heartbeat.unwrap_or(state.settings.stream_heartbeat_seconds).into()),
            max_events,
            replay,
            wait: polls.then(|| Duration::from_secs(waits.unwrap_or(25))),
        })
    }
}

fn replay(query: &Query<'_>) -> Result<Replay, Problem> {
    let speed = match query.value("speed") {
        None | Some("max") => None,
        Some(_) => {
            query.number("speed", "must be \"max\" or between 0.1 and 10000", |n| (0.1..=10_000.0).contains(n))?
        }
    };
    let replay = Replay { from: query.moment("from")?, until: query.moment("until")?, speed };
    if replay.from.is_none() && replay != Replay::default() {
        let field = if replay.until.is_some() { "until" } else { "speed" };
        return Err(Problem::invalid_parameter(field, "requires from"));
    }
    Ok(replay)
}

/// Frames or lines: the first supported media type in `Accept`.
fn wire(headers: &HeaderMap, names: bool) -> Result<Wire, Problem> {
    let events = if names { Wire::Named } else { Wire::Unnamed };
    let asked: Vec<_> = items(headers, header::ACCEPT).collect();
    if asked.is_empty() {
        return Ok(events);
    }
    let known = asked.iter().find_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
        "text/event-stream" | "text/*" | "*/*" => Some(events),
        "application/x-ndjson" | "application/ndjson" | "application/*" => Some(Wire::Lines),
        _ => None,
    });
    known.ok_or_else(|| {
        Problem::new(ErrorCode::NotAcceptable, "not acceptable; supported: text/event-stream, application/x-ndjson")
    })
}

/// Clients that accept gzip but do not decode it: `sseclient` 0.0.27 reads below the decoder of `requests`, which asks
/// for gzip by default.
const DO_NOT_DECODE: [&str; 1] = ["python-requests/"];

/// Whether the client accepts gzip and has not set `no-transform`.
pub(in crate::http) fn takes_gzip(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if DO_NOT_DECODE.iter().any(|name| agent.starts_with(name)) {
        return false;
    }
    let forbidden = items(headers, header::CACHE_CONTROL).any(|item| item.eq_ignore_ascii_case("no-transform"));
    let takes = items(headers, header::ACCEPT_ENCODING).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        name.eq_ignore_ascii_case("gzip") && !refused
    });
    takes && !forbidden
}

/// The items of a list header.
fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn field<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        let problem = result.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidParameter);
        problem.errors[0].field.clone()
    }

    #[test]
    fn a_word_is_one_of_those_that_are_supported() {
        let words = [("auto", 1), ("never", 2)];
        let read = |value: &str| Query(&pairs(&[("snapshot", value)])).word("snapshot", &words);
        assert_eq!([read("auto").unwrap(), read("never").unwrap(), read("").unwrap()], [1, 2, 1]);
        for wrong in ["Auto", "auto ", "1"] {
            let problem = read(wrong).unwrap_err();
            assert_eq!(problem.detail, "snapshot: must be one of auto, never", "{wrong}");
        }
    }

    #[test]
    fn a_number_fits_or_is_named() {
        let read =
            |value: &str| Query(&pairs(&[("wait", value)])).number("wait", "0 to 55", |n: &u64| *n <= LONGEST_WAIT);
        assert_eq!([read("0").unwrap(), read("55").unwrap(), read("").unwrap()], [Some(0), Some(55), None]);
        for wrong in ["56", "-1", "5.5", " 5", "5s", "18446744073709551616"] {
            assert_eq!(field(read(wrong)), "wait", "{wrong}");
        }
    }

    #[test]
    fn an_end_of_a_replay_is_a_position_an_event_or_a_time() {
        let read = |value: &str| Query(&pairs(&[("from", value)])).moment("from");
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("1").unwrap(), Some(Moment::Position(1)));
        assert_eq!(read("9223372036854775807").unwrap(), Some(Moment::Position(i64::MAX)));
        let id: EventId = "5c1f09ae-184".parse().unwrap();
        assert_eq!(read("5c1f09ae-184").unwrap(), Some(Moment::Id(id)));
        let time = Time::from_timestamp(1_763_654_700, 0).unwrap();
        for text in ["2025-11-20T16:05:00Z", "2025-11-20T17:05:00+01:00", "2025-11-20T17:05:00 01:00"] {
            assert_eq!(read(text).unwrap(), Some(Moment::Time(time)), "{text}");
        }
        for wrong in ["0", "-1", "9223372036854775808", "now", "5c1f09ae", "5C1F09AE-184"] {
            let problem = read(wrong).unwrap_err();
            assert!(problem.detail.starts_with("from: must be a position, an event ID"), "{wrong}: {}", problem.detail);
        }
        assert!(read("2025-11-20T16:05:00").unwrap_err().detail.contains("has no time zone"));
        assert!(read("12025-11-20T16:05:00Z").unwrap_err().detail.contains("between year 1 and 9999"));
    }

    #[test]
    fn a_replay_begins_somewhere() {
        let read = |given: &[(&str, &str)]| replay(&Query(&pairs(given)));
        assert_eq!(read(&[]).unwrap(), Replay::default());
        let full = Replay { from: Some(Moment::Position(5)), until: Some(Moment::Position(3)), speed: Some(0.1) };
        assert_eq!(read(&[("from", "5"), ("until", "3"), ("speed", "0.1")]).unwrap(), full);
        assert_eq!(read(&[("from", "5"), ("speed", "max")]).unwrap().speed, None);
        assert_eq!(read(&[("speed", "max")]).unwrap(), Replay::default(), "that is the default");
        assert_eq!(field(read(&[("until", "3")])), "until");
        assert_eq!(field(read(&[("speed", "2")])), "speed");
        for wrong in ["0", "0.09", "10000.1", "-1", "NaN", "inf", "fast"] {
            assert_eq!(field(read(&[("from", "5"), ("speed", wrong)])), "speed", "{wrong}");
        }
    }

    #[test]
    fn the_first_media_type_that_is_known_is_used() {
        let read = |accept: &[&str]| {
            let headers = headers(&accept.iter().map(|value| ("accept", *value)).collect::<Vec<_>>());
            wire(&headers, true).map_err(|problem| problem.code)
        };
        for (accept, right) in [
            ("text/event-stream", Wire::Named),
            ("*/*", Wire::Named),
            ("text/*;q=0.5", Wire::Named),
            ("application/x-ndjson", Wire::Lines),
            ("application/ndjson", Wire::Lines),
            ("application/*", Wire::Lines),
            ("text/html, application/x-ndjson;q=0.1, text/event-stream", Wire::Lines),
            ("", Wire::Named),
            (" , ", Wire::Named),
        ] {
            assert_eq!(read(&[accept]), Ok(right), "{accept}");
        }
        assert_eq!(read(&["text/html", "application/ndjson"]), Ok(Wire::Lines), "headers may be repeated");
        for other in ["text/html", "application/json", "text/html, image/*"] {
            assert_eq!(read(&[other]), Err(ErrorCode::NotAcceptable), "{other}");
        }
        assert_eq!(wire(&HeaderMap::new(), false).unwrap(), Wire::Unnamed);
    }

    #[test]
    fn gzip_is_for_clients_that_ask_for_it_and_decode_it() {
        for (given, right) in [
            (vec![("accept-encoding", "gzip")], true),
            (vec![("accept-encoding", "br, GZIP;q=0.5")], true),
            (vec![("accept-encoding", "br"), ("accept-encoding", "gzip")], true),
            (vec![], false),
            (vec![("accept-encoding", "identity")], false),
            (vec![("accept-encoding", "x-gzip")], false),
            (vec![("accept-encoding", "gzip;q=0")], false),
            (vec![("accept-encoding", "gzip; q=0.000")], false),
            (vec![("accept-encoding", "gzip"), ("cache-control", "no-cache, No-Transform")], false),
            (vec![("accept-encoding", "gzip"), ("user-agent", "python-requests/2.32")], false),
            (vec![("accept-encoding", "gzip"), ("user-agent", "not python-requests/2.32")], true),
        ] {
            assert_eq!(takes_gzip(&headers(&given)), right, "{given:?}");
        }
    }

    #[test]
    fn no_parameter_of_a_stream_is_a_filter_too() {
        let both: Vec<_> = PARAMETERS.iter().filter(|name| crate::event::filter::is_known(name)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
