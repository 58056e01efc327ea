//! Logs: one line per event on stderr, as text or JSON.
//!
//! Does: install the subscriber of the process. Does not: decide what is logged. Invariant: stdout
//! is never written to. (Callers never log tokens, credentials or page bytes.)

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is already initialized: {0}")]
    AlreadyInitialized(#[from] tracing_subscriber::util::TryInitError),
}

/// Initializes logging for the rest of the process.
///
/// # Errors
/// An invalid filter, or a second call.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if config.json {
        let layer = layer.json().flatten_event(true).with_current_span(true);
        registry.with(layer.with_span_list(false)).try_init()?;
    } else {
        registry.with(layer).try_init()?;
    }
    Ok(())
}
