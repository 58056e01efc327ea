//! Segments.
//!
//! Does: put each into one base directory, read from where they are, list and remove them. Does
//! not: interpret their content. Invariant: all segments with the same id have the same bytes, so a
//! put may be repeated in any base directory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{join, join_all};
use tokio_util::sync::CancellationToken;

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use super::failover::Targets;
use super::placement;
use crate::human::count;
use crate::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::store::keys::{self, Key, OwnObject};
use crate::store::{ObjectMeta, StoreError, StoreErrorKind, Tail};

/// How long the list of one base directory of a set is waited for once another one's has come: a
/// hundred times what a page of a list takes on S3. Without it, all of them are listed once more if
/// an attempt is missing.
const LIST_PATIENCE: Duration = Duration::from_secs(3);

/// One segment found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// Where it is stored.
    pub address: SegmentAddress,
    /// Its size in bytes.
    pub size: u64,
}

/// What some base directories list of an exchange.
#[derive(Debug, Clone)]
pub struct PartialList {
    pub segments: Vec<ListedSegment>,
    /// Why one did not answer: it may have segments that are not among `segments`. Segments may be
    /// outside the set.
    pub failure: Option<StorageError>,
    /// Whether all of them were listed successfully.
    pub complete: bool,
}

/// One list of what these base directories answered.
fn gathered(
    exchange: &ExchangeId,
    bases: &[&Arc<BaseDirectory>],
    lists: Vec<Result<Vec<(SegmentId, u64)>>>,
) -> PartialList {
    let mut found = PartialList {
        segments: Vec::new(),
        failure: None,
        complete: true,
    };
    for (base, listed) in bases.iter().zip(lists) {
        match listed {
            Ok(listed) => found.segments.extend(addresses(exchange, base, listed)),
            Err(error) => {
                base.probe_after_failure();
                found.complete = false;
                found.failure = found.failure.or(Some(error));
            }
        }
    }
    sort(&mut found.segments);
    found
}

fn addresses(
    exchange: &ExchangeId,
    base: &BaseDirectory,
    listed: Vec<(SegmentId, u64)>,
) -> impl Iterator<Item = ListedSegment> {
    let (exchange, base) = (exchange.clone(), base.name.clone());
    listed
        .into_iter()
        .map(move |(segment, size)| ListedSegment {
            address: SegmentAddress {
                exchange: exchange.clone(),
                base: base.clone(),
                segment,
            },
            size,
        })
}

/// Whether a page is in the order of keys and begins after `after`. A store whose pages are not is
/// listed as a whole.
pub(super) fn is_page_after(page: &[ObjectMeta], after: Option<&Key>) -> bool {
    let first = page.first();
    first.is_none_or(|first| after.is_none_or(|after| first.key > *after))
        && page.is_sorted_by(|a, b| a.key < b.key)
}

fn sort(segments: &mut [ListedSegment]) {
    segments.sort_by(|a, b| {
        let (a, b) = (&a.address, &b.address);
        a.segment.cmp(&b.segment).then_with(|| a.base.cmp(&b.base))
    });
}

/// Objects of one request for a list: as many as S3 and Google Cloud Storage return.
pub const PAGE: usize = 1000;
/// Segments before the highest known one that are listed again: one with a lower number may have
/// been stored after one with a higher number.
const OVERLAP: u64 = 64;

/// The highest sequence number of each daemon's segments that are known of an exchange.
#[derive(Debug, Clone, Default)]
pub struct Highest(BTreeMap<DaemonId, u64>);

impl FromIterator<SegmentId> for Highest {
    fn from_iter<I: IntoIterator<Item = SegmentId>>(known: I) -> Self {
        let mut highest = BTreeMap::new();
        for SegmentId { daemon, sequence } in known {
            let entry = highest.entry(daemon).or_insert(sequence);
            *entry = sequence.max(*entry);
        }
        Self(highest)
    }
}

impl Highest {
    /// Behind which segment a list goes on after this one.
    fn beyond(&self, last: SegmentId) -> Option<SegmentId> {
        let sequence = self.0.get(&last.daemon)?.checked_sub(OVERLAP)?;
        Some(SegmentId { sequence, ..last })
    }
}

