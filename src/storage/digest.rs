//! The digest: the sweeper, and what it has observed of every exchange.
//!
//! Pure: a digest to text and back. Does not: store it (`sweeper`), or decide when an exchange has
//! expired (`gc`). Invariant: what decodes was encoded by this code; a digest never claims to be
//! complete beyond what it lists, and is never larger than the limit for small objects.
//!
//! ```text
//! stopover sweeper, layout 2
//! {"holder":"000000000000feed","number":"…","interval_millis":60000,"members":3,
//!  "complete_to":"ffffffffffffffff",
//!  "exchanges":[["78cc0f5a1d3f8a11","o51f0…",900000,120000],…]}
//! crc32c 1a2b3c4d
//! ```
//!
//! Exchanges are named by a hash whose first digits are those in the name of the marker: their ids
//! would need three times the space, and each daemon reads the digest once in each interval.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checked_text::{self, TextError};
use crate::id::ExchangeId;
use crate::store::{MAX_VERSIONED_SIZE, stable_hash};

const TITLE: &str = "stopover sweeper";

/// Exchanges that a digest lists at most.
const MAX_EXCHANGES: usize = 16_000;

/// The longest duration in a digest: 115 days, in milliseconds.
const MAX_MILLIS: u64 = 9_999_999_999;

/// The largest entry, in bytes: two hashes, two durations, punctuation.
const MAX_ENTRY: u64 = 18 + 19 + 2 * 10 + 6;

const _: () = assert!(MAX_EXCHANGES as u64 * MAX_ENTRY < MAX_VERSIONED_SIZE - 1024);

/// What a sweeper publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digest {
    /// The daemon that sweeps, by a number that it has drawn; `None` if it has stopped doing so.
    pub holder: Option<u64>,
    /// Drawn for each write, so that no two contents are equal.
    pub number: u64,
    /// Time between two writes, without failures.
    pub interval: Duration,
    /// Generation of the sweeper's list of members.
    pub members: u64,
    /// The exchanges that it lists.
    pub exchanges: DigestExchanges,
}

/// The observations of all exchanges, by [`exchange_hash`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DigestExchanges {
    /// Every exchange whose hash is at most this is listed; `None` if the list is unknown.
    complete_to: Option<u64>,
    listed: BTreeMap<u64, DigestEntry>,
}

/// What a sweeper has observed of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestEntry {
    pub markers: DigestMarkers,
    /// Its own lease, if its marker could be decoded.
    pub lease: Option<Duration>,
    /// For how long its markers were observed unchanged.
    pub unrenewed: Duration,
}

/// The markers of an exchange in all base directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestMarkers {
    /// There is one; the hash of the versions of all.
    Open(u64),
    /// There are only tombstones; the hash of their versions.
    Claimed(u64),
    /// There is none, only other objects.
    Missing,
}

/// Why an object is not a digest.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DigestError {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("malformed: {what}")]
    Malformed { what: &'static str },
}

impl DigestError {
    /// Whether Stopover did not write the object.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Text(TextError::Title { .. }))
    }
}

/// The name of an exchange in a digest.
pub fn exchange_hash(exchange: &ExchangeId) -> u64 {
    stable_hash(&[exchange.as_str().as_bytes()])
}

impl DigestMarkers {
    /// There is a marker; `version` changes with each write of one.
    pub fn open(version: &str) -> Self {
        Self::Open(stable_hash(&[version.as_bytes()]))
    }

    /// There are only tombstones.
    pub fn claimed(version: &str) -> Self {
        Self::Claimed(stable_hash(&[version.as_bytes()]))
    }

    fn encode(self) -> String {
        match self {
            Self::Open(hash) => format!("o{hash:016x}"),
            Self::Claimed(hash) => format!("c{hash:016x}"),
            Self::Missing => "m".to_owned(),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("o", hash) => parse_hash(hash).map(Self::Open),
            ("c", hash) => parse_hash(hash).map(Self::Claimed),
            ("m", "") => Some(Self::Missing),
            _ => None,
        }
    }
}

