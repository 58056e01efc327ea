//! Probes: a test of one store with all operations that a daemon needs.
//!
//! Does: write, read, list and delete small objects, unconditionally and on conditions; at first
//! also make the kinds of lists that only sweeps and plans need; create the objects that keep the
//! folders of all exchanges non-empty, where the store needs them. Does not: record the result
//! (`base`). Invariant: no failure of an operation is ignored; its error names the operation and
//! the remedy. The probe objects are removed if possible.

use std::time::Duration;

use bytes::Bytes;

use super::segments::{PAGE, is_page_after};
use crate::runtime::Runtime;
use crate::store::keys::{self, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Precondition, Result, Retention, Store, StoreError, StoreErrorKind,
    Versioned, if_found,
};

/// A store that takes longer than this for a few small objects is unusable for segments.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// What a probe found out about a store that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Findings {
    /// Writes whose precondition fails are applied, at least sometimes.
    pub ignores_preconditions: bool,
    /// Why it retains deleted objects, if it does.
    pub retention: Option<Retention>,
}

/// How much a probe tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that a daemon needs.
    Full,
    /// What may fail in a store that has passed a full probe.
    Health,
}

/// One operation of a probe.
#[derive(Debug, Clone, Copy)]
struct Step {
    doing: &'static str,
    /// The remedy, if the error itself has none.
    advice: &'static str,
}

const WRITING: Step = Step {
    doing: "writing",
    advice: "the daemon must be able to put objects below the URI",
};
const READING: Step = Step {
    doing: "reading",
    advice: "the daemon must be able to get objects below the URI",
};
const LISTING: Step = Step {
    doing: "listing",
    advice: "the daemon must be able to list the objects below the URI",
};
const LISTING_FOLDERS: Step = Step {
    doing: "listing, with a delimiter,",
    advice: "the store must implement lists with a delimiter (delimiter=/)",
};
const LISTING_AFTER: Step = Step {
    doing: "listing, from a key on,",
    advice: "the store must implement lists that begin after a key (start-after)",
};
const DELETING: Step = Step {
    doing: "deleting",
    advice: "the daemon must be able to delete objects below the URI",
};
const CREATING: Step = Step {
    doing: "creating, only if absent,",
    advice: "the store must implement conditional writes (If-None-Match: *)",
};
const REPLACING: Step = Step {
    doing: "replacing, only if unchanged,",
    advice: "the store must implement conditional writes (If-Match with an ETag)",
};

impl Step {
    fn failed(self, error: StoreError) -> StoreError {
        let kind = match error.kind {
            StoreErrorKind::NotFound => StoreErrorKind::Unavailable,
            kind => kind,
        };
        // A store that is down has other reasons.
        let advised = kind == StoreErrorKind::Refused && error.hint.is_none();
        StoreError {
            hint: advised.then_some(self.advice),
            full: error.full,
            ..StoreError::new(kind, format!("{} a probe object", self.doing)).caused_by(error)
        }
    }
}

/// Runs a probe; one that takes too long has failed.
pub(super) async fn within_limit<T>(
    probe: impl Future<Output = Result<T>>,
    runtime: &Runtime,
) -> Result<T> {
    let completed = runtime.clock.within(TIME_LIMIT, probe).await;
    completed.unwrap_or_else(|| {
        let message = format!("a probe did not complete within {} s", TIME_LIMIT.as_secs());
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    })
}

/// Probes a store.
pub(super) async fn probe(
    store: &dyn Store,
    runtime: &Runtime,
    extent: Extent,
) -> Result<Findings> {
    if store.needs_keep_object() {
        for keep in keys::keep() {
            put_keep(store, &keep).await?;
        }
    }
    // The first one has a key before it.
    let numbers = [(); 2].map(|()| runtime.random.next_u64().max(1));
    let [plain, conditional] = numbers.map(keys::probe);
    let findings = async {
        write_and_read(store, &plain).await?;
        if extent == Extent::Full {
            check_lists(store, &plain, &keys::probe(numbers[0] - 1)).await?;
        }
        check_conditions(store, &conditional).await
    };
    let findings = findings.await;
    let deleted = store.delete(vec![plain.clone(), conditional.clone()]).await;
    let findings = findings?;
    deleted.map_err(|error| DELETING.failed(error))?;
    for key in [&plain, &conditional] {
        if exists(store, key).await? {
            return Err(wrong("still exists after it was deleted"));
        }
    }
    let listed = list(store).await?;
    let deleted = |found: &ObjectMeta| found.key == plain || found.key == conditional;
    if listed.iter().any(deleted) {
        return Err(wrong("is still listed after it was deleted"));
    }
    Ok(findings)
}

async fn put_keep(store: &dyn Store, keep: &Key) -> Result<()> {
    if exists(store, keep).await? {
        return Ok(());
    }
    let content = vec![Bytes::from_static(b"Keeps this folder from being empty.\n")];
    let put = store.put(keep, content).await;
    put.map_err(|error| WRITING.failed(error))
}

