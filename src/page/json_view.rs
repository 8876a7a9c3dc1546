//! JSON as people read it: nested, folding, each value with a link to the tasks that have it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};
use serde_json::value::RawValue;

use super::format;
use crate::model::task_query::json_filter;

/// Longest text that is laid out; longer ones are shown as they are, cut, bytes.
const LONGEST: usize = 65_536;
/// Maximum number of lines; what is beyond is in the raw text.
const MAX_LINES: usize = 400;
/// Maximum nesting depth that is laid out.
const DEEPEST: usize = 16;
/// Depth down to which values are open at first.
const OPEN_TO: usize = 2;
/// An object or array with more entries than this is folded at first.
const OPEN_ENTRIES: usize = 12;
/// Longest text shown in its line, characters.
const LINE: usize = 200;
/// Number of entries of an array in one fold.
const PAGE: usize = 50;
/// Longest value that a link searches for, bytes; as long as a filter takes.
const SEARCHED: usize = 256;
/// Longest path that a link searches for, with its field; as long as a filter takes.
const SEARCHED_PARTS: usize = 17;

/// A value laid out in lines.
#[derive(Debug)]
pub(super) struct JsonView {
    /// The lines, each opening, closing or holding a value; empty if the text is shown as it is.
    pub lines: Vec<Line>,
    /// The text, cut to what is shown if there are no lines.
    pub raw: String,
    /// Size of the whole text, bytes.
    pub bytes: u64,
    /// Something is left out of the lines or of the raw text.
    pub is_cut: bool,
}

/// One line of the layout.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// An object or array begins: key, what it holds, and whether it is open at first.
    Open {
        /// Its key or index; empty at the top.
        key: String,
        /// `{ 5 keys }`, `[ 3 items ]`.
        holds: String,
        /// Whether it is open at first.
        is_open: bool,
    },
    /// The innermost object or array ends.
    Close,
    /// A value.
    Value {
        /// Its key or index; empty at the top.
        key: String,
        /// The value as JSON writes it, but with its characters visible.
        text: String,
        /// CSS class of its type.
        class: &'static str,
        /// The rest of a long text: all of it.
        whole: Option<String>,
        /// The query of the tasks that have the same value there; empty if it cannot be searched for.
        search: String,
    },
}

impl JsonView {
    /// Lays out a text; `field` is the filter of tasks that looks into it, such as `payload`.
    #[must_use]
    pub(super) fn new(text: &str, field: &str) -> Self {
        let mut layout = Layout { lines: Vec::new(), is_cut: false };
        let root = (text.len() <= LONGEST).then(|| serde_json::from_str::<&RawValue>(text).ok()).flatten();
        let is_laid_out = root.is_some_and(|root| layout.value(String::new(), root, &[field], 0).is_ok());
        if !is_laid_out {
            layout = Layout { lines: Vec::new(), is_cut: text.len() > LONGEST };
        }
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = text.len() as u64;
        Self { lines: layout.lines, raw: text[..end].to_owned(), bytes, is_cut: layout.is_cut }
    }
}

struct Layout {
    lines: Vec<Line>,
    is_cut: bool,
}

impl Layout {
    /// Adds the lines of a value at a path, whose first part is the field.
    fn value(&mut self, key: String, raw: &RawValue, path: &[&str], depth: usize) -> Result<(), serde_json::Error> {
        if self.lines.len() >= MAX_LINES {
            self.is_cut = true;
            return Ok(());
        }
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'{') if depth < DEEPEST => {
                let Entries(entries) = serde_json::from_str(text)?;
                if entries.is_empty() {
                    self.lines.push(leaf(key, "{}", path)?);
                    return Ok(());
                }
                self.open(key, ('{', '}'), ("key", entries.len()), depth);
                for (name, value) in entries {
                    self.value(name.clone(), value, &[path, &[&name]].concat(), depth + 1)?;
                }
                self.lines.push(Line::Close);
            }
            Some(b'[') if depth < DEEPEST => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                if items.is_empty() {
                    self.lines.push(leaf(key, "[]", path)?);
                    return Ok(());
                }
                self.open(key, ('[', ']'), ("item", items.len()), depth);
                for (page, values) in items.chunks(PAGE).enumerate() {
                    if self.lines.len() >= MAX_LINES {
                        self.is_cut = true;
                        break;
                    }
                    let is_paged = items.len() > PAGE;
                    if is_paged {
                        let key = format!("{}–{}", page * PAGE, page * PAGE + values.len() - 1);
                        self.lines.push(Line::Open { key, holds: String::new(), is_open: page == 0 });
                    }
                    for (index, value) in values.iter().enumerate() {
                        let index = (page * PAGE + index).to_string();
                        self.value(index.clone(), value, &[path, &[&index]].concat(), depth + 1)?;
                    }
                    if is_paged {
                        self.lines.push(Line::Close);
                    }
                }
                self.lines.push(Line::Close);
            }
            _ => self.lines.push(leaf(key, text, path)?),
        }
        Ok(())
    }

    fn open(&mut self, key: String, (left, right): (char, char), (what, count): (&str, usize), depth: usize) {
        let plural = if count == 1 { "" } else { "s" };
        let holds = format!("{left} {count} {what}{plural} {right}");
        self.lines.push(Line::Open { key, holds, is_open: depth < OPEN_TO && count <= OPEN_ENTRIES || depth == 0 });
    }
}

