//! Base directories: the only shared state. Object keys and `object_store` types stop here.
//!
//! Does: put, get, list and delete segments and exchange markers in one or many base directories;
//! place new segments round-robin over the healthy ones. Does not: know what is inside a segment.
//! Invariant: a method that answered `Ok` has done durably what its name says.

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

use crate::clock::Runtime;
use crate::config::BaseDirectoryConfig;
use crate::id::{BaseName, ExchangeId, SegmentAddress, SegmentId};
use crate::telemetry::metrics::Metrics;

/// What went wrong with a base directory.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base directory {base}: {operation} of {object} failed: {message}")]
pub struct StorageError {
    /// Name of the base directory, or `all` when every one failed.
    pub base: String,
    /// What was tried: `put`, `get`, `list`, `delete`, `probe`, `open`.
    pub operation: &'static str,
    /// The object or prefix, for people.
    pub object: String,
    /// What kind of failure it is.
    pub kind: StorageErrorKind,
    /// The store's own words, credentials removed.
    pub message: String,
}

/// Kinds of storage failures that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// The object does not exist.
    NotFound,
    /// A retry may help. The operation may have taken place all the same.
    Unavailable,
    /// A retry does not help (permission, configuration); the operation did not take place.
    Refused,
    /// No base directory of that name is configured here.
    UnknownBase,
    /// What is stored is not what it should be (object shorter than the range, for example).
    Corrupt,
}

/// The last bytes of an object.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The last bytes, at most as many as asked for.
    pub bytes: Bytes,
    /// Size of the whole object.
    pub object_size: u64,
}

/// The announcement of an exchange, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its content.
    pub bytes: Bytes,
    /// Changes whenever the marker is written again (lease renewal), by the store's own reckoning.
    pub version: String,
}

/// One segment found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// Where it lies.
    pub address: SegmentAddress,
    /// Bytes of the object.
    pub size: u64,
}

/// Health of one base directory, for `readyz` and the dashboard.
#[derive(Debug, Clone)]
pub struct BaseStatus {
    /// Its name.
    pub name: BaseName,
    /// Its URI, without credentials.
    pub uri: String,
    /// Whether new segments go there.
    pub healthy: bool,
    /// Why not.
    pub error: Option<String>,
}

/// All base directories of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    _bases: Arc<Vec<BaseName>>,
}

#[allow(unused_variables, clippy::unused_async)]
impl Storage {
    /// Opens every configured base directory; does not touch them yet.
    pub fn open(
        configs: &[BaseDirectoryConfig],
        runtime: &Runtime,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StorageError> {
        unimplemented!()
    }

    /// Writes, reads, reads a range of, lists and deletes a probe object in each base directory, at
    /// once, and remembers who is healthy.
    pub async fn probe(&self) -> Vec<BaseStatus> {
        unimplemented!()
    }

    /// Health as last seen, without touching the stores.
    pub fn status(&self) -> Vec<BaseStatus> {
        unimplemented!()
    }

    /// Writes a segment to the next healthy base directory, to another when that fails, and answers
    /// which holds it. Idempotent: the same segment id always comes with the same bytes.
    pub async fn put_segment(
        &self,
        exchange: &ExchangeId,
        segment: SegmentId,
        content: Vec<Bytes>,
    ) -> Result<SegmentAddress, StorageError> {
        unimplemented!()
    }

    /// The last `max` bytes of a segment, one request.
    pub async fn get_tail(&self, at: &SegmentAddress, max: u64) -> Result<Tail, StorageError> {
        unimplemented!()
    }

    /// A range of a segment, one request; an answer that is not exactly the range is `Corrupt`.
    pub async fn get_range(
        &self,
        at: &SegmentAddress,
        range: Range<u64>,
    ) -> Result<Bytes, StorageError> {
        unimplemented!()
    }

    /// All segments of an exchange in all base directories, sorted by segment id then base; an error
    /// if one of the base directories cannot be listed.
    pub async fn list_segments(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Vec<ListedSegment>, StorageError> {
        unimplemented!()
    }

    /// Writes (or writes again) the marker of an exchange to its home: the first base directory that
    /// works in an order that depends on the exchange id alone.
    pub async fn put_marker(
        &self,
        exchange: &ExchangeId,
        content: Bytes,
    ) -> Result<(), StorageError> {
        unimplemented!()
    }

    /// The marker of an exchange; `None` if no base directory has one. An error if one that might
    /// have it cannot be asked and none of the others has it.
    pub async fn get_marker(&self, exchange: &ExchangeId) -> Result<Option<Marker>, StorageError> {
        unimplemented!()
    }

    /// Ids of all exchanges that left anything in any base directory, sorted.
    pub async fn list_exchanges(&self) -> Result<Vec<ExchangeId>, StorageError> {
        unimplemented!()
    }

    /// Removes everything of an exchange from every base directory, markers first; answers how many
    /// objects went. An error if any could not be removed; calling it again goes on.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64, StorageError> {
        unimplemented!()
    }

    /// Removes some segments.
    pub async fn remove_segments(&self, which: &[SegmentAddress]) -> Result<(), StorageError> {
        unimplemented!()
    }

    /// Removes what interrupted writes left behind (temporary files), where a store has such; only
    /// what no running daemon can still be writing. Answers how many went.
    pub async fn remove_stale_temporaries(&self) -> Result<u64, StorageError> {
        unimplemented!()
    }
}
