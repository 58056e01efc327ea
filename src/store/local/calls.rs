//! Records the file system calls that create and remove names, and those that make them durable,
//! for the tests of their order.
//!
//! Does: nothing outside of tests. Does not: make the calls (`names`). Invariant: each call that
//! changes a name below a root or syncs it is recorded once it has succeeded.

#[cfg(not(test))]
pub(super) mod record {
    use std::fs::File;
    use std::path::Path;

    pub(crate) fn file_synced(_: &File, _: &Path) {}
    pub(crate) fn folder_synced(_: &Path) {}
    pub(crate) fn named(_: &Path, _: &Path) {}
    pub(crate) fn removed(_: &Path) {}
}

#[cfg(test)]
pub(super) mod record {
    use std::cell::RefCell;
    use std::fs::File;
    use std::path::{Path, PathBuf};

    /// A call that succeeded.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Call {
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
    pub(crate) fn take() -> Vec<Call> {
        CALLS.take()
    }

    fn push(call: Call) {
        CALLS.with_borrow_mut(|calls| calls.push(call));
    }

    pub(crate) fn file_synced(file: &File, path: &Path) {
        let length = file.metadata().expect("an open file").len();
        push(Call::FileSynced(path.into(), length));
    }

    pub(crate) fn folder_synced(folder: &Path) {
        push(Call::FolderSynced(folder.into()));
    }

    pub(crate) fn named(from: &Path, to: &Path) {
        let (from, to) = (from.into(), to.into());
        push(Call::Named { from, to });
    }

    pub(crate) fn removed(path: &Path) {
        push(Call::Removed(path.into()));
    }
}
