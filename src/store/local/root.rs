//! The folder of a base directory, and its state in this process.
//!
//! Does: map keys to paths, hold the recorded state of the folder (`anchor`). Does not: write
//! (`publish`) or list and delete (`tree`). Invariant: every path is below the root.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::anchor::Anchor;
use super::content::ContentWriter;
use super::name_cache::NameCache;
use super::permissions::Permissions;
use super::space::Space;
use crate::store::keys::{self, Key};
use crate::store::{Result, StoreError, StoreErrorKind};

/// State shared by all operations on one folder.
#[derive(Debug)]
pub(super) struct Root {
    pub folder: PathBuf,
    pub permissions: Permissions,
    pub fsync: bool,
    pub content: ContentWriter,
    pub space: Space,
    /// Identifies this process in the names of its temporaries.
    pub writer: u64,
    pub next_temporary: AtomicU64,
    pub anchor: Anchor,
    /// Whether this machine caches names of a network file system (`remote`), once determined.
    pub caches_names: OnceLock<bool>,
    /// What this machine has cached, in tests.
    pub name_cache: NameCache,
    /// This process has synced the folder's own name.
    pub synced: AtomicBool,
}

impl Root {
    pub(super) fn new(folder: PathBuf, fsync: bool, direct: bool, writer: u64) -> Self {
        Self {
            folder,
            permissions: Permissions::OWNER,
            fsync,
            content: ContentWriter::new(direct),
            space: Space::default(),
            writer,
            next_temporary: AtomicU64::new(0),
            anchor: Anchor::default(),
            caches_names: OnceLock::new(),
            name_cache: NameCache::default(),
            synced: AtomicBool::new(false),
        }
    }

    /// The file of an object.
    ///
    /// # Errors
    /// `Refused` if the key would name a file outside of the root.
    pub(super) fn path(&self, key: &Key) -> Result<PathBuf> {
        let harmless = |part: &str| !matches!(part, "" | "." | "..");
        if key.as_str().split('/').all(harmless) {
            return Ok(self.folder.join(key.as_str()));
        }
        Err(StoreError::new(
            StoreErrorKind::Refused,
            "the key leaves the base directory",
        ))
    }

    /// The object of a file, if its name is text.
    pub(super) fn key(&self, path: &Path) -> Option<Key> {
        let relative = path.strip_prefix(&self.folder).ok()?;
        Some(Key::listed(relative.to_str()?))
    }

    /// Whether a folder is below the root and Stopover creates folders of this name.
    pub(super) fn is_own_folder(&self, folder: &Path) -> bool {
        let key = self.key(folder);
        key.is_some_and(|key| keys::is_own_folder(key.as_str()))
    }
}
