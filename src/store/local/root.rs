//! The folder of a base directory, and its state in this process.
//!
//! Does: map keys to paths, notice that the folder has disappeared. Does not: write (`publish`) or
//! list and delete (`tree`). Invariant: every path is below the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::content::ContentWriter;
use super::error::failure;
use super::permissions::Permissions;
use crate::store::keys::Key;
use crate::store::{Result, StoreError, StoreErrorKind};

/// State shared by all operations on one folder.
#[derive(Debug)]
pub struct Root {
    pub folder: PathBuf,
    pub permissions: Permissions,
    pub fsync: bool,
    pub content: ContentWriter,
    /// Identifies this process in the names of its temporaries.
    pub writer: u64,
    pub next_temporary: AtomicU64,
    /// The folder has existed: if it is missing later, it has disappeared and is not empty.
    pub seen: AtomicBool,
    /// This process has synced the folder's own name.
    pub synced: AtomicBool,
}

impl Root {
    pub fn new(folder: PathBuf, fsync: bool, direct: bool, writer: u64) -> Self {
        Self {
            folder,
            permissions: Permissions::OWNER,
            fsync,
            content: ContentWriter::new(direct),
            writer,
            next_temporary: AtomicU64::new(0),
            seen: AtomicBool::new(false),
            synced: AtomicBool::new(false),
        }
    }

    /// The file of an object.
    ///
    /// # Errors
    /// `Refused` if the key would name a file outside of the root.
    pub fn path(&self, key: &Key) -> Result<PathBuf> {
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
    pub fn key(&self, path: &Path) -> Option<Key> {
        let relative = path.strip_prefix(&self.folder).ok()?;
        Some(Key::listed(relative.to_str()?))
    }

    pub fn is_below(&self, folder: &Path) -> bool {
        folder != self.folder && folder.starts_with(&self.folder)
    }

    /// Checks that the folder has not disappeared: its data exists and cannot be seen, which must
    /// not be taken for an empty base directory.
    ///
    /// # Errors
    /// `Unavailable` if it has, for example because it was unmounted.
    pub fn check(&self) -> Result<()> {
        match fs::metadata(&self.folder) {
            Ok(_) => self.seen.store(true, Ordering::Relaxed),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failure("listing", &self.folder, error));
            }
            Err(_) if self.seen.load(Ordering::Relaxed) => {
                let folder = self.folder.display();
                let message = format!("the folder {folder} has disappeared; is it still mounted?");
                return Err(StoreError::new(StoreErrorKind::Unavailable, message));
            }
            Err(_) => {}
        }
        Ok(())
    }
}
