//! Exchanges as a whole: their markers, what lies in them, and their end.
//!
//! Does: write and read markers, list, remove. Does not: decide when an exchange ends. Invariant:
//! what cannot be known because a base directory cannot be asked is an error or a changed version,
//! never an answer that would let a live exchange be taken for a dead one.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;

use super::health::Base;
use super::keys::{self, Key};
use super::store::Versioned;
use super::{ListedSegment, Marker, Storage, StorageError, StorageErrorKind, placement};
use crate::id::{ExchangeId, SegmentAddress};

impl Storage {
    /// Writes (or writes again) the marker of an exchange to its home: the first base directory
    /// that works in an order that depends on the exchange id alone.
    pub async fn put_marker(
        &self,
        exchange: &ExchangeId,
        content: Bytes,
    ) -> Result<(), StorageError> {
        let key = keys::marker(exchange);
        let homes = self.homes(exchange);
        let order = |healthy: &[bool]| placement::healthy_first(homes.clone(), healthy);
        let put = |base: Arc<Base>| {
            let (key, content) = (key.clone(), content.clone());
            async move { base.store.put_versioned(&key, content).await }.boxed()
        };
        self.put_anywhere(key.as_str(), order, put)
            .await
            .map(|_| ())
    }

    /// The marker of an exchange; `None` if no base directory has one. An error if one that might
    /// have it cannot be asked and none of the others has it.
    ///
    /// All are asked: while the home was out of order a renewal went elsewhere, and the old marker
    /// is still at home. The version speaks for all of them; while one cannot be asked it changes
    /// every time, for a renewal may lie just there.
    pub async fn get_marker(&self, exchange: &ExchangeId) -> Result<Option<Marker>, StorageError> {
        let key = keys::marker(exchange);
        let asked = join_all(self.homes(exchange).into_iter().map(|index| {
            let (base, key) = (Arc::clone(&self.inner.bases[index]), key.clone());
            async move {
                // One that is known not to work is not worth a minute's patience.
                let store = if base.is_healthy() {
                    &base.store
                } else {
                    &base.direct
                };
                let answer = store.get_versioned(&key).await;
                (base, answer)
            }
        }));
        let mut found: Vec<(Arc<Base>, Versioned)> = Vec::new();
        let mut failure = None;
        for (base, answer) in asked.await {
            match answer {
                Ok(versioned) => found.push((base, versioned)),
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => failure = failure.or(Some(base.error("get", key.as_str(), error))),
            }
        }
        let Some((_, first)) = found.first() else {
            return failure.map_or(Ok(None), Err);
        };
        let bytes = first.bytes.clone();
        let mut version: Vec<String> = found
            .iter()
            .map(|(base, v)| format!("{}={}", base.name, v.version))
            .collect();
        if let Some(error) = failure {
            tracing::debug!(%error, %exchange, "a renewal may lie where it cannot be seen");
            version.push(format!("?={:016x}", self.inner.runtime.random.next_u64()));
        }
        Ok(Some(Marker {
            bytes,
            version: version.join(","),
        }))
    }

    /// Whether an exchange has a marker: usually one request, to its home. An error if none was found and
    /// one that might have it cannot be asked.
    pub async fn has_marker(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        let key = keys::marker(exchange);
        let mut failure = None;
        for index in self.homes(exchange) {
            let base = &self.inner.bases[index];
            match base.store.get_versioned(&key).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => failure = failure.or(Some(base.error("get", key.as_str(), error))),
            }
        }
        failure.map_or(Ok(false), Err)
    }

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
    /// objects went. An error if any could not be removed; calling it again goes on. A base
    /// directory that fails does not keep the others from being cleared.
    ///
    /// No base directory is listed before the markers are gone from all: a segment that is not in a
    /// list was uploaded after that, and its uploader finds the exchange closed and takes it away.
    pub async fn remove_exchange(&self, exchange: &ExchangeId) -> Result<u64, StorageError> {
        let markers = self.inner.bases.iter().cloned().map(|base| {
            let exchange = exchange.clone();
            async move { remove_marker(&base, &exchange).await }
        });
        let markers = join_all(markers).await;
        let rest = self
            .inner
            .bases
            .iter()
            .cloned()
            .zip(&markers)
            .map(|(base, marker)| {
                let (exchange, marker_stays) = (exchange.clone(), marker.is_err());
                async move {
                    // Where the marker stays, the segments stay: it would announce what is not
                    // there.
                    if marker_stays {
                        return Ok(0);
                    }
                    let listed = list_all(&base, &exchange).await?;
                    let removed = delete(&base, &exchange, listed).await?;
                    Ok(removed + remove_temporaries(&base, &exchange).await?)
                }
            });
        let rest = join_all(rest).await;
        sum(markers.into_iter().chain(rest).collect())
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

    fn homes(&self, exchange: &ExchangeId) -> Vec<usize> {
        placement::rendezvous(exchange, self.inner.bases.iter().map(|base| &base.name))
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

/// Looks before it removes: not every store says whether there was anything to remove. A marker
/// that is written in between is in the list of the rest.
async fn remove_marker(base: &Base, exchange: &ExchangeId) -> Result<u64, StorageError> {
    let marker = keys::marker(exchange);
    match base.store.get_tail(&marker, 1).await {
        Err(error) if error.kind == StorageErrorKind::NotFound => Ok(0),
        Err(error) => Err(base.error("get", marker.as_str(), error)),
        Ok(_) => delete(base, exchange, vec![marker]).await,
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

async fn remove_temporaries(base: &Base, exchange: &ExchangeId) -> Result<u64, StorageError> {
    let folder = keys::exchange(exchange);
    let removed = base.store.remove_stale_temporaries(&folder).await;
    removed.map_err(|error| base.error("delete", folder.as_str(), error))
}

/// One error for several: the only one as it is, or all their reasons under the names of theirs.
fn combined(mut failures: Vec<StorageError>) -> Option<StorageError> {
    let mut first = failures.pop()?;
    if failures.is_empty() {
        return Some(first);
    }
    failures.push(first.clone());
    let all_refused = failures.iter().all(|e| e.kind == StorageErrorKind::Refused);
    first.kind = if all_refused {
        first.kind
    } else {
        StorageErrorKind::Unavailable
    };
    let bases: Vec<&str> = failures.iter().map(|e| e.base.as_str()).collect();
    let reasons: Vec<String> = failures
        .iter()
        .map(|e| format!("{}: {}", e.base, e.message))
        .collect();
    (first.base, first.message) = (bases.join(", "), reasons.join("; "));
    Some(first)
}
