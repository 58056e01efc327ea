//! The calls of the file system that give and remove names, and those that make them durable.
//!
//! Does: pass each call on, and record it for the tests of their order. Does not: decide the order
//! (`publish`, `swap`, `tree`). Invariant: names below a root change through these calls only.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes the content of a file durable.
pub fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    record::file_synced(file, path);
    Ok(())
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    record::folder_synced(folder);
    Ok(())
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    record::named(from, to);
    Ok(())
}

pub fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    record::named(from, to);
    Ok(())
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    record::removed(path);
    Ok(())
}

pub fn remove_folder(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)?;
    record::removed(path);
    Ok(())
}

#[cfg(not(test))]
mod record {
    use std::fs::File;
    use std::path::Path;

    pub fn file_synced(_: &File, _: &Path) {}
    pub fn folder_synced(_: &Path) {}
    pub fn named(_: &Path, _: &Path) {}
    pub fn removed(_: &Path) {}
}

#[cfg(test)]
pub mod record {
    use std::cell::RefCell;
    use std::fs::File;
    use std::path::{Path, PathBuf};

    /// A call that succeeded.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Call {
        /// With the length of the file at that time.
        FileSynced(PathBuf, u64),
        FolderSynced(PathBuf),
        Named {
            from: PathBuf,
            to: PathBuf,
        },
        Removed(PathBuf),
    }

    thread_local! {
        static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
    }

    /// The calls of this thread since the last time.
    pub fn take() -> Vec<Call> {
        CALLS.take()
    }

    fn push(call: Call) {
        CALLS.with_borrow_mut(|calls| calls.push(call));
    }

    pub fn file_synced(file: &File, path: &Path) {
        let length = file.metadata().expect("an open file").len();
        push(Call::FileSynced(path.into(), length));
    }

    pub fn folder_synced(folder: &Path) {
        push(Call::FolderSynced(folder.into()));
    }

    pub fn named(from: &Path, to: &Path) {
        let (from, to) = (from.into(), to.into());
        push(Call::Named { from, to });
    }

    pub fn removed(path: &Path) {
        push(Call::Removed(path.into()));
    }
}
