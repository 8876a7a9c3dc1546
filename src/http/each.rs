//! Bodies of many reports: an array, NDJSON or a single one, each validated separately.

use axum::extract::{FromRequest, Request};
use serde_json::value::RawValue;

use super::{
    codes::ErrorCode,
    input::{MAX_BODY, MAX_ITEMS, body_up_to, is_lines, parse, split_lines, without_mark},
    problem::Problem,
};

/// Raw reports.
#[derive(Debug)]
pub(super) struct Each {
    /// The JSON of each.
    pub(super) items: Vec<Vec<u8>>,
    /// The body was a single object.
    pub(super) single: bool,
}

impl<S: Send + Sync> FromRequest<S> for Each {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let lines = is_lines(request.headers())?;
        let body = body_up_to(request, MAX_BODY).await?;
        let each = Self::split(&body, lines)?;
        each.bounded()?;
        Ok(each)
    }
}

impl Each {
    /// Splits a body into its reports.
    ///
    /// # Errors
    /// 400 if it is an array with a syntax error.
    pub(super) fn split(body: &[u8], lines: bool) -> Result<Self, Problem> {
        let body = without_mark(body);
        if lines {
            let filled = split_lines(body).filter(|line| !line.trim_ascii().is_empty());
            return Ok(Self { items: filled.map(<[u8]>::to_vec).collect(), single: false });
        }
        if body.trim_ascii_start().starts_with(b"[") {
            let items: Vec<Box<RawValue>> = parse(body, "")?;
            let items = items.into_iter().map(|item| Box::<str>::from(item).into_boxed_bytes().into_vec());
            return Ok(Self { items: items.collect(), single: false });
        }
        Ok(Self { items: vec![body.to_vec()], single: true })
    }

    /// Checks that there is at least one report, and not too many.
    ///
    /// # Errors
    /// 422 otherwise.
    pub(super) fn bounded(&self) -> Result<(), Problem> {
        if (1..=MAX_ITEMS).contains(&self.items.len()) {
            return Ok(());
        }
        let detail = format!("{} reports in one request; send 1 to {MAX_ITEMS}", self.items.len());
        Err(Problem::new(ErrorCode::InvalidBody, detail))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn split(body: &str, lines: bool) -> (Vec<String>, bool) {
        let each = Each::split(body.as_bytes(), lines).unwrap();
        (each.items.into_iter().map(|item| String::from_utf8(item).unwrap()).collect(), each.single)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_report_is_kept_as_it_was_sent() {
        assert_eq!(split(r#"{"a":1}"#, false), (texts(&[r#"{"a":1}"#]), true));
        assert_eq!(
            split(r#" [ {"a": 1e400} ,7,"x,]" ]"#, false),
            (texts(&[r#"{"a": 1e400}"#, "7", r#""x,]""#]), false)
        );
        assert_eq!(split("\u{feff}{}\n\n[1]\r\n\u{feff}{}", true), (texts(&["{}", "[1]\r", "{}"]), false));
        assert_eq!(split("", false), (texts(&[""]), true), "what is no JSON is said when it is read");
        assert_eq!(split("[]", false), (Vec::new(), false));
    }

    #[test]
    fn one_report_that_is_no_json_does_not_spoil_the_lines_around_it() {
        assert_eq!(split("{\n{}", true).0, ["{", "{}"]);
        let problem = Each::split(b"[{},", false).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidJson, "in an array nothing after it can be told apart");
    }

    #[test]
    fn a_request_has_one_to_a_thousand_reports() {
        let bounded = |count: usize| Each { items: vec![b"{}".to_vec(); count], single: false }.bounded().is_ok();
        assert_eq!([0, 1, MAX_ITEMS, MAX_ITEMS + 1].map(bounded), [false, true, true, false]);
        let problem = Each { items: Vec::new(), single: false }.bounded().unwrap_err();
        assert_eq!(problem.detail, "0 reports in one request; send 1 to 1000");
    }
}
