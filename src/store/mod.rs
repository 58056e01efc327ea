//! One store: what every kind of base directory can do, and nothing more.
//!
//! Does: name the operations that wrappers forward and stores implement. Does not: choose between
//! base directories or know exchanges. Invariant: keys and folders are relative to the base
//! directory and come from `keys`; a method that answered `Ok` has done durably what its name says.

mod error;
mod hash;
pub mod keys;
pub mod limit;
pub mod local;
pub mod meter;
pub mod object;
pub mod open;
pub mod options;
pub mod retry;

pub use error::{Cause, Remedy, StoreError, StoreErrorKind};
pub use hash::stable_hash;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::keys::{Folder, Key};
use self::object::checksums::Checksums;

/// Largest object that [`Store::get_versioned`] reads: markers are small.
pub const MAX_VERSIONED_SIZE: u64 = 1 << 20;

/// The last bytes of an object.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The last bytes, at most as many as asked for.
    pub bytes: Bytes,
    /// Size of the whole object.
    pub object_size: u64,
}

/// An object found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Its bytes.
    pub size: u64,
}

/// The content of an object and what tells this writing of it from any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The content.
    pub bytes: Bytes,
    /// Differs after each writing of another content; the writer sees to it that no two are the
    /// same.
    pub version: String,
}

/// What an object has to be for a write that depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// It does not exist.
    Absent,
    /// It is still the one that was read with this [`Versioned::version`].
    Version(String),
}

/// What came of removing an object if it was as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// It was there and is gone.
    Removed,
    /// There was none.
    Absent,
    /// It is another one than expected, and stays.
    Changed,
}

/// A place for objects. Every method takes the whole of what it needs and answers the whole result,
/// so that a wrapper (limit, meter, retry, faults) is one call around another.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Writes an object whole, replacing one of that key. Nobody ever sees a part of it.
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError>;

    /// Writes a small object whole if what lies there is as expected, in one step that no other
    /// conditional write comes between; `false` if it is not, and then nothing was written. The
    /// content must differ from every other that was ever put under the key: that is how a writer
    /// whose answer was lost finds its own.
    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError>;

    /// Reads a small object whole, with its version.
    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError>;

    /// The last `max` bytes of an object, or all of it if it is shorter.
    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError>;

    /// Exactly these bytes of an object, or `Corrupt` if it does not have them all.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// All objects below a folder, at any depth, in no order; temporaries are not objects.
    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError>;

    /// Names of the folders directly in a folder that hold anything, in no order.
    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError>;

    /// Removes objects; those that are gone already are no error. Answers how many it removed (a
    /// store that does not say counts all of them).
    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError>;

    /// Removes one small object: any, or only the one that was read with this version. A store that
    /// cannot remove on a condition looks and then removes.
    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError>;

    /// Removes what interrupted puts left below a folder and no running put can still need.
    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError>;

    /// Whether an object should stay in the folder of all exchanges for ever, because puts can fail
    /// while another client deletes the last object there.
    fn needs_keep_object(&self) -> bool {
        false
    }

    /// How it could upload more cheaply, if that depends on what is behind it. Asked of the store
    /// itself: wrappers need not know.
    fn checksums(&self) -> Option<Arc<Checksums>> {
        None
    }
}
