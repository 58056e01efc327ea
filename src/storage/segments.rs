//! Segments: put them somewhere, read them from where they are.
//!
//! Does: place, fail over, read. Does not: know what is inside. Invariant: a put answers `Ok` only
//! after one base directory has answered that it holds the whole segment; it fails only after every
//! one of them failed, for as long as the policy's max_elapsed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::health::Base;
use super::{Storage, StorageError, StorageFailure, StoreErrorKind, Tail, placement};
use crate::id::{BaseName, ExchangeId, SegmentAddress, SegmentId};
use crate::store::StoreError;
use crate::store::keys::{self, Key};

impl Storage {
    /// Writes a segment to the next healthy base directory, to another when that fails, and answers
    /// which holds it. Idempotent: the same segment id always comes with the same bytes.
    pub async fn put_segment(
        &self,
        exchange: &ExchangeId,
        segment: SegmentId,
        content: Vec<Bytes>,
    ) -> Result<SegmentAddress, StorageError> {
        let key = keys::segment(exchange, segment);
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let order = |healthy: &[bool]| placement::round_robin(turn, healthy);
        let put = |base: Arc<Base>| {
            let (key, content) = (key.clone(), content.clone());
            async move { base.store.put(&key, content).await }.boxed()
        };
        let (base, ()) = self.put_anywhere(key.as_str(), order, put).await?;
        Ok(SegmentAddress {
            exchange: exchange.clone(),
            base,
            segment,
        })
    }

    /// The last `max` bytes of a segment, one request.
    pub async fn get_tail(&self, at: &SegmentAddress, max: u64) -> Result<Tail, StorageError> {
        let base = self.base(at, "get")?;
        let tail = base
            .store
            .get_tail(&keys::segment(&at.exchange, at.segment), max)
            .await;
        tail.map_err(|error| base.error("get", at.to_string(), error))
    }

    /// A range of a segment, one request; an answer that is not exactly the range is `Corrupt`.
    pub async fn get_range(
        &self,
        at: &SegmentAddress,
        range: Range<u64>,
    ) -> Result<Bytes, StorageError> {
        let base = self.base(at, "get")?;
        if range.start >= range.end {
            let message = format!("the range {range:?} is empty");
            let error = StoreError::new(StoreErrorKind::Corrupt, message);
            return Err(base.error("get", at.to_string(), error));
        }
        let key = keys::segment(&at.exchange, at.segment);
        let bytes = base.store.get_range(&key, range.clone()).await;
        let bytes = bytes.map_err(|error| base.error("get", at.to_string(), error))?;
        if bytes.len() as u64 != range.end - range.start {
            let message = format!("{} bytes came for {range:?}", bytes.len());
            let error = StoreError::new(StoreErrorKind::Corrupt, message);
            return Err(base.error("get", at.to_string(), error));
        }
        Ok(bytes)
    }

    /// Removes some segments.
    pub async fn remove_segments(&self, which: &[SegmentAddress]) -> Result<(), StorageError> {
        let mut by_base: Vec<Vec<Key>> = vec![Vec::new(); self.inner.bases.len()];
        for at in which {
            let index = self.base_index(at, "delete")?;
            by_base[index].push(keys::segment(&at.exchange, at.segment));
        }
        let removals =
            self.inner
                .bases
                .iter()
                .cloned()
                .zip(by_base)
                .map(|(base, keys)| async move {
                    let Some(first) = keys.first().map(ToString::to_string) else {
                        return Ok(());
                    };
                    let object = format!("{} segments beginning with {first}", keys.len());
                    let removed = base.store.delete(keys).await;
                    removed
                        .map(|_| ())
                        .map_err(|error| base.error("delete", object, error))
                });
        let removed = futures::future::join_all(removals).await;
        removed.into_iter().collect()
    }

    /// Tries a put in the order given, round after round, until one base directory has taken it.
    /// Each failure marks its base directory, so that the next round's order differs.
    pub(super) async fn put_anywhere<T>(
        &self,
        object: &str,
        order: impl Fn(&[bool]) -> Vec<usize>,
        put: impl Fn(Arc<Base>) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<(BaseName, T), StorageError> {
        let (clock, policy) = (&self.inner.runtime.clock, self.inner.put_patience);
        let deadline = clock.now() + policy.max_elapsed;
        let mut number = 0;
        loop {
            let healthy: Vec<bool> = self.inner.bases.iter().map(|b| b.is_healthy()).collect();
            let mut failures = Vec::new();
            for index in order(&healthy) {
                let base: &Arc<Base> = &self.inner.bases[index];
                match put(Arc::clone(base)).await {
                    Ok(answer) => {
                        base.recovered();
                        return Ok((base.name.clone(), answer));
                    }
                    Err(error) => {
                        base.failed(&error);
                        self.inner.metrics.count_put_failure(&base.name);
                        failures.push((index, error));
                    }
                }
            }
            number += 1;
            let wait = policy.wait(number, self.inner.runtime.random.next_u64());
            let hopeless = failures
                .iter()
                .all(|(_, e)| e.kind == StoreErrorKind::Refused);
            if hopeless || clock.now() + wait > deadline {
                return Err(self.all_failed("put", object, failures));
            }
            clock.sleep(wait).await;
        }
    }

    fn all_failed(
        &self,
        operation: &'static str,
        object: &str,
        mut failures: Vec<(usize, StoreError)>,
    ) -> StorageError {
        failures.sort_by_key(|(index, _)| *index);
        let failures = failures
            .into_iter()
            .map(|(index, error)| self.inner.bases[index].error(operation, object, error));
        StorageError {
            base: "all".into(),
            operation,
            object: object.into(),
            source: StorageFailure::Several(failures.collect()),
        }
    }

    fn base_index(
        &self,
        at: &SegmentAddress,
        operation: &'static str,
    ) -> Result<usize, StorageError> {
        let index = self
            .inner
            .bases
            .iter()
            .position(|base| base.name == at.base);
        index.ok_or_else(|| {
            let names: Vec<&str> = self.inner.bases.iter().map(|b| b.name.as_str()).collect();
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

    fn base(
        &self,
        at: &SegmentAddress,
        operation: &'static str,
    ) -> Result<&Arc<Base>, StorageError> {
        Ok(&self.inner.bases[self.base_index(at, operation)?])
    }
}
