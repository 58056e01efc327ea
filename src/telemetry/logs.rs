//! Logs: one line per event on stderr, as text or JSON.
//!
//! Does: install the subscriber for the process. Does not: choose what is logged. Invariant: stdout
//! is never written to; tokens, credentials and page bytes are never logged (by those who log).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not valid.
    #[error("log.filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else has set up logging in this process.
    #[error("logs are set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the rest of the process.
///
/// # Errors
/// A filter that does not parse; a second call.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if config.json {
        let lines = lines.json().flatten_event(true).with_current_span(true);
        registry.with(lines.with_span_list(false)).try_init()?;
    } else {
        registry.with(lines).try_init()?;
    }
    Ok(())
}
