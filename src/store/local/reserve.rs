//! A small file whose space is used to write a marker when the file system is full.
//!
//! Does: create it beside the markers, write into it if there is no other space, and turn the file
//! that a write replaces into the next one. Does not: name files (`publish`, `swap`). Invariant:
//! the file of a marker is never written to. A replaced file has two names for a moment; a writer
//! that uses the reserve waits for its lock, and leaves a file alone that also has another name.
//!
//! Without it, leases could not be renewed on a full file system, and the expired exchanges that
//! fill it could not be claimed.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::payload::Payload;
use super::root::Root;
use super::swap;
use crate::store::keys;

/// One block of most file systems; a marker is shorter.
const SIZE: usize = 4096;

impl Root {
    fn reserve(&self) -> PathBuf {
        let [keep, _] = keys::keep();
        self.folder.join(keep.as_str())
    }

    /// The reserve, if it is in the same folder as a file: that of a marker.
    pub(super) fn reserve_beside(&self, path: &Path) -> Option<PathBuf> {
        let reserve = self.reserve();
        (reserve.parent() == path.parent()).then_some(reserve)
    }

    /// After a marker or segment was written or a marker deleted: creates the reserve if there is
    /// none and there is space.
    pub(super) fn create_reserve(&self, path: &Path) {
        use keys::OwnObject::{Marker, Segment};
        let reserve = self.reserve();
        let object = self.key(path).and_then(|key| keys::parse(&key));
        if matches!(object, Some(Marker(_) | Segment(..))) {
            self.create_missing_reserve(&reserve);
        }
    }

    fn create_missing_reserve(&self, reserve: &Path) {
        if self.exists(reserve) {
            return;
        }
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let mut temporary = reserve.as_os_str().to_owned();
        temporary.push(keys::temporary_suffix(self.writer, number));
        let temporary = PathBuf::from(temporary);
        let content = Payload::from(vec![Bytes::from_static(&[0; SIZE])]);
        let folder = reserve.parent().unwrap_or(&self.folder);
        let written = self.create_folders(folder);
        let written = written.and_then(|()| self.write_temporary(&temporary, &content));
        let created = written.and_then(|file| (self.rename(&temporary, reserve), file).0);
        if let Err(error) = created {
            let _ = self.remove_file(&temporary);
            tracing::debug!(reserve = %reserve.display(), %error, "cannot create the reserve");
        }
    }

    /// Renames the reserve to a temporary and writes this content into it; returns it, locked.
    ///
    /// # Errors
    /// `NotFound` if there is no reserve; otherwise those of the file system.
    pub(super) fn write_reserve(&self, temporary: &Path, content: &Payload) -> io::Result<File> {
        let reserve = self.reserve_beside(temporary).ok_or(ErrorKind::NotFound)?;
        let content = content.get()?.concat();
        if content.len() > SIZE {
            return Err(ErrorKind::NotFound.into());
        }
        self.rename(&reserve, temporary)?;
        let file = swap::lock(self, temporary)?.ok_or(ErrorKind::NotFound)?;
        if file.metadata()?.nlink() > 1 {
            // A replacement was interrupted: it still is a marker.
            return Err(ErrorKind::NotFound.into());
        }
        file.write_all_at(&content, 0)?;
        file.set_len(content.len() as u64)?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(file)
    }

    /// Whether the reserve can be written to now. It is created if that is possible: a file system
    /// that is full only because of `min_free` has space for it.
    pub(super) fn is_reserve_writable(&self) -> bool {
        let reserve = self.reserve();
        self.create_missing_reserve(&reserve);
        let write = || {
            let file = swap::lock(self, &reserve)?.ok_or(ErrorKind::NotFound)?;
            let (mine, now) = (file.metadata()?, fs::symlink_metadata(&reserve)?);
            if (mine.ino(), mine.nlink()) != (now.ino(), 1) {
                return Err(io::Error::from(ErrorKind::NotFound));
            }
            file.write_all_at(&[0], 0)?;
            file.sync_all()
        };
        write().is_ok()
    }
}

/// Whether an error means that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
