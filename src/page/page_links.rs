//! Links between pages: on a page of some projects, or of the past, they lead to the same projects and the same time.

use super::{PAGES, format};

/// Adds parameters to links to pages; a parameter that a link already has is left as it is there. Relies on the format
/// of our templates: texts and attribute values contain no `"`.
pub(super) fn keep_parameters(html: &str, kept: &[(&str, &str)]) -> String {
    const LINK: &str = " href=\"";
    let mut linked = String::with_capacity(html.len() + html.len() / 8);
    let mut done = 0;
    for (start, sign) in html.match_indices(LINK) {
        let start = start + sign.len();
        let url = html[start..].split('"').next().unwrap_or_default();
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let rest = &url[path.len()..];
        let has = |name: &str| {
            let names = rest.split(['?', '&', ';', '#']).filter_map(|pair| pair.split_once('='));
            names.into_iter().any(|(known, _)| known == name)
        };
        let missing = kept.iter().filter(|(name, _)| !has(name));
        let added: Vec<_> = missing.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if added.is_empty() || !PAGES.iter().any(|page| is_at(page.path, path)) {
            continue;
        }
        let end = start + path.len();
        linked.push_str(&html[done..end]);
        linked.push('?');
        linked.push_str(&format::query(&added));
        done = end;
        if rest.starts_with('?') {
            linked.push('&');
            done += 1;
        }
    }
    linked.push_str(&html[done..]);
    linked
}

/// Whether a path belongs to a page; the page's path may contain an ID placeholder.
fn is_at(page: &str, path: &str) -> bool {
    let same = |(own, part): (&str, &str)| own == part || own.starts_with('{') && !part.is_empty();
    page.split('/').count() == path.split('/').count() && page.split('/').zip(path.split('/')).all(same)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_to_pages_say_when() {
        let html = "<a href=\"/\">a</a><a class=\"b\" href=\"/tasks?status=failed&q=x#r\">b</a><a href=\"/tasks/7#e\">c</a>\
                    <a href=\"/api/v1/tasks\">d</a><a href=\"/tasks?at=5\">e</a><a href=\"#x\">f</a><a href=\"https://x/tasks\">g</a>";
        assert_eq!(
            keep_parameters(html, &[("at", AT)]),
            "<a href=\"/?at=2026-11-21T03%3A00%3A00Z\">a</a><a class=\"b\" href=\"/tasks?at=2026-11-21T03%3A00%3A00Z&status=failed&q=x#r\">b</a>\
             <a href=\"/tasks/7?at=2026-11-21T03%3A00%3A00Z#e\">c</a>\
             <a href=\"/api/v1/tasks\">d</a><a href=\"/tasks?at=5\">e</a><a href=\"#x\">f</a><a href=\"https://x/tasks\">g</a>"
        );
    }

    const AT: &str = "2026-11-21T03:00:00Z";

    #[test]
    fn every_page_of_the_table_is_linked_at_the_same_time() {
        for page in &PAGES {
            let path = page.path.replace("{id}", "0190b6a2-3f5e-7a10-8c11-2d5f0c3b9a77").replace("{name}", "a%20b");
            let html = format!("<a href=\"{path}\">x</a>");
            let kept = keep_parameters(&html, &[("at", AT)]);
            assert_eq!(kept, format!("<a href=\"{path}?at=2026-11-21T03%3A00%3A00Z\">x</a>"));
            assert_eq!(keep_parameters(&kept, &[("at", AT)]), kept, "once is enough");
        }
    }

    #[test]
    fn each_parameter_is_added_where_it_is_missing() {
        let both = [("at", "7"), ("project_id", "a b")];
        let html = "<a href=\"/tasks?project_id=c\">x</a><a href=\"/tasks?at=1&project_id=\">y</a><a href=\"/\">z</a>";
        assert_eq!(
            keep_parameters(html, &both),
            "<a href=\"/tasks?at=7&project_id=c\">x</a><a href=\"/tasks?at=1&project_id=\">y</a><a href=\"/?at=7&project_id=a%20b\">z</a>"
        );
        assert_eq!(keep_parameters(html, &[]), html);
    }

    #[test]
    fn what_is_no_page_of_ours_stays() {
        for url in [
            "",
            "#x",
            "/tasks/",
            "/tasks/7/events",
            "/tasksx",
            "tasks",
            "//tasks",
            "/api/v1/tasks",
            "/static/x.css",
            "https://x/tasks",
        ] {
            let html = format!("<a href=\"{url}\">x</a>");
            assert_eq!(keep_parameters(&html, &[("at", AT)]), html);
        }
    }

    #[test]
    fn a_time_in_any_place_of_a_query_counts() {
        for url in ["/tasks?at=1", "/tasks?q=x&at=1", "/tasks?q=x&amp;at=1", "/tasks?at=1#r"] {
            let html = format!("<a href=\"{url}\">x</a>");
            assert_eq!(keep_parameters(&html, &[("at", AT)]), html);
        }
        let html = keep_parameters("<a href=\"/tasks?what=1\">x</a>", &[("at", AT)]);
        assert!(html.contains("?at=2026") && html.ends_with("&what=1\">x</a>"), "{html}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Links grow, and nothing else changes; no text stops it.
        #[test]
        fn only_links_change(html in "( href=\"|/tasks|/|\\?|#|&|at=|\"|[a-zé<> ]){0,20}") {
            let kept = keep_parameters(&html, &[("at", AT)]);
            prop_assert_eq!(kept.replace("?at=2026-11-21T03%3A00%3A00Z&", "?").replace("?at=2026-11-21T03%3A00%3A00Z", ""), html);
        }
    }
}
