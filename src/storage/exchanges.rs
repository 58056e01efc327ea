//! Exchanges as a whole.
//!
//! Does: measure and remove them. Does not: decide when an exchange ends, or interpret markers
//! (`markers`). Invariant: no segment is removed while its exchange may have a marker.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use super::listing::ListedExchange;
use crate::human::count;
use crate::id::ExchangeId;
use crate::store::StoreErrorKind;
use crate::store::keys::{self, Key};

/// How long a close waits for a base directory outside the set.
const OUTSIDE_SET_TIMEOUT: Duration = Duration::from_secs(5);

/// What an exchange has in all base directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Number of objects.
    pub objects: u64,
    /// Their total size.
    pub bytes: u64,
}

impl Storage {
    /// Removes all objects of an exchange from the members of its set, and from those other base
    /// directories that answer, markers first; returns how many segments it removed. Requests for
    /// each base directory: one DELETE of the marker, then, for every 1,000 segments, one LIST and
    /// one DELETE.
    ///
    /// If any of them may still have a marker, no segment is removed anywhere: a reader would find
    /// the exchange open but empty. If a base directory outside the set fails, a sweep removes its
    /// objects once it is back. No base directory is listed before the markers are removed from
    /// all: a segment that is not in the list was uploaded later, and its uploader finds the
    /// exchange closed and removes it.
    ///
    /// # Errors
    /// If any object could not be removed; a repeated call continues.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64> {
        let set = self.set_of(exchange);
        if let Some(id) = set.lacking {
            return Err(self.lacking(exchange, id));
        }
        let members = set.members.iter().map(|index| &self.inner.bases[*index]);
        let others = set.others.iter().map(|index| &self.inner.bases[*index]);
        let markers = members.clone().map(|base| remove_marker(base, exchange));
        let elsewhere = others.filter(|base| base.is_readable());
        let elsewhere = elsewhere.map(|base| self.remove_outside_set(base, exchange));
        let (markers, elsewhere) = join(join_all(markers), join_all(elsewhere)).await;
        sum(markers)?;
        let removed = members.map(|base| self.remove_segments_of(base, exchange));
        let removed = sum(join_all(removed).await)?;
        Ok(removed + elsewhere.into_iter().sum::<u64>())
    }

    /// Removes the objects of the exchange from a base directory outside its set, if it can in a
    /// short time. Its marker would be of another announcement of the same exchange.
    async fn remove_outside_set(&self, base: &Arc<BaseDirectory>, exchange: &ExchangeId) -> u64 {
        let removal = async {
            remove_marker(base, exchange).await?;
            self.remove_segments_of(base, exchange).await
        };
        match self
            .inner
            .runtime
            .clock
            .within(OUTSIDE_SET_TIMEOUT, removal)
            .await
        {
            Some(Ok(removed)) => removed,
            Some(Err(error)) => {
                base.probe_after_failure();
                tracing::info!(%exchange, %error,
                    "a base directory that is not in the set of a closed exchange was not cleared; \
                     a sweep will");
                0
            }
            None => {
                base.probe_after_failure();
                tracing::info!(%exchange, base = %base.name,
                    "a base directory that is not in the set of a closed exchange did not answer; \
                     a sweep will clear it");
                0
            }
        }
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
        let listed = self.list_segments_in(base, exchange).await?;
        let bytes = listed.iter().map(|(_, size)| size).sum();
        let segments = listed.into_iter();
        let keys: Vec<Key> = segments
            .map(|(id, _)| keys::segment(exchange, id))
            .collect();
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
    let error = match base.store.delete_if(&marker, None).await {
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
