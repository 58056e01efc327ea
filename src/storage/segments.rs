//! Segments.
//!
//! Does: put each into one base directory, read from where they are, list and remove them. Does
//! not: know what is inside. Invariant: a segment id always comes with the same bytes, so a put may
//! be repeated anywhere.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use super::placement;
use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::store::keys::{self, Key, OwnObject};
use crate::store::{StoreError, StoreErrorKind, Tail};

/// One segment found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// Where it is stored.
    pub address: SegmentAddress,
    /// Its size in bytes.
    pub size: u64,
}

impl Storage {
    /// Writes a segment to the next healthy base directory, or to another one if that fails;
    /// returns which.
    ///
    /// # Errors
    /// `all`, if every base directory failed. One of them may still hold the segment, even if its
    /// last failure was a refusal.
    pub async fn put_segment(
        &self,
        exchange: &ExchangeId,
        segment: SegmentId,
        content: Vec<Bytes>,
    ) -> Result<SegmentAddress> {
        let key = keys::segment(exchange, segment);
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let order = |healthy: &[bool]| placement::round_robin(turn, healthy);
        let put = |base: Arc<BaseDirectory>| {
            let (key, content) = (key.clone(), content.clone());
            async move {
                let put = base.store.put(&key, content).await;
                put.inspect(|()| base.recovered())
            }
            .boxed()
        };
        let (base, ()) = self.put_anywhere(key.as_str(), order, put).await?;
        Ok(SegmentAddress {
            exchange: exchange.clone(),
            base,
            segment,
        })
    }

    /// The last `max` bytes of a segment, in one request.
    ///
    /// # Errors
    /// If the segment is missing or cannot be read, or its base directory is not configured here.
    pub async fn get_tail(&self, at: &SegmentAddress, max: u64) -> Result<Tail> {
        let base = &self.inner.bases[self.base_index(at, "get")?];
        let key = keys::segment(&at.exchange, at.segment);
        let tail = base.store.get_tail(&key, max).await;
        tail.map_err(|error| base.error("get", at.to_string(), error))
    }

    /// A range of a segment, in one request.
    ///
    /// # Errors
    /// `Corrupt` if the result is not exactly the range; otherwise like [`Storage::get_tail`].
    pub async fn get_range(&self, at: &SegmentAddress, range: Range<u64>) -> Result<Bytes> {
        let base = &self.inner.bases[self.base_index(at, "get")?];
        let corrupt = |message: String| {
            let error = StoreError::new(StoreErrorKind::Corrupt, message);
            base.error("get", at.to_string(), error)
        };
        if range.start >= range.end {
            return Err(corrupt(format!("the range {range:?} is empty")));
        }
        let key = keys::segment(&at.exchange, at.segment);
        let bytes = base.store.get_range(&key, range.clone()).await;
        let bytes = bytes.map_err(|error| base.error("get", at.to_string(), error))?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(corrupt(format!("got {} bytes for {range:?}", bytes.len())));
        }
        Ok(bytes)
    }

    /// All segments of an exchange in all base directories, sorted by segment id, then base.
    ///
    /// # Errors
    /// If one of the base directories cannot be listed.
    pub async fn list_segments(&self, exchange: &ExchangeId) -> Result<Vec<ListedSegment>> {
        let bases = self.inner.bases.iter();
        let lists = bases.map(|base| self.list_segments_in(base, exchange));
        let mut segments = Vec::new();
        for (base, listed) in self.inner.bases.iter().zip(join_all(lists).await) {
            for (segment, size) in listed? {
                let address = SegmentAddress {
                    exchange: exchange.clone(),
                    base: base.name.clone(),
                    segment,
                };
                segments.push(ListedSegment { address, size });
            }
        }
        segments.sort_by(|a, b| {
            let (a, b) = (&a.address, &b.address);
            a.segment.cmp(&b.segment).then_with(|| a.base.cmp(&b.base))
        });
        Ok(segments)
    }

    /// The segments of an exchange in one base directory, with their sizes.
    pub(super) async fn list_segments_in(
        &self,
        base: &BaseDirectory,
        exchange: &ExchangeId,
    ) -> Result<Vec<(SegmentId, u64)>> {
        let mut segments = Vec::new();
        for found in base.list(&keys::segments(exchange)).await? {
            match keys::parse(&found.key) {
                Some(OwnObject::Segment(_, segment)) => segments.push((segment, found.size)),
                _ => self.ignore(base, &found.key),
            }
        }
        Ok(segments)
    }

    /// Removes some segments; missing ones are not an error.
    ///
    /// # Errors
    /// If one could not be removed, or its base directory is not configured here.
    pub async fn remove_segments(&self, which: &[SegmentAddress]) -> Result<()> {
        let mut by_base: Vec<Vec<Key>> = vec![Vec::new(); self.inner.bases.len()];
        for at in which {
            let index = self.base_index(at, "delete")?;
            by_base[index].push(keys::segment(&at.exchange, at.segment));
        }
        let removals = self.inner.bases.iter().zip(by_base);
        let removals = removals.map(async |(base, keys)| {
            let Some(first) = keys.first() else {
                return Ok(());
            };
            let object = format!("{} segments from {first}", keys.len());
            let removed = base.store.delete(keys).await;
            removed
                .map(drop)
                .map_err(|error| base.error("delete", object, error))
        });
        join_all(removals).await.into_iter().collect()
    }

    fn base_index(&self, at: &SegmentAddress, operation: &'static str) -> Result<usize> {
        let bases = &self.inner.bases;
        let index = bases.iter().position(|base| base.name == at.base);
        index.ok_or_else(|| {
            let names: Vec<&str> = bases.iter().map(|b| b.name.as_str()).collect();
            StorageError {
                base: at.base.to_string(),
                operation,
                object: at.to_string(),
                source: StorageFailure::UnknownBase {
                    configured: names.join(", "),
                },
            }
        })
    }
}
