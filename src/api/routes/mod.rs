//! The handlers: one file per resource.

pub(super) mod chosen;
pub(super) mod daemon;
pub(super) mod dashboard;
pub(super) mod exchange_list;
pub(super) mod exchanges;
pub(super) mod fallback;
pub(super) mod handles;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod partitions;
pub(super) mod read;
pub(super) mod reload;
pub(super) mod sinks;
