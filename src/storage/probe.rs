//! The question whether a base directory works: all that a daemon will ever ask of it, once.
//!
//! Does: write, read, read a range of, list and delete one small object, and see to it that the
//! folder of exchanges keeps an object where the store wants one; find out whether it heeds
//! conditions and verifies checksums; find and remove the objects of probes whose daemon died.
//! Does not: remember the answer (`health`), or decide which probe is dead (`lifecycle::sweep`).
//! Invariant: whatever step fails is named, and the probe object is removed if it can be.

use std::time::Duration;

use bytes::Bytes;

use futures::future::join_all;

use super::{Storage, StorageError, StoreErrorKind};
use crate::runtime::Runtime;
use crate::store::keys::{self, Key};
use crate::store::object::checksums::Checksums;
use crate::store::{Precondition, Store, StoreError};

/// The object of a probe, in one base directory. A probe that is under way removes its own soon.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeObject {
    base: usize,
    key: Key,
}

impl Storage {
    /// The objects of all probes that are under way or were never ended, sorted.
    pub async fn list_probes(&self) -> Result<Vec<ProbeObject>, StorageError> {
        let lists = self.inner.bases.iter().enumerate();
        let lists = join_all(lists.map(|(index, base)| async move {
            let folder = keys::probes();
            let listed = base.direct.list(&folder).await;
            let listed = listed.map_err(|error| base.error("list", folder.as_str(), error))?;
            let objects = listed.into_iter().map(|found| ProbeObject {
                base: index,
                key: found.key,
            });
            Ok(objects.collect::<Vec<_>>())
        }));
        let lists: Result<Vec<_>, StorageError> = lists.await.into_iter().collect();
        let mut all = lists?.concat();
        all.sort();
        Ok(all)
    }

    /// Removes the object of a probe.
    pub async fn remove_probe(&self, probe: &ProbeObject) -> Result<(), StorageError> {
        let base = &self.inner.bases[probe.base];
        let removed = base.direct.delete(vec![probe.key.clone()]).await;
        removed
            .map(drop)
            .map_err(|error| base.error("delete", probe.key.as_str(), error))
    }
}

/// A store that takes longer than this for a few bytes is not fit for segments.
const TIME_LIMIT: Duration = Duration::from_secs(40);
/// The question about checksums may hold up a start, and only saves time.
const CHECKSUMS_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Asks it.
pub async fn run(store: &dyn Store, runtime: &Runtime) -> Result<(), StoreError> {
    within(TIME_LIMIT, ask(store, runtime), runtime).await
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
    runtime: &Runtime,
) -> Result<T, StoreError> {
    tokio::select! {
        biased;
        answer = work => answer,
        () = runtime.clock.sleep(limit) => Err(StoreError::new(
            StoreErrorKind::Unavailable,
            format!("a probe did not end within {} s", limit.as_secs()),
        )),
    }
}

/// Whether the store refuses to write where something lies that should not. Some answer that they
/// have no such thing, which `put_if` knows how to do without; others say nothing and overwrite.
pub async fn honours_conditions(store: &dyn Store, runtime: &Runtime) -> Result<bool, StoreError> {
    let key = keys::probe(runtime.random.next_u64());
    let tries = async {
        let mut written = Vec::new();
        for content in ["first", "second"] {
            let content = format!("{content} {}", key.as_str()).into();
            written.push(store.put_if(&key, content, &Precondition::Absent).await?);
        }
        Ok(written == [true, false])
    };
    let answer = tries.await;
    store.delete(vec![key.clone()]).await?;
    answer
}

/// Whether the store verifies the checksums of uploads: it refuses an object that was damaged on
/// its way, keeps nothing of it, and takes the same object undamaged. An error is no answer.
pub async fn verifies_checksums(
    store: &dyn Store,
    checksums: &Checksums,
    runtime: &Runtime,
) -> Result<bool, StoreError> {
    let key = keys::probe(runtime.random.next_u64());
    let tries = async {
        let content = vec![Bytes::copy_from_slice(key.as_str().as_bytes())];
        let damaged = checksums.damaging.put(&key, content.clone()).await;
        if !was_refused(damaged)? || lies_there(store, &key).await? {
            return Ok(false);
        }
        let undamaged = checksums.checked.put(&key, content).await;
        Ok(!was_refused(undamaged)?)
    };
    let answer = within(CHECKSUMS_TIME_LIMIT, tries, runtime).await;
    store.delete(vec![key.clone()]).await?;
    answer
}

/// Whether a put was refused for what it was, not for what else goes on.
fn was_refused(put: Result<(), StoreError>) -> Result<bool, StoreError> {
    match put {
        Ok(()) => Ok(false),
        Err(error) if error.kind == StoreErrorKind::Refused && !error.contended => Ok(true),
        Err(error) => Err(error),
    }
}

async fn lies_there(store: &dyn Store, key: &Key) -> Result<bool, StoreError> {
    match store.get_tail(key, 1).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn ask(store: &dyn Store, runtime: &Runtime) -> Result<(), StoreError> {
    if store.needs_keep_object() {
        match store.get_tail(&keys::keep(), 1).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                let content = vec![Bytes::from_static(b"Keeps this folder from being empty.\n")];
                store
                    .put(&keys::keep(), content)
                    .await
                    .map_err(in_step("writing"))?;
            }
            other => drop(other.map_err(in_step("reading"))?),
        }
    }
    let key = keys::probe(runtime.random.next_u64());
    let answer = round(store, &key).await;
    let deleted = store
        .delete(vec![key.clone()])
        .await
        .map_err(in_step("deleting"));
    answer?;
    deleted?;
    match lies_there(store, &key).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(wrong("is still there after it was deleted")),
        Err(error) => Err(in_step("reading after deleting")(error)),
    }
}

async fn round(store: &dyn Store, key: &keys::Key) -> Result<(), StoreError> {
    let halves = vec![
        Bytes::copy_from_slice(key.as_str().as_bytes()),
        Bytes::from_static(b" ok"),
    ];
    let content = halves.concat();
    store.put(key, halves).await.map_err(in_step("writing"))?;
    let tail = store
        .get_tail(key, 1 << 10)
        .await
        .map_err(in_step("reading"))?;
    if tail.bytes != content || tail.object_size != content.len() as u64 {
        return Err(wrong("came back other than it was written"));
    }
    let range = store
        .get_range(key, 1..4)
        .await
        .map_err(in_step("reading a range of"))?;
    if range != content[1..4] {
        return Err(wrong(
            "came back other than it was written when a range was asked for",
        ));
    }
    let listed = store
        .list(&keys::probes())
        .await
        .map_err(in_step("listing"))?;
    if !listed.iter().any(|found| found.key == *key) {
        return Err(wrong("is not listed after it was written"));
    }
    Ok(())
}

fn in_step(step: &'static str) -> impl Fn(StoreError) -> StoreError {
    move |error| {
        let kind = match error.kind {
            StoreErrorKind::NotFound => StoreErrorKind::Unavailable,
            kind => kind,
        };
        StoreError::new(kind, format!("{step} a probe object")).caused_by(error)
    }
}

fn wrong(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a probe object {what}"))
}
