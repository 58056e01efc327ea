//! What an NFS client caches, for tests.
//!
//! Does: hide the changes of other machines; nothing outside of tests. Does not: expire. Invariant:
//! the names in a folder are read once, and again only after this machine has changed the times of
//! that folder.

#[cfg(test)]
pub(super) use cached::NameCache;

#[cfg(not(test))]
#[derive(Debug, Default)]
pub(super) struct NameCache {}

#[cfg(not(test))]
#[allow(clippy::unused_self, clippy::unnecessary_wraps)]
impl NameCache {
    pub(super) fn check(&self, _: &std::path::Path, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }

    pub(super) fn forget(&self, _: &std::path::Path) {}
}

#[cfg(test)]
mod cached {
    use std::collections::HashMap;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    use parking_lot::Mutex;

    /// The names that this machine has cached, by folder; `None`: it caches none.
    #[derive(Debug, Default)]
    pub(crate) struct NameCache {
        folders: Mutex<Option<Folders>>,
    }

    /// What a folder holds.
    type Folders = HashMap<PathBuf, Vec<PathBuf>>;

    impl NameCache {
        pub(crate) fn start(&self) {
            *self.folders.lock() = Some(Folders::new());
        }

        /// Fails if a path or a folder above it does not exist according to the cache.
        pub(crate) fn check(&self, root: &Path, path: &Path) -> io::Result<()> {
            let mut folders = self.folders.lock();
            let Some(folders) = &mut *folders else {
                return Ok(());
            };
            let below = path.ancestors().take_while(|path| *path != root);
            let below: Vec<&Path> = below.collect();
            for path in below.into_iter().rev() {
                let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
                let names = folders.entry(folder.to_owned()).or_insert_with(|| {
                    let entries = fs::read_dir(folder).into_iter().flatten();
                    entries.flatten().map(|entry| entry.path()).collect()
                });
                if !names.iter().any(|name| name == path) {
                    return Err(io::ErrorKind::NotFound.into());
                }
            }
            Ok(())
        }

        pub(crate) fn forget(&self, folder: &Path) {
            if let Some(folders) = &mut *self.folders.lock() {
                folders.remove(folder);
            }
        }
    }
}
