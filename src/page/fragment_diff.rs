//! Regions: parts of a fragment that are sent separately when only they have changed.
//!
//! A region is an element with an `id` whose start tag ends in `data-live`; regions may be nested. The text between
//! nested regions is the frame of the enclosing region: when it changes, the enclosing region is sent as a whole.

use std::ops::Range;

/// A region, or the whole fragment, which has no ID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region {
    /// Range of its ID in the text, as written in HTML.
    id: Range<usize>,
    /// Range of its element.
    span: Range<usize>,
    /// It is a list (`data-rows`): rows may be prepended and removed at the end.
    is_list: bool,
    inner: Vec<Region>,
}

/// One change to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch<'a> {
    /// ID of its region; empty for the whole fragment.
    pub id: &'a str,
    what: What<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What<'a> {
    /// The element was replaced.
    Replace(Range<usize>, &'a str),
    /// Rows were prepended to a list, and others removed at its end.
    Move(Move<'a>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Move<'a> {
    /// Offset of the first old row.
    at: usize,
    /// The new rows, with the text between them and up to the first old row.
    text: &'a str,
    rows: Vec<&'a str>,
    /// Range of the removed rows, including the text before them.
    gone: Range<usize>,
    gone_ids: Vec<String>,
}

impl Patch<'_> {
    /// Whether the whole fragment was replaced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.id.is_empty()
    }

    /// The change as elements for htmx to swap in. Without `hx-swap` it morphs the element (`defaultSwap` in the page
    /// heads).
    #[must_use]
    pub fn partials(&self) -> String {
        let id = self.id;
        match &self.what {
            What::Replace(_, html) => format!("<hx-partial id=\"{id}\">{html}</hx-partial>"),
            What::Move(Move { rows, gone_ids, .. }) => {
                // Without the white space between them, which would accumulate in the browser.
                let new = format!("<hx-partial id=\"{id}\" hx-swap=\"afterbegin\">{}</hx-partial>", rows.concat());
                let gone = |id: &String| format!("<hx-partial id=\"{id}\" hx-swap=\"delete\"></hx-partial>");
                std::iter::once(new).chain(gone_ids.iter().map(gone)).collect()
            }
        }
    }
}

/// End of the start tag of a list. At the end of a tag it cannot be part of an attribute value.
const LIST_TAG_END: &str = " data-live data-rows";

/// Finds the regions of a fragment. Relies on the format of our templates: all elements are closed, and neither texts
/// nor attribute values contain `<` or `>`.
#[must_use]
pub fn regions(html: &str) -> Region {
    // Stack of open regions, each with its tag name and the number of open elements of that name within it.
    let mut open = vec![(Region { span: 0..html.len(), ..Region::default() }, "", 0_u32)];
    let mut from = 0;
    while let Some(start) = html[from..].find('<').map(|at| from + at) {
        let end = html[start..].find('>').map_or(html.len(), |at| start + at + 1);
        from = end;
        let inside = html[start + 1..end].trim_end_matches('>');
        let (closes, inside) = inside.strip_prefix('/').map_or((false, inside), |rest| (true, rest));
        let name = inside.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        if !closes && (inside.ends_with(" data-live") || inside.ends_with(LIST_TAG_END)) {
            let (id, is_list) = (attribute(html, start..end, "id"), inside.ends_with(LIST_TAG_END));
            open.push((Region { id, span: start..end, is_list, inner: Vec::new() }, name, 1));
            continue;
        }
        let Some((.., depth)) = open.last_mut().filter(|(_, tag, _)| *tag == name) else { continue };
        *depth = if closes { *depth - 1 } else { *depth + 1 };
        if *depth == 0
            && let Some((mut done, ..)) = open.pop()
        {
            done.span.end = end;
            if let Some((around, ..)) = open.last_mut() {
                around.inner.push(done);
            }
        }
    }
    open.swap_remove(0).0
}

/// Range of the value of an attribute.
fn attribute(html: &str, tag: Range<usize>, name: &str) -> Range<usize> {
    let wanted = format!(" {name}=\"");
    let Some(start) = html[tag.clone()].find(&wanted).map(|at| tag.start + at + wanted.len()) else { return 0..0 };
    let end = html[start..tag.end].find('"').map_or(tag.end, |at| start + at);
    start..end
}