impl DigestExchanges {
    /// All exchanges that there are. Those with the highest hashes are left out if they are too
    /// many.
    pub fn complete(mut listed: BTreeMap<u64, DigestEntry>) -> Self {
        let complete_to = match listed.keys().nth(MAX_EXCHANGES).copied() {
            Some(first_left_out) => {
                listed.split_off(&first_left_out);
                first_left_out - 1
            }
            None => u64::MAX,
        };
        Self {
            complete_to: Some(complete_to),
            listed,
        }
    }

    /// Whether all exchanges are listed.
    pub fn is_complete(&self) -> bool {
        self.complete_to == Some(u64::MAX)
    }

    /// What is listed of an exchange.
    pub fn get(&self, exchange: &ExchangeId) -> Option<&DigestEntry> {
        self.listed.get(&exchange_hash(exchange))
    }

    /// All that are listed.
    pub fn iter(&self) -> impl Iterator<Item = (u64, DigestEntry)> {
        self.listed.iter().map(|(hash, entry)| (*hash, *entry))
    }

    /// Whether the sweeper observed no marker of an exchange. One that was announced since is open.
    pub fn lacks_marker(&self, exchange: &ExchangeId) -> bool {
        let hash = exchange_hash(exchange);
        match self.listed.get(&hash) {
            Some(entry) => !matches!(entry.markers, DigestMarkers::Open(_)),
            None => self.covers_hash(hash),
        }
    }

    /// Whether an exchange would be listed if it existed when the sweeper listed all.
    pub fn covers(&self, exchange: &ExchangeId) -> bool {
        self.covers_hash(exchange_hash(exchange))
    }

    fn covers_hash(&self, hash: u64) -> bool {
        self.complete_to.is_some_and(|last| hash <= last)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    holder: Option<String>,
    number: String,
    interval_millis: u64,
    members: u64,
    complete_to: Option<String>,
    exchanges: Vec<(String, String, u64, u64)>,
}

impl Digest {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let hex = |number: u64| format!("{number:016x}");
        let listed = self.exchanges.listed.iter().map(|(hash, entry)| {
            let lease = entry.lease.map_or(0, millis);
            let unrenewed = millis(entry.unrenewed);
            (hex(*hash), entry.markers.encode(), lease, unrenewed)
        });
        let content = Content {
            holder: self.holder.map(hex),
            number: hex(self.number),
            interval_millis: millis(self.interval),
            members: self.members,
            complete_to: self.exchanges.complete_to.map(hex),
            exchanges: listed.collect(),
        };
        checked_text::encode(TITLE, &content)
    }

    /// Decodes the stored form.
    ///
    /// # Errors
    /// It is damaged, of another layout, or no digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, DigestError> {
        let malformed = |what| DigestError::Malformed { what };
        let (_, content) = checked_text::decode::<Content>(TITLE, bytes)?;
        let mut listed = BTreeMap::new();
        for (hash, markers, lease, unrenewed) in &content.exchanges {
            let hash = parse_hash(hash).ok_or(malformed("exchange"))?;
            let entry = DigestEntry {
                markers: DigestMarkers::decode(markers).ok_or(malformed("markers"))?,
                lease: (*lease > 0).then(|| Duration::from_millis(*lease)),
                unrenewed: Duration::from_millis(*unrenewed),
            };
            listed.insert(hash, entry);
        }
        let number = |text: Option<&String>, what| match text {
            Some(text) => parse_hash(text).map(Some).ok_or(malformed(what)),
            None => Ok(None),
        };
        Ok(Self {
            holder: number(content.holder.as_ref(), "holder")?,
            number: parse_hash(&content.number).ok_or(malformed("number"))?,
            interval: Duration::from_millis(content.interval_millis),
            members: content.members,
            exchanges: DigestExchanges {
                complete_to: number(content.complete_to.as_ref(), "complete_to")?,
                listed,
            },
        })
    }
}

fn millis(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(MAX_MILLIS);
    millis.min(MAX_MILLIS)
}

