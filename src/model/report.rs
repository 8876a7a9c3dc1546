//! What workers report, and JSON that is kept as it came.

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
    /// Keeps a raw value.
    #[must_use]
    pub fn new(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// How many pages of 4 KiB it takes.
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

/// The fence of every report: it counts only for this attempt by this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Who reports.
    pub worker_id: Uuid,
    /// The attempt its claim named.
    pub attempt: u32,
}

/// Work counted by a worker, in units of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkCounts {
    /// Units done.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
    /// Units given up.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Units left.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0–100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Work in units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<WorkCounts>,
}
