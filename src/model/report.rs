//! Reports of workers, and JSON that is kept verbatim.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::whole;

/// JSON text kept byte for byte. Cheap to clone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Wraps a raw value.
    #[must_use]
    pub fn new(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Its size in units of 4 KiB, rounded down.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.as_str().len() / 4_096
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fencing token of a report: valid only for this attempt by this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The reporting worker.
    pub worker_id: Uuid,
    /// The attempt number from its claim.
    pub attempt: u32,
}

/// Work units counted by a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkCounts {
    /// Units completed.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
    /// Units failed.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Units remaining.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
}

/// Progress of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Progress in percent, 0–100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// One-line message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Progress in work units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<WorkCounts>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn json_is_kept_as_it_was_written() {
        for text in [r#"{"a": 1.0, "a" : 1e400}"#, "[1,\n2]", r#""\u00e4""#, "null", "-0"] {
            let kept = json(text);
            assert_eq!(kept.as_str(), text);
            assert_eq!(serde_json::to_string(&kept).unwrap(), text);
        }
        assert_ne!(json("1.0"), json("1"), "only the same text is the same");
    }

    #[test]
    fn json_weighs_by_whole_pages() {
        let of_length = |length: usize| json(&format!("\"{}\"", "x".repeat(length - 2))).pages();
        assert_eq!([2, 4_095, 4_096, 8_191, 8_192].map(of_length), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn counts_of_work_are_whole_and_known() {
        let read = |text: &str| serde_json::from_str::<WorkCounts>(text).ok();
        let right = WorkCounts { completed: Some(3), failed: None, pending: Some(u64::MAX) };
        assert_eq!(read(r#"{"completed":3.0,"pending":18446744073709551615,"failed":null}"#), Some(right));
        assert_eq!(read("{}"), Some(WorkCounts::default()));
        for text in
            [r#"{"completed":-1}"#, r#"{"completed":0.5}"#, r#"{"done":1}"#, r#"{"failed":18446744073709551616}"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn progress_is_stored_without_what_was_not_said() {
        assert_eq!(serde_json::to_string(&Progress::default()).unwrap(), "{}");
        let progress =
            Progress { percent: Some(0.0), message: Some(String::new()), counts: Some(WorkCounts::default()) };
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(text, r#"{"percent":0.0,"message":"","counts":{}}"#);
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
    }
}
