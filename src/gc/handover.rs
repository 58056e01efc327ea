//! The observations that a sweeper inherits from the previous one.
//!
//! Pure. Does: find what other daemons have observed of an exchange. Does not: read it from a base
//! directory (`sweeper_lease`). Invariant: an observation counts only for exactly the same markers,
//! each of which is unique to one write. The lease in a digest is checked again before a claim,
//! like that of any marker read earlier.

use std::collections::HashMap;
use std::time::Duration;

use super::lease_tracker::LeaseState;
use crate::id::ExchangeId;
use crate::storage::{DigestEntry, DigestExchanges, DigestMarkers, exchange_hash};

/// What others have observed.
#[derive(Debug, Default)]
pub(super) struct Inherited(HashMap<u64, DigestEntry>);

impl Inherited {
    /// Adds the content of one digest; of two observations of the same markers the longer counts.
    pub(super) fn add(&mut self, digest: &DigestExchanges) {
        for (hash, entry) in digest.iter() {
            let known = self.0.entry(hash).or_insert(entry);
            if known.markers == entry.markers && known.unrenewed < entry.unrenewed {
                *known = entry;
            }
        }
    }

    /// The lease of an exchange, which no renewal changes.
    pub(super) fn lease(&self, exchange: &ExchangeId) -> Option<Duration> {
        self.0.get(&exchange_hash(exchange))?.lease
    }

    /// What was observed of an exchange in this state.
    pub(super) fn get(&self, exchange: &ExchangeId, marker: &LeaseState) -> Option<DigestEntry> {
        let found = self.0.get(&exchange_hash(exchange)).copied();
        found.filter(|entry| entry.markers == digest_markers(marker))
    }
}

/// The markers of an exchange in the form of a digest.
pub(super) fn digest_markers(marker: &LeaseState) -> DigestMarkers {
    match marker {
        LeaseState::Open(version) => DigestMarkers::open(version),
        LeaseState::Tombstone(version) => DigestMarkers::claimed(version),
        LeaseState::Missing => DigestMarkers::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(id: &ExchangeId, markers: DigestMarkers, seconds: u64) -> DigestExchanges {
        let entry = DigestEntry {
            markers,
            lease: None,
            unrenewed: Duration::from_secs(seconds),
        };
        DigestExchanges::complete([(exchange_hash(id), entry)].into())
    }

    #[test]
    fn only_an_observation_of_the_same_markers_is_continued() {
        let id: ExchangeId = "q".parse().unwrap();
        let open = |version: &str| LeaseState::Open(version.into());
        let mut inherited = Inherited::default();
        for (version, seconds) in [("a=1", 60), ("a=1", 300), ("a=1", 120)] {
            inherited.add(&digest(&id, DigestMarkers::open(version), seconds));
        }
        let found = inherited.get(&id, &open("a=1")).unwrap();
        assert_eq!(found.unrenewed, Duration::from_secs(300));
        assert_eq!(inherited.get(&id, &open("a=2")), None, "renewed since");
        assert_eq!(inherited.get(&id, &LeaseState::Missing), None);
        let claimed = LeaseState::Tombstone("a=1".into());
        assert_eq!(inherited.get(&id, &claimed), None);
        let other = "other".parse().unwrap();
        assert_eq!(inherited.get(&other, &open("a=1")), None);
    }

    #[test]
    fn the_lease_of_an_exchange_is_inherited_whatever_its_markers_are_now() {
        let id: ExchangeId = "q".parse().unwrap();
        let mut inherited = Inherited::default();
        assert_eq!(inherited.lease(&id), None);
        let lease = Some(Duration::from_secs(900));
        let entry = DigestEntry {
            markers: DigestMarkers::Missing,
            lease,
            unrenewed: Duration::ZERO,
        };
        inherited.add(&DigestExchanges::complete(
            [(exchange_hash(&id), entry)].into(),
        ));
        assert_eq!(inherited.lease(&id), lease);
        assert_eq!(inherited.get(&id, &LeaseState::Missing), Some(entry));
    }
}
