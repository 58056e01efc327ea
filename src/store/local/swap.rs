//! Compare and swap of small files.
//!
//! Does: read a file with its version; rename a finished temporary to its final name, or remove a
//! file, if the precondition holds. Does not: write temporaries or sync folders (`publish`,
//! `tree`). Invariant: of several processes with the same precondition one succeeds. They are
//! serialized by a lock on the file to be replaced, which is held from the check to the rename.
//! While a process is stopped in between, no other can change this file, so its check stays valid.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::error::if_found;
use super::root::Root;
use crate::human::count;
use crate::store::{DeleteOutcome, MAX_VERSIONED_SIZE, Versioned, stable_hash};

/// A lock is waited for about five seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A small file with its version: inode, length and a hash of its content.
///
/// # Errors
/// `InvalidData` if it is too large; otherwise those of the file system.
pub(super) fn read(root: &Root, path: &Path) -> io::Result<Versioned> {
    let mut file = root.open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_VERSIONED_SIZE {
        let size = metadata.len();
        let message = format!(
            "the file has {}, more than {MAX_VERSIONED_SIZE}",
            count(size, "byte")
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.by_ref()
        .take(MAX_VERSIONED_SIZE)
        .read_to_end(&mut bytes)?;
    let hash = stable_hash(&[&bytes]);
    let version = format!("{}-{}-{hash:016x}", metadata.ino(), bytes.len());
    Ok(Versioned {
        bytes: bytes.into(),
        version,
        entity_tag: entity_tag(&metadata),
    })
}

/// What identifies one write of a file without reading it: inode, length and time of modification.
/// The time is only compared, so no clock has to be correct: it distinguishes two files that had
/// the same inode one after the other.
pub(super) fn entity_tag(metadata: &Metadata) -> String {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let (inode, length) = (metadata.ino(), metadata.len());
    format!("{inode:x}-{length:x}-{seconds:x}.{nanoseconds:x}")
}

/// Renames a temporary to `path` if no file has that name; returns whether it did.
///
/// # Errors
/// Those of the file system.
pub(super) fn create(root: &Root, temporary: &Path, path: &Path) -> io::Result<bool> {
    match root.hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(error) => {
            // On a file system without hard links a file created between the check and the rename
            // is lost.
            tracing::debug!(path = %path.display(), %error,
                "the file system has no hard links; renaming");
            if root.exists(path) {
                return Ok(false);
            }
            root.rename(temporary, path).map(|()| true)
        }
    }
}

/// Replaces a file by a temporary if the file still has this version; returns whether it did. The
/// replaced file becomes the `reserve`, if there is none.
///
/// # Errors
/// Those of the file system.
pub(super) fn replace(
    root: &Root,
    temporary: &Path,
    path: &Path,
    version: &str,
    reserve: Option<&Path>,
) -> io::Result<bool> {
    let Some(_lock) = lock(root, path)? else {
        return Ok(false);
    };
    match if_found(read(root, path))? {
        Some(found) if found.version == version => {
            // It fails if there is one already, or without hard links; then nothing is retained.
            let _ = reserve.map(|reserve| root.hard_link(path, reserve));
            root.rename(temporary, path).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Removes a file: unconditionally, or only if it still has this version.
///
/// # Errors
/// Those of the file system.
pub(super) fn remove(root: &Root, path: &Path, version: Option<&str>) -> io::Result<DeleteOutcome> {
    let Some(_lock) = lock(root, path)? else {
        return Ok(DeleteOutcome::Absent);
    };
    if let Some(version) = version {
        match if_found(read(root, path))? {
            Some(found) if found.version == version => {}
            Some(_) => return Ok(DeleteOutcome::Changed),
            None => return Ok(DeleteOutcome::Absent),
        }
    }
    let removed = if_found(root.remove_file(path))?;
    Ok(removed.map_or(DeleteOutcome::Absent, |()| DeleteOutcome::Removed))
}

/// Locks the file that has this name now; `None` if there is none. After a wait the name may belong
/// to another file, which then has another version.
///
/// # Errors
/// Those of the file system, or `TimedOut`.
pub(super) fn lock(root: &Root, path: &Path) -> io::Result<Option<File>> {
    let Some(file) = if_found(root.open_to_lock(path))? else {
        return Ok(None);
    };
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => {
                // Without locks a change between the check and the rename is lost.
                tracing::debug!(path = %path.display(), %error,
                    "the file system has no file locks");
                return Ok(Some(file));
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "it is locked by another process; if that process is stopped, resume or end it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder with a temporary that holds `content`.
    fn temporary(folder: &Path, content: &str) -> std::path::PathBuf {
        let path = folder.join(format!("{content}.tmp"));
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn one_of_many_concurrent_creates_succeeds_and_one_of_many_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let root = &Root::new(folder.path().into(), true, true, 7);
        let path = folder.path().join("marker");
        let race = |name: &str, attempt: &(dyn Fn(&Path) -> io::Result<bool> + Sync)| {
            std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|n| {
                        let temporary = temporary(folder.path(), &format!("{name}-{n}"));
                        scope.spawn(move || attempt(&temporary).unwrap())
                    })
                    .collect();
                let won = racers.into_iter().map(|racer| racer.join().unwrap());
                won.filter(|won| *won).count()
            })
        };
        assert_eq!(
            race("create", &|temporary| create(root, temporary, &path)),
            1
        );
        for round in 0..50 {
            let version = read(root, &path).unwrap().version;
            let replace = |temporary: &Path| replace(root, temporary, &path, &version, None);
            assert_eq!(race(&format!("replace-{round}"), &replace), 1, "{round}");
        }
    }

    #[test]
    fn a_file_that_changed_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = &Root::new(folder.path().into(), true, true, 7);
        let path = folder.path().join("marker");
        assert!(create(root, &temporary(folder.path(), "one"), &path).unwrap());
        let one = read(root, &path).unwrap().version;
        assert!(replace(root, &temporary(folder.path(), "two"), &path, &one, None).unwrap());
        assert!(!replace(root, &temporary(folder.path(), "three"), &path, &one, None).unwrap());
        assert_eq!(
            remove(root, &path, Some(&one)).unwrap(),
            DeleteOutcome::Changed
        );
        let two = read(root, &path).unwrap();
        assert_eq!(&two.bytes[..], b"two");
        assert_eq!(
            remove(root, &path, Some(&two.version)).unwrap(),
            DeleteOutcome::Removed
        );
        assert_eq!(remove(root, &path, None).unwrap(), DeleteOutcome::Absent);
        assert!(!replace(root, &temporary(folder.path(), "four"), &path, &one, None).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_does_not_change_between_the_check_and_the_rename_of_another_process() {
        // Story: a daemon may be stopped at this point for any time, and its check must stay valid.
        let folder = tempfile::tempdir().unwrap();
        let root = &Root::new(folder.path().into(), true, true, 7);
        let path = folder.path().join("marker");
        fs::write(&path, "one").unwrap();
        let version = read(root, &path).unwrap().version;
        let stopped = lock(root, &path).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let temporary = temporary(folder.path(), "other");
                replace(root, &temporary, &path, &version, None).unwrap()
            });
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(read(root, &path).unwrap().version, version);
            let temporary = temporary(folder.path(), "stopped");
            fs::rename(temporary, &path).unwrap();
            drop(stopped);
            assert!(!other.join().unwrap(), "it was too late");
        });
        assert_eq!(fs::read(&path).unwrap(), b"stopped");
    }
}