impl Storage {
    /// Writes a segment to the next healthy base directory of the exchange's set, or to another one
    /// if that fails; returns which.
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
        let members = self.set_of(exchange).members;
        let order = |healthy: &[bool]| placement::set_first(turn, healthy, &members);
        let put = |base: Arc<BaseDirectory>| {
            let (key, content) = (key.clone(), content.clone());
            async move {
                let put = base.store.put(&key, content).await;
                put.inspect(|()| base.recovered())
            }
            .boxed()
        };
        let (base, ()) = self
            .put_anywhere(key.as_str(), Targets::Active, order, put)
            .await?;
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
            return Err(corrupt(format!(
                "got {} for {range:?}",
                count(bytes.len(), "byte")
            )));
        }
        Ok(bytes)
    }

    /// The segments of an exchange in those members of its set that answer, sorted as by
    /// [`Storage::list_segments`]. One that is known to be unreadable is not listed.
    pub async fn list_segments_in_set(&self, exchange: &ExchangeId) -> PartialList {
        let set = self.set_of(exchange);
        let bases = set.members.iter().map(|index| &self.inner.bases[*index]);
        let (asked, skipped): (Vec<_>, Vec<_>) = bases.partition(|base| base.is_readable());
        let mut found = self.list_soon(exchange, asked).await;
        found.complete &= skipped.is_empty() && set.lacking.is_none();
        found
    }

    /// The segments of an exchange in all base directories that answer, sorted as by
    /// [`Storage::list_segments`].
    pub async fn list_segments_anywhere(&self, exchange: &ExchangeId) -> PartialList {
        let set = self.set_of(exchange);
        let required = set.members.iter().map(|index| &self.inner.bases[*index]);
        let others = set.others.iter().map(|index| &self.inner.bases[*index]);
        let listed = join(
            self.list_in(exchange, required.collect()),
            self.list_in(exchange, others.collect()),
        );
        let (mut found, elsewhere) = listed.await;
        found.segments.extend(elsewhere.segments);
        sort(&mut found.segments);
        let lacking = set.lacking.map(|id| self.lacking(exchange, id));
        found.failure = found.failure.or(lacking).or(elsewhere.failure);
        found.complete &= elsewhere.complete && set.lacking.is_none();
        found
    }

    /// As [`Storage::list_segments_in_set`], without most of the segments that are known already if
    /// there are many.
    pub async fn list_new_segments(&self, exchange: &ExchangeId, known: &Highest) -> PartialList {
        let members = self.set_of(exchange).members;
        let bases = members.iter().map(|index| &self.inner.bases[*index]);
        let asked = bases.filter(|base| base.is_readable()).collect();
        self.list_beyond(exchange, asked, known).await
    }

    async fn list_in(&self, exchange: &ExchangeId, bases: Vec<&Arc<BaseDirectory>>) -> PartialList {
        self.list_beyond(exchange, bases, &Highest::default()).await
    }

    /// As [`Storage::list_in`], but once one base directory has answered, the others have
    /// [`LIST_PATIENCE`]: one that hangs, which nobody may know yet, would hold everything up until
    /// its list times out.
    async fn list_soon(
        &self,
        exchange: &ExchangeId,
        bases: Vec<&Arc<BaseDirectory>>,
    ) -> PartialList {
        let known = Highest::default();
        let answered = CancellationToken::new();
        let too_late = async || {
            answered.cancelled().await;
            self.inner.runtime.clock.sleep(LIST_PATIENCE).await;
        };
        let lists = bases.iter().map(async |base| {
            let list = self.list_segments_beyond(base, exchange, &known);
            tokio::select! {
                biased;
                listed = list => {
                    if listed.is_ok() {
                        answered.cancel();
                    }
                    listed
                }
                () = too_late() => Err(self.listed_too_late(base, exchange)),
            }
        });
        let lists = join_all(lists).await;
        gathered(exchange, &bases, lists)
    }

    fn listed_too_late(&self, base: &BaseDirectory, exchange: &ExchangeId) -> StorageError {
        let seconds = LIST_PATIENCE.as_secs();
        let reason = format!("it did not answer within {seconds} s of another base directory");
        let error = StoreError::new(StoreErrorKind::Unavailable, reason);
        base.error("list", format!("segments of {exchange}"), error)
    }

    async fn list_beyond(
        &self,
        exchange: &ExchangeId,
        bases: Vec<&Arc<BaseDirectory>>,
        known: &Highest,
    ) -> PartialList {
        let lists = bases
            .iter()
            .map(|base| self.list_segments_beyond(base, exchange, known));
        let lists = join_all(lists).await;
        gathered(exchange, &bases, lists)
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
            segments.extend(addresses(exchange, base, listed?));
        }
        sort(&mut segments);
        Ok(segments)
    }

    /// The segments of an exchange in one base directory, with their sizes.
    pub(super) async fn list_segments_in(
        &self,
        base: &BaseDirectory,
        exchange: &ExchangeId,
    ) -> Result<Vec<(SegmentId, u64)>> {
        self.list_segments_beyond(base, exchange, &Highest::default())
            .await
    }

    /// Whether a listed object is a segment. Others are left alone.
    pub(super) fn is_segment(&self, base: &BaseDirectory, key: &Key) -> bool {
        let is_segment = matches!(keys::parse(key), Some(OwnObject::Segment(..)));
        if !is_segment {
            self.ignore(base, key);
        }
        is_segment
    }

    /// The segments of an exchange in one base directory, without most of those that are known: a
    /// list that has more than one page goes on behind the known ones of a daemon. Nothing else is
    /// held of a page when the next one is requested.
    async fn list_segments_beyond(
        &self,
        base: &BaseDirectory,
        exchange: &ExchangeId,
        known: &Highest,
    ) -> Result<Vec<(SegmentId, u64)>> {
        let folder = keys::segments(exchange);
        let (mut segments, mut after) = (Vec::new(), None);
        loop {
            let mut page = base.list_after(&folder, after.as_ref(), PAGE).await?;
            let ordered = is_page_after(&page, after.as_ref());
            if !ordered {
                page = base.list(&folder).await?;
                segments.clear();
            }
            let is_last = !ordered || page.len() != PAGE;
            for found in page {
                match keys::parse(&found.key) {
                    Some(OwnObject::Segment(_, segment)) => segments.push((segment, found.size)),
                    _ => self.ignore(base, &found.key),
                }
                after = Some(found.key);
            }
            if is_last {
                return Ok(segments);
            }
            let last = segments.last().map(|(segment, _)| *segment);
            if let Some(beyond) = last.and_then(|last| known.beyond(last)) {
                after = after.max(Some(keys::segment(exchange, beyond)));
            }
        }
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
            let object = format!("{} from {first}", count(keys.len(), "segment"));
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
