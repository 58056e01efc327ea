//! Exchanges as a whole.
//!
//! Does: measure and remove them. Does not: decide when an exchange ends, or interpret markers
//! (`markers`). Invariant: no segment is removed while its exchange may have a marker.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use super::listing::ListedExchange;
use super::stored_marker;
use crate::human::count;
use crate::id::ExchangeId;
use crate::store::keys::{self, Key};
use crate::store::{Precondition, StoreError, StoreErrorKind, if_found};

/// How long a close waits for a base directory that it can continue without.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many times a close tries to replace a marker by a tombstone. Who renews it is refused once
/// one try has succeeded.
const MAX_TOMBSTONE_TRIES: usize = 8;

/// What an exchange has in all base directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Number of objects.
    pub objects: u64,
    /// Their total size.
    pub bytes: u64,
}

/// What a close has done.
#[derive(Debug)]
pub struct Cleared {
    /// Number of segments removed.
    pub segments: u64,
    /// Why some base directories still have objects of the exchange.
    pub left: Option<StorageError>,
}

impl Storage {
    /// Removes all objects of an exchange from the members of its set, and from those other base
    /// directories that answer, markers first. Requests for each base directory: one DELETE of the
    /// marker, then, for every 1,000 segments, one LIST and one DELETE.
    ///
    /// If any of them may still have a marker, no segment is removed anywhere: a reader would find
    /// the exchange open but empty. If a member does not answer for some seconds while another one
    /// does, [`Cleared::left`] has its error, and a repeated call continues. If a base directory
    /// outside the set fails, a sweep removes its objects once it is back. No base directory is
    /// listed before the markers are removed from all: a segment that is not in the list was
    /// uploaded later, and its uploader finds the exchange closed and removes it.
    ///
    /// # Errors
    /// If no member answered, or one refuses to remove an object; a repeated call continues.
    pub async fn clear_exchange(&self, exchange: &ExchangeId) -> Result<Cleared> {
        let set = self.set_of(exchange);
        if let Some(id) = set.lacking {
            return Err(self.lacking(exchange, id));
        }
        let bases = |indexes: &[usize]| -> Vec<&Arc<BaseDirectory>> {
            indexes.iter().map(|at| &self.inner.bases[*at]).collect()
        };
        let (members, others) = (bases(&set.members), bases(&set.others));
        let alone = members.len() == 1;
        let markers = set.members.iter().zip(&members).map(async |(index, base)| {
            let removal = self.end_marker(*index, exchange);
            match alone {
                true => removal.await,
                false => self.in_time(base, exchange, removal).await,
            }
        });
        let others = others.into_iter().filter(|base| base.is_readable());
        let elsewhere = others.map(async |base| {
            let removed = self.in_time(base, exchange, remove_marker(base, exchange));
            removed.await.map(|_| base)
        });
        let (markers, elsewhere) = join(join_all(markers), join_all(elsewhere)).await;
        if let Some(left) = self.left(&members, markers)? {
            return Ok(Cleared {
                segments: 0,
                left: Some(left),
            });
        }
        let removed = members.iter();
        let removed = removed.map(|base| self.remove_segments_of(base, exchange));
        let elsewhere = elsewhere.into_iter().map(async |base| {
            let base = base?;
            let removal = self.remove_segments_of(base, exchange);
            self.in_time(base, exchange, removal).await
        });
        let (removed, elsewhere) = join(join_all(removed), join_all(elsewhere)).await;
        let elsewhere = elsewhere.into_iter().map(|removed| {
            removed.unwrap_or_else(|error| {
                tracing::info!(%exchange, %error,
                    "a base directory that is not in the set of a closed exchange was not cleared; \
                     a sweep will");
                0
            })
        });
        let counts = removed.iter().filter_map(|removed| removed.as_ref().ok());
        Ok(Cleared {
            segments: counts.sum::<u64>() + elsewhere.sum::<u64>(),
            left: self.left(&members, removed)?,
        })
    }

