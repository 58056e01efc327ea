//! Small files that are written or removed only if nobody came before: compare and swap on a file
//! system.
//!
//! Does: read a file with its version; give a finished temporary its name, or remove a file, if
//! what lies there is as expected. Does not: write temporaries or sync folders (`local`).
//! Invariant: of several processes that all expect the same, one succeeds. The lock on the file
//! that is to go decides between them; it is held only from the look to the rename. A process that
//! is stopped in between keeps others from changing this one file, and so what it saw stays true.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::store::stable_hash;
use crate::store::{DeleteOutcome, MAX_VERSIONED_SIZE, Versioned};

/// How often and after which pauses a lock is tried: about five seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A small file with its version.
pub fn read(path: &Path) -> io::Result<Versioned> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_VERSIONED_SIZE {
        let message = format!("{} bytes, more than {MAX_VERSIONED_SIZE}", metadata.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.by_ref()
        .take(MAX_VERSIONED_SIZE)
        .read_to_end(&mut bytes)?;
    let hash = stable_hash(&[&bytes]);
    let version = format!("{}-{}-{hash:016x}", metadata.ino(), bytes.len());
    Ok(Versioned {
        bytes: bytes.into(),
        version,
    })
}

/// Gives a temporary its name if no file has that name.
pub fn create(temporary: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(error) => {
            // Some file systems know no hard links: what comes between the look and the rename is
            // lost there.
            tracing::debug!(path = %path.display(), %error, "creating without a hard link");
            if fs::symlink_metadata(path).is_ok() {
                return Ok(false);
            }
            fs::rename(temporary, path).map(|()| true)
        }
    }
}

/// Gives a temporary the name of a file that still has this version.
pub fn replace(temporary: &Path, path: &Path, version: &str) -> io::Result<bool> {
    let Some(_lock) = lock(path)? else {
        return Ok(false);
    };
    match read(path) {
        Ok(found) if found.version == version => fs::rename(temporary, path).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file: any, or only the one of this version.
pub fn remove(path: &Path, version: Option<&str>) -> io::Result<DeleteOutcome> {
    let Some(_lock) = lock(path)? else {
        return Ok(DeleteOutcome::Absent);
    };
    if let Some(version) = version {
        match read(path) {
            Ok(found) if found.version == version => {}
            Ok(_) => return Ok(DeleteOutcome::Changed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(DeleteOutcome::Absent);
            }
            Err(error) => return Err(error),
        }
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(DeleteOutcome::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DeleteOutcome::Absent),
        Err(error) => Err(error),
    }
}

/// The lock on the file that lies there now; none if there is no file. Whoever waits for it finds
/// another file under the name afterwards, and so another version.
fn lock(path: &Path) -> io::Result<Option<File>> {
    // For writing, since locks over a network are only given to those who may write.
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => {
                // Where locks are unknown, what comes between the look and the rename is lost.
                tracing::debug!(path = %path.display(), %error, "going on without a lock");
                return Ok(Some(file));
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "another process holds it locked; if that one is stopped, continue or end it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a temporary that holds `content`.
    fn temporary(folder: &Path, content: &str) -> std::path::PathBuf {
        let path = folder.join(format!("{content}.tmp"));
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn of_many_who_create_one_succeeds_and_of_many_who_replace_one_does() {
        let folder = tempfile::tempdir().unwrap();
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
        assert_eq!(race("create", &|temporary| create(temporary, &path)), 1);
        for round in 0..50 {
            let version = read(&path).unwrap().version;
            let replace = |temporary: &Path| replace(temporary, &path, &version);
            assert_eq!(race(&format!("replace-{round}"), &replace), 1, "{round}");
        }
    }

    #[test]
    fn a_file_that_changed_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marker");
        assert!(create(&temporary(folder.path(), "one"), &path).unwrap());
        let one = read(&path).unwrap().version;
        assert!(replace(&temporary(folder.path(), "two"), &path, &one).unwrap());
        assert!(!replace(&temporary(folder.path(), "three"), &path, &one).unwrap());
        assert_eq!(remove(&path, Some(&one)).unwrap(), DeleteOutcome::Changed);
        let two = read(&path).unwrap();
        assert_eq!(&two.bytes[..], b"two");
        assert_eq!(
            remove(&path, Some(&two.version)).unwrap(),
            DeleteOutcome::Removed
        );
        assert_eq!(remove(&path, None).unwrap(), DeleteOutcome::Absent);
        assert!(!replace(&temporary(folder.path(), "four"), &path, &one).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn nobody_changes_a_file_between_the_look_and_the_rename_of_another() {
        // A daemon that is stopped right there, for however long, must find what it saw.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marker");
        fs::write(&path, "one").unwrap();
        let version = read(&path).unwrap().version;
        let stopped = lock(&path).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let temporary = temporary(folder.path(), "other");
                replace(&temporary, &path, &version).unwrap()
            });
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(read(&path).unwrap().version, version);
            let temporary = temporary(folder.path(), "stopped");
            fs::rename(temporary, &path).unwrap();
            drop(stopped);
            assert!(!other.join().unwrap(), "it was too late");
        });
        assert_eq!(fs::read(&path).unwrap(), b"stopped");
    }
}
