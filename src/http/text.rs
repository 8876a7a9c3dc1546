//! Text and arbitrary JSON in bodies: validation of what can be stored.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Error},
};
use serde_json::value::RawValue;

use crate::model::report::Json;

/// Maximum nesting depth of arbitrary JSON.
const MAX_DEPTH: usize = 64;

/// A text of at most `MAX` bytes without NUL (which Postgres cannot store).
#[derive(Debug, Clone)]
pub struct Text<const MAX: usize>(pub String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('\0') {
            return Err(D::Error::custom("must not contain NUL"));
        }
        if text.len() > MAX {
            return Err(D::Error::custom(format!("must be at most {MAX} bytes long")));
        }
        Ok(Self(text))
    }
}

/// A text of at most `MAX` bytes that is repaired instead of rejected, because the message that contains it must not be
/// lost: the error of a failure, or a progress message. NUL and unpaired surrogates become U+FFFD, and text that is too
/// long is truncated and ends with `…`.
#[derive(Debug, Clone)]
pub struct Mended<const MAX: usize>(pub String);

impl<'de, const MAX: usize> Deserialize<'de> for Mended<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<String, E> {
                Ok(whole(text))
            }
        }
        // As bytes, because serde_json rejects unpaired surrogates (a text cut within an emoji) in a string.
        let text = deserializer.deserialize_bytes(Visitor)?;
        Ok(Self(mend(text, MAX)))
    }
}

/// Decodes a text, with U+FFFD for each run of invalid bytes.
fn whole(text: &[u8]) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut broken = false;
    for chunk in text.utf8_chunks() {
        mended.push_str(chunk.valid());
        broken &= chunk.valid().is_empty();
        if !chunk.invalid().is_empty() {
            if !broken {
                mended.push(char::REPLACEMENT_CHARACTER);
            }
            broken = true;
        }
    }
    mended
}

/// A text without NUL, cut to at most so many bytes, with an ellipsis then: what a person wrote of a failure is kept.
pub fn mend(text: String, most: usize) -> String {
    let mut text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// Arbitrary JSON, unchanged.
#[derive(Debug, Clone)]
pub struct Free(pub Json);

impl<'de> Deserialize<'de> for Free {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        check_free(raw.get()).map_err(D::Error::custom)?;
        Ok(Self(Json::new(raw)))
    }
}

