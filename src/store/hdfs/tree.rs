//! Listing and deleting, and what becomes empty or was abandoned.
//!
//! Does: walk folders, delete objects, remove stale temporaries. Does not: write. Invariant: of
//! what Stopover did not write nothing is removed; folders are removed only when they are empty,
//! which the NameNode decides; what somebody may still write is retained.

use std::collections::{BTreeSet, VecDeque};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hdfs_native::Client;
use hdfs_native::client::FileStatus;

use super::backend::HdfsStore;
use super::error::{failure, if_present};
use super::names::{Form, Version, folder_of, name_of, writer_of};
use crate::store::keys::{self, Folder, Key};
use crate::store::{DeleteOutcome, ObjectMeta, Result};

/// Calls of the NameNode at a time, for one operation on many objects.
const CONCURRENT: usize = 16;

/// Who uses a temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A writer that may be alive.
    Writing,
    /// Nobody: it is closed.
    Closed,
    /// A writer that is dead, with all of its temporaries. The test of one renews the lease that it
    /// has for all of them, so the others would count as used for another minute.
    Expired,
}

/// What is below a folder.
#[derive(Debug, Default)]
struct Found {
    files: Vec<ObjectMeta>,
    /// Objects with versions, which may have none.
    versioned: Vec<Key>,
    /// Paths of temporaries, and whether they are folders.
    temporaries: Vec<(String, bool)>,
    /// Parents first.
    folders: Vec<String>,
}

impl HdfsStore {
    fn folder(&self, folder: &Folder) -> String {
        match folder.as_str() {
            "" => self.root.clone(),
            below => format!("{}/{below}", self.root),
        }
    }

    pub(super) async fn list_objects(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let found = self.walk(folder).await?;
        let metas = stream::iter(found.versioned).map(|key| self.meta(key));
        let metas: Vec<_> = metas.buffered(CONCURRENT).try_collect().await?;
        let mut all = found.files;
        all.extend(metas.into_iter().flatten());
        Ok(all)
    }

    /// An object with versions, if it has one.
    async fn meta(&self, key: Key) -> Result<Option<ObjectMeta>> {
        let version = self.current(&self.path(&key)?).await?;
        Ok(version.map(|version| ObjectMeta {
            key,
            size: version.size,
            entity_tag: Some(version.to_string()),
        }))
    }

    async fn walk(&self, top: &Folder) -> Result<Found> {
        let mut found = Found::default();
        let mut next = VecDeque::from([self.folder(top)]);
        while let Some(folder) = next.pop_front() {
            for entry in self.entries(&folder).await?.unwrap_or_default() {
                let Some(key) = self.key(&entry.path) else {
                    continue;
                };
                if keys::is_temporary(&key) {
                    found.temporaries.push((entry.path, entry.isdir));
                } else if entry.isdir && Form::of(&key) == Form::Versioned {
                    found.versioned.push(key);
                } else if entry.isdir {
                    next.push_back(entry.path);
                } else {
                    found.files.push(file_meta(key, &entry));
                }
            }
            found.folders.push(folder);
        }
        Ok(found)
    }

