//! Which attempts are committed, where their blocks are, and the handles that say so.
//!
//! Does: list an exchange's segments, read their footers, look up commit records ([`Catalog`]) and
//! plan handles ([`plan`]). Does not: write anything. Invariant: answers depend only on the base
//! directories, so every daemon gives the same, except which of two copies of an attempt it takes.

mod error;
mod from_lists;
mod from_memory;
pub mod handle;
mod load;
mod look;
mod lookup;
pub mod plan;
mod prefetch;

pub use self::error::CatalogError;
pub use self::from_memory::MemoryPlan;
pub use self::look::Look;
pub use self::lookup::{
    Catalog, CommittedAttempt, ExchangeSummary, PlannedHandle, SegmentSummary, Selection,
};
pub use crate::segment::footer::Totals;
