//! Which attempts are committed, where their blocks are, and the source handles that describe this.
//!
//! Does: list an exchange's segments, read their footers, look up commit records ([`Catalog`]) and
//! plan handles ([`plan`]). Does not: write anything. Invariant: results depend only on the base
//! directories, so every daemon returns the same, except for the choice between two copies of an
//! attempt.

mod error;
mod from_lists;
mod from_memory;
pub mod handle;
mod load;
mod lookup;
pub mod plan;
mod prefetch_run;
mod prefetch_schedule;

pub use self::error::CatalogError;
pub use self::from_memory::MemoryPlan;
pub use self::lookup::{
    Catalog, CommittedAttempt, ExchangeSummary, PlannedHandle, SegmentSummary, Selection,
};
pub use self::prefetch_run::FooterPrefetch;
pub use crate::segment::footer::Totals;
