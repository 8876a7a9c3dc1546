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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_zero_to_nine() {
        assert_eq!(Priority::new(0).map(Priority::get), Some(0));
        assert_eq!(Priority::new(9).map(Priority::get), Some(9));
        for number in [-1, 10, 256, 265, i64::MIN, i64::MAX] {
            assert_eq!(Priority::new(number), None, "{number}");
        }
    }

    #[test]
    fn bands_change_at_four_and_seven() {
        let bands: Vec<_> = (0..=9).filter_map(Priority::new).map(Priority::band).collect();
        let right = [[Band::Low; 4].as_slice(), &[Band::Normal; 3], &[Band::High; 3]].concat();
        assert_eq!(bands, right);
        assert!(right.is_sorted_by(|low, high| low >= high), "the highest band is sorted first");
    }

    #[test]
    fn a_priority_is_read_as_a_whole_number_in_range() {
        let read =
            |json: &str| serde_json::from_str::<Priority>(json).map(Priority::get).map_err(|error| error.to_string());
        assert_eq!((read("0"), read("9"), read("7.0"), read("-0.0")), (Ok(0), Ok(9), Ok(7), Ok(0)));
        for json in ["10", "-1", "18446744073709551615", "4.5", "1e300", "9.0000001"] {
            assert!(read(json).is_err_and(|error| error.starts_with("must be an integer between 0 and 9")), "{json}");
        }
        for json in ["\"5\"", "null", "true", "[5]"] {
            assert!(read(json).is_err_and(|error| error.contains("a whole number from 0 to 9")), "{json}");
        }
    }
}
