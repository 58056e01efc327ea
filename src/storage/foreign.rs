//! Folders with objects that Stopover did not write.
//!
//! Does: remember them, so that each is reported once. Does not: decide what is foreign (`keys`) or
//! remove anything. Invariant: bounded memory.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::id::BaseName;

/// Folders that are remembered; objects in further ones are only counted.
const MAX_FOLDERS: usize = 1_000;

/// A folder that holds objects which Stopover did not write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignFolder {
    pub base: BaseName,
    /// Relative to the base directory.
    pub folder: String,
}

/// The folders with foreign objects that were found so far.
#[derive(Debug, Default)]
pub(super) struct ForeignFolders(Mutex<BTreeSet<ForeignFolder>>);

impl ForeignFolders {
    /// Remembers a folder; returns whether it must be reported.
    pub(super) fn add(&self, found: ForeignFolder) -> bool {
        let mut folders = self.0.lock();
        folders.len() < MAX_FOLDERS && folders.insert(found)
    }

    /// All that are remembered, sorted.
    pub(super) fn all(&self) -> Vec<ForeignFolder> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_reported_once_and_those_beyond_the_bound_are_not() {
        let folders = ForeignFolders::default();
        let folder = |n: usize| ForeignFolder {
            base: "main".parse().unwrap(),
            folder: format!("{n:04}"),
        };
        for n in (0..MAX_FOLDERS).rev() {
            assert!(folders.add(folder(n)), "{n}");
            assert!(!folders.add(folder(n)), "{n}");
        }
        assert!(!folders.add(folder(MAX_FOLDERS)));
        let all: Vec<_> = (0..MAX_FOLDERS).map(folder).collect();
        assert_eq!(folders.all(), all);
    }
}
