//! The reading side: a handle in, verified records out.
//!
//! Does: plan the fetches (`planner`, by the `density` of reads), get bytes from memory or the base
//! directories (`fetch`), verify every page and stream it (`stream`). Does not: maintain an index,
//! list anything, or use `ingest`. Invariant: every byte of a stream was verified; a stream ends
//! with an end record or with an error.

mod density;
mod error;
mod fetch;
mod planner;
mod reader;
mod stream;
#[cfg(test)]
mod tests;

pub use self::error::{Damage, ReadError};
pub use self::fetch::ReaderDeps;
pub use self::reader::{PartitionRead, ReadRequest, Reader};
pub use self::stream::{ByteStream, MAX_SLICES_SIZE};
pub use crate::catalog::Selection;
pub use crate::segment::scan::PageFormat;
