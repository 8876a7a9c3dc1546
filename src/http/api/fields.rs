//! Self-validating field types.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use serde::{Deserialize, Deserializer, de};

use crate::model::{Name, NewName, whole::Whole};

/// 1 to 100.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Whole")]
pub(super) struct Attempts(pub(super) u32);

impl TryFrom<Whole> for Attempts {
    type Error = &'static str;
    fn try_from(Whole(number): Whole) -> Result<Self, Self::Error> {
        u32::try_from(number)
            .ok()
            .filter(|number| (1..=100).contains(number))
            .map(Self)
            .ok_or("must be an integer between 1 and 100")
    }
}

/// 1 to 604800.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Whole")]
pub(super) struct Seconds(pub(super) u32);

impl TryFrom<Whole> for Seconds {
    type Error = &'static str;
    fn try_from(Whole(number): Whole) -> Result<Self, Self::Error> {
        u32::try_from(number)
            .ok()
            .filter(|number| (1..=604_800).contains(number))
            .map(Self)
            .ok_or("must be an integer between 1 and 604800")
    }
}

/// At most 32 labels with values of at most 256 bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Unique<NewName, String>")]
pub(super) struct Labels(pub(super) BTreeMap<Name, String>);

impl TryFrom<Unique<NewName, String>> for Labels {
    type Error = &'static str;
    fn try_from(labels: Unique<NewName, String>) -> Result<Self, Self::Error> {
        let labels: BTreeMap<Name, String> = labels.0.into_iter().map(|(key, value)| (key.0, value)).collect();
        let bytes: usize = labels.iter().map(|(key, value)| key.as_str().len() + value.len()).sum();
        let plain = labels.values().all(|value| value.len() <= 256 && !value.chars().any(char::is_control));
        let fits = labels.len() <= 32 && bytes <= 2_048 && plain;
        let right =
            "must be at most 32 labels, 2048 bytes together, values of at most 256 bytes without control characters";
        fits.then_some(Self(labels)).ok_or(right)
    }
}

/// At most 32 different names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<NewName>")]
pub(super) struct Phases(pub(super) Vec<Name>);

impl TryFrom<Vec<NewName>> for Phases {
    type Error = &'static str;
    fn try_from(phases: Vec<NewName>) -> Result<Self, Self::Error> {
        let phases = NewName::all(phases);
        let distinct: BTreeSet<_> = phases.iter().collect();
        let bytes: usize = phases.iter().map(|name| name.as_str().len()).sum();
        let fits = phases.len() <= 32 && bytes <= 1_024 && distinct.len() == phases.len();
        fits.then_some(Self(phases)).ok_or("must be at most 32 different names, 1024 bytes together")
    }
}

/// 0 to 604800 seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "Whole")]
pub(super) struct Wait(pub(super) u32);

impl TryFrom<Whole> for Wait {
    type Error = &'static str;
    fn try_from(Whole(number): Whole) -> Result<Self, Self::Error> {
        u32::try_from(number)
            .ok()
            .filter(|number| *number <= 604_800)
            .map(Self)
            .ok_or("must be an integer between 0 and 604800")
    }
}

/// At most 32 distinct names of people.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<NewName>")]
pub(super) struct People(pub(super) Vec<String>);

impl TryFrom<Vec<NewName>> for People {
    type Error = &'static str;
    fn try_from(names: Vec<NewName>) -> Result<Self, Self::Error> {
        let names = NewName::all(names);
        let distinct: BTreeSet<_> = names.iter().collect();
        let fits = names.len() <= 32 && distinct.len() == names.len();
        let people = names.iter().map(ToString::to_string).collect();
        fits.then_some(Self(people)).ok_or("must be at most 32 different names")
    }
}

