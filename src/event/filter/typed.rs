//! Filters as people type them into one box: `status:failed -queue:mail error text`.

use uuid::Uuid;

use super::{full_name, is_known};

/// Takes the filters out of a text: words of the form `name:value`, whose name is that of a filter, and task IDs. A value
/// in double quotes may contain white space. Returns the filters and what is left of the text.
#[must_use]
pub fn typed(text: &str) -> (Vec<(String, String)>, String) {
    let (mut filters, mut rest) = (Vec::new(), Vec::new());
    for word in words(text) {
        let filter = match word.split_once(':') {
            Some((name, value)) if is_known(name) && !value.is_empty() => {
                Some((full_name(name), value.trim_matches('"').to_owned()))
            }
            _ => Uuid::try_parse(&word).ok().map(|id| ("task_id".to_owned(), id.to_string())),
        };
        match filter {
            Some(filter) => filters.push(filter),
            None => rest.push(word),
        }
    }
    (filters, rest.join(" "))
}

/// Words, separated by white space outside of double quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in text.chars() {
        is_quoted ^= c == '"';
        match words.last_mut() {
            Some(word) if !c.is_whitespace() || is_quoted => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(text: &str) -> (Vec<(String, String)>, String) {
        typed(text)
    }

    #[test]
    fn names_with_values_are_filters_and_the_rest_is_text() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, filters, rest) in [
            ("", vec![], ""),
            ("disk full", vec![], "disk full"),
            ("status:failed disk full", vec![pair("status", "failed")], "disk full"),
            ("type:send-* -queue:mail", vec![pair("task_type", "send-*"), pair("-queue", "mail")], ""),
            (
                "label.tenant:mueller finished:-1h..",
                vec![pair("label.tenant", "mueller"), pair("finished", "-1h..")],
                "",
            ),
            ("queue:\"a b\" x", vec![pair("queue", "a b")], "x"),
            ("HTTP: 503 http://x:80/ status:", vec![], "HTTP: 503 http://x:80/ status:"),
            ("0193A2B4-0000-7000-8000-000000000001", vec![pair("task_id", "0193a2b4-0000-7000-8000-000000000001")], ""),
        ] {
            assert_eq!(taken(text), (filters, rest.to_owned()), "{text}");
        }
    }

    proptest! {
        /// Whatever is typed: no word is lost.
        #[test]
        fn nothing_typed_is_lost(text in "([a-z]{1,4}|queue|status|:|\"| |-|é){0,20}") {
            let (filters, rest) = typed(&text);
            let kept = filters.iter().map(|(_, value)| value.len()).sum::<usize>() + rest.len();
            prop_assert!(kept <= text.len() + 40);
            prop_assert_eq!(typed(&rest).0, Vec::<(String, String)>::new(), "once is enough");
        }
    }
}