/// The line of a value that holds no others, or that is nested too deeply.
fn leaf(key: String, text: &str, path: &[&str]) -> Result<Line, serde_json::Error> {
    let class = match text.as_bytes().first() {
        Some(b'"') => "text",
        Some(b't' | b'f') => "bool",
        Some(b'n') => "null",
        Some(b'{' | b'[') => "deep",
        _ => "number",
    };
    let plain: String = if class == "text" { serde_json::from_str(text)? } else { text.to_owned() };
    let is_long = plain.chars().nth(LINE).is_some();
    let quoted = |text: &str| if class == "text" { format!("\"{text}\"") } else { text.to_owned() };
    let shown = if is_long { plain.chars().take(LINE / 2).collect::<String>() + "…" } else { quoted(&plain) };
    let can_be_searched = class != "deep" && class != "null" && !plain.trim().is_empty() && plain.len() <= SEARCHED
        // What a filter would read otherwise.
        && !plain.chars().any(char::is_control) && plain.trim() == plain;
    let search = if can_be_searched
        && path.len() > 1
        && path.len() <= SEARCHED_PARTS
        && path.iter().all(|part| !part.is_empty())
    {
        format::query(&[(json_filter(path[0], &path[1..]), format::filter_value(&plain))])
    } else {
        String::new()
    };
    Ok(Line::Value { key, text: shown, class, whole: is_long.then_some(plain), search })
}

