//! HTTP responses by method, route and status class.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::http::{Method, StatusCode};

use super::{Metric, Value, tally::OTHER};

/// Counts since the process started. Routes are path templates, so their number is bounded by the source.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(&'static str, String, u16), u64>>);

impl Requests {
    /// Counts a response; `route` is its path template, `None` for an unknown path.
    pub fn count(&self, method: &Method, route: Option<&str>, status: StatusCode) {
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => OTHER,
        };
        let key = (method, route.unwrap_or(OTHER).to_owned(), status.as_u16() / 100);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    pub(super) fn metric(&self) -> Metric {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = counts.iter().map(|((method, route, class), count)| {
            let labels =
                vec![("method", (*method).to_owned()), ("route", route.clone()), ("status", format!("{class}xx"))];
            (labels, Value::Counter(*count as f64))
        });
        Metric {
            name: "taskwatch_http_requests",
            help: "Answers by method, route and class of status",
            series: series.collect(),
        }
    }
}
