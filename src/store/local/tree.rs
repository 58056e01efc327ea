//! Listing and deleting files, and the folders that become empty.
//!
//! Does: walk folders, delete files, remove stale temporaries. Does not: write (`publish`).
//! Invariant: no symbolic link below the root is followed or removed; a temporary is removed only
//! if Stopover wrote it and no process holds its lock; only empty folders that Stopover creates are
//! removed.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{failure, if_found};
use super::root::Root;
use super::swap;
use crate::store::keys::{self, Folder, Key};
use crate::store::{DeleteOutcome, ObjectMeta, Result};

impl Root {
    pub(super) fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        self.walk(folder, &mut |key, _, metadata| {
            if !keys::is_temporary(&key) {
                found.push(ObjectMeta {
                    key,
                    size: metadata.len(),
                    entity_tag: Some(swap::entity_tag(metadata)),
                });
            }
        })?;
        Ok(found)
    }

    /// Up to `max` keys, from the folders near the root first.
    pub(super) fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        let mut folders = VecDeque::from([self.folder.clone()]);
        while let Some(folder) = folders.pop_front() {
            for (path, is_folder) in self.read_folder(&folder)? {
                if found.len() >= max {
                    return Ok(found);
                }
                // Every file system has one, which its owner alone can read.
                if is_folder && !path.ends_with("lost+found") {
                    folders.push_back(path);
                } else if !is_folder {
                    found.extend(self.key(&path).filter(|key| !keys::is_temporary(key)));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let folder = self.folder.join(folder.as_str());
        let entries = self.read_folder(&folder)?;
        let folders = entries.into_iter().filter(|(_, is_folder)| *is_folder);
        Ok(folders
            .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.into()))
            .collect())
    }

    /// Also removes the folders that an interrupted put created; a running put that loses its
    /// folder starts over.
    pub(super) fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        let mut stale = Vec::new();
        let folders = self.walk(folder, &mut |key, path, _| {
            if keys::is_temporary(&key) {
                stale.push(path.to_path_buf());
            }
        })?;
        stale.retain(|path| self.is_abandoned(path));
        let removed = self.delete(&stale)?;
        for folder in folders.iter().rev() {
            self.remove_empty(folder);
        }
        Ok(removed)
    }

    /// Visits all files below a folder; returns the folders, parents first.
    fn walk(
        &self,
        top: &Folder,
        visit: &mut dyn FnMut(Key, &Path, &Metadata),
    ) -> Result<Vec<PathBuf>> {
        let top = self.folder.join(top.as_str());
        let mut folders = vec![top];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            for (path, is_folder) in self.read_folder(&folder)? {
                if is_folder {
                    folders.push(path);
                    continue;
                }
                let metadata = if_found(fs::symlink_metadata(&path));
                let metadata = metadata.map_err(|error| failure("listing", &path, error))?;
                if let (Some(found), Some(key)) = (metadata, self.key(&path))
                    && found.is_file()
                {
                    visit(key, &path, &found);
                }
            }
        }
        Ok(folders)
    }

    pub(super) fn delete(&self, paths: &[PathBuf]) -> Result<u64> {
        let mut removed = 0;
        let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        for path in paths {
            if self.is_foreign(path) {
                continue;
            }
            let gone = if_found(self.remove_file(path));
            let gone = gone.map_err(|error| failure("removing", path, error))?;
            removed += u64::from(gone.is_some());
        }
        self.clean_up_folders(folders, removed > 0)?;
        Ok(removed)
    }

    pub(super) fn delete_if(&self, path: &Path, version: Option<&str>) -> Result<DeleteOutcome> {
        if self.is_foreign(path) {
            return Ok(DeleteOutcome::Absent);
        }
        let outcome = swap::remove(self, path, version);
        let outcome = outcome.map_err(|error| failure("removing", path, error))?;
        if outcome == DeleteOutcome::Removed {
            self.create_reserve(path);
            self.clean_up_folders(path.parent().into_iter().collect(), true)?;
        }
        Ok(outcome)
    }

    /// Removes empty folders after a delete, and makes it durable if anything was `removed`.
    fn clean_up_folders(&self, folders: BTreeSet<&Path>, removed: bool) -> Result<()> {
        // In reverse order a folder comes after its subfolders.
        for folder in folders.into_iter().rev() {
            let remaining = self.remove_empty(folder);
            if self.fsync && removed {
                if_found(self.sync_folder(remaining))
                    .map_err(|error| failure("removing from", remaining, error))?;
            }
        }
        Ok(())
    }

    /// Removes a folder and those above it while they are empty; returns the first that remains. It
    /// is no error if one cannot be removed: it is in use, or not ours to remove.
    pub(super) fn remove_empty<'a>(&'a self, folder: &'a Path) -> &'a Path {
        let mut folders = folder
            .ancestors()
            .take_while(|folder| self.is_own_folder(folder));
        let remaining = folders.find(|folder| if_found(self.remove_folder(folder)).is_err());
        remaining.unwrap_or(&self.folder)
    }

    /// A temporary that no process has locked will never get its final name. Two races are
    /// harmless: if it has just been renamed, its path is missing and removing it does nothing; if
    /// it has not been locked yet, its writer finds it missing and starts over.
    fn is_abandoned(&self, path: &Path) -> bool {
        match self.open_to_lock(path).map(|file| (file.try_lock(), file)) {
            Ok((Ok(()), _)) => true,
            Ok((Err(TryLockError::WouldBlock), _)) => false,
            Ok((Err(TryLockError::Error(error)), _)) | Err(error) => {
                tracing::debug!(path = %path.display(), %error,
                "cannot test whether a temporary is in use; retaining it");
                false
            }
        }
    }

    /// The entries of a folder and whether they are folders; none if it does not exist.
    fn read_folder(&self, folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
        let read = || -> io::Result<Vec<(PathBuf, bool)>> {
            self.open_folder(folder)?;
            self.refresh_names(folder);
            let mut entries = Vec::new();
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let path = entry.path();
                if self.name_cache.check(&self.folder, &path).is_ok() {
                    entries.push((path, entry.file_type()?.is_dir()));
                }
            }
            Ok(entries)
        };
        let entries = if_found(read()).map_err(|error| failure("listing", folder, error))?;
        Ok(entries.unwrap_or_default())
    }
}
