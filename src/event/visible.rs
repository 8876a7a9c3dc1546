//! Characters that are invisible, or that change how others are displayed.

use std::borrow::Cow;

/// Control characters, characters that change the writing direction, and zero-width ones (Unicode's default-ignorable
/// code points: joiners, marks, fillers, tags, variation selectors).
#[must_use]
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Text with hidden characters shown as code points, as in `\u{202e}`. Line feeds, tabs and the components of an emoji
/// are kept.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// The same for one line of a terminal or a table: line feeds and tabs are shown as well.
#[must_use]
pub fn visible_line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_hidden(c) || stays(c) || is_part_of_emoji(before, c, chars.peek().copied()) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
        before = Some(c);
    }
    Cow::Owned(shown)
}

/// The emoji variation selector, and the joiner between two emoji.
fn is_part_of_emoji(before: Option<char>, c: char, after: Option<char>) -> bool {
    let emoji = |c: Option<char>| c.is_some_and(|c| matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}'));
    match c {
        '\u{fe0f}' => emoji(before) || after == Some('\u{20e3}'),
        '\u{200d}' => (emoji(before) || before == Some('\u{fe0f}')) && emoji(after),
        _ => false,
    }
}

/// JSON with hidden characters escaped; they can only occur within strings, so the meaning is unchanged.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) && !c.is_ascii_whitespace() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{1b}[31m\u{202e}b\u{9b}"), "a\\u{1b}[31m\\u{202e}b\\u{9b}");
        for c in
            ['\u{200b}', '\u{200f}', '\u{61c}', '\u{2066}', '\u{feff}', '\u{e0041}', '\u{ad}', '\u{3164}', '\u{fe01}']
        {
            assert_eq!(visible(&format!("x{c}y")), format!("x{}y", c.escape_unicode()));
        }
        assert_eq!(visible("a\n\tb"), "a\n\tb");
        assert_eq!(visible_line("a\n\tb"), "a\\u{a}\\u{9}b");
        assert_eq!(visible("größe 東京 עברית ▶"), "größe 東京 עברית ▶");
    }

    #[test]
    fn emojis_stay_whole_and_hide_nothing() {
        for emoji in ["👩\u{200d}💻", "❤\u{fe0f}\u{200d}🔥", "1\u{fe0f}\u{20e3}", "☎\u{fe0f}"] {
            assert_eq!(visible(emoji), emoji);
        }
        assert_eq!(visible("a\u{200d}👩"), "a\\u{200d}👩");
        assert_eq!(visible("a\u{fe0f}b"), "a\\u{fe0f}b");
        assert_eq!(visible("👩\u{200d}\u{200d}👩"), "👩\\u{200d}\\u{200d}👩");
    }

    proptest! {
        #[test]
        fn json_means_the_same(text in "(\\PC|[\\x00-\\x1f\u{9b}\u{202e}\u{e0041}\u{200b}\"\\\\]){0,20}") {
            let json = serde_json::to_string(&text).unwrap();
            let shown = visible_json(&json);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn every_control_character_is_hidden_and_no_letter_is() {
        assert!((0..=0x9f_u8).map(char::from).all(|c| is_hidden(c) == c.is_control()));
        for c in "aZ09 äß€東あקم\u{a0}\u{2003}▶👩".chars() {
            assert!(!is_hidden(c), "{c}");
        }
    }

    #[test]
    fn ranges_of_hidden_characters_end_where_they_should() {
        for (first, last) in [
            ('\u{200b}', '\u{200f}'),
            ('\u{2028}', '\u{202e}'),
            ('\u{2060}', '\u{206f}'),
            ('\u{fe00}', '\u{fe0f}'),
            ('\u{e0000}', '\u{e0fff}'),
        ] {
            let beside = [u32::from(first) - 1, u32::from(last) + 1].map(char::from_u32);
            assert!(is_hidden(first) && is_hidden(last), "{}", first.escape_unicode());
            assert!(beside.into_iter().flatten().all(|c| !is_hidden(c)), "{}", first.escape_unicode());
        }
    }

    #[test]
    fn text_without_hidden_characters_is_not_copied() {
        for text in ["", "größe", "👩", "a b"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
            assert!(matches!(visible_line(text), Cow::Borrowed(_)), "{text}");
            assert!(matches!(visible_json(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn json_keeps_its_line_breaks_and_shows_what_is_beyond_the_first_plane() {
        assert_eq!(
            visible_json("{\n\t\"a\": \"\u{e0041}\u{202e}\"\r\n}"),
            "{\n\t\"a\": \"\\udb40\\udc41\\u202e\"\r\n}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Nothing that an eye cannot see is left, but line feeds, tabs and the joints of emoji.
        #[test]
        fn nothing_hidden_is_left(text in "(\\PC|[\\x00-\\x1f\u{9b}\u{202e}\u{e0041}\u{200b}\u{200d}\u{fe0f}👩☎1\u{20e3}]){0,20}") {
            let shown = visible(&text);
            let left = |c: char| is_hidden(c) && !matches!(c, '\n' | '\t' | '\u{200d}' | '\u{fe0f}');
            prop_assert!(!shown.chars().any(left), "{}", shown.escape_unicode());
            prop_assert_eq!(&visible(&shown), &shown, "what is shown is shown as it is");
            let line = visible_line(&text);
            let breaks = line.contains(['\n', '\t', '\r']);
            prop_assert!(!breaks);
        }

        /// Characters that can be seen stay, in their order.
        #[test]
        fn nothing_visible_is_lost(text in "(\\PC|[\\x00-\\x1f\u{202e}\u{200b}]){0,20}") {
            let mut shown = visible(&text).into_owned();
            for c in text.chars().filter(|c| is_hidden(*c)) {
                shown = shown.replacen(&c.escape_unicode().to_string(), &c.to_string(), 1);
            }
            let seen = |text: &str| text.chars().filter(|c| !is_hidden(*c)).collect::<String>();
            prop_assert_eq!(seen(&shown), seen(&text));
        }
    }
}
