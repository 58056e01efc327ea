//! Object keys: the only place that builds or parses them.
//!
//! Does: define where each object is stored, and which objects and temporaries are Stopover's. Does
//! not: access a store. Invariant: a key built here parses back to what it was built from, and
//! nothing else parses: an object whose key does not parse is foreign and is never removed.
//!
//! ```text
//! <base directory>/v2/identity                                      which base directory this is
//! <base directory>/v2/members                                       the fleet's base directories
//! <base directory>/v2/sweeper                                       who sweeps, and its digest
//! <base directory>/v2/markers/<hash>-<exchange>                     the marker
//! <base directory>/v2/segments/<hash>-<exchange>/<segment id>.seg   a segment
//! <base directory>/v2/probes/<random>                               a probe, short-lived
//! <base directory>/v2/markers/.keep, v2/segments/.keep              keep these from being empty
//! ```
//!
//! The hash is the first digits of one over the exchange id. Object stores divide their load by
//! ranges of keys, and the ids of all queries of a day begin with the same date. It also
//! distinguishes Stopover's objects from foreign ones: a `README` in the folder of markers would be
//! a valid id.

use std::fmt;

use super::hash::stable_hash;
use crate::id::{ExchangeId, MAX_EXCHANGE_ID, SegmentId, query_of};

/// Suffix of the name of a file that is still being written (file systems).
const TEMPORARY: &str = ".tmp";

/// Length of the longest key in bytes: `v2/segments/`, hash, `-`, an exchange id, `/`, a segment
/// id, `.seg`.
pub const LONGEST_KEY: usize = 12 + 5 + MAX_EXCHANGE_ID + 1 + 29 + 4;

const FORMAT: &str = "v2";
const MARKERS: &str = "v2/markers";
const SEGMENTS: &str = "v2/segments";
const PROBES: &str = "v2/probes";
const SEGMENT: &str = ".seg";
const KEEP: &str = ".keep";
const IDENTITY: &str = "identity";
const MEMBERS: &str = "members";
const SWEEPER: &str = "sweeper";

