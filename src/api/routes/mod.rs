//! The handlers, one file for each kind of thing.

pub mod dashboard;
pub mod exchanges;
pub mod fallback;
pub mod handles;
pub mod health;
pub mod metrics;
pub mod partitions;
pub mod read;
pub mod sinks;