    /// As [`Storage::clear_exchange`]; returns how many segments it removed.
    ///
    /// # Errors
    /// If any object could not be removed; a repeated call continues.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64> {
        let cleared = self.clear_exchange(exchange).await?;
        cleared.left.map_or(Ok(cleared.segments), Err)
    }

    /// Whether every base directory that must answer for an exchange can be read, as far as is
    /// known. No request.
    pub fn can_clear(&self, exchange: &ExchangeId) -> bool {
        let mut members = self.set_of(exchange).members.into_iter();
        members.all(|index| self.inner.bases[index].is_readable())
    }

    /// Removes the marker of an exchange from a member. Where a marker may appear late, because a
    /// put of it was not answered, leaves a tombstone instead: the late put fails. The sweeper
    /// removes that with its second sweep.
    async fn end_marker(&self, index: usize, exchange: &ExchangeId) -> Result<u64> {
        let base = &self.inner.bases[index];
        if !self.inner.uncertain.contains(exchange, index) {
            return remove_marker(base, exchange).await;
        }
        let (key, store) = (keys::marker(exchange), base.retrying_if_healthy());
        let failed = |error| base.error("put", key.as_str(), error);
        for _ in 0..MAX_TOMBSTONE_TRIES {
            let found = if_found(store.get_versioned(&key).await).map_err(failed)?;
            let expected = match found {
                Some(found) if stored_marker::is_tombstone(&found.bytes) => return Ok(0),
                Some(found) => Precondition::Version(found.version),
                None => Precondition::Absent,
            };
            let tombstone = stored_marker::tombstone(self.inner.runtime.random.next_u64());
            let put = store.put_if(&key, tombstone, &expected);
            if put.await.map_err(failed)? {
                return Ok(0);
            }
        }
        let reason = "its marker is written again and again";
        Err(failed(StoreError::new(StoreErrorKind::Unavailable, reason)))
    }

    /// What some members have not done, while others have.
    ///
    /// # Errors
    /// None has, or one refuses.
    fn left(
        &self,
        members: &[&Arc<BaseDirectory>],
        outcomes: Vec<Result<u64>>,
    ) -> Result<Option<StorageError>> {
        let mut failures = Vec::new();
        for (base, outcome) in members.iter().zip(outcomes) {
            if let Err(error) = outcome {
                suspect(base, &error);
                failures.push(error);
            }
        }
        let later = failures.len() < members.len() && failures.iter().all(is_unavailable);
        match combined(failures) {
            None => Ok(None),
            Some(error) if later => Ok(Some(error)),
            Some(error) => Err(error),
        }
    }

    /// The outcome of a removal from a base directory for which a close does not wait long.
    async fn in_time(
        &self,
        base: &Arc<BaseDirectory>,
        exchange: &ExchangeId,
        removal: impl Future<Output = Result<u64>>,
    ) -> Result<u64> {
        let removed = self
            .inner
            .runtime
            .clock
            .within(CLOSE_TIMEOUT, removal)
            .await;
        let outcome = removed.unwrap_or_else(|| {
            let reason = format!("it did not answer within {} s", CLOSE_TIMEOUT.as_secs());
            let error = StoreError::new(StoreErrorKind::Unavailable, reason);
            Err(base.error("delete", format!("exchange {exchange}"), error))
        });
        outcome.inspect_err(|error| suspect(base, error))
    }

    /// Removes all objects of a claimed exchange ([`Storage::claim`]), the tombstones last; returns
    /// how many segments.
    ///
    /// # Errors
    /// If any object could not be removed; a repeated call continues, also through another daemon.
    pub async fn remove_claimed(&self, exchange: &ExchangeId) -> Result<u64> {
        let removed = self.remove_all_segments(exchange).await?;
        self.remove_tombstones(exchange).await?;
        Ok(removed)
    }

    async fn remove_all_segments(&self, exchange: &ExchangeId) -> Result<u64> {
        let bases = self.inner.bases.iter();
        sum(join_all(bases.map(|base| self.remove_segments_of(base, exchange))).await)
    }

    async fn remove_segments_of(&self, base: &BaseDirectory, exchange: &ExchangeId) -> Result<u64> {
        // In one go: page by page, as for a plan, the store is asked once more where the last page
        // is full.
        let mut listed = base.list(&keys::segments(exchange)).await?;
        listed.retain(|found| self.is_segment(base, &found.key));
        let bytes = listed.iter().map(|found| found.size).sum();
        let keys: Vec<Key> = listed.into_iter().map(|found| found.key).collect();
        let mut removed = 0;
        if !keys.is_empty() {
            let object = format!("{} of {exchange}", count(keys.len(), "segment"));
            let deleted = base.store.delete(keys).await;
            removed = deleted.map_err(|error| base.error("delete", object, error))?;
            self.inner.metrics.count_deleted(&base.name, bytes);
        }
        Ok(removed + remove_temporaries(base, &keys::segments(exchange)).await?)
    }

    /// Counts the objects of a listed exchange in all base directories.
    ///
    /// # Errors
    /// If one of them cannot be listed.
    pub async fn inventory(
        &self,
        exchange: &ExchangeId,
        listed: &ListedExchange,
    ) -> Result<Inventory> {
        let segments = match listed.has_segments {
            true => self.list_segments(exchange).await?,
            false => Vec::new(),
        };
        let sizes = segments.iter().map(|segment| segment.size);
        let sizes = sizes.chain(listed.markers.iter().map(|marker| marker.size));
        Ok(sizes.fold(Inventory::default(), |sum, size| Inventory {
            objects: sum.objects + 1,
            bytes: sum.bytes + size,
        }))
    }

    /// Removes the temporary files of interrupted writes, except those that a running daemon may
    /// still need; returns how many.
    ///
    /// # Errors
    /// If a base directory cannot be searched or a file cannot be removed.
    pub async fn remove_stale_temporaries(&self) -> Result<u64> {
        let folder = keys::all();
        let bases = self.inner.bases.iter();
        sum(join_all(bases.map(|base| remove_temporaries(base, &folder))).await)
    }
}

