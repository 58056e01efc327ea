//! Telemetry: logs, metrics and traces, the daemon's interface to operators.
//!
//! Does: initialize logging; define the metrics and the registry that encodes them; make and export
//! spans. Does not: decide when something is recorded. Invariant: names of metrics and spans are
//! constants.

pub mod catalog;
pub mod credentials;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod pools;
pub mod process;
pub mod recent;
pub mod registry;
pub mod series;
#[cfg(test)]
mod tests;
pub mod traces;

/// The version of this build, with the commit and its date where the build knows them.
pub const VERSION: &str = env!("BUILT_VERSION");
