//! The handlers: one file per resource.

pub mod daemon;
pub mod dashboard;
pub mod exchanges;
pub mod fallback;
pub mod handles;
pub mod health;
pub mod metrics;
pub mod partitions;
pub mod read;
pub mod sinks;