/// The changes that turn the old text into the new one. The region `skip` is never sent alone.
#[must_use]
pub fn diff<'a>(old: &str, new: &'a str, skip: &str) -> Vec<Patch<'a>> {
    let mut patches = Vec::new();
    compare((old, &regions(old)), (new, &regions(new)), skip, &mut patches);
    patches
}

fn compare<'a>(old: (&str, &Region), new: (&'a str, &Region), skip: &str, patches: &mut Vec<Patch<'a>>) {
    let ((old_text, was), (new_text, is)) = (old, new);
    let html = &new_text[is.span.clone()];
    let id = &new_text[is.id.clone()];
    if old_text[was.span.clone()] == *html || !id.is_empty() && id == skip {
        return;
    }
    if frame(old_text, was).eq(frame(new_text, is)) {
        for (was, is) in was.inner.iter().zip(&is.inner) {
            compare((old_text, was), (new_text, is), skip, patches);
        }
    } else if let Some((came, stays)) = moved((old_text, was), (new_text, is)) {
        patches.push(Patch { id, what: What::Move(rows_moved(was, (new_text, is), (came, stays), old_text)) });
        for (was, is) in was.inner[..stays].iter().zip(&is.inner[came..]) {
            compare((old_text, was), (new_text, is), skip, patches);
        }
    } else {
        patches.push(Patch { id, what: What::Replace(was.span.clone(), html) });
    }
}

/// Number of rows prepended to a list and number of old rows kept, if nothing else changed and most rows are kept.
fn moved(old: (&str, &Region), new: (&str, &Region)) -> Option<(usize, usize)> {
    let ((old_text, was), (new_text, is)) = (old, new);
    let (first, last) = (was.inner.first()?, was.inner.last()?);
    let (new_first, new_last) = (is.inner.first()?, is.inner.last()?);
    let edges = |text: &str, region: &Region, first: &Region, last: &Region| {
        [text[region.span.start..first.span.start].to_owned(), text[last.span.end..region.span.end].to_owned()]
    };
    if !is.is_list || edges(old_text, was, first, last) != edges(new_text, is, new_first, new_last) {
        return None;
    }
    let old_id = |index: usize| was.inner.get(index).map(|row| &old_text[row.id.clone()]);
    let came = is.inner.iter().take_while(|row| Some(&new_text[row.id.clone()]) != old_id(0)).count();
    let stays = is.inner.len() - came;
    let is_same = (0..stays).all(|index| old_id(index) == Some(&new_text[is.inner[came + index].id.clone()]));
    (is_same && stays * 2 >= is.inner.len()).then_some((came, stays))
}

fn rows_moved<'a>(was: &Region, new: (&'a str, &Region), counts: (usize, usize), old_text: &str) -> Move<'a> {
    let ((new_text, is), (came, stays)) = (new, counts);
    let begin = |index: usize| is.inner[index].span.start;
    let gone = if stays < was.inner.len() {
        was.inner[stays - 1].span.end..was.inner[was.inner.len() - 1].span.end
    } else {
        let end = was.inner[stays - 1].span.end;
        end..end
    };
    Move {
        at: was.inner[0].span.start,
        text: &new_text[begin(0)..begin(came)],
        rows: is.inner[..came].iter().map(|row| &new_text[row.span.clone()]).collect(),
        gone,
        gone_ids: was.inner[stays..].iter().map(|row| old_text[row.id.clone()].to_owned()).collect(),
    }
}

/// A region with each nested region reduced to its ID.
fn frame<'a>(text: &'a str, region: &'a Region) -> impl Iterator<Item = &'a str> {
    let starts = std::iter::once(region.span.start).chain(region.inner.iter().map(|inner| inner.span.end));
    let ends = region.inner.iter().map(|inner| inner.span.start).chain([region.span.end]);
    let between = starts.zip(ends).map(|(start, end)| &text[start..end]);
    between.chain(region.inner.iter().map(|inner| &text[inner.id.clone()]))
}

