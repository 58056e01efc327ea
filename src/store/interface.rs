//! The trait that backends implement and wrappers forward, and its values.
//!
//! Does: define each operation and what a backend must guarantee for it. Does not: implement any.
//! Invariant: every method gets its complete input and returns the complete result, so that a
//! wrapper is one call around another.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::Result;
use super::keys::{Folder, Key};
use super::observed::Observed;

/// Largest object that [`Store::get_versioned`] reads, in bytes: markers are small.
pub const MAX_VERSIONED_SIZE: u64 = 1 << 20;

/// The last bytes of an object.
#[derive(Debug, Clone)]
pub struct Tail {
    /// At most as many bytes as requested.
    pub bytes: Bytes,
    /// Size of the whole object.
    pub object_size: u64,
}

/// An object found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// As [`Versioned::entity_tag`]; `None` if the store lists none.
    pub entity_tag: Option<String>,
}

/// The content of an object and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The whole content.
    pub bytes: Bytes,
    /// Identifies one write of the object. It differs after each write of different content; the
    /// writer makes sure that no two contents under one key are equal.
    pub version: String,
    /// What a list shows of this write. It differs after each write too, but shows only that
    /// something has changed: conditions name the version.
    pub entity_tag: String,
}

/// The condition of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// The object must not exist.
    Absent,
    /// The object must not exist, and the store must decide that itself: one without conditional
    /// writes refuses, where [`Precondition::Absent`] reads first and loses a write in between.
    StrictlyAbsent,
    /// The object must still have this [`Versioned::version`].
    Version(String),
}

/// Result of a conditional delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The object existed and was deleted.
    Removed,
    /// There was no object.
    Absent,
    /// The object has another version than expected and was retained.
    Changed,
}

/// The operations on one base directory.
///
/// Backends return errors as they occur: [`Retry`](super::retry::Retry) repeats what may be
/// repeated, [`Limit`](super::limit::Limit) bounds concurrency and [`Meter`](super::meter::Meter)
/// counts. Each operation may run concurrently with any other, also from other processes.
///
/// # Errors
/// All methods fail with a [`StoreError`](super::StoreError) whose kind decides what happens next:
/// - [`NotFound`](super::StoreErrorKind::NotFound): the object does not exist (reads only);
/// - [`Unavailable`](super::StoreErrorKind::Unavailable): a retry may help; the operation may have
///   been applied;
/// - [`Refused`](super::StoreErrorKind::Refused): a retry does not help, and the operation was
///   certainly not applied;
/// - [`Corrupt`](super::StoreErrorKind::Corrupt): the object is not what it should be.
///
/// # Examples
/// Writing an object and reading its last bytes:
///
/// ```
/// use bytes::Bytes;
/// use stopover::store::local::{LocalStore, WriteMode};
/// use stopover::store::{Store, keys};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = LocalStore::new(folder.path().to_owned(), WriteMode::Direct, 7);
/// let key = keys::marker(&"query-1".parse()?);
/// store.put(&key, vec![Bytes::from("some "), Bytes::from("bytes")]).await?;
/// let tail = store.get_tail(&key, 5).await?;
/// assert_eq!((&tail.bytes[..], tail.object_size), (&b"bytes"[..], 10));
/// # Ok(())
/// # }
/// ```
///
/// `Meter` in `meter.rs` shows how a wrapper forwards every method and adds to some; `LocalStore`
/// in `local/backend.rs` is a complete backend.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Writes a whole object, the concatenation of `content`, replacing one with the same key.
    /// Readers see the old or the new object, never a part of one. `Ok` means durable.
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()>;

    /// Writes a small object if the precondition holds, atomically with respect to other
    /// conditional writes; returns whether it was written.
    ///
    /// The content must differ from all content ever put under this key: after a lost response a
    /// backend compares contents to find out whether its write was applied.
    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool>;

    /// Reads a small object (up to [`MAX_VERSIONED_SIZE`]) with its version. Strongly consistent:
    /// a write that has completed is visible.
    async fn get_versioned(&self, key: &Key) -> Result<Versioned>;

    /// The last `max` bytes of an object, or all of it if it is shorter; `max` may be 0.
    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail>;

    /// Exactly these bytes of an object, or `Corrupt` if it does not have all of them.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;

    /// All objects below a folder, at any depth, in no particular order, without temporaries and
    /// symbolic links. A folder that does not exist is empty; a base directory that has disappeared
    /// is an error, and so is a folder behind a symbolic link.
    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>>;

    /// The first `max` objects below a folder whose keys are after `after`, in the order of keys,
    /// or more of them: a store that cannot begin in the middle of a list returns them all.
    /// Otherwise as [`Store::list`].
    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let mut listed = self.list(folder).await?;
        listed.retain(|found| after.is_none_or(|after| found.key > *after));
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        debug_assert!(max > 0, "an empty page would look like the end");
        Ok(listed)
    }

    /// Up to `max` keys of objects anywhere in the base directory, to determine what it is used
    /// for.
    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let listed = self.list(&super::keys::root()).await?;
        Ok(listed
            .into_iter()
            .map(|found| found.key)
            .take(max)
            .collect())
    }

    /// Names of the non-empty folders directly in a folder, in no particular order.
    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>>;

    /// Deletes objects; missing ones are not an error. Returns how many it deleted (a store that
    /// does not report this counts all of them).
    async fn delete(&self, keys: Vec<Key>) -> Result<u64>;

    /// Deletes one small object: unconditionally, or only if it still has this version. A store
    /// without conditional deletes reads the version first; a write in between is lost. A store
    /// that does not report whether there was an object answers an unconditional delete with
    /// [`DeleteOutcome::Removed`].
    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome>;

    /// Removes what interrupted puts of Stopover left below a folder, unless a running put of any
    /// process may still need it; returns how many files it removed.
    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64>;

    /// Whether a marker can be written now although puts fail for lack of space.
    async fn can_write_when_full(&self) -> bool {
        false
    }

    /// Whether the folders that all exchanges share must never become empty, because on some
    /// servers a put fails while another client deletes the last object of its folder.
    fn needs_keep_object(&self) -> bool {
        false
    }

    /// The store was seen to apply a write whose precondition failed: a backend that leaves
    /// conditions to the store checks them itself from now on, before it writes.
    fn distrust_conditions(&self) {}

    /// The deficiencies of the store that were observed so far.
    fn observed(&self) -> Observed {
        Observed::default()
    }
}
