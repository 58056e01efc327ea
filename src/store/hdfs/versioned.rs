//! Small objects that are replaced only if they are unchanged.
//!
//! HDFS has no conditional write. What it has: it renames a path only if that exists, in one step.
//! So the version of an object is part of its path: `<key>/<version>/<version>`. A writer puts its
//! content beside the current one, under the name of the new version, and then renames the *folder*
//! from the old version to the new one. Of many writers that expect one version, the NameNode lets
//! one succeed; for the others the folder has disappeared, and it never comes back under that name.
//! Whichever of them is stopped or killed, and wherever, there is one complete version at any time.
//!
//! Does: create, replace, read and delete such objects. Does not: write content (`content`).
//! Invariant: a folder `<key>` holds at most one folder of a version, and that has the content of
//! its own name; a `<key>` without one is no object.

use bytes::Bytes;
use hdfs_native::client::FileStatus;

use super::backend::{HdfsStore, put_failure};
use super::error::{failure, if_present};
use super::names::{Version, name_of};
use crate::human::count;
use crate::store::{
    DeleteOutcome, MAX_VERSIONED_SIZE, Result, StoreError, StoreErrorKind, Versioned,
};

/// How many times an operation starts over because others have changed the object meanwhile.
const MAX_RACES: u32 = 100;

impl HdfsStore {
    /// The entries of a folder, or the file of this path; `None` if there is nothing.
    pub(super) async fn entries(&self, path: &str) -> Result<Option<Vec<FileStatus>>> {
        let listed = if_present(self.nodes.list(path, false).await);
        listed.map_err(|error| failure("listing", path, error))
    }

    /// The version of an object; `None` if there is no such object.
    pub(super) async fn current(&self, path: &str) -> Result<Option<Version>> {
        let entries = self.entries(path).await?.unwrap_or_default();
        if let [one] = &entries[..]
            && !one.isdir
            && one.path == path
        {
            return Err(foreign(path));
        }
        let folders = entries.iter().filter(|entry| entry.isdir);
        let mut versions = folders.filter_map(|entry| name_of(&entry.path).parse().ok());
        match (versions.next(), versions.next()) {
            (found, None) => Ok(found),
            (_, Some(_)) => {
                let message = format!("{path} has two versions");
                Err(StoreError::new(StoreErrorKind::Corrupt, message))
            }
        }
    }

    /// The content and the version of an object.
    pub(super) async fn read_version(&self, path: &str) -> Result<Versioned> {
        for _ in 0..MAX_RACES {
            let Some(version) = self.current(path).await? else {
                let message = format!("reading {path}: there is no such object");
                return Err(StoreError::new(StoreErrorKind::NotFound, message));
            };
            if version.size > MAX_VERSIONED_SIZE {
                let size = count(version.size, "byte");
                let message = format!("{path} has {size}, more than {MAX_VERSIONED_SIZE}");
                return Err(StoreError::new(StoreErrorKind::Corrupt, message));
            }
            let file = format!("{path}/{version}/{version}");
            let bytes = if_present(self.read_all(&file).await);
            // If it is missing, it has been replaced or removed since.
            if let Some(bytes) = bytes.map_err(|error| failure("reading", &file, error))? {
                let version = version.to_string();
                return Ok(Versioned {
                    bytes,
                    entity_tag: version.clone(),
                    version,
                });
            }
        }
        Err(too_busy("reading", path))
    }

    /// Writes an object, whatever there was.
    pub(super) async fn put_version(&self, path: &str, content: &Bytes) -> Result<()> {
        for _ in 0..MAX_RACES {
            let written = match self.current(path).await? {
                Some(version) => {
                    let version = version.to_string();
                    self.replace_version(path, content, &version).await?
                }
                None => self.create_version(path, content).await?,
            };
            if written {
                return Ok(());
            }
        }
        Err(too_busy("writing", path))
    }

