//! The trait [`Store`] over a folder of HDFS.
//!
//! Does: hold the state of one base directory, map keys to paths, choose the form of an object.
//! Does not: write content (`content`), replace small objects (`versioned`) or list (`tree`).
//! Invariant: every path is below the root, and what a put that did not succeed left is removed by
//! the next one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use hdfs_native::Client;
use parking_lot::Mutex;

use super::error::{Failure, failure};
use super::name_nodes::NameNodes;
use super::names::{Form, Version};
use crate::human::count;
use crate::store::keys::{self, Folder, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Precondition, Result, Store, StoreError, StoreErrorKind, Tail,
    Versioned,
};

/// How many times a put starts over because a sweeper removed its temporary: it takes one that was
/// closed and not yet renamed for abandoned.
const MAX_RACES: u32 = 10;

/// A folder of HDFS.
#[derive(Debug)]
pub(super) struct HdfsStore {
    pub nodes: NameNodes,
    /// Absolute, without a final slash.
    pub root: String,
    pub root_exists: AtomicBool,
    /// Copies of each file, if not as the cluster has configured.
    pub replication: Option<u32>,
    /// Identifies this process in names.
    writer: u64,
    next: AtomicU64,
    /// What puts left that failed or were given up.
    leftovers: Mutex<Vec<String>>,
}

impl HdfsStore {
    pub(super) fn new(
        nodes: NameNodes,
        root: String,
        replication: Option<u32>,
        writer: u64,
    ) -> Self {
        Self {
            nodes,
            root,
            root_exists: AtomicBool::new(false),
            replication,
            writer,
            next: AtomicU64::new(0),
            leftovers: Mutex::default(),
        }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for what follows a version.
    pub(super) fn new_version(&self, size: usize, after: Option<&Version>) -> Version {
        Version::new(self.writer, self.next(), size as u64, after)
    }

    /// A temporary name beside a path.
    pub(super) fn temporary(&self, path: &str) -> String {
        let suffix = keys::temporary_suffix(self.writer, self.next());
        format!("{path}{suffix}")
    }

    /// The path of an object.
    ///
    /// # Errors
    /// `Refused` if the key would name a path outside of the root.
    pub(super) fn path(&self, key: &Key) -> Result<String, StoreError> {
        let harmless = |part: &str| !matches!(part, "" | "." | "..");
        if key.as_str().split('/').all(harmless) {
            return Ok(format!("{}/{key}", self.root));
        }
        let message = "the key leaves the base directory";
        Err(StoreError::new(StoreErrorKind::Refused, message))
    }

    /// The object of a path.
    pub(super) fn key(&self, path: &str) -> Option<Key> {
        let relative = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        Some(Key::listed(relative))
    }

    /// Marks a path that this process creates as a leftover unless it is forgotten.
    pub(super) fn leftover(&self, path: &str) -> Leftover<'_> {
        Leftover {
            of: self,
            path: Some(path.to_owned()),
        }
    }

    /// Removes what earlier puts left. What cannot be removed yet stays known: this process renews
    /// the leases of its files, so nobody else ever finds one of them abandoned.
    pub(super) async fn remove_leftovers(&self) {
        let all = std::mem::take(&mut *self.leftovers.lock());
        let all: Vec<_> = all.iter().map(|path| self.leftover(path)).collect();
        for leftover in all {
            let path = leftover.path.clone().unwrap_or_default();
            match self.nodes.delete(&path, true).await {
                Ok(_) => leftover.forget(),
                Err(error) => {
                    tracing::debug!(path, ?error, "cannot remove what a failed put left yet");
                    break;
                }
            }
        }
    }

    pub(super) async fn rename(&self, from: &str, to: &str, over: bool) -> Result<(), Failure> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let rename = move |client: Client| async move { client.rename(&from, &to, over).await };
        self.nodes.call(rename).await
    }

    /// Writes a file and gives it its name, over one of this name or, if `create`, only where there
    /// is none; returns whether it did.
    async fn publish(&self, path: &str, content: &[Bytes], create: bool) -> Result<bool> {
        self.remove_leftovers().await;
        let mut races = 0;
        loop {
            let temporary = self.temporary(path);
            let leftover = self.leftover(&temporary);
            let written = self.write_file(&temporary, content, true).await;
            let named = match written {
                Ok(()) => self.rename(&temporary, path, !create).await,
                Err(error) => Err(error),
            };
            match named {
                Ok(()) => {
                    leftover.forget();
                    return Ok(true);
                }
                Err(error) if error.is_in_the_way() && create => return Ok(false),
                Err(error) if error.is_missing() && races < MAX_RACES => races += 1,
                Err(error) => return Err(put_failure(path, error)),
            }
        }
    }

    /// Creates a file that is never replaced. After a lost answer it may be this put's own.
    async fn create_file(&self, path: &str, content: &Bytes) -> Result<bool> {
        if self
            .publish(path, std::slice::from_ref(content), true)
            .await?
        {
            return Ok(true);
        }
        let found = self.read_all(path).await;
        Ok(found.map_err(|error| failure("reading", path, error))? == *content)
    }
}

