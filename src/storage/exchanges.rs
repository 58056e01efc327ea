//! Exchanges as a whole.
//!
//! Does: list, measure and remove them. Does not: decide when an exchange ends, or know what a
//! marker says (`markers`). Invariant: no segment is removed while a marker may say that its
//! exchange is open.

use futures::future::join_all;

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use crate::id::ExchangeId;
use crate::store::keys::{self, Key};
use crate::store::{DeleteOutcome, StoreErrorKind};

/// What an exchange has in all base directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Number of objects.
    pub objects: u64,
    /// Their total size.
    pub bytes: u64,
}

impl Storage {
    /// Ids of all exchanges that have an object in any base directory, sorted.
    ///
    /// # Errors
    /// If one of the base directories cannot be listed.
    pub async fn list_exchanges(&self) -> Result<Vec<ExchangeId>> {
        let folder = &keys::exchanges();
        let lists = self.inner.bases.iter().map(async |base| {
            let listed = base.store.list_folders(folder).await;
            if listed.is_err() {
                base.suspect();
            }
            listed.map_err(|error| base.error("list", folder.as_str(), error))
        });
        let mut exchanges = Vec::new();
        for (base, listed) in self.inner.bases.iter().zip(join_all(lists).await) {
            for name in listed? {
                match keys::parse_exchange(&name) {
                    Some(exchange) => exchanges.push(exchange),
                    None => self.ignore(base, &name),
                }
            }
        }
        exchanges.sort();
        exchanges.dedup();
        Ok(exchanges)
    }

    /// Removes all objects of an exchange from all base directories, markers first; returns how
    /// many.
    ///
    /// If any base directory may still have a marker, no segment is removed anywhere: a reader
    /// would see the exchange open but empty. No base directory is listed before the markers are
    /// removed from all: a segment that is not in the list was uploaded later, and its uploader
    /// finds the exchange closed and removes it.
    ///
    /// # Errors
    /// If any object could not be removed; a repeated call continues.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64> {
        let markers = self.inner.bases.iter();
        let markers = markers.map(|base| remove_marker(base, exchange));
        let removed = sum(join_all(markers).await)?;
        Ok(removed + self.remove_objects(exchange, None).await?)
    }

    /// Removes all objects of a claimed exchange ([`Storage::claim`]), the tombstones last; returns
    /// how many without the tombstones.
    ///
    /// # Errors
    /// If any object could not be removed; a repeated call continues, also through another daemon.
    pub async fn remove_claimed(&self, exchange: &ExchangeId) -> Result<u64> {
        let marker = keys::marker(exchange);
        let removed = self.remove_objects(exchange, Some(&marker)).await?;
        self.remove_tombstones(exchange).await?;
        Ok(removed)
    }

    async fn remove_objects(&self, exchange: &ExchangeId, except: Option<&Key>) -> Result<u64> {
        let bases = self.inner.bases.iter();
        sum(join_all(bases.map(|base| remove_objects(base, exchange, except))).await)
    }

    /// Counts the objects of an exchange in all base directories.
    ///
    /// # Errors
    /// If one of them cannot be listed.
    pub async fn inventory(&self, exchange: &ExchangeId) -> Result<Inventory> {
        let folder = keys::exchange(exchange);
        let lists = self.inner.bases.iter().map(|base| base.list(&folder));
        let mut inventory = Inventory::default();
        for listed in join_all(lists).await {
            for found in listed? {
                inventory.objects += 1;
                inventory.bytes += found.size;
            }
        }
        Ok(inventory)
    }

    /// Removes the temporary files of interrupted writes, except those that a running daemon may
    /// still need; returns how many.
    ///
    /// # Errors
    /// If a base directory cannot be searched or a file cannot be removed.
    pub async fn remove_stale_temporaries(&self) -> Result<u64> {
        let outcomes = self.inner.bases.iter().map(async |base| {
            let mut removed = 0;
            for folder in [keys::exchanges(), keys::probes()] {
                removed += remove_temporaries(base, &folder).await?;
            }
            Ok(removed)
        });
        sum(join_all(outcomes).await)
    }

    pub(super) fn ignore(&self, base: &BaseDirectory, key: &str) {
        tracing::debug!(base = %base.name, key, "ignoring an object that Stopover did not write");
        self.inner.metrics.count_ignored_key(&base.name);
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

/// An error unless the marker is certainly gone. One that is written concurrently is removed with
/// the other objects.
async fn remove_marker(base: &BaseDirectory, exchange: &ExchangeId) -> Result<u64> {
    let marker = keys::marker(exchange);
    let error = match base.store.delete_if(&marker, None).await {
        Ok(outcome) => return Ok(u64::from(outcome == DeleteOutcome::Removed)),
        Err(error) => error,
    };
    // Deletes may be refused where there is no marker, or succeed and the response be lost.
    let found = base.retrying_if_healthy().get_versioned(&marker).await;
    match found {
        Err(found) if found.kind == StoreErrorKind::NotFound => Ok(0),
        _ => Err(base.error("delete", marker.as_str(), error)),
    }
}

async fn remove_objects(
    base: &BaseDirectory,
    exchange: &ExchangeId,
    except: Option<&Key>,
) -> Result<u64> {
    let folder = keys::exchange(exchange);
    let listed = base.list(&folder).await?.into_iter();
    let keys: Vec<Key> = listed
        .map(|found| found.key)
        .filter(|key| Some(key) != except)
        .collect();
    let mut removed = 0;
    if !keys.is_empty() {
        let object = format!("{} objects of {folder}", keys.len());
        let deleted = base.store.delete(keys).await;
        removed = deleted.map_err(|error| base.error("delete", object, error))?;
    }
    Ok(removed + remove_temporaries(base, &folder).await?)
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
