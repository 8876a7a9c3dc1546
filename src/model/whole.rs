//! Integers as written in JSON: `3.0` is one (Lua, PHP and R write it so).

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A non-negative integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub u64);

/// Larger floats are not exact integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                u64::try_from(number).map(Whole).map_err(|_| E::custom("must not be negative"))
            }

            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within bounds")]
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
                let is_whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
                is_whole.then_some(Whole(number as u64)).ok_or_else(|| E::custom("must be an integer"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// For `#[serde(deserialize_with = "…")]`.
///
/// # Errors
/// The value is not an integer or too large for the type.
pub fn number<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Whole(number) = Whole::deserialize(deserializer)?;
    T::try_from(number).map_err(|_| de::Error::custom("is too large"))
}

/// The same for a field that may be absent or `null`; with `#[serde(default)]`.
///
/// # Errors
/// As [`number`].
pub fn optional<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let number = Option::<Whole>::deserialize(deserializer)?;
    number.map(|Whole(number)| T::try_from(number).map_err(|_| de::Error::custom("is too large"))).transpose()
}

/// Distinguishes `null` from an absent field; with `#[serde(default)]`.
///
/// # Errors
/// As [`number`].
pub fn present<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    optional(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Fields {
        #[serde(deserialize_with = "number")]
        a: u32,
        #[serde(default, deserialize_with = "optional")]
        b: Option<u32>,
        #[serde(default, deserialize_with = "present")]
        c: Option<Option<u32>>,
    }

    #[test]
    fn floats_without_fraction_are_whole_numbers() {
        let read = |text: &str| serde_json::from_str::<Fields>(text).ok();
        assert_eq!(read(r#"{"a":3.0}"#), Some(Fields { a: 3, b: None, c: None }));
        assert_eq!(read(r#"{"a":3,"b":4.0,"c":null}"#), Some(Fields { a: 3, b: Some(4), c: Some(None) }));
        for bad in
            [r#"{"a":3.5}"#, r#"{"a":-1}"#, r#"{"a":4294967296}"#, r#"{"a":"3"}"#, r#"{"a":1e300}"#, r#"{"b":1}"#]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_is_whole_as_long_as_it_is_exact() {
        let read =
            |json: &str| serde_json::from_str::<Whole>(json).map(|Whole(number)| number).map_err(|e| e.to_string());
        for (json, number) in
            [("0", 0), ("-0", 0), ("0.0", 0), ("18446744073709551615", u64::MAX), ("9007199254740992.0", 1 << 53)]
        {
            assert_eq!(read(json), Ok(number), "{json}");
        }
        for (json, why) in [
            ("-1", "must not be negative"),
            ("-9223372036854775808", "must not be negative"),
            ("18446744073709551616", "must be an integer"),
            ("0.5", "must be an integer"),
            ("-1.0", "must be an integer"),
            ("9007199254740994.0", "must be an integer"),
            ("\"1\"", "expected a whole number"),
            ("null", "expected a whole number"),
        ] {
            assert!(read(json).is_err_and(|error| error.contains(why)), "{json}: {:?}", read(json));
        }
    }

    #[test]
    fn a_number_that_is_too_large_for_its_field_is_refused() {
        let error = serde_json::from_str::<Fields>(r#"{"a":4294967296}"#).expect_err("too large").to_string();
        assert!(error.starts_with("is too large"), "{error}");
        assert!(serde_json::from_str::<Fields>(r#"{"a":4294967295,"b":4294967296}"#).is_err());
        let absent = serde_json::from_str::<Fields>(r#"{"a":1,"b":null,"c":4294967295.0}"#).ok();
        assert_eq!(absent, Some(Fields { a: 1, b: None, c: Some(Some(u32::MAX)) }));
    }
}
