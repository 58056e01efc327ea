//! A base directory in a file system.
//!
//! Does: write files so that they are whole and durable once they have their name, read ranges of
//! them, remove them together with the folders they leave empty. Does not: remember anything
//! between calls. Invariant: a file under its final name is complete; a file whose name ends in
//! `.tmp` is locked by the process that writes it, so that an unlocked one is nobody's.

pub mod error;
mod read;
mod swap;
mod write;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use self::error::{failure, put_failure};
use self::read::{read_range, read_tail};
use self::write::ContentWriter;
use super::keys::{Folder, Key, TEMPORARY};
use super::limit::carried_permit;
use super::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Tail, Versioned,
};

/// A put whose folder another process removes at the same time begins again this often.
const FOLDER_RACES: u32 = 16;

/// Files below a folder.
#[derive(Debug, Clone)]
pub struct LocalStore(Arc<Inner>);

/// How the bytes of files come to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Whenever the kernel likes.
    Unsynced,
    /// Through the page cache, and synced.
    Cached,
    /// Past the page cache if there are many, and synced.
    Direct,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    fsync: bool,
    content: ContentWriter,
    /// This process, in the names of its temporaries.
    writer: u64,
    next_temporary: AtomicU64,
    /// The root existed at some time: should it be missing later, it is not empty but gone.
    seen: AtomicBool,
    /// The root's own name has been synced by this process.
    root_synced: AtomicBool,
}

