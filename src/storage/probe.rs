//! Probes: a test of one store with all operations that a daemon needs.
//!
//! Does: write, read, list and delete one small object; create the objects that keep the folders of
//! all exchanges non-empty, where the store needs them; test whether preconditions are honoured.
//! Does not: record the result (`base`). Invariant: the failed step is named, and the probe object
//! is removed if possible.

use std::time::Duration;

use bytes::Bytes;

use crate::runtime::Runtime;
use crate::store::keys::{self, Key};
use crate::store::{Precondition, Result, Store, StoreError, StoreErrorKind, if_found};

/// A store that takes longer than this for a few bytes is unusable for segments.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// Runs a probe; one that takes too long has failed.
pub async fn within_limit(
    probe: impl Future<Output = Result<()>>,
    runtime: &Runtime,
) -> Result<()> {
    tokio::select! {
        biased;
        result = probe => result,
        () = runtime.clock.sleep(TIME_LIMIT) => Err(StoreError::new(
            StoreErrorKind::Unavailable,
            format!("a probe did not complete within {} s", TIME_LIMIT.as_secs()),
        )),
    }
}

/// Whether a store refuses a write whose precondition does not hold. Some servers answer that they
/// do not implement preconditions, which `put_if` handles; others ignore them silently.
pub async fn honours_preconditions(store: &dyn Store, runtime: &Runtime) -> Result<bool> {
    let key = keys::probe(runtime.random.next_u64());
    let writes = async {
        let mut written = Vec::new();
        for content in ["first", "second"] {
            let content = format!("{content} {key}").into();
            written.push(store.put_if(&key, content, &Precondition::Absent).await?);
        }
        Ok(written == [true, false])
    };
    let honoured = writes.await;
    store.delete(vec![key.clone()]).await?;
    honoured
}

/// Probes a store.
pub async fn probe(store: &dyn Store, runtime: &Runtime) -> Result<()> {
    if store.needs_keep_object() {
        for keep in keys::keep() {
            put_keep(store, &keep).await?;
        }
    }
    let key = keys::probe(runtime.random.next_u64());
    let result = write_and_read(store, &key).await;
    let deleted = store.delete(vec![key.clone()]).await;
    result?;
    deleted.map_err(in_step("deleting"))?;
    match exists(store, &key, "reading after deleting").await? {
        false => Ok(()),
        true => Err(wrong("still exists after it was deleted")),
    }
}

async fn put_keep(store: &dyn Store, keep: &Key) -> Result<()> {
    if exists(store, keep, "reading").await? {
        return Ok(());
    }
    let content = vec![Bytes::from_static(b"Keeps this folder from being empty.\n")];
    store.put(keep, content).await.map_err(in_step("writing"))
}

async fn exists(store: &dyn Store, key: &Key, step: &'static str) -> Result<bool> {
    let found = if_found(store.get_tail(key, 1).await);
    Ok(found.map_err(in_step(step))?.is_some())
}

async fn write_and_read(store: &dyn Store, key: &Key) -> Result<()> {
    let content = format!("{key} ok");
    let (first, second) = content.split_at(key.as_str().len());
    let parts = [first, second].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let put = store.put(key, parts.into()).await;
    put.map_err(in_step("writing"))?;
    let tail = store.get_tail(key, 1 << 10).await;
    let tail = tail.map_err(in_step("reading"))?;
    if tail.bytes != content || tail.object_size != content.len() as u64 {
        return Err(wrong("has other content than was written"));
    }
    let range = store.get_range(key, 1..4).await;
    let range = range.map_err(in_step("reading a range of"))?;
    if range != content[1..4] {
        return Err(wrong("has other content in a range than was written"));
    }
    let listed = store.list(&keys::probes()).await;
    let listed = listed.map_err(in_step("listing"))?;
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