fn parse_hash(text: &str) -> Option<u64> {
    let hash = u64::from_str_radix(text, 16).ok()?;
    (text == format!("{hash:016x}")).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ExchangeId {
        name.parse().unwrap()
    }

    fn entry(markers: DigestMarkers) -> DigestEntry {
        DigestEntry {
            markers,
            lease: Some(Duration::from_secs(900)),
            unrenewed: Duration::from_secs(120),
        }
    }

    fn digest() -> Digest {
        let orphan = DigestEntry {
            lease: None,
            ..entry(DigestMarkers::Missing)
        };
        let listed = [
            (id("q"), entry(DigestMarkers::open("a=1"))),
            (id("claimed"), entry(DigestMarkers::claimed("a=2"))),
            (id("orphan"), orphan),
        ];
        let listed = listed.map(|(id, entry)| (exchange_hash(&id), entry));
        Digest {
            holder: Some(0xFEED),
            number: 7,
            interval: Duration::from_secs(60),
            members: 3,
            exchanges: DigestExchanges::complete(listed.into()),
        }
    }

    #[test]
    fn a_digest_decodes_as_encoded_and_the_stored_form_does_not_change() {
        let stored = digest().encode();
        let golden = include_str!("../../tests/golden/sweeper-v2.txt");
        assert_eq!(std::str::from_utf8(&stored).unwrap(), golden);
        assert_eq!(Digest::decode(&stored).unwrap(), digest());
        let released = Digest::default();
        assert_eq!(Digest::decode(&released.encode()).unwrap(), released);
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_of_a_digest_is_detected() {
        let stored = digest().encode();
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(Digest::decode(&damaged).is_err(), "byte {at} bit {bit}");
            }
            assert!(Digest::decode(&stored[..at]).is_err());
        }
    }

    #[test]
    fn a_foreign_object_is_distinguished_from_a_damaged_digest() {
        assert!(Digest::decode(b"mine").unwrap_err().is_foreign());
        let mut damaged = digest().encode().to_vec();
        damaged.truncate(40);
        assert!(!Digest::decode(&damaged).unwrap_err().is_foreign());
    }

    #[test]
    fn only_an_exchange_with_a_marker_counts_as_open() {
        let exchanges = digest().exchanges;
        assert!(!exchanges.lacks_marker(&id("q")));
        for closed in ["claimed", "orphan", "never announced"] {
            let closed = closed.replace(' ', "-");
            assert!(exchanges.lacks_marker(&id(&closed)), "{closed}");
        }
        let unknown = DigestExchanges::default();
        assert!(!unknown.lacks_marker(&id("q")) && !unknown.covers(&id("q")));
    }

    /// Small objects are read up to 1 MiB: a digest of any number of exchanges is smaller, and
    /// states which it leaves out.
    #[test]
    fn a_digest_of_too_many_exchanges_is_bounded_and_says_where_it_ends() {
        let longest = DigestEntry {
            lease: Some(Duration::from_secs(30 * 86_400)),
            unrenewed: Duration::from_secs(30 * 86_400),
            ..entry(DigestMarkers::Open(u64::MAX))
        };
        let ids: Vec<_> = (0..MAX_EXCHANGES + 2_000)
            .map(|n| id(&format!("q{n}")))
            .collect();
        let listed = ids.iter().map(|id| (exchange_hash(id), longest));
        let digest = Digest {
            exchanges: DigestExchanges::complete(listed.collect()),
            ..digest()
        };
        let stored = digest.encode();
        assert!((stored.len() as u64) < MAX_VERSIONED_SIZE);
        let read = Digest::decode(&stored).unwrap().exchanges;
        let covered = ids.iter().filter(|id| read.covers(id)).count();
        assert_eq!(covered, MAX_EXCHANGES);
        let listed = |id: &&ExchangeId| read.get(id).is_some();
        assert_eq!(ids.iter().filter(listed).count(), MAX_EXCHANGES);
        assert!(!ids.iter().any(|id| read.lacks_marker(id)));
    }
}
