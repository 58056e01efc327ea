//! Writing files.
//!
//! Does: write a temporary, sync it, rename it to its final name, sync the folders above it. Does
//! not: write content (`content`) or evaluate preconditions (`swap`). Invariant: a file has its
//! final name only once its content is complete, and a put that returned `Ok` survives a power
//! failure (if `fsync`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::error::put_failure;
use super::payload::Payload;
use super::reserve::is_full;
use super::root::Root;
use super::swap;
use crate::store::keys;
use crate::store::{Precondition, Result};

/// How many times a put is repeated because another process removed its folder or temporary. On a
/// loaded machine, a sweeper that does nothing else wins nine races of ten.
const MAX_FOLDER_RACES: u32 = 1_000;

impl Root {
    /// Segments and probes: not what a full base directory has to write, which [`Root::put_if`]
    /// writes.
    pub(super) fn put(&self, path: &Path, content: &Payload) -> Result<()> {
        self.space.check(path, content.size())?;
        self.publish(path, content, &|temporary| self.rename(temporary, path))?;
        self.create_reserve(path);
        Ok(())
    }

    pub(super) fn put_if(
        &self,
        path: &Path,
        content: &Payload,
        expected: &Precondition,
    ) -> Result<bool> {
        let reserve = self.reserve_beside(path);
        let written = self.publish(path, content, &|temporary| match expected {
            Precondition::Absent | Precondition::StrictlyAbsent => {
                swap::create(self, temporary, path)
            }
            Precondition::Version(version) => {
                swap::replace(self, temporary, path, version, reserve.as_deref())
            }
        })?;
        self.create_reserve(path);
        if let (false, Some(folder)) = (written, path.parent()) {
            // It may have been created for this put.
            self.remove_empty(folder);
        }
        Ok(written)
    }

    /// Writes a temporary durably, then calls `name`, which renames it to its final name.
    fn publish<T>(
        &self,
        path: &Path,
        content: &Payload,
        name: &dyn Fn(&Path) -> io::Result<T>,
    ) -> Result<T> {
        let mut races = 0;
        loop {
            match self.try_publish(path, content, name) {
                // Another process removed the folder, which was empty, or the temporary.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && races < MAX_FOLDER_RACES =>
                {
                    races += 1;
                }
                Err(error) => return Err(put_failure("writing", path, error)),
                Ok(named) => return Ok(named),
            }
        }
    }

    fn try_publish<T>(
        &self,
        path: &Path,
        content: &Payload,
        name: &dyn Fn(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let folder = path.parent().unwrap_or(&self.folder);
        self.create_folders(folder)?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(keys::temporary_suffix(self.writer, number));
        let temporary = PathBuf::from(temporary);
        let written = match self.write_temporary(&temporary, content) {
            Err(error) if is_full(&error) => {
                let _ = self.remove_file(&temporary);
                self.write_reserve(&temporary, content).map_err(|_| error)
            }
            written => written,
        };
        // The tuple keeps the file open, and so locked, until after the rename.
        let named = written.and_then(|file| (name(&temporary), file).0);
        // After a rename there is nothing to remove. A failure is harmless: the temporary is
        // unlocked and will be removed as stale.
        let _ = self.remove_file(&temporary);
        let named = named?;
        self.sync_folders(folder)?;
        Ok(named)
    }

    /// Returns the file, which is locked while it is open.
    pub(super) fn write_temporary(&self, temporary: &Path, content: &Payload) -> io::Result<File> {
        let mut file = self.create(temporary)?;
        // Where the file system has no locks every temporary counts as locked (`is_abandoned`).
        let _ = file.try_lock();
        // Only for the write: what follows may hang.
        self.content.write(&mut file, &content.get()?)?;
        if self.fsync {
            self.sync_file(&file, temporary)?;
        }
        Ok(file)
    }

    /// Creates a folder and those above it that do not exist. If others remove one meanwhile, the
    /// put fails and is repeated: a loop here would never end for a folder that cannot be created
    /// (`/proc/x`).
    pub(super) fn create_folders(&self, folder: &Path) -> io::Result<()> {
        if folder == self.folder {
            if self.anchor.is_set() {
                // It exists, or has disappeared since the operation began: not ours to create.
                return fs::metadata(folder).map(drop);
            }
            return self.create_root_durably();
        }
        match self.create_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_folders(folder.parent().ok_or(error)?)?;
                self.create_folder(folder)
                    .or_else(|error| self.is_folder(folder, error))
            }
            Err(error) => self.is_folder(folder, error),
            Ok(()) => Ok(()),
        }
    }

    /// No failure of its creation if it exists.
    fn is_folder(&self, folder: &Path, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::AlreadyExists => self.open_folder(folder).map(drop),
            _ => Err(error),
        }
    }

    fn create_root_durably(&self) -> io::Result<()> {
        let missing = self
            .folder
            .ancestors()
            .take_while(|folder| !folder.exists());
        let missing = missing.count();
        self.create_root()?;
        if self.fsync {
            // Those below it are synced by each put.
            for parent in self.folder.ancestors().skip(1).take(missing) {
                self.sync_above(parent)?;
            }
        }
        Ok(())
    }

    /// Makes the names in a folder durable, and those of the folders up to the root: another
    /// process may just have created them and not yet synced. Syncing a clean folder is cheap.
    fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        if let (false, Some(parent)) = (
            self.synced.swap(true, Ordering::Relaxed),
            self.folder.parent(),
        ) {
            // Another daemon may just be creating the root. Lack of permission there is no failure.
            let _ = self.sync_above(parent);
        }
        for folder in folder.ancestors() {
            self.sync_folder(folder)?;
            if folder == self.folder {
                break;
            }
        }
        Ok(())
    }
}
