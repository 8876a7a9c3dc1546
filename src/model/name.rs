//! Short identifiers chosen by users: projects, queues, task types, phases, machines, connectors.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A non-empty text of at most [`MAX_NAME_BYTES`] bytes without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("must be at most {MAX_NAME_BYTES} bytes long")]
    TooLong,
    /// A control character (NUL, line feed, escape …).
    #[error("must not contain control characters")]
    Control,
    /// A new name with leading or trailing white space.
    #[error("must not start or end with white space")]
    OuterSpace,
    /// A new name that is `.` or `..`, which cannot be used in a URL.
    #[error("must not be . or ..")]
    Dots,
}

/// A name for a new object: a [`Name`] that is recognisable on a page and usable in a URL. Existing names only have to
/// be a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewName(pub Name);

impl NewName {
    /// Validates a text.
    ///
    /// # Errors
    /// [`BadName`] as [`Name::new`], and for leading or trailing white space, `.` and `..`.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let name = Name::new(text)?;
        if text.trim() != text {
            return Err(BadName::OuterSpace);
        }
        if text == "." || text == ".." {
            return Err(BadName::Dots);
        }
        Ok(Self(name))
    }

    /// Unwraps the names of a list.
    #[must_use]
    pub fn all(names: Vec<Self>) -> Vec<Name> {
        names.into_iter().map(|name| name.0).collect()
    }
}

impl From<NewName> for Name {
    fn from(name: NewName) -> Self {
        name.0
    }
}

impl<'de> Deserialize<'de> for NewName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Name::deserialize(deserializer)?;
        Self::new(name.as_str()).map_err(de::Error::custom)
    }
}

impl Name {
    /// Validates a text.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long or contains control characters.
    pub fn new(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(BadName::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadName::Control);
        }
        Ok(Self(text.into()))
    }

    /// A name from a literal in the source.
    ///
    /// # Panics
    /// If the literal is not a valid name.
    #[must_use]
    pub fn literal(text: &'static str) -> Self {
        Self::new(text).expect("a literal in the source is a valid name")
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl utoipa::PartialSchema for Name {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_NAME_BYTES))
            .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$"))
            .description(Some("A name: 1 to 128 bytes of UTF-8 without control characters."))
            .into()
    }
}

impl utoipa::ToSchema for Name {}

impl utoipa::PartialSchema for NewName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Name::schema()
    }
}

impl utoipa::ToSchema for NewName {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_refuse_what_breaks_a_line() {
        assert_eq!(Name::new(""), Err(BadName::Empty));
        assert_eq!(Name::new("a\nb"), Err(BadName::Control));
        assert_eq!(Name::new("a\0"), Err(BadName::Control));
        assert_eq!(Name::new(&"x".repeat(129)), Err(BadName::TooLong));
        assert!(Name::new("größe/7").is_ok());
    }

    #[test]
    fn new_names_refuse_what_no_url_or_eye_can_tell_apart() {
        for text in [" a", "a ", " ", "\u{a0}", "a\u{2003}", "\u{3000}a"] {
            assert_eq!(NewName::new(text), Err(BadName::OuterSpace), "{text:?}");
            assert!(Name::new(text).is_ok(), "{text:?}");
        }
        assert_eq!(NewName::new("."), Err(BadName::Dots));
        assert_eq!(NewName::new(".."), Err(BadName::Dots));
        for text in ["...", ".a", "a b", "a,b", "größe/7"] {
            assert!(NewName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn the_length_of_a_name_is_counted_in_bytes() {
        assert!(Name::new(&"x".repeat(128)).is_ok());
        assert!(Name::new(&"ä".repeat(64)).is_ok());
        assert_eq!(Name::new(&"ä".repeat(65)), Err(BadName::TooLong));
        assert_eq!(NewName::new(&format!(" {}", "x".repeat(128))), Err(BadName::TooLong));
    }

    #[test]
    fn control_characters_of_any_kind_are_refused() {
        for control in ['\0', '\t', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9f}'] {
            assert_eq!(Name::new(&format!("a{control}b")), Err(BadName::Control), "{control:?}");
        }
        for shown in ["\u{a0}", "a\u{200b}b", "\u{fffd}", "😀"] {
            assert!(Name::new(shown).is_ok(), "{shown:?}");
        }
    }

    #[test]
    fn names_in_json_are_texts_that_are_names() {
        let read = |json: &str| serde_json::from_str::<Name>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#""a\u00e4""#), Ok(Name::literal("aä")));
        assert!(read(r#""a\n""#).is_err_and(|error| error.starts_with("must not contain control characters")));
        assert!(read("7").is_err_and(|error| error.contains("expected a text")));
        let new = |json: &str| serde_json::from_str::<NewName>(json).map_err(|error| error.to_string());
        assert!(new(r#"" a""#).is_err_and(|error| error.starts_with("must not start or end with white space")));
        assert!(new(r#""..""#).is_err_and(|error| error.starts_with("must not be . or ..")));
    }

    proptest! {
        #[test]
        fn every_name_survives_json(text in "\\PC{1,40}") {
            let Ok(name) = Name::new(&text) else { return Ok(()) };
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name.clone());
            prop_assert!(NewName::new(&text).is_err() || text.trim() == text);
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
