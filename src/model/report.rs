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

    /// Its size in units of 4 KiB, rounded up.
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
