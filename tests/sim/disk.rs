//! What lies in one base directory. Survives every daemon.
//!
//! Synchronous, no faults: those happen on the way (`store`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stopover::storage::{StoreErrorKind, Tail};
use stopover::store::keys::{Folder, Key};
use stopover::store::{ObjectMeta, Precondition, StoreError, Versioned};

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    version: u64,
}

/// Objects, and files that are not whole yet.
#[derive(Debug, Default)]
pub struct Disk {
    objects: BTreeMap<String, Object>,
    /// Unfinished files (file systems) and who writes them.
    temporaries: BTreeMap<String, u64>,
    version: u64,
}

fn gone(key: &Key) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("{key} does not exist"))
}

impl Disk {
    pub fn put(&mut self, key: &Key, bytes: Bytes) {
        self.version += 1;
        let version = self.version;
        self.objects
            .insert(key.as_str().to_owned(), Object { bytes, version });
    }

    pub fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let object = self.objects.get(key.as_str()).ok_or_else(|| gone(key))?;
        Ok(Versioned {
            bytes: object.bytes.clone(),
            version: object.version.to_string(),
        })
    }

    pub fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let object = self.objects.get(key.as_str()).ok_or_else(|| gone(key))?;
        let start = object.bytes.len().saturating_sub(max as usize);
        Ok(Tail {
            bytes: object.bytes.slice(start..),
            object_size: object.bytes.len() as u64,
        })
    }

    pub fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        let object = self.objects.get(key.as_str()).ok_or_else(|| gone(key))?;
        if range.end > object.bytes.len() as u64 {
            let text = format!("{range:?} of {} bytes", object.bytes.len());
            return Err(StoreError::new(StoreErrorKind::Corrupt, text));
        }
        Ok(object.bytes.slice(range.start as usize..range.end as usize))
    }

    pub fn list(&self, folder: &Folder) -> Vec<ObjectMeta> {
        let prefix = format!("{folder}/");
        let below = self.objects.range(prefix.clone()..);
        below
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, object)| ObjectMeta {
                key: Key::listed(key.clone()),
                size: object.bytes.len() as u64,
            })
            .collect()
    }

    pub fn list_folders(&self, folder: &Folder) -> Vec<String> {
        let prefix = format!("{folder}/");
        let all = self.objects.keys().chain(self.temporaries.keys());
        let names: BTreeSet<&str> = all
            .filter_map(|key| key.strip_prefix(&prefix)?.split_once('/'))
            .map(|(name, _)| name)
            .collect();
        names.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Removes an object; whether it was there.
    pub fn delete(&mut self, key: &Key) -> bool {
        self.objects.remove(key.as_str()).is_some()
    }

    pub fn begin_temporary(&mut self, key: &Key, writer: u64) -> String {
        self.version += 1;
        let name = format!("{key}.{writer:x}-{}.tmp", self.version);
        self.temporaries.insert(name.clone(), writer);
        name
    }

    /// Whether what lies under a key is what a writer expects.
    pub fn is_as(&self, key: &Key, expected: Option<&Precondition>) -> bool {
        let there = self.objects.get(key.as_str());
        match (expected, there) {
            (None, _) | (Some(Precondition::Absent), None) => true,
            (Some(Precondition::Version(version)), Some(there)) => {
                *version == there.version.to_string()
            }
            (Some(_), _) => false,
        }
    }

    /// Removes a temporary; `false` if somebody took it for abandoned.
    pub fn forget_temporary(&mut self, name: &str) -> bool {
        self.temporaries.remove(name).is_some()
    }

    /// Removes temporaries of writers that do not live any more.
    pub fn remove_temporaries(&mut self, folder: &Folder, lives: impl Fn(u64) -> bool) -> u64 {
        let prefix = format!("{folder}/");
        let before = self.temporaries.len();
        self.temporaries
            .retain(|name, writer| !name.starts_with(&prefix) || lives(*writer));
        (before - self.temporaries.len()) as u64
    }

    /// All that an exchange, a probe or an interrupted write left.
    pub fn leftovers(&self) -> Vec<String> {
        let all = self.objects.keys().chain(self.temporaries.keys());
        all.filter(|key| *key != "v1/.keep").cloned().collect()
    }
}
