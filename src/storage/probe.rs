//! The question whether a base directory works: all that a daemon will ever ask of it, once.
//!
//! Does: write, read, read a range of, list and delete one small object, and see to it that the
//! folder of exchanges keeps an object where the store wants one. Does not: remember the answer
//! (`health`). Invariant: whatever step fails is named, and the probe object is removed if it can
//! be.

use std::time::Duration;

use bytes::Bytes;

use super::StorageErrorKind;
use super::keys;
use super::store::{Store, StoreError};
use crate::clock::Runtime;

/// A store that takes longer than this for a few bytes is not fit for segments.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// Asks it.
pub async fn run(store: &dyn Store, runtime: &Runtime) -> Result<(), StoreError> {
    tokio::select! {
        answer = ask(store, runtime) => answer,
        () = runtime.clock.sleep(TIME_LIMIT) => Err(StoreError::new(
            StorageErrorKind::Unavailable,
            format!("a probe did not end within {} s", TIME_LIMIT.as_secs()),
        )),
    }
}

async fn ask(store: &dyn Store, runtime: &Runtime) -> Result<(), StoreError> {
    if store.wants_keep() {
        match store.get_tail(&keys::keep(), 1).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => {
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
    match store.get_tail(&key, 1).await {
        Err(error) if error.kind == StorageErrorKind::NotFound => Ok(()),
        Err(error) => Err(in_step("reading after deleting")(error)),
        Ok(_) => Err(wrong("is still there after it was deleted")),
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
    move |mut error| {
        error.message = format!("{step} a probe object: {}", error.message);
        if error.kind == StorageErrorKind::NotFound {
            error.kind = StorageErrorKind::Unavailable;
        }
        error
    }
}

fn wrong(what: &str) -> StoreError {
    StoreError::new(StorageErrorKind::Corrupt, format!("a probe object {what}"))
}
