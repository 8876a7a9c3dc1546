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