/// Limits the depth and rejects invalid characters, in text known to be valid JSON.
fn check_free(json: &str) -> Result<(), String> {
    let bytes = json.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = check_string(bytes, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("nesting exceeds {MAX_DEPTH} levels"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// End of the string that starts here. Its escapes must be valid characters: not NUL, and no unpaired surrogate.
fn check_string(bytes: &[u8], mut at: usize) -> Result<usize, String> {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => break,
            b'\\' => match unit(bytes, at) {
                Some(0) => return Err("must not contain NUL".to_owned()),
                Some(first @ 0xd800..=0xdfff) => {
                    let pair = first < 0xdc00 && unit(bytes, at + 6).is_some_and(|n| (0xdc00..=0xdfff).contains(&n));
                    if !pair {
                        return Err(format!(
                            "must not contain half a character (\\u{first:04x}): was a text cut within an emoji?"
                        ));
                    }
                    at += 12;
                }
                Some(_) => at += 6,
                None => at += 2,
            },
            _ => at += 1,
        }
    }
    Ok(at)
}

/// The code unit in an escape `\uXXXX`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_character_is_found_and_its_look_alike_is_not() {
        assert!(check_free(r#"{"a":"\u0000"}"#).is_err());
        assert!(check_free(r#"{"a":"\\u0000"}"#).is_ok());
        assert!(check_free(r#"{"a":"\\\u0000"}"#).is_err());
        assert!(check_free(&"[".repeat(65)).is_err());
        assert!(check_free(r#"{"a":"[[[[\"[["}"#).is_ok());
        for half in
            [r"\ud83d", r"\uDE00", r"\ud83dx", r"\ud83d\n", r"\ud83d\u0041", r"\ud83d\ud83d\ude00", r"\ude00\ud83d"]
        {
            assert!(check_free(&format!("[\"{half}\"]")).is_err(), "{half}");
            assert!(check_free(&format!("{{\"{half}\":1}}")).is_err(), "{half}");
        }
        for right in [r"\ud83d\ude00", r"\uD83D\uDE00\ud83d\ude00", r"\\ud83d", r"\u00e9\ufffd"] {
            assert!(check_free(&format!("[\"{right}\"]")).is_ok(), "{right}");
        }
    }

    #[test]
    fn a_text_that_cannot_be_kept_is_mended() {
        let read = |json: &str| serde_json::from_str::<Mended<10>>(json).map(|text| text.0);
        assert_eq!(read(r#""a\u0000b""#).unwrap(), "a\u{fffd}b");
        assert_eq!(read(r#""cut \ud83d""#).unwrap(), "cut \u{fffd}");
        assert_eq!(read(r#""\ud83d\ude00""#).unwrap(), "😀");
        assert_eq!(read("\"0123456789\"").unwrap(), "0123456789");
        assert_eq!(read("\"0123456789a\"").unwrap(), "0123456…");
        assert_eq!(read("\"012345äää\"").unwrap(), "012345…");
        assert!(read("7").is_err() && read("[1]").is_err() && read("null").is_err());
    }

    proptest! {
        #[test]
        fn a_mended_text_fits(text in "\\PC{0,300}|[\\x00-\\x20a😀]{0,300}") {
            let mended = mend(text.clone(), 64);
            prop_assert!(mended.len() <= 64 && !mended.contains('\0'));
            if text.len() <= 64 && !text.contains('\0') {
                prop_assert_eq!(mended, text);
            }
        }

        /// Accepted text can be parsed by serde_json, which rejects unpaired surrogates in strings.
        #[test]
        fn what_passes_is_made_of_characters(text in "(\\\\u(d83d|de00|DBFF|dc00|0041|0000)|[a\\[]|\\\\\\\\|\\\\\"){0,12}") {
            let json = format!("\"{text}\"");
            let read = serde_json::from_str::<String>(&json);
            prop_assert_eq!(check_free(&json).is_ok(), read.is_ok_and(|read| !read.contains('\0')), "{}", json);
        }
    }

    #[test]
    fn a_text_that_must_not_change_is_refused_instead() {
        let read =
            |json: &str| serde_json::from_str::<Text<10>>(json).map(|text| text.0).map_err(|error| error.to_string());
        assert_eq!(read(r#""0123456789""#), Ok("0123456789".to_owned()));
        assert_eq!(
            read(r#""\u00e4äääää""#).unwrap_err().split(" at line").next(),
            Some("must be at most 10 bytes long")
        );
        assert!(read("\"äääää\"").is_ok(), "the bound is in bytes");
        assert!(read(r#""a\u0000""#).is_err_and(|error| error.starts_with("must not contain NUL")));
        assert!(read(r#""\ud83d""#).is_err() && read("7").is_err());
        assert_eq!(read(r#""\ta""#), Ok("\ta".to_owned()), "lines and tabs are text");
    }

    #[test]
    fn free_json_has_sixty_four_levels() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let read = |json: &str| serde_json::from_str::<Free>(json).map(|free| free.0.as_str().to_owned());
        assert_eq!(read(&nested(MAX_DEPTH)).unwrap(), nested(MAX_DEPTH));
        assert!(read(&nested(MAX_DEPTH + 1)).unwrap_err().to_string().starts_with("nesting exceeds 64 levels"));
        let wide = format!("[{}]", vec![nested(MAX_DEPTH - 1); 3].join(","));
        assert!(read(&wide).is_ok(), "side by side is not deep");
        assert!(read(r#"{"]":"}"}"#).is_ok());
    }
}
