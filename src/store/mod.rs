//! Stores: one trait for the operations on one base directory, its backends and its wrappers.
//!
//! Does: define the trait ([`Store`]) and its error, implement it for file systems (`local`),
//! object stores (`object`) and HDFS (`hdfs`), and wrap it with deadlines, a concurrency limit,
//! retries and metrics. Does not: choose between base directories or interpret exchanges
//! (`storage`). Invariant: keys and folders are relative to the base directory and come from
//! `keys`; the effect of an operation that returned `Ok` is durable; every operation ends.
//!
//! To add a backend: implement [`Store`], build it in `open`, list its options in `options`, and
//! run the conformance suite of `tests/storage.rs` over it.

pub mod deadline;
mod error;
mod hash;
#[cfg(feature = "hdfs")]
mod hdfs;
mod interface;
pub mod keys;
mod latency;
pub mod limit;
mod limits;
pub mod local;
pub mod meter;
pub mod metrics;
pub mod object;
mod observed;
pub mod open;
mod opened;
pub mod options;
mod place;
pub mod retry;
pub mod swap;
#[cfg(test)]
pub(crate) mod tests;
mod upload_window;

pub use error::{Cause, Remedy, Result, StoreError, StoreErrorKind, if_found};
pub use hash::stable_hash;
pub use interface::{
    DeleteOutcome, MAX_VERSIONED_SIZE, ObjectMeta, Precondition, Store, Tail, Versioned,
};
pub use latency::OperationLatency;
pub use limits::StoreLimits;
pub use observed::{BACKGROUND_LIMIT, Observed, Retention};
