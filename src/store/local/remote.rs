//! Network file systems, whose names this machine caches.
//!
//! Does: recognize them, make this machine revalidate the names in a folder. Does not: decide when
//! (`names`, `tree`). Invariant: only the times of folders change; on a local file system it does
//! nothing.
//!
//! An NFS client caches the names in a folder, present and absent ones, for up to a minute. A
//! segment that another machine has stored would be missing from lists, and a read of it would
//! fail. Setting the times of a folder is a request to the server, whose response shows the client
//! that the folder has changed: it drops its cached names of that folder.

use std::io;
use std::path::Path;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::root::Root;

impl Root {
    /// Whether names below the root may be cached.
    fn caches_names(&self) -> bool {
        let known = self.caches_names.get().copied();
        known.unwrap_or_else(|| match is_remote(&self.folder) {
            Ok(remote) => *self.caches_names.get_or_init(|| remote),
            // The root may be created later.
            Err(_) => false,
        })
    }

    /// Makes this machine revalidate the names in a folder and in those above it; returns false if
    /// nothing is cached.
    pub(super) fn refresh_names_above(&self, folder: &Path) -> bool {
        if !self.caches_names() {
            return false;
        }
        let below_root = folder
            .ancestors()
            .take_while(|f| f.starts_with(&self.folder));
        let mut folders: Vec<&Path> = below_root.collect();
        while let Some(folder) = folders.pop() {
            if self.touch(folder).is_err() {
                break;
            }
        }
        true
    }

    /// The same for one folder that was reached.
    pub(super) fn refresh_names(&self, folder: &Path) {
        if self.caches_names()
            && let Err(error) = self.touch(folder)
        {
            tracing::debug!(folder = %folder.display(), %error,
                "cannot refresh the names in a folder of a network file system");
        }
    }

    fn touch(&self, folder: &Path) -> io::Result<()> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let opened = self.open_folder_as_cached(folder)?;
        rustix::fs::futimens(opened, &times)?;
        self.name_cache.forget(folder);
        Ok(())
    }
}

/// Whether a folder is in a file system of another machine, or of a program that may be one.
#[cfg(target_os = "linux")]
fn is_remote(folder: &Path) -> io::Result<bool> {
    /// NFS, SMB, CIFS, FUSE, Ceph, 9P, AFS, Lustre, GPFS.
    const REMOTE: [u64; 9] = [
        0x6969,
        0xFE53_4D42,
        0xFF53_4D42,
        0x6573_5546,
        0x00C3_6400,
        0x0102_1997,
        0x5346_414F,
        0x0BD0_0BD0,
        0x4750_4653,
    ];
    #[expect(
        clippy::cast_sign_loss,
        reason = "a number that identifies, of 32 bits"
    )]
    let found = rustix::fs::statfs(folder)?.f_type as u64 & 0xFFFF_FFFF;
    Ok(REMOTE.contains(&found))
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{DaemonId, ExchangeId, SegmentId};
    use crate::store::keys::{self, Key};
    use crate::store::local::payload::Payload;

    fn root(folder: &Path) -> Root {
        Root::new(folder.into(), false, false, 7)
    }

    /// One machine that has mounted the folder of a server.
    fn machine(server: &Path) -> Root {
        let machine = root(server);
        machine.caches_names.set(true).unwrap();
        machine.name_cache.start();
        machine
    }

    fn segment(sequence: u64) -> Key {
        let exchange: ExchangeId = "query_1-x".parse().unwrap();
        let daemon = DaemonId(1);
        keys::segment(&exchange, SegmentId { daemon, sequence })
    }

    fn put(root: &Root, key: &Key) {
        let content = Payload::from(vec![Bytes::from_static(b"content")]);
        root.put(&root.path(key).unwrap(), &content).unwrap();
    }

    /// Story: an NFS client caches the names in a folder for up to a minute, so the daemon of the
    /// coordinator did not find the last segments of the workers, and answered that a chosen
    /// attempt is not committed, which fails the query.
    #[test]
    fn what_another_machine_has_just_stored_is_listed_and_read_whatever_this_one_has_cached() {
        let server = tempfile::tempdir().unwrap();
        let (here, elsewhere) = (machine(server.path()), root(server.path()));
        let exchange: ExchangeId = "query_1-x".parse().unwrap();
        let (folder, marker) = (keys::segments(&exchange), keys::marker(&exchange));
        let cached = |key: &Key| {
            let path = here.path(key).unwrap();
            here.name_cache.check(&here.folder, &path).is_ok()
        };
        // Before anything exists, this machine learns that nothing does.
        assert!(here.list(&folder).unwrap().is_empty());
        assert!(here.open(&here.path(&marker).unwrap()).is_err());
        put(&elsewhere, &marker);
        assert!(!cached(&marker), "the cache hides it");
        here.open(&here.path(&marker).unwrap()).unwrap();
        for sequence in 1..4 {
            put(&elsewhere, &segment(sequence));
            assert!(!cached(&segment(sequence)), "the cache hides it");
            let listed = here.list(&folder).unwrap();
            assert_eq!(listed.len() as u64, sequence);
        }
        put(&elsewhere, &segment(4));
        here.open(&here.path(&segment(4)).unwrap()).unwrap();
        let folders = here.list_folders(&keys::all_segments()).unwrap();
        assert_eq!(folders.len(), 1);
        // What is removed is found by name although it was cached as missing.
        let other = keys::marker(&"query_1-y".parse().unwrap());
        here.open(&here.path(&other).unwrap()).unwrap_err();
        put(&elsewhere, &other);
        let removed = here.delete_if(&here.path(&other).unwrap(), None).unwrap();
        assert_eq!(removed, crate::store::DeleteOutcome::Removed);
    }

    #[test]
    fn on_a_local_file_system_the_times_of_folders_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = root(folder.path());
        put(&store, &segment(1));
        let below = folder.path().join(keys::all_segments().as_str());
        let modified = || std::fs::metadata(&below).unwrap().modified().unwrap();
        let before = modified();
        store.list(&keys::all_segments()).unwrap();
        store.open(&store.path(&segment(2)).unwrap()).unwrap_err();
        assert_eq!(modified(), before);
    }
}
