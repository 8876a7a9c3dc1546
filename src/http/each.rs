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
