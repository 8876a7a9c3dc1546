//! Lists of values in one text, as in `queue=a,b`.

/// The values in a parameter: separated by commas, without white space around them. A backslash makes a comma, a white
/// space or another backslash part of the value; in front of anything else it stands for itself.
#[must_use]
pub fn values(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    // What is kept of the present value: up to the last character that is no white space, or is escaped.
    let (mut value, mut kept) = (String::new(), 0);
    let mut chars = text.chars().peekable();
    let mut finish = |value: &mut String, kept: &mut usize| {
        value.truncate(std::mem::take(kept));
        if !value.is_empty() {
            values.push(std::mem::take(value));
        }
        value.clear();
    };
    while let Some(c) = chars.next() {
        match c {
            ',' => finish(&mut value, &mut kept),
            '\\' if chars.peek().is_some_and(|next| is_special(*next)) => {
                value.extend(chars.next());
                kept = value.len();
            }
            c if c.is_whitespace() => {
                if kept > 0 {
                    value.push(c);
                }
            }
            c => {
                value.push(c);
                kept = value.len();
            }
        }
    }
    finish(&mut value, &mut kept);
    values
}

/// A value as [`values`] reads it back, for links.
#[must_use]
pub fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let inner = value.trim();
    let start = value.len() - value.trim_start().len();
    for (at, c) in value.char_indices() {
        let is_outer = c.is_whitespace() && !(start..start + inner.len()).contains(&at);
        if matches!(c, ',' | '\\') || is_outer {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn is_special(c: char) -> bool {
    c == ',' || c == '\\' || c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backslash_makes_a_comma_part_of_a_value() {
        assert_eq!(values("a,b"), ["a", "b"]);
        assert_eq!(values(" a , b c ,, "), ["a", "b c"]);
        assert_eq!(values(r"a\,b,c"), ["a,b", "c"]);
        assert_eq!(values(r"rack\7\\,x\"), [r"rack\7\", r"x\"]);
        assert_eq!(values(r"\ a\ ,b"), [" a ", "b"]);
        assert_eq!(values(""), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn every_value_can_be_named(given in proptest::collection::vec("[ab,\\\\ \t\u{a0}]{1,6}|\\PC{1,8}", 1..4)) {
            let text = given.iter().map(|value| escaped(value)).collect::<Vec<_>>().join(",");
            prop_assert_eq!(values(&text), given);
        }
    }
}
