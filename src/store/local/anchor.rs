//! Recognizes the folder of a base directory.
//!
//! Does: record the folder that this process found first, hold it open, and compare it with the
//! folder at its path before and after each operation. Does not: create it (`publish`). Invariant:
//! once the folder has been found, an operation succeeds only while the same folder, or another one
//! with the same identity, is at its path: after an unmount no object is reported as missing, and
//! nothing is written to the folder below the mount point. A folder without identity is replaced by
//! one that has an identity: it may have been the one below the mount point.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, openat};

use super::error::failure;
use crate::store::{Result, StoreError, StoreErrorKind, keys};

/// Longest first line of an identity.
const MAX_LINE: u64 = 256;

/// The recorded state of the folder.
#[derive(Debug, Default)]
pub(super) struct Anchor(Mutex<Option<Anchored>>);

#[derive(Debug)]
struct Anchored {
    /// Held open: while it is, the file system does not reuse its inode.
    folder: File,
    device: u64,
    inode: u64,
    /// The first line of its identity, which never changes; `None` until it has one.
    identity: Option<String>,
}

impl Anchored {
    fn open(root: &Path) -> io::Result<Self> {
        let folder = File::open(root)?;
        let found = folder.metadata()?;
        Ok(Self {
            identity: first_line(root),
            device: found.dev(),
            inode: found.ino(),
            folder,
        })
    }

    /// The first line of its identity, wherever the folder is now.
    fn identity(&self) -> Option<String> {
        let of_folder = || {
            let key = keys::identity();
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&self.folder, key.as_str(), flags, Mode::empty());
            line_of(file.ok()?.into())
        };
        self.identity.clone().or_else(of_folder)
    }

    fn is(&self, found: &Metadata) -> bool {
        (self.device, self.inode) == (found.dev(), found.ino())
    }
}