/// Entries of an object in their order, repeated keys included.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Filter;

    /// The lines in short: an indented line for each, closed ones marked with `+`.
    fn laid_out(json: &str) -> Vec<String> {
        let mut depth = 0;
        let mut all = Vec::new();
        for line in JsonView::new(json, "payload").lines {
            let shown = match &line {
                Line::Open { key, holds, is_open } => format!("{}{key} {holds}", if *is_open { "-" } else { "+" }),
                Line::Close => {
                    depth -= 1;
                    continue;
                }
                Line::Value { key, text, class, .. } => format!("{key} {text} {class}"),
            };
            all.push(format!("{}{shown}", " ".repeat(depth)));
            depth += usize::from(matches!(line, Line::Open { .. }));
        }
        assert_eq!(depth, 0, "what opens closes");
        all
    }

    /// The search of each value, by its key.
    fn searches(json: &str) -> Vec<(String, String)> {
        let lines = JsonView::new(json, "payload").lines.into_iter();
        let values = lines.filter_map(|line| match line {
            Line::Value { key, search, .. } => Some((key, search)),
            _ => None,
        });
        values.collect()
    }

    #[test]
    fn keys_keep_their_order_and_numbers_their_digits() {
        let json =
            r#"{"z": 1.50, "a": {"id": "ORD-1", "paid": true, "deep": {"x": {}}}, "lines": [null, 1e400], "z": []}"#;
        assert_eq!(
            laid_out(json),
            [
                "- { 4 keys }",
                " z 1.50 number",
                " -a { 3 keys }",
                "  id \"ORD-1\" text",
                "  paid true bool",
                "  +deep { 1 key }",
                "   x {} deep",
                " -lines [ 2 items ]",
                "  0 null null",
                "  1 1e400 number",
                " z [] deep",
            ]
        );
        assert_eq!(laid_out("\"a\""), [" \"a\" text"]);
        assert_eq!(laid_out("[1]"), ["- [ 1 item ]", " 0 1 number"]);
    }

    #[test]
    fn long_texts_and_arrays_fold() {
        let text = "ä".repeat(LINE + 1);
        let view = JsonView::new(&serde_json::to_string(&text).unwrap(), "payload");
        assert!(matches!(&view.lines[0], Line::Value { text: shown, whole: Some(whole), search, .. }
            if shown.chars().count() == LINE / 2 + 1 && *whole == text && search.is_empty()));
        let many = serde_json::to_string(&(0..120).collect::<Vec<_>>()).unwrap();
        let lines = laid_out(&many);
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("- [ 120 items ]", " -0–49 "));
        assert_eq!(lines.iter().filter(|line| line.starts_with(" +")).collect::<Vec<_>>(), [" +50–99 ", " +100–119 "]);
        let wide: serde_json::Map<_, _> = (0..13).map(|n| (n.to_string(), n.into())).collect();
        assert_eq!(laid_out(&serde_json::to_string(&[&wide]).unwrap())[1], " +0 { 13 keys }");
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_shown_as_it_is() {
        let long = format!("\"{}\"", "é".repeat(LONGEST / 2));
        let view = JsonView::new(&long, "payload");
        assert!(view.lines.is_empty() && view.is_cut && view.raw.len() <= LONGEST && view.bytes == long.len() as u64);
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        let lines = laid_out(&deep);
        assert_eq!(lines.len(), DEEPEST + 1);
        assert!(lines[DEEPEST].ends_with("deep") && lines[DEEPEST].contains("[[[[1]]]]"));
        let many = JsonView::new(&serde_json::to_string(&vec![0; 5_000]).unwrap(), "payload");
        assert!(many.is_cut && many.lines.len() < MAX_LINES + 10, "{}", many.lines.len());
    }

    #[test]
    fn a_value_links_to_the_tasks_that_have_it() {
        let json = r#"{"order": {"id": "ORD-1,2", "a.b": [7]}, "note": " x", "gone": null, "": 1, "big": "BIG"}"#;
        let json = json.replace("BIG", &"b".repeat(SEARCHED + 1));
        let searches = searches(&json);
        let of = |key: &str| searches.iter().find(|(name, _)| name == key).map(|(_, search)| search.as_str());
        assert_eq!(of("id"), Some(r"payload.order.id=ORD-1%5C%2C2"));
        assert_eq!(of("0"), Some(r"payload.order.a%5C.b.0=7"));
        assert_eq!((of("note"), of("gone"), of("big")), (Some(""), Some(""), Some("")));
        assert_eq!(of(""), Some(""), "no filter has an empty key");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,12}|[a, \\\\.*]{1,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            let key = "[a-z.\\\\ é]{0,4}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((key, inner), 0..6)
                    .prop_map(|all| serde_json::Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Every value has its line, and every link is a filter that finds this value at this place.
        #[test]
        fn each_value_has_a_line_and_each_link_means_it(json in any_json()) {
            fn leaves(value: &serde_json::Value) -> usize {
                match value {
                    serde_json::Value::Array(items) if !items.is_empty() => items.iter().map(leaves).sum(),
                    serde_json::Value::Object(entries) if !entries.is_empty() => entries.values().map(leaves).sum(),
                    _ => 1,
                }
            }
            let text = json.to_string();
            let searches = searches(&text);
            laid_out(&text);
            prop_assert_eq!(searches.len(), leaves(&json));
            for (_, search) in searches.iter().filter(|(_, search)| !search.is_empty()) {
                let address = format!("/?{search}").parse().unwrap();
                let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&address).unwrap().0;
                let filter = Filter::from_query(&pairs, &[]).unwrap();
                let (name, condition) = filter.conditions().into_iter().next().unwrap();
                let (_, path) = crate::model::task_query::json_path(&name).unwrap();
                let found = json.pointer(&path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect::<String>()).unwrap();
                let plain = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                prop_assert_eq!(condition, crate::model::task_query::Condition::Texts([plain].into()));
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "[\\[\\]{}:,\"a1 \\\\]{0,40}") {
            let view = JsonView::new(&text, "payload");
            prop_assert!(!view.lines.is_empty() || view.raw == text);
        }
    }
}