async fn exists(store: &dyn Store, key: &Key) -> Result<bool> {
    let found = if_found(store.get_tail(key, 1).await);
    Ok(found.map_err(|error| READING.failed(error))?.is_some())
}

/// Leaves the object to be deleted.
async fn write_and_read(store: &dyn Store, plain: &Key) -> Result<()> {
    let content = format!("{plain} ok");
    let (first, second) = content.split_at(plain.as_str().len());
    let parts = [first, second].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let put = store.put(plain, parts.into()).await;
    put.map_err(|error| WRITING.failed(error))?;
    check_reads(store, plain, &content).await?;
    let listed = list(store).await?;
    match listed.iter().any(|found| found.key == *plain) {
        true => Ok(()),
        false => Err(wrong("is not listed after it was written")),
    }
}

/// The kinds of lists that show an object: by folders, as a sweep lists, and in pages from a key
/// on, as a plan does. One that shows too much is used all the same.
async fn check_lists(store: &dyn Store, key: &Key, before: &Key) -> Result<()> {
    let probes = keys::probes();
    let folders = store.list_folders(&keys::all()).await;
    let folders = folders.map_err(|error| LISTING_FOLDERS.failed(error))?;
    let name = probes.as_str().rsplit('/').next();
    if !folders.iter().any(|folder| Some(&**folder) == name) {
        return Err(wrong("is in a folder that is not listed"));
    }
    let page = store.list_after(&probes, Some(before), PAGE).await;
    let page = page.map_err(|error| LISTING_AFTER.failed(error))?;
    let is_used = is_page_after(&page, Some(before));
    match is_used && !page.iter().any(|found| found.key == *key) {
        true => Err(wrong("is not listed after a key that is before its own")),
        false => Ok(()),
    }
}

async fn list(store: &dyn Store) -> Result<Vec<ObjectMeta>> {
    let listed = store.list(&keys::probes()).await;
    listed.map_err(|error| LISTING.failed(error))
}

async fn check_reads(store: &dyn Store, key: &Key, content: &str) -> Result<()> {
    for max in [1 << 10, 2] {
        let tail = store.get_tail(key, max as u64).await;
        let tail = tail.map_err(|error| READING.failed(error))?;
        let expected = &content[content.len() - content.len().min(max)..];
        if tail.bytes != expected || tail.object_size != content.len() as u64 {
            return Err(wrong("has other content at its end than was written"));
        }
    }
    let range = store.get_range(key, 1..4).await;
    let range = range.map_err(|error| READING.failed(error))?;
    match range == content[1..4] {
        true => Ok(()),
        false => Err(wrong("has other content in a range than was written")),
    }
}

/// Each conditional write twice: its condition holds, then it does not. A store that ignores that
/// is not trusted with conditions any more.
async fn check_conditions(store: &dyn Store, key: &Key) -> Result<Findings> {
    let put = async |step: Step, content: &str, expected: &Precondition| {
        let content = Bytes::from(format!("{content} {key}"));
        let put = store.put_if(key, content, expected).await;
        put.map_err(|error| step.failed(error))
    };
    if !put(CREATING, "first", &Precondition::Absent).await? {
        return Err(wrong("was refused because it exists, which it does not"));
    }
    let created_twice = put(CREATING, "second", &Precondition::Absent).await?;
    let created = read(store, key).await?;
    let unchanged = Precondition::Version(created.version.clone());
    if !put(REPLACING, "third", &unchanged).await? {
        return Err(wrong(
            "was refused because it has changed, which it has not",
        ));
    }
    let replaced_twice = put(REPLACING, "fourth", &unchanged).await?;
    if created_twice || replaced_twice {
        store.distrust_conditions();
    }
    let replaced = read(store, key).await?;
    let expected = if replaced_twice { "fourth" } else { "third" };
    if replaced.bytes != format!("{expected} {key}") {
        return Err(wrong(
            "has other content than the last write that succeeded",
        ));
    }
    let delete = async |version: &str| {
        let deleted = store.delete_if(key, Some(version)).await;
        deleted.map_err(|error| DELETING.failed(error))
    };
    if delete(&created.version).await? != DeleteOutcome::Changed {
        return Err(wrong("was deleted although it had changed"));
    }
    if delete(&replaced.version).await? != DeleteOutcome::Removed {
        return Err(wrong("was not deleted although it had not changed"));
    }
    let observed = store.observed();
    Ok(Findings {
        ignores_preconditions: created_twice || replaced_twice || observed.checks_then_writes,
        retention: observed.retention,
    })
}

async fn read(store: &dyn Store, key: &Key) -> Result<Versioned> {
    let found = store.get_versioned(key).await;
    found.map_err(|error| READING.failed(error))
}

fn wrong(what: &str) -> StoreError {
    StoreError {
        hint: Some("the store is not consistent: use another one for this base directory"),
        ..StoreError::new(StoreErrorKind::Corrupt, format!("a probe object {what}"))
    }
}
