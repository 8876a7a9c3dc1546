//! Priorities and their bands.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// 0 (lowest) to 9 (highest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Priority(u8);

/// The three bands of priorities shown on pages and in counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// 7–9.
    High,
    /// 4–6.
    Normal,
    /// 0–3.
    Low,
}

impl Priority {
    /// The highest priority.
    pub const MAX: u8 = 9;

    /// Converts a number; `None` unless it is 0–9.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| *n <= Self::MAX).map(Self)
    }

    /// The number, 0–9.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its band.
    #[must_use]
    pub const fn band(self) -> Band {
        match self.0 {
            0..=3 => Band::Low,
            4..=6 => Band::Normal,
            _ => Band::High,
        }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Priority;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 9")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Priority, E> {
                Priority::new(number).ok_or_else(|| E::custom("must be an integer between 0 and 9"))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Priority, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Priority, E> {
                let whole = (0..=i64::from(Priority::MAX)).find(|whole| *whole as f64 == number);
                self.visit_i64(whole.unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