/// The error of a failed put. What is missing then is not the object.
pub(super) fn put_failure(path: &str, error: Failure) -> StoreError {
    let mut failure = failure("writing", path, error);
    if failure.kind == StoreErrorKind::NotFound {
        failure.kind = StoreErrorKind::Unavailable;
    }
    failure
}

/// A path of this process's own that is to be removed if its put does not succeed.
pub(super) struct Leftover<'a> {
    of: &'a HdfsStore,
    path: Option<String>,
}

impl Leftover<'_> {
    /// It has its name, or is gone.
    pub(super) fn forget(mut self) {
        self.path = None;
    }
}

impl Drop for Leftover<'_> {
    fn drop(&mut self) {
        self.of.leftovers.lock().extend(self.path.take());
    }
}

#[async_trait]
impl Store for HdfsStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let path = self.path(key)?;
        match Form::of(key) {
            Form::File => self.publish(&path, &content, false).await.map(drop),
            Form::Versioned => self.put_version(&path, &content.concat().into()).await,
        }
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let path = self.path(key)?;
        match (Form::of(key), expected) {
            (Form::Versioned, Precondition::Version(version)) => {
                self.replace_version(&path, &content, version).await
            }
            (Form::Versioned, Precondition::Absent | Precondition::StrictlyAbsent) => {
                self.create_version(&path, &content).await
            }
            (Form::File, Precondition::Absent | Precondition::StrictlyAbsent) => {
                self.create_file(&path, &content).await
            }
            (Form::File, Precondition::Version(_)) => {
                let message = format!("{path} is a file, which cannot be replaced conditionally");
                Err(StoreError::new(StoreErrorKind::Refused, message))
            }
        }
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let path = self.path(key)?;
        match Form::of(key) {
            Form::Versioned => self.read_version(&path).await,
            Form::File => {
                let bytes = self.read_all(&path).await;
                let bytes = bytes.map_err(|error| failure("reading", &path, error))?;
                // It is never replaced.
                let version = format!("{}", bytes.len());
                Ok(Versioned {
                    bytes,
                    entity_tag: version.clone(),
                    version,
                })
            }
        }
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let path = self.path(key)?;
        match Form::of(key) {
            Form::File => self.read_tail(&path, max).await,
            Form::Versioned => {
                let bytes = self.read_version(&path).await?.bytes;
                let skipped = bytes
                    .len()
                    .saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
                Ok(Tail {
                    bytes: bytes.slice(skipped..),
                    object_size: bytes.len() as u64,
                })
            }
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(key)?;
        if Form::of(key) == Form::File {
            return self.read_range(&path, range).await;
        }
        let bytes = self.read_version(&path).await?.bytes;
        let within = |at: u64| usize::try_from(at).ok().filter(|at| *at <= bytes.len());
        match (within(range.start), within(range.end)) {
            (Some(start), Some(end)) if start <= end => Ok(bytes.slice(start..end)),
            _ => {
                let size = count(bytes.len(), "byte");
                let message = format!("{path} has {size}, not the range {range:?}");
                Err(StoreError::new(StoreErrorKind::Corrupt, message))
            }
        }
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.list_objects(folder).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        self.list_first(max).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.list_names(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        self.delete_all(&keys).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let path = self.path(key)?;
        match (Form::of(key), version) {
            (Form::Versioned, version) => self.delete_version(&path, version).await,
            (Form::File, None) => self.delete_file(&path).await,
            (Form::File, Some(_)) => {
                let message = format!("{path} is a file, which cannot be deleted conditionally");
                Err(StoreError::new(StoreErrorKind::Refused, message))
            }
        }
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.remove_leftovers().await;
        self.remove_stale(folder).await
    }
}
