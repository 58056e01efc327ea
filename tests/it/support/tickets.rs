//! A store in memory whose every request takes the same virtual time and gets a ticket.
//!
//! Does: log each request with what it waited for. Does not: fail. Invariant: since nothing else
//! takes time, a request that starts at some instant waited for one that ended at that instant.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::storage::Tail;
use stopover::store::keys::{Folder, Key};
use stopover::store::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Versioned,
};
use tokio::time::Instant;

/// A request.
#[derive(Debug, Clone)]
struct Ticket {
    /// Operation and kind of object.
    what: String,
    started: Instant,
}

#[derive(Debug)]
pub struct TicketStore {
    latency: Duration,
    objects: Mutex<BTreeMap<String, (Bytes, u64)>>,
    tickets: Arc<Mutex<Vec<Ticket>>>,
}

/// The requests of one stage.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// The requests that waited for each other, one kind for each step; requests of the same kind
    /// at the same time are one step.
    pub steps: Vec<String>,
    /// All requests.
    pub count: usize,
}

impl TicketStore {
    pub fn new(latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            latency,
            objects: Mutex::default(),
            tickets: Arc::default(),
        })
    }

    async fn request(&self, operation: &str, path: &str) {
        let kind = match path {
            path if path.ends_with(".seg") || path.contains("/segments/") => "segment",
            path if path.contains("marker") => "marker",
            _ => "other object",
        };
        let ticket = Ticket {
            what: format!("{operation} {kind}"),
            started: Instant::now(),
        };
        self.tickets.lock().push(ticket);
        tokio::time::sleep(self.latency).await;
    }

    /// Runs a stage of which the client waits for nothing but requests of this store; returns its
    /// result and the requests in series.
    pub async fn stage<T>(&self, stage: impl Future<Output = T>) -> (T, Series) {
        self.tickets.lock().clear();
        let started = Instant::now();
        let result = stage.await;
        let waited = started.elapsed();
        let tickets = std::mem::take(&mut *self.tickets.lock());
        let mut steps: Vec<String> = Vec::new();
        let mut at = started;
        while at < started + waited {
            let now = tickets.iter().filter(|ticket| ticket.started == at);
            let mut kinds: Vec<&str> = now.map(|ticket| ticket.what.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            assert!(!kinds.is_empty(), "something else took time: {tickets:?}");
            steps.push(kinds.join(", "));
            at += self.latency;
        }
        let count = tickets.len();
        (result, Series { steps, count })
    }

    fn get(&self, key: &Key) -> Result<(Bytes, u64), StoreError> {
        let found = self.objects.lock().get(key.as_str()).cloned();
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "no such object"))
    }

    fn insert(&self, key: &Key, content: Bytes) {
        let mut objects = self.objects.lock();
        let version = objects
            .get(key.as_str())
            .map_or(1, |(_, version)| version + 1);
        objects.insert(key.as_str().to_owned(), (content, version));
    }

    fn tag(version: u64) -> String {
        format!("\"{version}\"")
    }

    fn below(&self, folder: &Folder) -> Vec<(String, u64, String)> {
        let prefix = match folder.as_str() {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let objects = self.objects.lock();
        let all = objects.iter().filter(|(key, _)| key.starts_with(&prefix));
        let listed = all.map(|(key, (content, version))| {
            let key = key.clone();
            (key, content.len() as u64, Self::tag(*version))
        });
        listed.collect()
    }
}

#[async_trait]
impl Store for TicketStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.request("PUT", key.as_str()).await;
        self.insert(key, content.concat().into());
        Ok(())
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.request("PUT", key.as_str()).await;
        let version = self.get(key).ok().map(|(_, version)| Self::tag(version));
        let holds = match expected {
            Precondition::Absent | Precondition::StrictlyAbsent => version.is_none(),
            Precondition::Version(expected) => version.as_ref() == Some(expected),
        };
        if holds {
            self.insert(key, content);
        }
        Ok(holds)
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.request("GET", key.as_str()).await;
        let (bytes, version) = self.get(key)?;
        Ok(Versioned {
            bytes,
            version: Self::tag(version),
            entity_tag: Self::tag(version),
        })
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.request("GET end of", key.as_str()).await;
        let (bytes, _) = self.get(key)?;
        let object_size = bytes.len() as u64;
        let start = object_size.saturating_sub(max) as usize;
        Ok(Tail {
            bytes: bytes.slice(start..),
            object_size,
        })
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.request("GET range of", key.as_str()).await;
        let (bytes, _) = self.get(key)?;
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.request("LIST", &format!("/{folder}/")).await;
        let found = self.below(folder).into_iter();
        let listed = found.map(|(key, size, tag)| ObjectMeta {
            key: Key::listed(key),
            size,
            entity_tag: Some(tag),
        });
        Ok(listed.collect())
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut page = self.list(folder).await?;
        page.retain(|found| after.is_none_or(|after| found.key > *after));
        page.truncate(max);
        Ok(page)
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.request("LIST", &format!("/{folder}/")).await;
        let prefix = format!("{folder}/");
        let found = self.below(folder).into_iter();
        let mut names: Vec<String> = found
            .filter_map(|(key, ..)| {
                let (name, _) = key.strip_prefix(&prefix)?.split_once('/')?;
                Some(name.to_owned())
            })
            .collect();
        names.dedup();
        Ok(names)
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let first = keys.first().map_or("", Key::as_str);
        self.request("DELETE", first).await;
        let mut objects = self.objects.lock();
        let removed = keys.iter().filter_map(|key| objects.remove(key.as_str()));
        Ok(removed.count() as u64)
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.request("DELETE", key.as_str()).await;
        let Ok((_, found)) = self.get(key) else {
            return Ok(DeleteOutcome::Absent);
        };
        if version.is_some_and(|version| version != Self::tag(found)) {
            return Ok(DeleteOutcome::Changed);
        }
        self.objects.lock().remove(key.as_str());
        Ok(DeleteOutcome::Removed)
    }

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64, StoreError> {
        Ok(0)
    }
}
