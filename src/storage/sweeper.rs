//! The object with the sweeper's digest, in each base directory.
//!
//! Does: read and write it, in an order of base directories that is the same for all daemons. Does
//! not: decide which daemon sweeps (`gc`). Invariant: it is written only if it is still what was
//! read, and a foreign object is never replaced.

use super::base::BaseDirectory;
use super::digest::{Digest, DigestError};
use super::error::Result;
use super::facade::Storage;
use super::membership::MemberState;
use super::roster::Role;
use crate::id::BaseName;
use crate::store::{Precondition, StoreErrorKind, keys};

/// A base directory that may hold the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DigestPlace(usize);

/// The object under the digest's key.
#[derive(Debug, Clone)]
pub struct StoredDigest {
    pub digest: std::result::Result<Digest, DigestError>,
    /// Changes with each write.
    pub version: String,
}

impl Storage {
    /// Where the digest may be. All daemons that have the same list of members try the base
    /// directories in the same order: active ones first, by identity.
    pub fn digest_places(&self) -> Vec<DigestPlace> {
        let bases = self.inner.bases.iter().enumerate();
        let mut places: Vec<_> = bases
            .filter_map(|(index, base)| match base.attachment.role() {
                Role::Member(MemberState::Abandoned) | Role::NotListed => None,
                Role::Member(state) => Some((state, base.attachment.id()?, DigestPlace(index))),
            })
            .collect();
        places.sort();
        places.into_iter().map(|(.., place)| place).collect()
    }

    /// The name of the base directory.
    pub fn name_of(&self, place: DigestPlace) -> &BaseName {
        &self.base_of(place).name
    }

    fn base_of(&self, place: DigestPlace) -> &std::sync::Arc<BaseDirectory> {
        &self.inner.bases[place.0]
    }

    /// Reads the object of a place; `None` if it is missing. One request, without retries.
    ///
    /// # Errors
    /// It cannot be read, or is larger than any digest.
    pub async fn read_digest(&self, place: DigestPlace) -> Result<Option<StoredDigest>> {
        let (base, key) = (self.base_of(place), keys::sweeper());
        match base.no_retry.get_versioned(&key).await {
            Ok(found) => Ok(Some(StoredDigest {
                digest: Digest::decode(&found.bytes),
                version: found.version,
            })),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => {
                if error.kind != StoreErrorKind::Corrupt {
                    base.probe_after_failure();
                }
                Err(base.error("get", key.as_str(), error))
            }
        }
    }

    /// The digest of the daemon that sweeps, for people: the first that names its writer. `None` if
    /// there is none, or none can be read.
    pub async fn current_digest(&self) -> Option<Digest> {
        for place in self.digest_places() {
            if let Ok(Some(stored)) = self.read_digest(place).await
                && let Ok(digest) = stored.digest
                && digest.holder.is_some()
            {
                return Some(digest);
            }
        }
        None
    }

    /// Writes a digest if the object is still what was read; returns whether it was written.
    ///
    /// # Errors
    /// It cannot be written; the write may have been applied nevertheless.
    pub async fn write_digest(
        &self,
        place: DigestPlace,
        digest: &Digest,
        read: Option<&StoredDigest>,
    ) -> Result<bool> {
        let (base, key) = (self.base_of(place), keys::sweeper());
        let expected = read.map_or(Precondition::Absent, |stored| {
            Precondition::Version(stored.version.clone())
        });
        let digest = Digest {
            number: self.inner.runtime.random.next_u64(),
            ..digest.clone()
        };
        let written = base.no_retry.put_if(&key, digest.encode(), &expected).await;
        written.map_err(|error| {
            if !error.contended {
                base.failed(&error);
            }
            base.error("put", key.as_str(), error)
        })
    }

    /// Removes a digest that its writer has replaced by one in another base directory, unless it
    /// has changed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn remove_digest(&self, place: DigestPlace, stored: &StoredDigest) -> Result<()> {
        let (base, key) = (self.base_of(place), keys::sweeper());
        let removed = base.no_retry.delete_if(&key, Some(&stored.version)).await;
        let removed = removed.map_err(|error| base.error("delete", key.as_str(), error));
        removed.map(drop)
    }
}
