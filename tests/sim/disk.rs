//! The content of one base directory. Outlives every daemon.
//!
//! Synchronous and without faults: those occur on the way to it (`store`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stopover::id::{BaseId, BaseName};
use stopover::storage::identity::Identity;
use stopover::storage::{StoreErrorKind, Tail};
use stopover::store::keys::{self, Folder, Key};
use stopover::store::{ObjectMeta, Precondition, StoreError, Versioned};

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    version: u64,
}

/// Objects, and files that are still being written.
#[derive(Debug, Default)]
pub struct Disk {
    objects: BTreeMap<String, Object>,
    /// Unfinished files (file systems only), with the run that writes each.
    temporaries: BTreeMap<String, u64>,
    version: u64,
}

fn not_found(key: &Key) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("{key} does not exist"))
}

impl Disk {
    pub fn put(&mut self, key: &Key, bytes: Bytes) {
        self.version += 1;
        let version = self.version;
        self.objects
            .insert(key.as_str().to_owned(), Object { bytes, version });
    }

    /// Writes the identity of a base directory of this name, as `stopover init` does.
    pub fn init(&mut self, name: &BaseName, number: u64) {
        let secret = [number as u8; 32];
        let identity = Identity::new(BaseId(number), name.clone(), secret);
        self.put(&keys::identity(), identity.encode());
    }

    /// Whether its list of members has these names.
    pub fn lists_all(&self, names: &[String]) -> bool {
        let list = self.objects.get(keys::members().as_str());
        let list = list.map(|list| String::from_utf8_lossy(&list.bytes).into_owned());
        list.is_some_and(|list| names.iter().all(|n| list.contains(&format!("\"{n}\""))))
    }

    /// The first line of the identity.
    pub fn identity(&self) -> Option<String> {
        let identity = self.objects.get(keys::identity().as_str())?;
        let text = std::str::from_utf8(&identity.bytes).ok()?;
        text.lines().next().map(str::to_owned)
    }

    /// The empty folder below the mount point of this disk. Versions do not repeat: they tell
    /// contents apart.
    pub fn below_mount_point(&self) -> Self {
        Self {
            version: self.version + (1 << 40),
            ..Self::default()
        }
    }

    /// The bytes of the object with this key.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        Some(self.objects.get(key)?.bytes.clone())
    }

    pub fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let object = self
            .objects
            .get(key.as_str())
            .ok_or_else(|| not_found(key))?;
        Ok(Versioned {
            bytes: object.bytes.clone(),
            version: object.version.to_string(),
            entity_tag: object.version.to_string(),
        })
    }

    pub fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let object = self
            .objects
            .get(key.as_str())
            .ok_or_else(|| not_found(key))?;
        let start = object.bytes.len().saturating_sub(max as usize);
        Ok(Tail {
            bytes: object.bytes.slice(start..),
            object_size: object.bytes.len() as u64,
        })
    }

    pub fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        let object = self
            .objects
            .get(key.as_str())
            .ok_or_else(|| not_found(key))?;
        if range.end > object.bytes.len() as u64 {
            let text = format!("{range:?} of {} bytes", object.bytes.len());
            return Err(StoreError::new(StoreErrorKind::Corrupt, text));
        }
        Ok(object.bytes.slice(range.start as usize..range.end as usize))
    }

    pub fn list(&self, folder: &Folder) -> Vec<ObjectMeta> {
        let prefix = match folder.as_str() {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let below = self.objects.range(prefix.clone()..);
        below
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, object)| ObjectMeta {
                key: Key::listed(key.clone()),
                size: object.bytes.len() as u64,
                entity_tag: Some(object.version.to_string()),
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

    /// Removes an object; returns whether it existed.
    pub fn delete(&mut self, key: &Key) -> bool {
        self.objects.remove(key.as_str()).is_some()
    }

    pub fn create_temporary(&mut self, key: &Key, writer: u64) -> String {
        self.version += 1;
        let name = format!("{key}.{writer:x}-{}.tmp", self.version);
        self.temporaries.insert(name.clone(), writer);
        name
    }

    /// Whether an object satisfies the precondition of a write.
    pub fn satisfies(&self, key: &Key, expected: Option<&Precondition>) -> bool {
        let existing = self.objects.get(key.as_str());
        match (expected, existing) {
            (None, _) | (Some(Precondition::Absent | Precondition::StrictlyAbsent), None) => true,
            (Some(Precondition::Version(version)), Some(existing)) => {
                *version == existing.version.to_string()
            }
            (Some(_), _) => false,
        }
    }

    /// Removes a temporary file; `false` if it was already removed as stale.
    pub fn remove_temporary(&mut self, name: &str) -> bool {
        self.temporaries.remove(name).is_some()
    }

    /// Removes the temporary files of dead writers.
    pub fn remove_temporaries(&mut self, folder: &Folder, is_live: impl Fn(u64) -> bool) -> u64 {
        let prefix = format!("{folder}/");
        let before = self.temporaries.len();
        self.temporaries
            .retain(|name, writer| !name.starts_with(&prefix) || is_live(*writer));
        (before - self.temporaries.len()) as u64
    }

    /// All objects and temporary files, except those that belong to the base directory itself.
    pub fn leftovers(&self) -> Vec<String> {
        let all = self.objects.keys().chain(self.temporaries.keys());
        let permanent = ["v2/identity", "v2/members", "v2/sweeper"];
        let is_permanent = |key: &str| permanent.iter().any(|name| key.starts_with(name));
        all.filter(|key| !key.ends_with("/.keep") && (!is_permanent(key) || key.ends_with(".tmp")))
            .cloned()
            .collect()
    }
}
