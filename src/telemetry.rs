//! Logs: text on a terminal, one JSON object per line elsewhere. The formatters escape ESC and other control bytes.

use std::{io::IsTerminal, panic::PanicHookInfo};

use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging to standard error.
///
/// # Errors
/// The filter is invalid.
pub fn start(filter: &str) -> anyhow::Result<()> {
    // Only levels per target; span directives would be evaluated at each step of each request.
    let levels: Targets = filter
        .parse()
        .map_err(|e| anyhow::anyhow!("--log {filter}: {e}; use a level such as info, or target=level pairs"))?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if std::io::stderr().is_terminal() {
        layer.with_target(false).boxed()
    } else {
        layer.json().with_ansi(false).flatten_event(true).boxed()
    };
    let started = tracing_subscriber::registry().with(levels).with(layer).try_init();
    started.map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// Logs a panic like any other record, on one line; handling it is up to the task that panicked.
fn panicked(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str().unwrap_or("unknown");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(cause, location, thread = thread.name().unwrap_or("unnamed"), "panic");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_the_log_that_is_none_is_named() {
        for wrong in ["taskwatch=loud", "a=b=c", "info,=debug="] {
            let error = start(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--log {wrong}: ")), "{error}");
            assert!(error.ends_with("use a level such as info, or target=level pairs"), "{error}");
        }
    }
}