    /// Creates an object; returns whether it did, now or by an attempt whose answer was lost.
    pub(super) async fn create_version(&self, path: &str, content: &Bytes) -> Result<bool> {
        self.remove_leftovers().await;
        for _ in 0..MAX_RACES {
            let version = self.new_version(content.len(), None);
            let temporary = self.temporary(path);
            let leftover = self.leftover(&temporary);
            let file = format!("{temporary}/{version}/{version}");
            let written = self
                .write_file(&file, std::slice::from_ref(content), true)
                .await;
            // Over an empty folder too, which is what a removal leaves if it is interrupted.
            let named = match written {
                Ok(()) => self.rename(&temporary, path, true).await,
                Err(error) => Err(error),
            };
            let error = match named {
                Ok(()) => {
                    leftover.forget();
                    return Ok(true);
                }
                Err(error) => error,
            };
            if !error.is_in_the_way() && !error.is_missing() {
                return Err(put_failure(path, error));
            }
            if self.current(path).await?.is_some() {
                return self.is_current(path, content).await;
            }
            let empty = self
                .entries(path)
                .await?
                .is_none_or(|found| found.is_empty());
            if error.is_in_the_way() && !empty && self.current(path).await?.is_none() {
                return Err(foreign(path));
            }
        }
        Err(too_busy("writing", path))
    }

    /// Replaces an object if it still has this version; returns whether it did, now or by an
    /// attempt whose answer was lost.
    pub(super) async fn replace_version(
        &self,
        path: &str,
        content: &Bytes,
        expected: &str,
    ) -> Result<bool> {
        self.remove_leftovers().await;
        let Ok(old) = expected.parse::<Version>() else {
            return Ok(false);
        };
        let new = self.new_version(content.len(), Some(&old));
        let (from, to) = (format!("{path}/{old}"), format!("{path}/{new}"));
        let file = format!("{from}/{new}");
        let leftover = self.leftover(&file);
        let written = self
            .write_file(&file, std::slice::from_ref(content), false)
            .await;
        let renamed = match written {
            Ok(()) => self.rename(&from, &to, false).await,
            Err(error) => Err(error),
        };
        match renamed {
            Ok(()) => {
                leftover.forget();
                self.remove_quietly(&format!("{to}/{old}")).await;
                return Ok(true);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => {
                // Others have removed the file that is being written with the object.
                if self.current(path).await?.as_ref() == Some(&old) {
                    return Err(put_failure(path, error));
                }
            }
        }
        leftover.forget();
        let current = self.current(path).await?;
        if current.as_ref().is_some_and(|current| *current != new) {
            // It came along when another writer renamed the folder.
            let current = current
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            self.remove_quietly(&format!("{path}/{current}/{new}"))
                .await;
        }
        self.is_current(path, content).await
    }

    /// Whether an object has this content, which no two writes have in common.
    async fn is_current(&self, path: &str, content: &Bytes) -> Result<bool> {
        match self.read_version(path).await {
            Ok(found) => Ok(found.bytes == *content),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object: unconditionally, or only if it still has this version.
    pub(super) async fn delete_version(
        &self,
        path: &str,
        expected: Option<&str>,
    ) -> Result<DeleteOutcome> {
        for _ in 0..MAX_RACES {
            let version = match expected {
                Some(expected) => expected.to_owned(),
                None => match self.current(path).await? {
                    Some(version) => version.to_string(),
                    None => return Ok(DeleteOutcome::Absent),
                },
            };
            if version.parse::<Version>().is_ok() && self.remove(path, &version).await? {
                return Ok(DeleteOutcome::Removed);
            }
            if expected.is_some() {
                return Ok(match self.current(path).await? {
                    Some(_) => DeleteOutcome::Changed,
                    None => DeleteOutcome::Absent,
                });
            }
        }
        Err(too_busy("removing", path))
    }

    /// Removes a version with all that is in its folder, in one step; then the object's folder,
    /// unless somebody has created the object anew, or put something foreign there.
    async fn remove(&self, path: &str, version: &str) -> Result<bool> {
        let folder = format!("{path}/{version}");
        let removed = self.nodes.delete(&folder, true).await;
        let removed = removed.map_err(|error| failure("removing", &folder, error))?;
        if removed {
            self.remove_quietly(path).await;
        }
        Ok(removed)
    }

    /// Removes a file or an empty folder of ours. A failure does no harm: it means nothing, and the
    /// next removal or sweep meets it again.
    pub(super) async fn remove_quietly(&self, path: &str) -> bool {
        match self.nodes.delete(path, false).await {
            Ok(removed) => removed,
            Err(error) => {
                tracing::debug!(path, ?error, "not removed");
                false
            }
        }
    }
}

fn foreign(path: &str) -> StoreError {
    StoreError {
        hint: Some("Stopover did not write it: move it away, or choose another base directory"),
        ..StoreError::new(
            StoreErrorKind::Refused,
            format!("at {path} is something else where an object is due"),
        )
    }
}

fn too_busy(doing: &str, path: &str) -> StoreError {
    let message = format!("{doing} {path}: others change it all the time");
    StoreError::new(StoreErrorKind::Unavailable, message)
}