/// The old text with patches applied.
#[must_use]
pub fn apply(old: &str, patches: &[Patch<'_>]) -> String {
    let edits = |patch: &Patch<'_>| match &patch.what {
        What::Replace(span, html) => vec![(span.clone(), (*html).to_owned())],
        What::Move(moved) => {
            vec![(moved.at..moved.at, moved.text.to_owned()), (moved.gone.clone(), String::new())]
        }
    };
    let mut edits: Vec<_> = patches.iter().flat_map(edits).collect();
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let mut text = String::with_capacity(old.len());
    let mut done = 0;
    for (span, html) in edits {
        text.push_str(&old[done..span.start]);
        text.push_str(&html);
        done = span.end;
    }
    text.push_str(&old[done..]);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(title: &str, rows: &[(u8, &str)]) -> String {
        let rows: String =
            rows.iter().map(|(id, text)| format!("<tr id=\"r{id}\" data-live><td>{text}</td></tr>\n")).collect();
        format!(
            "<div id=\"refresh\" x=\"1\" data-live></div><h1>A</h1><div id=\"t\" class=\"c\" data-live><div>{title}</div></div>\
             <table><tbody id=\"rows\" data-live data-rows>\n{rows}</tbody></table>"
        )
    }

    fn ids(old: &str, new: &str) -> Vec<String> {
        let patches = diff(old, new, "refresh");
        assert_eq!(apply(old, &patches), new);
        patches.iter().map(|patch| patch.id.to_owned()).collect()
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = page("one", &[(1, "a"), (2, "b")]);
        assert!(ids(&old, &old).is_empty());
        assert_eq!(ids(&old, &page("two", &[(1, "a"), (2, "b")])), ["t"]);
        assert_eq!(ids(&old, &page("two", &[(1, "a"), (2, "c")])), ["t", "r2"]);
        assert_eq!(ids(&old, &page("one", &[(3, "new"), (1, "a"), (2, "b")])), ["rows"]);
        assert_eq!(ids(&old, &page("one", &[(3, "new"), (1, "c")])), ["rows", "r1"]);
        assert_eq!(ids(&old, &page("one", &[(2, "b"), (1, "a")])), ["rows"]);
        assert_eq!(ids(&old, &old.replace("<h1>A", "<h1>B")), [""]);
    }

    #[test]
    fn rows_come_in_front_and_leave_at_the_end() {
        let old = page("one", &[(3, "c"), (2, "b"), (1, "a")]);
        let new = page("one", &[(4, "d"), (3, "c"), (2, "b")]);
        let patches = diff(&old, &new, "refresh");
        assert_eq!(
            patches[0].partials(),
            "<hx-partial id=\"rows\" hx-swap=\"afterbegin\"><tr id=\"r4\" data-live><td>d</td></tr></hx-partial>\
             <hx-partial id=\"r1\" hx-swap=\"delete\"></hx-partial>"
        );
    }

    #[test]
    fn what_is_skipped_is_not_sent() {
        let old = page("one", &[]);
        assert!(diff(&old, &old.replace("x=\"1\"", "x=\"2\""), "refresh").is_empty());
    }

    #[test]
    fn tags_of_one_name_within_each_other_are_told_apart() {
        let html = "<div id=\"a\" data-live><div><div id=\"b\" data-live><div>x</div></div></div></div><p>y</p>";
        let root = regions(html);
        assert_eq!(root.inner.len(), 1);
        assert_eq!(&html[root.inner[0].inner[0].span.clone()], "<div id=\"b\" data-live><div>x</div></div>");
    }

    /// Text between elements, and elements of few names and IDs, some of which are regions, one within another.
    fn tree() -> impl Strategy<Value = String> {
        "[a-cé ]{0,3}".prop_recursive(4, 24, 4, |inner| {
            let tag = (
                prop::sample::select(&["div", "p"][..]),
                prop::sample::select(&["a", "b", "c", "d"][..]),
                any::<bool>(),
            );
            (tag, prop::collection::vec(inner, 0..4)).prop_map(|((tag, id, live), children)| {
                let live = if live { " data-live" } else { "" };
                format!("<{tag} id=\"{id}\"{live}>{}</{tag}>", children.concat())
            })
        })
    }

    /// Rows of a list by their numbers, each with a text.
    fn rows() -> impl Strategy<Value = Vec<(u8, &'static str)>> {
        prop::collection::vec((0_u8..12, prop::sample::select(&["x", "y"][..])), 0..8).prop_map(|mut rows| {
            rows.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
            rows.dedup_by_key(|(id, _)| *id);
            rows
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// What a browser shows after the changes is what a new reader gets.
        #[test]
        fn changes_turn_the_old_page_into_the_new_one(old in tree(), new in tree()) {
            prop_assert_eq!(apply(&old, &diff(&old, &new, "-")), new);
        }

        #[test]
        fn a_list_becomes_any_other_list(old in rows(), new in rows(), titles in ("[ab]", "[ab]")) {
            let (old, new) = (page(&titles.0, &old), page(&titles.1, &new));
            let patches = diff(&old, &new, "refresh");
            prop_assert_eq!(apply(&old, &patches), new.as_str());
            prop_assert_eq!(patches.is_empty(), old == new);
            for patch in &patches {
                let known = old.contains(&format!(" id=\"{}\"", patch.id));
                prop_assert!(patch.is_whole() || known, "a browser must have {}", patch.id);
            }
        }

        /// A row that came or went is sent alone, as long as most of the list stays.
        #[test]
        fn a_list_that_grows_in_front_sends_only_the_new_rows(rows in rows(), came in 1_u8..4) {
            prop_assume!(rows.len() >= usize::from(came));
            let more: Vec<_> = (0..came).map(|number| (100 - number, "new")).chain(rows.iter().copied()).collect();
            let (old, new) = (page("t", &rows), page("t", &more));
            let patches = diff(&old, &new, "refresh");
            prop_assert_eq!(patches.iter().map(|patch| patch.id).collect::<Vec<_>>(), ["rows"]);
            let partials = patches[0].partials();
            prop_assert_eq!(partials.matches("<tr ").count(), usize::from(came));
            let kept = rows.iter().any(|(id, _)| partials.contains(&format!("\"r{id}\"")));
            prop_assert!(!kept);
        }

        /// Bytes of any kind: nothing stops the comparison. Tags have a name, as all of ours.
        #[test]
        fn no_text_stops_the_comparison(
            old in "(</?[ab]|>|\"| id=\"a|data-live|data-rows| |/|[a-cé\n]){0,30}",
            new in "(</?[ab]|>|\"| id=\"a|data-live|data-rows| |/|[a-cé\n]){0,30}",
        ) {
            let patches = diff(&old, &new, "-");
            let _ = patches.iter().map(Patch::partials).collect::<String>();
            prop_assert_eq!(apply(&old, &patches), new);
        }
    }

    #[test]
    fn a_region_ends_its_start_tag_with_the_word() {
        for (html, found) in [
            ("<div id=\"a\" data-live></div>", 1),
            ("<div id=\"a\" data-live class=\"x\"></div>", 0),
            ("<div id=\"a\" data-lively></div>", 0),
            ("<div id=\"a\" title=\"x data-live\"></div>", 0),
            ("<div data-live></div>", 1),
        ] {
            assert_eq!(regions(html).inner.len(), found, "{html}");
        }
    }

    #[test]
    fn a_region_that_is_not_closed_is_none() {
        assert_eq!(regions("<div id=\"a\" data-live><p>x</p>").inner.len(), 0);
        let (old, new) = ("<div id=\"a\" data-live>x", "<div id=\"a\" data-live>y");
        assert!(diff(old, new, "-")[0].is_whole());
    }

    #[test]
    fn the_innermost_region_that_changed_is_sent() {
        let html = |outer: &str, inner: &str| {
            format!("<div id=\"a\" data-live>{outer}<div id=\"b\" data-live>{inner}</div></div>")
        };
        assert_eq!(ids(&html("x", "y"), &html("x", "z")), ["b"]);
        assert_eq!(ids(&html("x", "y"), &html("w", "z")), ["a"], "once, with what is in it");
    }

    #[test]
    fn a_region_that_is_replaced_by_another_is_a_change_around_it() {
        let html = |id: &str| format!("<div id=\"o\" data-live><p id=\"{id}\" data-live>x</p></div>");
        assert_eq!(ids(&html("a"), &html("b")), ["o"]);
    }

    #[test]
    fn a_list_that_is_mostly_new_is_sent_as_a_whole() {
        let old = page("one", &[(2, "b"), (1, "a")]);
        let half = page("one", &[(4, "d"), (3, "c"), (2, "b"), (1, "a")]);
        assert!(diff(&old, &half, "refresh")[0].partials().contains("afterbegin"));
        let most = page("one", &[(5, "e"), (4, "d"), (3, "c"), (2, "b"), (1, "a")]);
        assert!(!diff(&old, &most, "refresh")[0].partials().contains("afterbegin"));
        assert_eq!(ids(&old, &page("one", &[])), ["rows"]);
        assert_eq!(ids(&page("one", &[]), &old), ["rows"]);
    }
}
