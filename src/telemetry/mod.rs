//! Telemetry: logs and metrics, the daemon's interface to operators.
//!
//! Does: initialize logging; define the metrics and the registry that encodes them. Does not:
//! decide when something is recorded. Invariant: names of metrics are constants.

pub mod catalog;
pub mod credentials;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod pools;
mod process;
pub mod registry;
pub mod series;
#[cfg(test)]
mod tests;
