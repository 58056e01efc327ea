//! The minimum free space of a file system.
//!
//! Does: compare the free space with the minimum before a segment is written. Does not: reserve
//! space; several concurrent puts may use a part of the minimum. Invariant: a file system that does
//! not report its size is never full.

use std::io;
use std::path::{Path, PathBuf};

use super::error::put_failure;
use crate::config::units::{SizeOrPercent, format_size_like};
use crate::store::{Result, StoreError, StoreErrorKind};

/// The free space of one base directory.
#[derive(Debug, Default)]
pub(super) struct Space {
    folder: PathBuf,
    /// `None`: not limited.
    min_free: Option<SizeOrPercent>,
    /// Total and free bytes in tests.
    #[cfg(test)]
    pub pretended: parking_lot::Mutex<Option<(u64, u64)>>,
}

impl Space {
    pub(super) fn new(folder: PathBuf, min_free: SizeOrPercent) -> Self {
        Self {
            folder,
            min_free: Some(min_free),
            #[cfg(test)]
            pretended: parking_lot::Mutex::default(),
        }
    }

    /// Checks that enough stays free after a file of `size` bytes was written to `path`: one system
    /// call, which needs no disk.
    ///
    /// # Errors
    /// `Unavailable`, and full; or those of the file system.
    pub(super) fn check(&self, path: &Path, size: u64) -> Result<()> {
        let Some(min_free) = self.min_free else {
            return Ok(());
        };
        let (total, free) = match self.total_and_free() {
            Ok(space) => space,
            // The root is created by the first put.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(put_failure("writing", path, error)),
        };
        let least = min_free.of(total);
        if least == 0 || free >= least.saturating_add(size) {
            return Ok(());
        }
        let [shown_free, shown_least] = [free, least].map(|bytes| format_size_like(bytes, 1 << 20));
        let message = format!(
            "writing {}: its file system has {shown_free} free, and {shown_least} must stay free \
             (min_free = {min_free})",
            path.display()
        );
        Err(StoreError {
            full: true,
            settled: true,
            hint: Some("free space, enlarge the file system, or lower min_free"),
            ..StoreError::new(StoreErrorKind::Unavailable, message)
        })
    }

    fn total_and_free(&self) -> io::Result<(u64, u64)> {
        #[cfg(test)]
        if let Some(pretended) = *self.pretended.lock() {
            return Ok(pretended);
        }
        let found = rustix::fs::statvfs(&self.folder)?;
        // What only root may use is not free.
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok((bytes(found.f_blocks), bytes(found.f_bavail)))
    }
}
