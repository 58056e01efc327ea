//! Base directories: the only shared state of a fleet.
//!
//! Does: identify one or many base directories; put, get, list and delete segments and exchange
//! markers in them; place new segments round-robin over the healthy ones. Does not: interpret
//! segments, or decide when an exchange ends. Invariant: the effect of an operation that returned
//! `Ok` is durable.

mod attached_store;
mod attachment;
mod base;
mod base_set;
mod checked_text;
mod claim;
mod description;
mod digest;
mod error;
mod exchanges;
mod facade;
mod failover;
mod fleet;
mod foreign;
mod health;
pub mod identity;
mod known_sets;
mod listing;
mod markers;
mod membership;
mod opening;
pub mod placement;
mod probe;
mod probe_objects;
mod roster;
pub mod seals;
mod segments;
mod stored_marker;
mod sweeper;
#[cfg(test)]
mod tests;
mod uncertain;

pub use crate::store::metrics::StorageMetrics;
pub use crate::store::retry::RetryPolicy;
pub use crate::store::{OperationLatency, Remedy, StoreError, StoreErrorKind, StoreLimits, Tail};
pub use attachment::{Identification, InitOptions};
pub use base::BaseStatus;
pub use description::BaseDescription;
pub use digest::{Digest, DigestEntry, DigestError, DigestExchanges, DigestMarkers, exchange_hash};
pub use error::{Result, StorageError, StorageFailure};
pub use exchanges::{Cleared, Inventory};
pub use facade::Storage;
pub use foreign::ForeignFolder;
pub use listing::ListedExchange;
pub use markers::{Marker, ObservedMarkers, WrittenMarker};
pub use membership::{Member, MemberState, Membership, MembershipError};
pub use probe_objects::ProbeObject;
pub use segments::{Highest, ListedSegment, PAGE, PartialList};
pub use sweeper::{DigestPlace, StoredDigest};
