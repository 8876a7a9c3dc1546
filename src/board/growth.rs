//! Whether a backlog grows.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// The backlog at the end of the last minutes, to see whether it grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Growth(VecDeque<(i64, u64)>);

impl Growth {
    /// Number of minutes in a row in which a backlog must have grown.
    const MINUTES: usize = 5;
    /// Least growth over these minutes, tasks.
    const LEAST: u64 = 20;

    pub(super) fn note(&mut self, ts: Time, waiting: u64) {
        let minute = ts.timestamp().div_euclid(60);
        match self.0.back_mut() {
            // Clocks of several servers may differ slightly: a late event counts for the newest minute.
            Some((last, kept)) if *last >= minute => *kept = waiting,
            _ => self.0.push_back((minute, waiting)),
        }
        if self.0.len() > Self::MINUTES + 1 {
            self.0.pop_front();
        }
    }

    /// Since when the backlog has grown in each minute; `None` if it has not.
    #[must_use]
    pub fn since(&self, now: Time) -> Option<Time> {
        let ((first, least), (last, most)) = (self.0.front()?, self.0.back()?);
        let in_a_row = last - first == i64::try_from(Self::MINUTES).ok()?;
        let is_recent = now.timestamp().div_euclid(60) - last <= 1;
        let rises = self.0.iter().zip(self.0.iter().skip(1)).all(|(before, after)| before.1 < after.1);
        let enough = *most >= least + Self::LEAST.max(least / 10);
        (in_a_row && is_recent && rises && enough).then(|| Time::from_timestamp((first + 1) * 60, 0))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::samples::at;

    #[test]
    fn a_backlog_grows_if_it_rises_in_five_minutes_in_a_row() {
        let after = |backlog: &[u64]| {
            let mut growth = Growth::default();
            (0..).zip(backlog).for_each(|(minute, waiting)| growth.note(at(minute * 60), *waiting));
            growth.since(at(60 * (backlog.len() as i64 - 1) + 30))
        };
        assert_eq!(after(&[0, 10, 20, 30, 40, 50]), Some(at(60)));
        assert_eq!(after(&[9, 0, 10, 20, 30, 40, 50]), Some(at(120)));
        for not in [
            &[0, 10, 20, 30, 40][..],
            &[0, 10, 20, 20, 40, 50],
            &[0, 1, 2, 3, 4, 19],
            &[1_000, 1_001, 1_002, 1_003, 1_004, 1_099],
        ] {
            assert_eq!(after(not), None, "{not:?}");
        }
        let mut growth = Growth::default();
        [0, 1, 2, 3, 5, 6].iter().for_each(|minute| growth.note(at(minute * 60), *minute as u64 * 50));
        assert_eq!(growth.since(at(370)), None, "a minute without an event is one without growth");
        assert_eq!(growth.since(at(9_000)), None, "long ago");
    }
}
