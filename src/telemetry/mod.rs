//! What operators see: logs and metrics.
//!
//! Does: set up logging; own names, helps and units of metrics and the registry that prints them.
//! Does not: decide when something is counted. Invariant: names are constants and part of the
//! interface.

pub mod catalog;
pub mod credentials;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod pools;
mod process;
pub mod registry;
#[cfg(test)]
mod tests;