fn is_unavailable(error: &StorageError) -> bool {
    error.kind() == StoreErrorKind::Unavailable
}

/// Has a base directory probed that may be out of order, or lacks a permission.
fn suspect(base: &Arc<BaseDirectory>, error: &StorageError) {
    if is_unavailable(error) || error.kind() == StoreErrorKind::Refused {
        base.probe_after_failure();
    }
}

fn sum(outcomes: Vec<Result<u64>>) -> Result<u64> {
    let mut removed = 0;
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(count) => removed += count,
            Err(error) => failures.push(error),
        }
    }
    combined(failures).map_or(Ok(removed), Err)
}

/// An error unless the marker is certainly missing now. One that is written concurrently is removed
/// with the other objects.
async fn remove_marker(base: &BaseDirectory, exchange: &ExchangeId) -> Result<u64> {
    let marker = keys::marker(exchange);
    let store = base.retrying_if_healthy();
    let error = match store.delete_if(&marker, None).await {
        Ok(_) => return Ok(0),
        Err(error) => error,
    };
    // Deletes may be refused where there is no marker, or succeed and the response be lost.
    let found = base.retrying_if_healthy().get_versioned(&marker).await;
    match found {
        Err(found) if found.kind == StoreErrorKind::NotFound => Ok(0),
        _ => Err(base.error("delete", marker.as_str(), error)),
    }
}

async fn remove_temporaries(base: &BaseDirectory, folder: &keys::Folder) -> Result<u64> {
    let removed = base.store.remove_stale_temporaries(folder).await;
    removed.map_err(|error| base.error("delete", folder.as_str(), error))
}

/// Several errors as one; a single one as it is.
fn combined(mut failures: Vec<StorageError>) -> Option<StorageError> {
    let last = failures.pop()?;
    if failures.is_empty() {
        return Some(last);
    }
    let (operation, object) = (last.operation, last.object.clone());
    failures.push(last);
    let bases: Vec<&str> = failures.iter().map(|e| e.base.as_str()).collect();
    Some(StorageError {
        base: bases.join(", "),
        operation,
        object,
        source: StorageFailure::Several(failures),
    })
}
