//! Number of tasks by status.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use super::moved;
use crate::{event::Event, model::Status};

/// Number of tasks by status. As JSON an object with every status.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCounts([u64; Status::ALL.len()]);

impl fmt::Debug for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}

impl StatusCounts {
    /// Number of tasks with a status.
    #[must_use]
    pub const fn get(&self, status: Status) -> u64 {
        self.0[status as usize]
    }

    /// More tasks with a status.
    pub const fn add(&mut self, status: Status, count: u64) {
        self.0[status as usize] += count;
    }

    /// One task less with a status; never below zero.
    pub const fn remove_one(&mut self, status: Status) {
        let count = &mut self.0[status as usize];
        *count = count.saturating_sub(1);
    }

    /// Counts the status change of an event.
    pub(super) fn apply(&mut self, event: &Event) {
        let Some((from, to)) = moved(event) else { return };
        if let Some(from) = from {
            self.remove_one(from);
        }
        if let Some(to) = to {
            self.add(to, 1);
        }
    }

    /// Adds the counts of others.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Whether there are no tasks.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }

    /// Every status with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Status, u64)> {
        Status::ALL.into_iter().map(|status| (status, self.get(status)))
    }
}

impl Serialize for StatusCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (status, count) in self.iter() {
            map.serialize_entry(&status, &count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for StatusCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<Status, u64>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl FromIterator<(Status, u64)> for StatusCounts {
    fn from_iter<T: IntoIterator<Item = (Status, u64)>>(counted: T) -> Self {
        let mut counts = Self::default();
        counted.into_iter().for_each(|(status, count)| counts.add(status, count));
        counts
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_place_of_its_own() {
        for (place, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, place, "{status}");
        }
    }

    #[test]
    fn json_has_every_status_and_survives() {
        let counts: StatusCounts = [(Status::Failed, 2), (Status::Failed, 1)].into_iter().collect();
        let json = serde_json::to_value(counts).unwrap();
        assert_eq!((json["failed"].as_u64(), json["pending"].as_u64()), (Some(3), Some(0)));
        assert_eq!(json.as_object().unwrap().len(), Status::ALL.len());
        assert_eq!(serde_json::from_value::<StatusCounts>(json).unwrap(), counts);
        assert_eq!(serde_json::from_str::<StatusCounts>(r#"{"failed":3}"#).unwrap(), counts);
    }

    #[test]
    fn counts_never_fall_below_zero() {
        let mut counts = StatusCounts::default();
        counts.remove_one(Status::Running);
        assert!(counts.is_zero());
    }
}