    /// Up to `max` keys, from the folders near the root first.
    pub(super) async fn list_first(&self, max: usize) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        let mut folders = VecDeque::from([self.root.clone()]);
        while let Some(folder) = folders.pop_front() {
            let some = self.first_entries(&folder, max).await?;
            for entry in some {
                let Some(key) = self.key(&entry.path) else {
                    continue;
                };
                if found.len() >= max {
                    return Ok(found);
                }
                if keys::is_temporary(&key) {
                    continue;
                }
                match (entry.isdir, Form::of(&key)) {
                    (true, Form::Versioned) => {
                        found.extend(self.meta(key).await?.map(|meta| meta.key));
                    }
                    (true, Form::File) => folders.push_back(entry.path),
                    (false, _) => found.push(key),
                }
            }
        }
        Ok(found)
    }

    /// Enough entries of a folder that `max` keys are among them if there are so many in it. It may
    /// be somebody's, with millions.
    async fn first_entries(&self, folder: &str, max: usize) -> Result<Vec<FileStatus>> {
        let below = folder.to_owned();
        let list = move |client: Client| async move {
            let all = client.list_status_iter(&below, false).into_stream();
            all.take(max.max(1000)).try_collect::<Vec<_>>().await
        };
        let listed = if_present(self.nodes.call(list).await);
        let listed = listed.map_err(|error| failure("listing", folder, error))?;
        Ok(listed.unwrap_or_default())
    }

    pub(super) async fn list_names(&self, folder: &Folder) -> Result<Vec<String>> {
        let entries = self
            .entries(&self.folder(folder))
            .await?
            .unwrap_or_default();
        let folders = entries.iter().filter(|entry| entry.isdir);
        Ok(folders
            .map(|entry| name_of(&entry.path).to_owned())
            .collect())
    }

    pub(super) async fn delete_all(&self, keys: &[Key]) -> Result<u64> {
        let deletes = stream::iter(keys.to_vec()).map(|key| async move {
            let path = self.path(&key)?;
            match Form::of(&key) {
                Form::File => self.delete_file_only(&path).await,
                Form::Versioned => self.delete_version(&path, None).await,
            }
        });
        let mut deletes = deletes.buffer_unordered(CONCURRENT);
        let mut removed = 0;
        while let Some(outcome) = deletes.try_next().await? {
            removed += u64::from(outcome == DeleteOutcome::Removed);
        }
        drop(deletes);
        let folders: BTreeSet<&str> = keys.iter().map(|key| folder_of(key.as_str())).collect();
        for folder in folders {
            self.remove_if_empty(folder).await;
        }
        Ok(removed)
    }

    pub(super) async fn delete_file(&self, path: &str) -> Result<DeleteOutcome> {
        let outcome = self.delete_file_only(path).await?;
        if let Some(key) = self.key(path) {
            self.remove_if_empty(folder_of(key.as_str())).await;
        }
        Ok(outcome)
    }

    async fn delete_file_only(&self, path: &str) -> Result<DeleteOutcome> {
        let removed = self.nodes.delete(path, false).await;
        match removed.map_err(|error| failure("removing", path, error))? {
            true => Ok(DeleteOutcome::Removed),
            false => Ok(DeleteOutcome::Absent),
        }
    }

    /// Removes the folder of an exchange's segments once it is empty. Those that all exchanges
    /// share stay.
    async fn remove_if_empty(&self, folder: &str) {
        let of_exchange = folder.strip_prefix(keys::all_segments().as_str());
        if of_exchange.is_some_and(|name| name.len() > 1) && keys::is_own_folder(folder) {
            self.remove_quietly(&format!("{}/{folder}", self.root))
                .await;
        }
    }

    pub(super) async fn remove_stale(&self, folder: &Folder) -> Result<u64> {
        let found = self.walk(folder).await?;
        let (mut removed, mut dead) = (0, BTreeSet::new());
        for (path, is_folder) in &found.temporaries {
            let writer = writer_of(path);
            let use_of = match dead.contains(writer) {
                true => Use::Expired,
                false => self.use_of(path, *is_folder).await?,
            };
            if use_of == Use::Expired {
                dead.insert(writer);
            }
            if use_of != Use::Writing {
                removed += u64::from(self.remove_temporary(path).await?);
            }
        }
        for key in &found.versioned {
            removed += self.remove_losers(&self.path(key)?).await?;
        }
        for folder in found.folders.iter().rev() {
            if let Some(key) = self.key(folder) {
                self.remove_if_empty(key.as_str()).await;
            }
        }
        Ok(removed)
    }

    /// Whether somebody writes a temporary. The NameNode grants the right to append to a file that
    /// is closed, or whose writer has not been heard of for the soft limit of a lease, a minute; a
    /// writer renews its lease every half minute, even while one file takes long. If this happens
    /// to meet a file between its close and its rename, the put finds it missing and starts over.
    async fn use_of(&self, path: &str, is_folder: bool) -> Result<Use> {
        let files = match is_folder {
            false => vec![path.to_owned()],
            true => self.files_below(path).await?,
        };
        let mut found = Use::Closed;
        for file in files {
            // Closed again at once, so that nobody finds it open if this process ends now.
            let at = file.clone();
            let append = move |client: Client| async move {
                let mut appending = client.append(&at).await?;
                appending.close().await
            };
            match self.nodes.call(append).await {
                Ok(()) => {}
                Err(error) if error.is_missing() => {}
                Err(error) if error.is_recovering() => found = Use::Expired,
                Err(error) if error.is_being_written() => return Ok(Use::Writing),
                Err(error) => {
                    tracing::debug!(
                        file,
                        ?error,
                        "cannot test whether a temporary is in use; retaining it"
                    );
                    return Ok(Use::Writing);
                }
            }
        }
        Ok(found)
    }

    async fn files_below(&self, path: &str) -> Result<Vec<String>> {
        let listed = if_present(self.nodes.list(path, true).await);
        let listed = listed.map_err(|error| failure("listing", path, error))?;
        let files = listed.into_iter().flatten().filter(|entry| !entry.isdir);
        Ok(files.map(|entry| entry.path).collect())
    }

    async fn remove_temporary(&self, path: &str) -> Result<bool> {
        let removed = self.nodes.delete(path, true).await;
        removed.map_err(|error| failure("removing", path, error))
    }

    /// Removes what is left of writers that were killed before or after they replaced an object:
    /// content that can never become current. Then its folder, if it has no version.
    async fn remove_losers(&self, path: &str) -> Result<u64> {
        let Some(current) = self.current(path).await? else {
            self.remove_quietly(path).await;
            return Ok(0);
        };
        let entries = self.entries(&format!("{path}/{current}")).await?;
        let mut removed = 0;
        for entry in entries.unwrap_or_default() {
            let version: Result<Version, _> = name_of(&entry.path).parse();
            let lost = version.is_ok_and(|v| v != current && !v.may_follow(&current));
            if lost && !entry.isdir {
                removed += u64::from(self.remove_quietly(&entry.path).await);
            }
        }
        Ok(removed)
    }
}

/// A file is never replaced conditionally, so its size and time do to compare it.
fn file_meta(key: Key, entry: &FileStatus) -> ObjectMeta {
    let (size, modified) = (entry.length as u64, entry.modification_time);
    ObjectMeta {
        key,
        size,
        entity_tag: Some(format!("{size:x}-{modified:x}")),
    }
}