/// Key of an object, relative to its base directory, without a leading `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// A key as listed by a store: any text, valid only for parsing, reading and deleting.
    pub fn listed(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder, relative to its base directory, without a leading or final `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Folder(String);

impl Folder {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object that Stopover wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnObject {
    Marker(ExchangeId),
    Segment(ExchangeId, SegmentId),
    Probe,
    /// One of [`keep`].
    Keep,
    Identity,
    Members,
    Sweeper,
}

/// The folder of all markers.
pub fn markers() -> Folder {
    Folder(MARKERS.into())
}

/// The folder of the segments of all exchanges.
pub fn all_segments() -> Folder {
    Folder(SEGMENTS.into())
}

/// The folder of the segments of one exchange.
pub fn segments(exchange: &ExchangeId) -> Folder {
    Folder(format!("{SEGMENTS}/{}", hashed(exchange)))
}

/// The name of an exchange in keys.
fn hashed(exchange: &ExchangeId) -> String {
    let hash = stable_hash(&[exchange.as_str().as_bytes()]) >> 48;
    format!("{hash:04x}-{exchange}")
}

/// The marker of an exchange.
pub fn marker(exchange: &ExchangeId) -> Key {
    Key(format!("{MARKERS}/{}", hashed(exchange)))
}

/// A segment of an exchange.
pub fn segment(exchange: &ExchangeId, segment: SegmentId) -> Key {
    Key(format!("{}/{segment}{SEGMENT}", segments(exchange)))
}

/// The folder of probe objects.
pub fn probes() -> Folder {
    Folder(PROBES.into())
}

/// A probe object.
pub fn probe(random: u64) -> Key {
    Key(format!("{PROBES}/{random:016x}"))
}

/// The objects that keep the folders which all exchanges share non-empty.
pub fn keep() -> [Key; 2] {
    [MARKERS, SEGMENTS].map(|folder| Key(format!("{folder}/{KEEP}")))
}

/// The folder of all that Stopover writes.
pub fn all() -> Folder {
    Folder(FORMAT.into())
}

/// The whole base directory.
pub fn root() -> Folder {
    Folder(String::new())
}

/// The identity of the base directory. Its first line never changes.
pub fn identity() -> Key {
    Key(format!("{FORMAT}/{IDENTITY}"))
}

/// The object that lists the base directories of the fleet.
pub fn members() -> Key {
    Key(format!("{FORMAT}/{MEMBERS}"))
}

/// The sweeper's digest.
pub fn sweeper() -> Key {
    Key(format!("{FORMAT}/{SWEEPER}"))
}

/// Whether an object describes the base directory or the fleet, and belongs to no exchange.
pub fn is_administrative(key: &Key) -> bool {
    matches!(
        parse(key),
        Some(OwnObject::Identity | OwnObject::Members | OwnObject::Sweeper)
    )
}

/// The kind of an object and its exchange, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Stopover wrote it, and it exists only in a base directory that has an identity.
    Fleet,
    /// A probe may have written it, before there was an identity.
    Probe,
    /// Stopover did not write it.
    Foreign,
}

/// Determines the owner of an object by its key.
pub fn owner(key: &Key) -> Owner {
    match parse(key) {
        Some(OwnObject::Probe | OwnObject::Keep) => Owner::Probe,
        Some(_) => Owner::Fleet,
        None if is_temporary(key) => Owner::Probe,
        None => Owner::Foreign,
    }
}

/// What an object is; `None` if Stopover did not write it.
pub fn parse(key: &Key) -> Option<OwnObject> {
    let (folder, name) = key.as_str().rsplit_once('/')?;
    match folder {
        FORMAT if name == IDENTITY => Some(OwnObject::Identity),
        FORMAT if name == MEMBERS => Some(OwnObject::Members),
        FORMAT if name == SWEEPER => Some(OwnObject::Sweeper),
        MARKERS | SEGMENTS if name == KEEP => Some(OwnObject::Keep),
        MARKERS => Some(OwnObject::Marker(parse_hashed(name)?)),
        PROBES => {
            let random = u64::from_str_radix(name, 16).ok()?;
            (probe(random) == *key).then_some(OwnObject::Probe)
        }
        _ => {
            let exchange = parse_hashed(folder.strip_prefix(SEGMENTS)?.strip_prefix('/')?)?;
            let segment = name.strip_suffix(SEGMENT)?.parse().ok()?;
            Some(OwnObject::Segment(exchange, segment))
        }
    }
}

/// The exchange to which a marker of this name belongs, or a folder below [`all_segments`]; `None`
/// if Stopover did not create it.
pub fn parse_hashed(name: &str) -> Option<ExchangeId> {
    let (_, exchange) = name.split_once('-')?;
    let exchange = exchange.parse().ok()?;
    (hashed(&exchange) == name).then_some(exchange)
}

/// Whether Stopover created this folder, whose path is relative to its base directory.
pub fn is_own_folder(folder: &str) -> bool {
    let is_segments = || {
        let name = folder.strip_prefix(SEGMENTS)?.strip_prefix('/')?;
        parse_hashed(name)
    };
    matches!(folder, FORMAT | MARKERS | SEGMENTS | PROBES) || is_segments().is_some()
}

/// The suffix of the temporary file in which an object is written: `writer` identifies a process,
/// and `number` one of its writes.
pub fn temporary_suffix(writer: u64, number: u64) -> String {
    format!(".{writer:016x}-{number:x}{TEMPORARY}")
}

/// Whether a file is a temporary of an object of Stopover.
pub fn is_temporary(key: &Key) -> bool {
    let own = || {
        let (object, suffix) = key.as_str().strip_suffix(TEMPORARY)?.rsplit_once('.')?;
        let (writer, number) = suffix.split_once('-')?;
        let [writer, number] = [writer, number].map(|n| u64::from_str_radix(n, 16));
        let suffix = temporary_suffix(writer.ok()?, number.ok()?);
        parse(&Key::listed(object)).filter(|_| key.as_str().ends_with(&suffix))
    };
    own().is_some()
}

/// The query that an object or folder belongs to; empty if it belongs to none.
pub fn query(path: &str) -> &str {
    let name = || {
        let below = |folder| path.strip_prefix(folder)?.strip_prefix('/');
        let name = below(MARKERS)
            .or_else(|| below(SEGMENTS))?
            .split('/')
            .next()?;
        name.split_once('-')
    };
    name().map_or("", |(_, exchange)| query_of(exchange))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DaemonId;

    fn exchange_id() -> ExchangeId {
        "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8"
            .parse()
            .unwrap()
    }

    fn segment_id() -> SegmentId {
        SegmentId {
            daemon: DaemonId(0xfeed),
            sequence: 42,
        }
    }

    #[test]
    fn keys_parse_back_to_what_they_were_built_from() {
        let longest: ExchangeId = "x".repeat(MAX_EXCHANGE_ID).parse().unwrap();
        for e in [exchange_id(), "q".parse().unwrap(), longest] {
            assert_eq!(parse(&marker(&e)), Some(OwnObject::Marker(e.clone())));
            let (key, id) = (segment(&e, segment_id()), segment_id());
            assert!(key.as_str().len() <= LONGEST_KEY, "{key}");
            assert_eq!(parse(&key), Some(OwnObject::Segment(e.clone(), id)));
            let name = segments(&e).as_str().rsplit_once('/').unwrap().1.to_owned();
            assert_eq!(parse_hashed(&name), Some(e));
        }
        assert_eq!(parse(&probe(7)), Some(OwnObject::Probe));
        for key in keep() {
            assert_eq!(parse(&key), Some(OwnObject::Keep), "{key}");
        }
    }

    #[test]
    fn the_key_layout_of_version_two_does_not_change() {
        let e: ExchangeId = "q".parse().unwrap();
        assert_eq!(marker(&e).as_str(), "v2/markers/78cc-q");
        assert_eq!(
            segment(&e, segment_id()).as_str(),
            "v2/segments/78cc-q/000000000000feed-00000000002a.seg"
        );
        assert_eq!(probe(7).as_str(), "v2/probes/0000000000000007");
        assert_eq!(sweeper().as_str(), "v2/sweeper");
        assert_eq!(parse(&sweeper()), Some(OwnObject::Sweeper));
        assert_eq!(identity().as_str(), "v2/identity");
        assert_eq!(parse(&identity()), Some(OwnObject::Identity));
        assert_eq!(members().as_str(), "v2/members");
        assert_eq!(parse(&members()), Some(OwnObject::Members));
        assert_eq!((all().as_str(), root().as_str()), ("v2", ""));
        assert_eq!(probes().to_string(), "v2/probes");
        assert_eq!(
            keep().map(|key| key.to_string()),
            ["v2/markers/.keep", "v2/segments/.keep"]
        );
    }

    /// Keys that resemble Stopover's but are foreign. Each test that removes objects checks that
    /// none of these is removed.
    #[test]
    fn nothing_that_was_built_elsewhere_parses() {
        for key in [
            "v2/markers/README",
            "v2/markers/q",
            "v2/markers/0000-q",
            "v2/markers/78CC-q",
            "v2/markers/78cc-q/x",
            "v2/markers/.keep2",
            "v2/markers",
            "v2/q",
            "v1/markers/q",
            "x/v2/markers/q",
            "v2/foo/bar.txt",
            "v2/probes/7",
            "v2/probes/+000000000000007",
            "v2/probes/000000000000000G",
            "v2/probes/.keep",
            "v2/segments/q",
            "v2/segments/q/000000000000feed-00000000002a.seg",
            "v2/segments/0000-q/000000000000feed-00000000002a.seg",
            "v2/segments/78cc-q/notes.txt",
            "v2/segments/78cc-q/000000000000FEED-00000000002a.seg",
            "v2/segments/78cc-q/000000000000feed-00000000002a.seg.tmp",
            "v2/segments/78cc-q/000000000000feed-00000000002a",
            "v2/segments/78cc-q/sub/000000000000feed-00000000002a.seg",
            "v2/segments/78cc-q2/000000000000feed-00000000002a.seg",
            "v2/segments/78CC-q/000000000000feed-00000000002a.seg",
            "000000000000feed-00000000002a.seg",
            "",
        ] {
            assert_eq!(parse(&Key::listed(key)), None, "{key}");
        }
    }

    #[test]
    fn only_temporaries_of_own_objects_are_temporaries() {
        let key = segment(&exchange_id(), segment_id());
        for key in [key, marker(&exchange_id()), probe(1)] {
            let temporary = format!("{key}{}", temporary_suffix(9, 0x1f));
            assert!(is_temporary(&Key::listed(&temporary)), "{temporary}");
            for foreign in [
                format!("{key}.tmp"),
                format!("{key}.9-1f.tmp"),
                format!("{temporary}.tmp"),
                format!("x{temporary}"),
                temporary.to_uppercase(),
            ] {
                assert!(!is_temporary(&Key::listed(&foreign)), "{foreign}");
            }
        }
        let foreign = format!("v2/foo/bar.txt{}", temporary_suffix(9, 1));
        assert!(!is_temporary(&Key::listed(foreign)));
    }

    #[test]
    fn what_describes_the_fleet_needs_an_identity_and_what_a_probe_wrote_does_not() {
        let e = exchange_id();
        let [keep, _] = keep();
        let temporary = |key: &Key| Key::listed(format!("{key}{}", temporary_suffix(9, 1)));
        let cases = [
            (identity(), Owner::Fleet, true),
            (members(), Owner::Fleet, true),
            (sweeper(), Owner::Fleet, true),
            (marker(&e), Owner::Fleet, false),
            (segment(&e, segment_id()), Owner::Fleet, false),
            (keep, Owner::Probe, false),
            (probe(7), Owner::Probe, false),
            (temporary(&identity()), Owner::Probe, false),
            (Key::listed("v2/notes"), Owner::Foreign, false),
            (Key::listed("v2/notes.tmp"), Owner::Foreign, false),
        ];
        for (key, expected, administrative) in cases {
            assert_eq!(owner(&key), expected, "{key}");
            assert_eq!(is_administrative(&key), administrative, "{key}");
        }
    }

    #[test]
    fn only_folders_that_stopover_creates_are_its_own() {
        let segments = segments(&exchange_id());
        for own in [
            segments.as_str(),
            "v2",
            "v2/markers",
            "v2/segments",
            "v2/probes",
        ] {
            assert!(is_own_folder(own), "{own}");
        }
        for foreign in [
            "",
            "v1",
            "v2/foo",
            "v2/segments/x",
            "v2/segments/0000-q",
            "v2/markers/q",
        ] {
            assert!(!is_own_folder(foreign), "{foreign}");
        }
    }

    #[test]
    fn keys_and_folders_of_an_exchange_name_its_query() {
        let e = exchange_id();
        let (segment, folder) = (segment(&e, segment_id()), segments(&e));
        for text in [segment.as_str(), marker(&e).as_str(), folder.as_str()] {
            assert_eq!(query(text), "20261123_1_0_ab", "{text}");
        }
        for text in [
            probe(7).as_str(),
            markers().as_str(),
            all_segments().as_str(),
        ] {
            assert_eq!(query(text), "", "{text}");
        }
    }

    #[test]
    fn the_exchanges_of_one_day_are_spread_over_the_range_of_keys() {
        let mut first = std::collections::BTreeSet::new();
        for n in 0..200 {
            let exchange = format!("20261128_{n:06}_00001_abcde").parse().unwrap();
            let key = segment(&exchange, segment_id());
            let hash = key.as_str()["v2/segments/".len()..].to_owned();
            first.insert(hash.chars().next());
        }
        assert_eq!(first.len(), 16, "every first digit occurs");
    }
}