impl LocalStore {
    /// Files below `root`, written as `writing` says; `writer` is drawn at random for each run of a
    /// daemon.
    pub fn new(root: PathBuf, writing: WriteMode, writer: u64) -> Self {
        Self(Arc::new(Inner {
            root,
            fsync: writing != WriteMode::Unsynced,
            content: ContentWriter::new(writing == WriteMode::Direct),
            writer,
            next_temporary: AtomicU64::new(0),
            seen: AtomicBool::new(false),
            root_synced: AtomicBool::new(false),
        }))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let permit = carried_permit();
        let task = tokio::task::spawn_blocking(move || {
            let result = work(&inner);
            drop(permit);
            result
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!("interrupted: {error}"),
            ))
        })
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        let path = self.0.path(key)?;
        self.blocking(move |inner| inner.put(&path, &content)).await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        let (path, expected) = (self.0.path(key)?, expected.clone());
        self.blocking(move |inner| inner.put_if(&path, &content, &expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let path = self.0.path(key)?;
        self.blocking(move |_| swap::read(&path).map_err(|error| failure("reading", &path, error)))
            .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let path = self.0.path(key)?;
        self.blocking(move |_| read_tail(&path, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.0.path(key)?;
        self.blocking(move |_| read_range(&path, &range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        let folder = folder.clone();
        self.blocking(move |inner| {
            inner.check_root()?;
            let mut found = Vec::new();
            inner.walk(&inner.root.join(folder.as_str()), &mut |path, size| {
                if let (false, Some(key)) = (is_temporary(path), inner.key(path)) {
                    found.push(ObjectMeta { key, size });
                }
            })?;
            Ok(found)
        })
        .await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        let folder = folder.clone();
        self.blocking(move |inner| {
            inner.check_root()?;
            let path = inner.root.join(folder.as_str());
            let entries = read_folder(&path)?;
            let names = entries.into_iter().filter(|(_, is_folder)| *is_folder);
            Ok(names
                .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.into()))
                .collect())
        })
        .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let paths = keys
            .iter()
            .map(|key| self.0.path(key))
            .collect::<Result<Vec<_>, _>>()?;
        self.blocking(move |inner| inner.delete(&paths)).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        let (path, version) = (self.0.path(key)?, version.map(str::to_owned));
        self.blocking(move |inner| inner.delete_if(&path, version.as_deref()))
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        let folder = folder.clone();
        self.blocking(move |inner| inner.remove_stale_temporaries(&folder))
            .await
    }
}

impl Inner {
    fn path(&self, key: &Key) -> Result<PathBuf, StoreError> {
        let harmless = |part: &str| !matches!(part, "" | "." | "..");
        if key.as_str().split('/').all(harmless) {
            return Ok(self.root.join(key.as_str()));
        }
        Err(StoreError::new(
            StoreErrorKind::Refused,
            "the key leaves the base directory",
        ))
    }

    fn key(&self, path: &Path) -> Option<Key> {
        Some(Key::listed(path.strip_prefix(&self.root).ok()?.to_str()?))
    }

    fn put(&self, path: &Path, content: &[Bytes]) -> Result<(), StoreError> {
        self.publish(path, content, &|temporary| fs::rename(temporary, path))
    }

    fn put_if(
        &self,
        path: &Path,
        content: &Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        let content = std::slice::from_ref(content);
        let written = self.publish(path, content, &|temporary| match expected {
            Precondition::Absent => swap::create(temporary, path),
            Precondition::Version(version) => swap::replace(temporary, path, version),
        })?;
        if let (false, Some(folder)) = (written, path.parent()) {
            // It was made for nothing, if it is empty.
            self.remove_empty(folder);
        }
        Ok(written)
    }

    fn delete_if(&self, path: &Path, version: Option<&str>) -> Result<DeleteOutcome, StoreError> {
        let taken = swap::remove(path, version);
        let taken = taken.map_err(|error| failure("removing", path, error))?;
        if taken == DeleteOutcome::Removed {
            // The file is gone: this removes the folders that it leaves empty, and syncs.
            self.delete_folders([path].into_iter().filter_map(Path::parent), true)?;
        }
        Ok(taken)
    }

    /// Writes a temporary, durably, and has it given its name.
    fn publish<T>(
        &self,
        path: &Path,
        content: &[Bytes],
        name: &dyn Fn(&Path) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let mut race = 0;
        loop {
            match self.try_publish(path, content, name) {
                // Another process removed the folder, which it found empty, or the temporary.
                Err(error) if error.kind() == io::ErrorKind::NotFound && race < FOLDER_RACES => {
                    race += 1;
                }
                Err(error) => return Err(put_failure("writing", path, error)),
                Ok(named) => return Ok(named),
            }
        }
    }

    fn try_publish<T>(
        &self,
        path: &Path,
        content: &[Bytes],
        name: &dyn Fn(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let folder = path.parent().unwrap_or(&self.root);
        self.create_folder(folder)?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{:016x}-{number:x}{TEMPORARY}", self.writer));
        let temporary = PathBuf::from(temporary);
        let written = self.write_temporary(&temporary, content);
        let named = written.and_then(|file| (name(&temporary), file).0);
        // Renamed, it is gone by now. Best effort: what stays is unlocked, and so is collected as
        // abandoned.
        let _ = fs::remove_file(&temporary);
        let named = named?;
        self.sync_folders(folder)?;
        Ok(named)
    }

    /// The file stays open, and so locked, until it has its name.
    fn write_temporary(&self, temporary: &Path, content: &[Bytes]) -> io::Result<File> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(temporary)?;
        // Where locks are unknown the temporary counts as locked to everybody (`is_abandoned`).
        let _ = file.try_lock();
        self.content.write(&mut file, content)?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(file)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = folder.parent().ok_or(error)?;
                self.create_folder(above)?;
                self.create_folder(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::metadata(folder)?.is_dir() {
                    return Ok(());
                }
                Err(io::Error::from(io::ErrorKind::NotADirectory))
            }
            Ok(()) if self.fsync && !self.below_root(folder) => {
                // The root itself and what is above it; what lies below is synced by each put.
                folder.parent().map_or(Ok(()), sync_folder)
            }
            other => other,
        }
    }

    fn below_root(&self, folder: &Path) -> bool {
        folder != self.root && folder.starts_with(&self.root)
    }

    /// Makes a name durable, and the names of the folders that lead to it: another process may have
    /// made them a moment ago without having come to its own sync. Syncing a clean folder is cheap.
    fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        self.seen.store(true, Ordering::Relaxed);
        if !self.fsync {
            return Ok(());
        }
        if let (false, Some(above)) = (
            self.root_synced.swap(true, Ordering::Relaxed),
            self.root.parent(),
        ) {
            // Another daemon may be making the root just now; not to be allowed up there is no
            // failure.
            let _ = sync_folder(above);
        }
        for folder in folder.ancestors() {
            sync_folder(folder)?;
            if folder == self.root {
                break;
            }
        }
        Ok(())
    }

    /// A root that was there and is not any more holds data that cannot be seen: not the same as
    /// empty.
    fn check_root(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.root) {
            Ok(_) => self.seen.store(true, Ordering::Relaxed),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failure("listing", &self.root, error));
            }
            Err(_) if self.seen.load(Ordering::Relaxed) => {
                let root = self.root.display();
                let message = format!("the folder {root} has disappeared; is it still mounted?");
                return Err(StoreError::new(StoreErrorKind::Unavailable, message));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Also the folders that a put made before it was interrupted: a put which loses its folder
    /// while it runs begins again.
    fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        let mut stale = Vec::new();
        let folders = self.walk(&self.root.join(folder.as_str()), &mut |path, _| {
            if is_temporary(path) {
                stale.push(path.to_path_buf());
            }
        })?;
        stale.retain(|path| is_abandoned(path));
        let removed = self.delete(&stale)?;
        for folder in folders.iter().rev() {
            self.remove_empty(folder);
        }
        Ok(removed)
    }

    /// Visits all files below a folder; answers the folders, each before those in it.
    fn walk(
        &self,
        top: &Path,
        visit: &mut dyn FnMut(&Path, u64),
    ) -> Result<Vec<PathBuf>, StoreError> {
        let mut folders = vec![top.to_path_buf()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            for (path, is_folder) in read_folder(&folder)? {
                if is_folder {
                    folders.push(path);
                    continue;
                }
                match fs::symlink_metadata(&path) {
                    Ok(metadata) => visit(&path, metadata.len()),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(failure("listing", &path, error)),
                }
            }
        }
        Ok(folders)
    }

    fn delete(&self, paths: &[PathBuf]) -> Result<u64, StoreError> {
        let mut removed = 0;
        for path in paths {
            match fs::remove_file(path) {
                Ok(()) => removed += 1,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failure("removing", path, error)),
            }
        }
        let folders = paths.iter().filter_map(|path| path.parent());
        self.delete_folders(folders, removed > 0)?;
        Ok(removed)
    }

    /// Removes folders that were left empty, and makes it durable that anything was removed.
    fn delete_folders<'a>(
        &self,
        folders: impl Iterator<Item = &'a Path>,
        removed: bool,
    ) -> Result<(), StoreError> {
        let folders: std::collections::BTreeSet<&Path> = folders.collect();
        // Deepest first: a folder sorts before what lies in it.
        for folder in folders.into_iter().rev() {
            let left = self.remove_empty(folder);
            if self.fsync && removed {
                match sync_folder(left) {
                    Err(error) if !is_gone(&error) => {
                        return Err(failure("removing from", left, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Removes a folder and those above it as far as they are empty; answers the first that stays.
    /// A folder that cannot be removed is in use or not ours to remove: no error.
    fn remove_empty<'a>(&'a self, folder: &'a Path) -> &'a Path {
        let mut folders = folder
            .ancestors()
            .take_while(|folder| self.below_root(folder));
        let stays = folders.find(|folder| match fs::remove_dir(folder) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
        stays.unwrap_or(&self.root)
    }
}

fn is_temporary(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .ends_with(TEMPORARY.as_bytes())
}

/// A temporary that no process holds locked will never get its name. Renamed meanwhile, its path is
/// gone and removing it does nothing; locked a moment too late, its writer finds it missing and
/// begins again.
fn is_abandoned(path: &Path) -> bool {
    match File::open(path).map(|file| (file.try_lock(), file)) {
        Ok((Ok(()), _)) => true,
        Ok((Err(TryLockError::WouldBlock), _)) => false,
        Ok((Err(TryLockError::Error(error)), _)) | Err(error) => {
            tracing::debug!(path = %path.display(), %error, "is this temporary in use?");
            false
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Entries of a folder and whether they are folders; none if it does not exist.
fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, bool)>, StoreError> {
    let read = || -> io::Result<Vec<(PathBuf, bool)>> {
        fs::read_dir(folder)?
            .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))))
            .collect()
    };
    match read() {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        other => other.map_err(|error| failure("listing", folder, error)),
    }
}