impl Anchor {
    /// Whether the folder has been found: it must not be created any more.
    pub(super) fn is_set(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Checks that the folder is the one that was found first.
    ///
    /// # Errors
    /// `Unavailable` if it is missing or another one; otherwise those of the file system.
    pub(super) fn check(&self, root: &Path) -> Result<()> {
        let found = fs::metadata(root);
        let mut state = self.0.lock();
        let reading = |error| failure("reading", root, error);
        let Some(anchored) = state.as_mut() else {
            match found {
                Ok(found) if found.is_dir() => {
                    *state = Some(Anchored::open(root).map_err(reading)?);
                }
                Ok(_) => return Err(reading(io::ErrorKind::NotADirectory.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(reading(error)),
            }
            return Ok(());
        };
        match found {
            Ok(found) if anchored.is(&found) => {
                if anchored.identity.is_none() {
                    anchored.identity = first_line(root);
                }
                Ok(())
            }
            Ok(_) => {
                let now = Anchored::open(root).map_err(reading)?;
                let before = anchored.identity();
                if now.identity.is_none() || before.is_some_and(|it| Some(it) != now.identity) {
                    return Err(replaced(root));
                }
                tracing::info!(folder = %root.display(), previous = ?anchored.folder,
                    "the folder was mounted or moved anew; its identity is known");
                *anchored = now;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(disappeared(root)),
            Err(error) => Err(reading(error)),
        }
    }
}

fn disappeared(root: &Path) -> StoreError {
    let folder = root.display();
    let message = format!("the folder {folder} has disappeared; is it still mounted?");
    unavailable(message)
}

fn replaced(root: &Path) -> StoreError {
    let message = format!(
        "the folder {} is not the one that was there before; is the right file system mounted?",
        root.display()
    );
    unavailable(message)
}

/// Nothing was done in the folder.
fn unavailable(message: String) -> StoreError {
    StoreError {
        settled: true,
        ..StoreError::new(StoreErrorKind::Unavailable, message)
    }
}

/// The first line of the identity in a folder, if it has one.
fn first_line(root: &Path) -> Option<String> {
    line_of(File::open(root.join(keys::identity().as_str())).ok()?)
}

fn line_of(file: File) -> Option<String> {
    let mut line = String::new();
    let read = BufReader::new(file.take(MAX_LINE)).read_line(&mut line);
    read.ok().filter(|_| line.ends_with('\n')).map(|_| line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A base directory whose identity has this first line.
    fn folder(parent: &Path, name: &str, line: Option<&str>) -> PathBuf {
        let root = parent.join(name);
        let identity = root.join(keys::identity().as_str());
        fs::create_dir_all(identity.parent().unwrap()).unwrap();
        if let Some(line) = line {
            fs::write(&identity, format!("{line}\nmore")).unwrap();
        }
        root
    }

    #[test]
    fn a_folder_that_vanishes_is_missed_until_it_is_back() {
        let parent = tempfile::tempdir().unwrap();
        let root = folder(parent.path(), "base", None);
        let (anchor, away) = (Anchor::default(), parent.path().join("away"));
        anchor.check(&root).unwrap();
        fs::rename(&root, &away).unwrap();
        let missing = anchor.check(&root).unwrap_err();
        assert!(missing.message.contains("disappeared"), "{missing}");
        fs::create_dir(&root).unwrap();
        let other = anchor.check(&root).unwrap_err();
        assert!(other.message.contains("not the one"), "{other}");
        fs::remove_dir(&root).unwrap();
        fs::rename(&away, &root).unwrap();
        anchor.check(&root).unwrap();
    }

    #[test]
    fn another_folder_is_accepted_only_with_the_same_identity() {
        let parent = tempfile::tempdir().unwrap();
        let root = folder(parent.path(), "base", Some("one"));
        let copy = folder(parent.path(), "copy", Some("one"));
        let other = folder(parent.path(), "other", Some("two"));
        let anchor = Anchor::default();
        anchor.check(&root).unwrap();
        fs::rename(&root, parent.path().join("away")).unwrap();
        fs::rename(&other, &root).unwrap();
        assert!(anchor.check(&root).is_err());
        fs::rename(&root, &other).unwrap();
        fs::rename(&copy, &root).unwrap();
        anchor.check(&root).unwrap();
    }

    /// Story: a daemon that was started while the disk was unmounted recorded the empty folder
    /// below the mount point, and refused the disk once it was mounted until it was restarted.
    #[test]
    fn a_folder_without_identity_gives_way_to_one_that_has_one() {
        let parent = tempfile::tempdir().unwrap();
        let root = folder(parent.path(), "base", None);
        let (disk, other) = (
            folder(parent.path(), "disk", Some("one")),
            folder(parent.path(), "other", Some("two")),
        );
        let (anchor, below) = (Anchor::default(), parent.path().join("below"));
        anchor.check(&root).unwrap();
        fs::rename(&root, &below).unwrap();
        fs::rename(&disk, &root).unwrap();
        anchor.check(&root).unwrap();
        fs::rename(&root, &disk).unwrap();
        fs::rename(&other, &root).unwrap();
        assert!(anchor.check(&root).is_err(), "it has found its identity");
    }

    #[test]
    fn a_folder_that_got_its_identity_since_is_missed() {
        let parent = tempfile::tempdir().unwrap();
        let root = folder(parent.path(), "base", None);
        let other = folder(parent.path(), "other", Some("two"));
        let anchor = Anchor::default();
        anchor.check(&root).unwrap();
        fs::write(root.join(keys::identity().as_str()), "one\n").unwrap();
        fs::rename(&root, parent.path().join("away")).unwrap();
        fs::rename(&other, &root).unwrap();
        assert!(anchor.check(&root).is_err());
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_not_missed() {
        let parent = tempfile::tempdir().unwrap();
        let (anchor, root) = (Anchor::default(), parent.path().join("new"));
        anchor.check(&root).unwrap();
        assert!(!anchor.is_set());
        fs::create_dir(&root).unwrap();
        anchor.check(&root).unwrap();
        assert!(anchor.is_set());
    }
}
