//! Logs: one line per event on stderr, as text or JSON.
//!
//! Does: install the subscriber of the process, and escape what could disturb a reader's terminal.
//! Does not: decide what is logged. Invariant: an event is one line, and no control character,
//! bidirectional control or invisible character that came from outside reaches the output as it
//! is. Stdout is never written to. (Callers never log tokens, credentials or page bytes.)

pub(super) mod escape;
pub(super) mod queue;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::recent::RecentProblems;
use crate::config::LogConfig;
use crate::runtime::Clock;
use escape::{Escaping, Notation, escape};
use queue::LineQueue;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.filter is not valid: {0}")]
    Filter(#[from] ParseError),
    #[error("logging is already initialized: {0}")]
    AlreadyInitialized(#[from] tracing_subscriber::util::TryInitError),
    #[error("the thread that writes the log cannot be started: {0}")]
    NoThread(#[from] std::io::Error),
    #[error("logging has ended: {0}")]
    Ended(#[from] reload::Error),
}

/// Changes what is logged. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    recent: RecentProblems,
    lines: LineQueue,
}

/// How long the end of the process waits for the reader of the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Has the log written when it is dropped.
#[derive(Debug)]
pub struct FlushAtEnd(LineQueue);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

impl LogControl {
    /// Replaces the filter.
    ///
    /// # Errors
    /// It is not valid, or logging has ended.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.filter.reload(self::filter(filter)?)?)
    }

    /// Keeps the end of the process waiting until the log is written, for some seconds at most.
    pub fn flush_at_end(&self) -> FlushAtEnd {
        FlushAtEnd(self.lines.clone())
    }

    /// The last warnings and errors, regardless of the filter.
    pub fn recent(&self) -> &RecentProblems {
        &self.recent
    }
}

/// Initializes logging for the rest of the process.
///
/// # Errors
/// An invalid filter, or a second call.
pub fn init(config: &LogConfig) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&config.filter)?);
    let lines = LineQueue::start(std::io::stderr())?;
    let output = output(config.json, lines.clone());
    let recent = RecentProblems::default();
    let problems = recent.layer(Clock::default());
    Registry::default()
        .with(output.with_filter(filter))
        .with(problems.with_filter(LevelFilter::WARN))
        .try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogControl {
        filter: handle,
        recent,
        lines,
    })
}

/// A filter. At level info, the clients of object stores log warnings only: what they repeat
/// themselves, such as asking for credentials, would be several lines for each request.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let info = text
        .split(',')
        .any(|part| part.trim().eq_ignore_ascii_case("info"));
    match info && !text.contains("object_store") {
        true => EnvFilter::try_new(format!("{text},object_store=warn")),
        false => EnvFilter::try_new(text),
    }
}

/// A panic is logged like any other event: its message may quote text from outside.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let reason = panic_message(panic.payload());
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = captured.then(|| tracing::field::display(&backtrace));
    tracing::error!(reason, location, backtrace, "panic: this is a bug");
}

/// The message of a panic.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

/// Text for stderr that may quote text from outside, escaped; its line ends are preserved.
pub fn printable(text: &str) -> String {
    let lines = text.split('\n').map(|line| escape(line, Notation::Rust));
    lines.collect::<Vec<_>>().join("\n")
}

/// JSON for stdout that may quote text from outside, escaped; it stands for the same value.
pub fn printable_json(text: &str) -> String {
    let lines = text.split('\n').map(|line| escape(line, Notation::Json));
    lines.collect::<Vec<_>>().join("\n")
}

/// The layer that writes events. Without colours: their escape sequences could not be distinguished
/// from those of an attacker.
fn output<W>(json: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let notation = if json { Notation::Json } else { Notation::Rust };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Escaping { writer, notation });
    if json {
        let layer = layer.json().flatten_event(true).with_current_span(true);
        layer.with_span_list(false).boxed()
    } else {
        layer.boxed()
    }
}

#[cfg(test)]
mod tests;
