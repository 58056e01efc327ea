//! Lists: which exchanges there are, and objects that Stopover did not write.
//!
//! Does: list the markers and the folders of segments of all base directories. Does not: write
//! markers (`markers`). Invariant: only keys that parse wholly as Stopover's are returned; each
//! folder that holds others is reported in the log once.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::{join_all, try_join};

use super::base::BaseDirectory;
use super::error::Result;
use super::facade::Storage;
use super::foreign::ForeignFolder;
use super::stored_marker::{self, TOMBSTONE_LENGTH};
use crate::id::{BaseName, ExchangeId};
use crate::store::if_found;
use crate::store::keys::{self, Key, OwnObject};

/// What the lists of all base directories showed of one exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedExchange {
    pub(super) markers: Vec<ListedMarker>,
    /// Whether a base directory has a folder of its segments.
    pub(super) has_segments: bool,
}

/// A marker or tombstone as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedMarker {
    /// Of the base directory.
    pub index: usize,
    /// The name of the base directory, which is the same at all daemons.
    pub base: BaseName,
    pub size: u64,
    pub entity_tag: String,
}

impl ListedMarker {
    /// Whether it is a tombstone: no marker is as short.
    pub(super) fn is_tombstone(&self) -> bool {
        self.size == TOMBSTONE_LENGTH
    }
}

impl ListedExchange {
    /// Changes with each write of a marker or tombstone in any base directory; `None` if there is
    /// none. It is the same at all daemons, in whatever order they list the base directories.
    pub fn version(&self) -> Option<String> {
        let tags = self.markers.iter();
        let tags = tags.map(|marker| format!("{}={}", marker.base, marker.entity_tag));
        let mut tags: Vec<_> = tags.collect();
        tags.sort();
        (!tags.is_empty()).then(|| tags.join(","))
    }

    /// The base directories that have a marker, without those that have a tombstone.
    pub fn marker_bases(&self) -> impl Iterator<Item = &BaseName> {
        let markers = self.markers.iter().filter(|marker| !marker.is_tombstone());
        markers.map(|marker| &marker.base)
    }

    /// Whether there are tombstones and no marker.
    pub fn is_claimed(&self) -> bool {
        !self.markers.is_empty() && !self.has_marker()
    }

    /// Whether a base directory has a folder of its segments.
    pub fn has_segments(&self) -> bool {
        self.has_segments
    }

    /// Whether there is a marker, and not only tombstones.
    pub fn has_marker(&self) -> bool {
        !self.markers.iter().all(ListedMarker::is_tombstone)
    }
}

impl Storage {
    /// Ids of all exchanges that have an object in any base directory, sorted.
    ///
    /// # Errors
    /// If one of the base directories cannot be listed.
    pub async fn list_exchanges(&self) -> Result<Vec<ExchangeId>> {
        Ok(self.survey().await?.into_keys().collect())
    }

    /// Lists all exchanges: two requests to each base directory for every 1,000 of them. A base
    /// directory in which a marker is listed must answer for its exchange from then on.
    ///
    /// # Errors
    /// If one of the base directories cannot be listed.
    pub async fn survey(&self) -> Result<BTreeMap<ExchangeId, ListedExchange>> {
        let bases = self.inner.bases.iter().enumerate();
        let lists = bases.map(|(index, base)| {
            try_join(
                self.list_markers(index, base),
                self.list_segment_folders(base),
            )
        });
        let mut exchanges: BTreeMap<_, ListedExchange> = BTreeMap::new();
        for (base, lists) in self.inner.bases.iter().zip(join_all(lists).await) {
            let (markers, folders) = lists.inspect_err(|_| base.probe_after_failure())?;
            for (exchange, marker) in markers {
                if let Some(id) = base.attachment.id() {
                    self.inner.sets.add_found(&exchange, id);
                }
                exchanges.entry(exchange).or_default().markers.push(marker);
            }
            for exchange in folders {
                exchanges.entry(exchange).or_default().has_segments = true;
            }
        }
        Ok(exchanges)
    }

    async fn list_markers(
        &self,
        index: usize,
        base: &BaseDirectory,
    ) -> Result<Vec<(ExchangeId, ListedMarker)>> {
        let mut markers = Vec::new();
        for found in base.list(&keys::markers()).await? {
            match keys::parse(&found.key) {
                Some(OwnObject::Marker(exchange)) => {
                    let entity_tag = match found.entity_tag {
                        Some(tag) => tag,
                        None => match self.entity_tag_by_reading(base, &found.key).await? {
                            Some(tag) => tag,
                            None => continue,
                        },
                    };
                    let marker = ListedMarker {
                        index,
                        base: base.name.clone(),
                        size: found.size,
                        entity_tag,
                    };
                    markers.push((exchange, marker));
                }
                Some(_) => {}
                None => self.ignore(base, &found.key),
            }
        }
        Ok(markers)
    }

    /// For stores whose lists have no entity tags; `None` if the object is missing now.
    async fn entity_tag_by_reading(
        &self,
        base: &BaseDirectory,
        key: &Key,
    ) -> Result<Option<String>> {
        let found = if_found(base.store.get_versioned(key).await);
        let found = found.map_err(|error| base.error("get", key.as_str(), error))?;
        Ok(found.map(|found| found.entity_tag))
    }

    /// The contents of the listed markers of an exchange that still exist.
    ///
    /// # Errors
    /// If one cannot be read.
    pub async fn read_listed(
        &self,
        exchange: &ExchangeId,
        listed: &ListedExchange,
    ) -> Result<Vec<Bytes>> {
        let key = keys::marker(exchange);
        let markers = listed
            .markers
            .iter()
            .filter(|marker| !marker.is_tombstone());
        let reads = markers.map(async |marker| {
            let base = &self.inner.bases[marker.index];
            let found = if_found(base.retrying_if_healthy().get_versioned(&key).await);
            found.map_err(|error| base.error("get", key.as_str(), error))
        });
        let found: Result<Vec<_>> = join_all(reads).await.into_iter().collect();
        let found = found?.into_iter().flatten().map(|found| found.bytes);
        let markers = found.filter(|stored| !stored_marker::is_tombstone(stored));
        Ok(markers
            .map(|stored| stored_marker::content(&stored))
            .collect())
    }

    async fn list_segment_folders(&self, base: &BaseDirectory) -> Result<Vec<ExchangeId>> {
        let folder = keys::all_segments();
        let listed = base.store.list_folders(&folder).await;
        let listed = listed.map_err(|error| base.error("list", folder.as_str(), error))?;
        let mut exchanges = Vec::with_capacity(listed.len());
        for name in listed {
            match keys::parse_hashed(&name) {
                Some(exchange) => exchanges.push(exchange),
                None => self.ignore(base, &Key::listed(format!("{folder}/{name}/"))),
            }
        }
        Ok(exchanges)
    }

    /// Counts a listed object that Stopover did not write, and reports the first of each folder.
    pub(super) fn ignore(&self, base: &BaseDirectory, key: &Key) {
        self.inner.metrics.count_ignored_key(&base.name);
        let folder = key
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let found = ForeignFolder {
            base: base.name.clone(),
            folder: folder.to_owned(),
        };
        if self.inner.foreign.add(found) {
            tracing::warn!(base = %base.name, %key, folder,
                "found an object that Stopover did not write; leaving all such in this folder");
        }
    }

    /// The folders in which objects that Stopover did not write were found, at most 1,000.
    pub fn foreign_folders(&self) -> Vec<ForeignFolder> {
        self.inner.foreign.all()
    }
}
