//! Objects of probes that never ended.
//!
//! Does: list and remove them. Does not: decide which probe was interrupted (`gc`).

use futures::future::join_all;

use super::error::Result;
use super::facade::Storage;
use crate::store::keys::{self, Key, OwnObject};

/// The object of a probe in one base directory. A running probe removes its own object shortly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeObject {
    /// Index of the base directory.
    base: usize,
    key: Key,
}

impl Storage {
    /// The objects of all probes that are running or were interrupted, sorted.
    ///
    /// # Errors
    /// If a base directory cannot be listed.
    pub async fn list_probes(&self) -> Result<Vec<ProbeObject>> {
        let lists = self.inner.bases.iter().enumerate();
        let lists = join_all(lists.map(|(index, base)| async move {
            let folder = keys::probes();
            let listed = base.no_retry.list(&folder).await;
            let listed = listed.map_err(|error| base.error("list", folder.as_str(), error))?;
            let mut objects = Vec::new();
            for found in listed {
                match keys::parse(&found.key) {
                    Some(OwnObject::Probe) => objects.push(ProbeObject {
                        base: index,
                        key: found.key,
                    }),
                    _ => self.ignore(base, &found.key),
                }
            }
            Ok(objects)
        }));
        let lists: Result<Vec<_>> = lists.await.into_iter().collect();
        let mut all = lists?.concat();
        all.sort();
        Ok(all)
    }

    /// Removes the object of a probe.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub async fn remove_probe(&self, probe: &ProbeObject) -> Result<()> {
        let base = &self.inner.bases[probe.base];
        let removed = base.no_retry.delete(vec![probe.key.clone()]).await;
        removed
            .map(drop)
            .map_err(|error| base.error("delete", probe.key.as_str(), error))
    }
}
