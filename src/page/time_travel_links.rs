//! Time travel links: links on a historical page lead to other pages at the same time.

use super::{PAGES, format};

/// Adds the time to links to pages; links that already contain a time are left unchanged. Relies on the format of our
/// templates: texts and attribute values contain no `"`.
pub(super) fn keep_time_parameter(html: &str, at: &str) -> String {
    const LINK: &str = " href=\"";
    let when = format::query(&[("at".to_owned(), at.to_owned())]);
    let mut carried = String::with_capacity(html.len() + html.len() / 8);
    let mut done = 0;
    for (start, sign) in html.match_indices(LINK) {
        let start = start + sign.len();
        let url = html[start..].split('"').next().unwrap_or_default();
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let rest = &url[path.len()..];
        let says_when = rest.split(['?', '&', ';', '#']).any(|pair| pair.starts_with("at="));
        if says_when || !PAGES.iter().any(|page| is_at(page.path, path)) {
            continue;
        }
        let end = start + path.len();
        carried.push_str(&html[done..end]);
        carried.push('?');
        carried.push_str(&when);
        done = end;
        if rest.starts_with('?') {
            carried.push('&');
            done += 1;
        }
    }
    carried.push_str(&html[done..]);
    carried
}

/// Whether a path belongs to a page; the page's path may contain an ID placeholder.
fn is_at(page: &str, path: &str) -> bool {
    let same = |(own, part): (&str, &str)| own == part || own == "{id}" && !part.is_empty();
    page.split('/').count() == path.split('/').count() && page.split('/').zip(path.split('/')).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_pages_say_when() {
        let html = "<a href=\"/\">a</a><a class=\"b\" href=\"/tasks?status=failed&q=x#r\">b</a><a href=\"/tasks/7#e\">c</a>\
                    <a href=\"/api/v1/tasks\">d</a><a href=\"/tasks?at=5\">e</a><a href=\"#x\">f</a><a href=\"https://x/tasks\">g</a>";
        assert_eq!(
            keep_time_parameter(html, "2026-11-21T03:00:00Z"),
            "<a href=\"/?at=2026-11-21T03%3A00%3A00Z\">a</a><a class=\"b\" href=\"/tasks?at=2026-11-21T03%3A00%3A00Z&status=failed&q=x#r\">b</a>\
             <a href=\"/tasks/7?at=2026-11-21T03%3A00%3A00Z#e\">c</a>\
             <a href=\"/api/v1/tasks\">d</a><a href=\"/tasks?at=5\">e</a><a href=\"#x\">f</a><a href=\"https://x/tasks\">g</a>"
        );
    }
}
