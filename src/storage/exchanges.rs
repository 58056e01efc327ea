//! Exchanges as a whole: what lies in them, and their end.
//!
//! Does: list, measure, remove. Does not: decide when an exchange ends, or know what a marker says
//! (`markers`). Invariant: no segment is removed while a marker announces it.

use futures::future::join_all;

use super::health::Base;
use super::{Inventory, ListedSegment, Storage, StorageError, StorageFailure, StoreErrorKind};
use crate::id::{ExchangeId, SegmentAddress};
use crate::store::DeleteOutcome;
use crate::store::keys::{self, Key};

impl Storage {
    /// All segments of an exchange in all base directories, sorted by segment id then base; an
    /// error if one of the base directories cannot be listed.
    pub async fn list_segments(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Vec<ListedSegment>, StorageError> {
        let folder = keys::segments(exchange);
        let lists = join_all(self.inner.bases.iter().cloned().map(|base| {
            let folder = folder.clone();
            async move {
                let listed = base.store.list(&folder).await;
                let listed = listed.map_err(|error| base.error("list", folder.as_str(), error));
                (base, listed)
            }
        }));
        let mut segments = Vec::new();
        for (base, listed) in lists.await {
            for found in listed? {
                let Some(segment) = keys::parse_segment(exchange, &found.key) else {
                    self.ignore(&base, found.key.as_str());
                    continue;
                };
                let (exchange, base) = (exchange.clone(), base.name.clone());
                let address = SegmentAddress {
                    exchange,
                    base,
                    segment,
                };
                segments.push(ListedSegment {
                    address,
                    size: found.size,
                });
            }
        }
        segments.sort_by(|a, b| {
            let (a, b) = (&a.address, &b.address);
            a.segment.cmp(&b.segment).then_with(|| a.base.cmp(&b.base))
        });
        Ok(segments)
    }

    /// Ids of all exchanges that left anything in any base directory, sorted.
    pub async fn list_exchanges(&self) -> Result<Vec<ExchangeId>, StorageError> {
        let folder = keys::exchanges();
        let lists = join_all(self.inner.bases.iter().cloned().map(|base| {
            let folder = folder.clone();
            async move {
                let listed = base.store.list_folders(&folder).await;
                let listed = listed.map_err(|error| base.error("list", folder.as_str(), error));
                (base, listed)
            }
        }));
        let mut exchanges = Vec::new();
        for (base, listed) in lists.await {
            for name in listed? {
                match keys::parse_exchange(&name) {
                    Some(exchange) => exchanges.push(exchange),
                    None => self.ignore(&base, &name),
                }
            }
        }
        exchanges.sort();
        exchanges.dedup();
        Ok(exchanges)
    }

    /// Removes everything of an exchange from every base directory, markers first; answers how many
    /// objects went. An error if any could not be removed; calling it again goes on. Only a base
    /// directory that may still announce the exchange keeps the others from being cleared: whoever
    /// reads it would find it open, and without what had lain in them.
    ///
    /// No base directory is listed before the markers are gone from all: a segment that is not in a
    /// list was uploaded after that, and its uploader finds the exchange closed and takes it away.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64, StorageError> {
        let markers = self.inner.bases.iter().cloned().map(|base| {
            let exchange = exchange.clone();
            async move { remove_marker(&base, &exchange).await }
        });
        let removed = sum(join_all(markers).await)?;
        Ok(removed + self.remove_rest(exchange, None).await?)
    }

    /// Removes everything of an exchange whose end was claimed ([`Storage::claim`]), the tombstones
    /// last; answers how many objects went. An error if any could not be removed; calling it again
    /// goes on, also through another daemon.
    pub async fn remove_claimed(&self, exchange: &ExchangeId) -> Result<u64, StorageError> {
        let marker = keys::marker(exchange);
        let removed = self.remove_rest(exchange, Some(&marker)).await?;
        self.remove_tombstones(exchange).await?;
        Ok(removed)
    }

