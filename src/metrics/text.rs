//! The two text formats of metrics, and content negotiation.

/// Text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// The Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl TextFormat {
    /// The format preferred by an `Accept` header; the Prometheus format if it names neither.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let quality = |item: &str| {
            let parameter =
                |part: &str| part.trim().to_ascii_lowercase().strip_prefix("q=").and_then(|q| q.parse().ok());
            item.split(';').skip(1).find_map(parameter).unwrap_or(1.0_f64)
        };
        let named = |kind: &str| {
            let items = accept.split(',').filter(|item| {
                let mut parts = item.split(';').map(|part| part.trim().to_ascii_lowercase());
                let is_kind = parts.next().is_some_and(|name| name == kind);
                // A version that we do not write does not match.
                is_kind
                    && parts.all(|part| !part.starts_with("version=") || WRITTEN.contains(&part[8..].trim_matches('"')))
            });
            items.map(quality).fold(0.0, f64::max)
        };
        let (open, plain) = (named("application/openmetrics-text"), named("text/plain"));
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts OpenMetrics text to this format.
    pub(super) fn write(self, open: String) -> String {
        match self {
            Self::OpenMetrics => open,
            Self::Prometheus => classic(&open),
        }
    }
}

/// Supported versions of either format.
const WRITTEN: [&str; 3] = ["0.0.1", "0.0.4", "1.0.0"];

/// The older format uses the suffix `_total` of a counter also in HELP and TYPE, and has no EOF marker.
fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let told = line
            .strip_prefix("# HELP ")
            .map(|rest| ("# HELP", rest))
            .filter(|_| lines.peek().is_some_and(|next| is_counter(next)));
        let told =
            told.or_else(|| line.strip_prefix("# TYPE ").map(|rest| ("# TYPE", rest)).filter(|_| is_counter(line)));
        match told.and_then(|(sign, rest)| Some((sign, rest.split_once(' ')?))) {
            Some((sign, (name, rest))) => text.push_str(&format!("{sign} {name}_total {rest}")),
            None if line == "# EOF" || line.starts_with("# UNIT ") => continue,
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_is_chosen() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", TextFormat::Prometheus),
            ("*/*", TextFormat::Prometheus),
            ("text/plain;version=0.0.4", TextFormat::Prometheus),
            ("application/openmetrics-text", TextFormat::OpenMetrics),
            ("application/openmetrics-text;q=0", TextFormat::Prometheus),
            ("application/openmetrics-text; version=2.0.0, text/plain", TextFormat::Prometheus),
            ("text/plain;q=0.9, Application/OpenMetrics-Text;q=0.3", TextFormat::Prometheus),
            (prometheus, TextFormat::OpenMetrics),
        ] {
            assert_eq!(TextFormat::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn counters_have_their_names_in_both_formats() {
        let open = "# HELP a Things\n# TYPE a counter\na_total 1\n# HELP b Size\n# TYPE b gauge\nb 2\n# EOF\n";
        let text = TextFormat::Prometheus.write(open.to_owned());
        assert_eq!(
            text,
            "# HELP a_total Things\n# TYPE a_total counter\na_total 1\n# HELP b Size\n# TYPE b gauge\nb 2\n"
        );
    }

    #[test]
    fn the_older_format_has_no_units_and_no_end() {
        let open = "# HELP a_seconds Time\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 1\n# EOF\n";
        let text = TextFormat::Prometheus.write(open.to_owned());
        assert_eq!(text, "# HELP a_seconds Time\n# TYPE a_seconds gauge\na_seconds 1\n");
        assert_eq!(TextFormat::OpenMetrics.write(open.to_owned()), open);
    }

    #[test]
    fn a_help_that_speaks_of_counters_changes_nothing() {
        let open = "# HELP a # TYPE b counter\n# TYPE a gauge\na 1\n# HELP c C\n# TYPE c histogram\nc_count 0\n# EOF\n";
        assert_eq!(format!("{}# EOF\n", TextFormat::Prometheus.write(open.to_owned())), open);
    }

    #[test]
    fn each_format_names_its_version() {
        for format in [TextFormat::Prometheus, TextFormat::OpenMetrics] {
            assert_eq!(TextFormat::accepted(format.content_type()), format);
        }
        assert_eq!(
            TextFormat::accepted("application/openmetrics-text; version=\"1.0.0\"; q=0.1"),
            TextFormat::OpenMetrics
        );
        assert_eq!(
            TextFormat::accepted("application/openmetrics-text;q=0.5,text/plain;q=0.5"),
            TextFormat::OpenMetrics
        );
        assert_eq!(TextFormat::accepted("application/openmetrics-text;q=much"), TextFormat::OpenMetrics);
    }
}