/// An object without duplicate keys: otherwise one of two values would be dropped silently.
#[derive(Debug, Clone)]
pub(super) struct Unique<K, V>(pub(super) BTreeMap<K, V>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Unique<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> de::Visitor<'de> for Visitor<K, V> {
            type Value = BTreeMap<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<BTreeMap<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry()? {
                    if map.insert(key, value).is_some() {
                        return Err(de::Error::custom("given more than once"));
                    }
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData)).map(Self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn read<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn object(entries: impl IntoIterator<Item = (String, String)>) -> String {
        serde_json::to_string(&entries.into_iter().collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn list(names: impl IntoIterator<Item = String>) -> String {
        serde_json::to_string(&names.into_iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn numbers_have_the_bounds_that_their_errors_name() {
        for json in ["0", "101", "4294967297", "18446744073709551615"] {
            assert!(
                read::<Attempts>(json).is_err_and(|error| error.contains("an integer between 1 and 100")),
                "{json}"
            );
        }
        for json in ["0", "604801", "4294967297"] {
            assert!(read::<Seconds>(json).is_err_and(|error| error.contains("between 1 and 604800")), "{json}");
        }
        assert!(read::<Wait>("604801").is_err_and(|error| error.contains("between 0 and 604800")));
        assert_eq!(read::<Wait>("0").map(|wait| wait.0), Ok(0));
        assert_eq!(read::<Attempts>("100.0").map(|attempts| attempts.0), Ok(100));
        assert!(read::<Attempts>("1.5").is_err() && read::<Attempts>("-1").is_err());
    }

    #[test]
    fn labels_are_few_short_and_plain() {
        let labels = |count: usize, value: usize| object((0..count).map(|n| (format!("k{n:02}"), "v".repeat(value))));
        assert_eq!(read::<Labels>(&labels(32, 61)).map(|labels| labels.0.len()), Ok(32), "2,048 bytes in all");
        let long = object([("k".to_owned(), "v".repeat(256))]);
        assert!(read::<Labels>(&long).is_ok());
        let longer = object([("k".to_owned(), "v".repeat(257))]);
        let control = object([("k".to_owned(), "a\nb".to_owned())]);
        let wide = object([("k".to_owned(), "ä".repeat(129))]);
        for json in [labels(33, 0), labels(32, 62), longer, control, wide] {
            assert!(read::<Labels>(&json).is_err_and(|error| error.contains("at most 32 labels")), "{json}");
        }
        assert!(read::<Labels>(r#"{"k":1}"#).is_err() && read::<Labels>(r#"{" k":""}"#).is_err());
    }

    #[test]
    fn a_key_given_twice_is_refused_not_dropped() {
        for json in [r#"{"k":"a","k":"b"}"#, r#"{"k":"a","k":"a"}"#, r#"{"k":"a","\u006b":"a"}"#] {
            assert!(read::<Labels>(json).is_err_and(|error| error.contains("given more than once")), "{json}");
        }
        assert!(read::<Unique<String, u8>>(r#"{"k":1,"K":1}"#).is_ok());
        assert!(read::<Unique<String, u8>>(r#"[["k",1]]"#).is_err_and(|error| error.contains("expected an object")));
    }

    #[test]
    fn phases_and_people_are_lists_of_different_names() {
        let names = |count: usize, bytes: usize| list((0..count).map(|n| format!("{n:02}{}", "x".repeat(bytes - 2))));
        assert_eq!(read::<Phases>(&names(32, 32)).map(|phases| phases.0.len()), Ok(32), "1,024 bytes in all");
        for json in [names(33, 2), names(32, 33), r#"["a","b","a"]"#.to_owned()] {
            assert!(read::<Phases>(&json).is_err_and(|error| error.contains("at most 32 different names")), "{json}");
        }
        assert!(read::<People>(&names(32, 128)).is_ok(), "people have no bound together");
        assert!(read::<People>(&names(33, 2)).is_err() && read::<People>(r#"["ann","ann"]"#).is_err());
        assert_eq!(read::<People>(r#"["b","a"]"#).map(|people| people.0), Ok(vec!["b".to_owned(), "a".to_owned()]));
        assert!(read::<Phases>(r#"["a",""]"#).is_err() && read::<People>("[\"a\\u0007\"]").is_err());
    }
}