    /// Removes what lies in an exchange from every base directory, but for one object in each.
    async fn remove_rest(
        &self,
        exchange: &ExchangeId,
        except: Option<&Key>,
    ) -> Result<u64, StorageError> {
        let outcomes = self.inner.bases.iter().cloned().map(|base| {
            let (exchange, except) = (exchange.clone(), except.cloned());
            async move { remove_rest(&base, &exchange, except.as_ref()).await }
        });
        sum(join_all(outcomes).await)
    }

    /// What an exchange left in all base directories; an error if one cannot be listed.
    pub async fn inventory(&self, exchange: &ExchangeId) -> Result<Inventory, StorageError> {
        let folder = keys::exchange(exchange);
        let lists = self.inner.bases.iter().cloned().map(|base| {
            let folder = folder.clone();
            async move {
                let listed = base.store.list(&folder).await;
                listed.map_err(|error| base.error("list", folder.as_str(), error))
            }
        });
        let mut inventory = Inventory::default();
        for listed in join_all(lists).await {
            for found in listed? {
                inventory.objects += 1;
                inventory.bytes += found.size;
            }
        }
        Ok(inventory)
    }

    /// Removes what interrupted writes left behind (temporary files), where a store has such; only
    /// what no running daemon can still be writing. Answers how many went.
    pub async fn remove_stale_temporaries(&self) -> Result<u64, StorageError> {
        let folders = [keys::exchanges(), keys::probes()];
        let outcomes = self.inner.bases.iter().cloned().map(|base| {
            let folders = folders.clone();
            async move {
                let mut removed = 0;
                for folder in &folders {
                    let outcome = base.store.remove_stale_temporaries(folder).await;
                    removed += outcome.map_err(|e| base.error("delete", folder.as_str(), e))?;
                }
                Ok(removed)
            }
        });
        sum(join_all(outcomes).await)
    }

    fn ignore(&self, base: &Base, what: &str) {
        tracing::debug!(base = %base.name, what, "ignoring what is not Stopover's");
        self.inner.metrics.count_ignored_key(&base.name);
    }
}

fn sum(outcomes: Vec<Result<u64, StorageError>>) -> Result<u64, StorageError> {
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

async fn list_all(base: &Base, exchange: &ExchangeId) -> Result<Vec<Key>, StorageError> {
    let folder = keys::exchange(exchange);
    let listed = base.store.list(&folder).await;
    let listed = listed.map_err(|error| base.error("list", folder.as_str(), error))?;
    Ok(listed.into_iter().map(|found| found.key).collect())
}

/// An error if a marker may stay; one that is written in between is in the list of the rest.
async fn remove_marker(base: &Base, exchange: &ExchangeId) -> Result<u64, StorageError> {
    let marker = keys::marker(exchange);
    let error = match base.store.delete_if(&marker, None).await {
        Ok(taken) => return Ok(u64::from(taken == DeleteOutcome::Removed)),
        Err(error) => error,
    };
    // Refused where there was none, perhaps, or removed though the answer was lost.
    match base.patient_if_healthy().get_versioned(&marker).await {
        Err(found) if found.kind == StoreErrorKind::NotFound => Ok(0),
        _ => Err(base.error("delete", marker.as_str(), error)),
    }
}

async fn delete(base: &Base, exchange: &ExchangeId, which: Vec<Key>) -> Result<u64, StorageError> {
    if which.is_empty() {
        return Ok(0);
    }
    let object = format!("{} objects of {}", which.len(), keys::exchange(exchange));
    base.store
        .delete(which)
        .await
        .map_err(|error| base.error("delete", object, error))
}

/// Removes what lies in an exchange, but for one object.
async fn remove_rest(
    base: &Base,
    exchange: &ExchangeId,
    except: Option<&Key>,
) -> Result<u64, StorageError> {
    let mut listed = list_all(base, exchange).await?;
    listed.retain(|key| Some(key) != except);
    let removed = delete(base, exchange, listed).await?;
    Ok(removed + remove_temporaries(base, exchange).await?)
}

async fn remove_temporaries(base: &Base, exchange: &ExchangeId) -> Result<u64, StorageError> {
    let folder = keys::exchange(exchange);
    let removed = base.store.remove_stale_temporaries(&folder).await;
    removed.map_err(|error| base.error("delete", folder.as_str(), error))
}

/// One error for several: the only one as it is, or all of them under their names.
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
