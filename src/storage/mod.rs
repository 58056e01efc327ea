//! Base directories: the only shared state of a fleet.
//!
//! Does: put, get, list and delete segments and exchange markers in one or many base directories;
//! place new segments round-robin over the healthy ones. Does not: know what is inside a segment,
//! or decide when an exchange ends. Invariant: an operation that returned `Ok` has done durably
//! what its name says.

mod base;
mod claim;
mod error;
mod exchanges;
mod facade;
mod failover;
mod health;
mod markers;
mod opening;
pub mod placement;
mod probe;
mod probe_objects;
mod segments;
#[cfg(test)]
mod tests;

pub use crate::store::metrics::StorageMetrics;
pub use crate::store::retry::RetryPolicy;
pub use crate::store::{Remedy, StoreError, StoreErrorKind, StoreLimits, Tail};
pub use base::BaseStatus;
pub use error::{Result, StorageError, StorageFailure};
pub use exchanges::Inventory;
pub use facade::Storage;
pub use markers::{Marker, ObservedMarkers, WrittenMarker};
pub use probe_objects::ProbeObject;
pub use segments::ListedSegment;
