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
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("must be at most {MAX_NAME_BYTES} bytes long")]
    TooLong,
    /// A control character (NUL, line feed, escape …).
    #[error("must not contain control characters")]
    Control,
}

impl Name {
    /// Checks a text and makes it a name.
    ///
    /// # Errors
    /// [`BadName`] when it is empty, too long or holds control characters.
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

    /// A name that stands in the source.
    ///
    /// # Panics
    /// When the literal is not a name.
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
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_breaks_a_line() {
        assert_eq!(Name::new(""), Err(BadName::Empty));
        assert_eq!(Name::new("a\nb"), Err(BadName::Control));
        assert_eq!(Name::new("a\0"), Err(BadName::Control));
        assert_eq!(Name::new(&"x".repeat(129)), Err(BadName::TooLong));
        assert!(Name::new("größe/7").is_ok());
    }
}
