//! Fingerprints of failures: the task type and the error without its variable parts.

use super::Name;

/// Maximum length of the pattern, characters.
const LONGEST: usize = 160;
/// Characters of a line that are read for it: numbers and quotes in it become shorter.
const READ: usize = 10 * LONGEST;
/// A number after these words identifies the error; other numbers are considered variable.
const NAMES_AN_ERROR: [&str; 7] = ["http", "status", "code", "errno", "error", "exit", "signal"];
/// Placeholder for a number or an ID.
const ANY: char = '#';

/// The first line of an error with numbers, ids and quoted text replaced by `#`.
#[must_use]
pub fn pattern(error: &str) -> String {
    let line = error.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no error given");
    let line = first(line, READ);
    let mut shown = String::new();
    let mut last_word = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            // Within a word it is an apostrophe.
            '\'' if shown.ends_with(char::is_alphanumeric) => 1,
            '"' | '\'' | '`' => quoted(rest, first),
            c if c.is_alphanumeric() => word(rest),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '"' | '\'' | '`' if length > 1 => shown.push(ANY),
            c if c.is_alphanumeric() => {
                shown.push_str(&if differs(token, &last_word) { ANY.to_string() } else { token.to_owned() });
                last_word = token.to_lowercase();
            }
            _ => shown.push_str(token),
        }
        rest = after;
    }
    first(&shown, LONGEST).to_owned()
}

/// The first characters of a text.
fn first(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// Length of a quoted text including quotes; 1 if the quote is not closed or is an apostrophe.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(1, |end| end + 2)
}

/// Length of a word: letters and digits, and the characters that join the parts of IDs.
fn word(text: &str) -> usize {
    let joins = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ':' || c == '.';
    let whole = text.find(|c| !joins(c)).unwrap_or(text.len());
    text[..whole].trim_end_matches(['-', ':', '.', '_']).len()
}

/// Whether the word is a number or an ID: it would make similar errors look different.
fn differs(word: &str, before: &str) -> bool {
    if !word.contains(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let code = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() <= 12
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-' || c == '_');
    // E1234, ORA-00942, HTTP 503: these identify the error.
    !(code || letters == 0 && NAMES_AN_ERROR.contains(&before))
}

/// FNV-1a, 64 bits: stable across versions and machines.
#[must_use]
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Sixteen hex digits: equal for failures of one task type whose errors have the same [`pattern`].
#[must_use]
pub fn fingerprint(task_type: &Name, error: Option<&str>) -> Name {
    let pattern = pattern(error.unwrap_or_default());
    let hash = hash(task_type.as_str().bytes().chain([0]).chain(pattern.bytes()));
    Name::new(&format!("{hash:016x}")).expect("hex digits are a name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_differs_by_accident_is_left_out() {
        for (error, expected) in [
            ("timeout after 3012 ms", "timeout after # ms"),
            ("user 'bob' not found\nat line 3", "user # not found"),
            ("no route to 10.0.0.7:5432", "no route to #"),
            ("task 0190b6a2-3f5e-7a10-8c11-2d5f0c3b9a77 is gone", "task # is gone"),
            ("HTTP 503 from upstream", "HTTP 503 from upstream"),
            ("exit code 137", "exit code 137"),
            ("ORA-00942: table or view does not exist", "ORA-00942: table or view does not exist"),
            ("can't open it", "can't open it"),
            ("can't open 'bob' of the user's", "can't open # of the user's"),
            ("", "no error given"),
        ] {
            assert_eq!(pattern(error), expected);
        }
        assert_eq!(pattern(&"ä".repeat(9_000)).chars().count(), LONGEST);
    }

    #[test]
    fn like_failures_have_one_fingerprint() {
        let mail = Name::literal("mail");
        let of = |error| fingerprint(&mail, Some(error));
        assert_eq!(of("timeout after 3 ms"), of("timeout after 3012 ms"));
        let long = |ms: u32| format!("timeout after {ms} ms {}", "while reading ".repeat(100));
        assert_eq!(pattern(&long(3)), pattern(&long(3_012)));
        assert_ne!(of("HTTP 503"), of("HTTP 404"));
        assert_ne!(of("x"), fingerprint(&Name::literal("sms"), Some("x")));
        assert_eq!(fingerprint(&mail, None), of("no error given"));
    }

    #[test]
    fn only_the_first_line_that_says_something_counts() {
        assert_eq!(pattern("\n  \n\tdisk full \nat line 7"), "disk full");
        assert_eq!(pattern(" \n\t\n"), "no error given");
    }

    #[test]
    fn numbers_that_name_an_error_stay() {
        for (error, right) in [
            ("status 503 after 3 tries", "status 503 after # tries"),
            ("Error 42", "Error 42"),
            ("errno 2 in /tmp/x17", "errno 2 in /tmp/#"),
            ("signal 9", "signal 9"),
            ("E1234 at 0x7fff", "E1234 at #"),
            ("ABCDEFGHIJKL1 failed", "# failed"),
            ("took 3.5s", "took #"),
            ("id=17, name=\"x\"", "id=#, name=#"),
            ("unclosed \"quote 17", "unclosed \"quote #"),
            ("''", "#"),
        ] {
            assert_eq!(pattern(error), right, "{error}");
        }
    }

    #[test]
    fn a_fingerprint_does_not_change_between_versions() {
        assert_eq!(hash([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(*b"a"), 0xaf63_dc4c_8601_ec8c, "FNV-1a");
        assert_eq!(fingerprint(&Name::literal("mail"), Some("timeout")).as_str(), "fbf93a7b64de923d");
    }

    proptest! {
        #[test]
        fn any_error_has_a_short_pattern_that_is_its_own(error in "\\PC{0,120}|[a-z0-9'\"` .:#-]{0,120}") {
            let found = pattern(&error);
            prop_assert!(!found.is_empty() && found.chars().count() <= LONGEST && !found.contains('\n'));
            let number = |n: u32| pattern(&format!("attempt {n} of {} {error}", n + 1));
            prop_assert_eq!(number(1), number(999));
        }
    }
}
