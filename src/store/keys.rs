//! Object keys: the only place that builds or parses them.
//!
//! Does: define where each object of an exchange is stored. Does not: access a store. Invariant: a
//! key built here parses back to what it was built from; a key that does not parse is no segment.
//!
//! ```text
//! <base directory>/v1/<exchange>/exchange.json               the marker
//! <base directory>/v1/<exchange>/segments/<segment id>.seg   a segment
//! <base directory>/v1/.keep                                  keeps v1/ from being empty
//! <base directory>/v1/identity                               which base directory this is
//! <base directory>/v1/members                                the base directories of the fleet
//! <base directory>/.probe/<random>                           a probe, short-lived
//! ```

use std::fmt;

use crate::id::{ExchangeId, MAX_EXCHANGE_ID, SegmentId, query_of};

/// Suffix of the name of a file that is still being written (file systems).
pub const TEMPORARY: &str = ".tmp";

/// Length of the longest key in bytes: `v1/`, an exchange id, `/segments/`, a segment id, `.seg`.
pub const LONGEST_KEY: usize = 3 + MAX_EXCHANGE_ID + 10 + 29 + 4;

const FORMAT: &str = "v1";
const MARKER: &str = "exchange.json";
const SEGMENTS: &str = "segments";
const SEGMENT: &str = ".seg";
const PROBES: &str = ".probe";

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

/// The folder of all exchanges.
pub fn exchanges() -> Folder {
    Folder(FORMAT.into())
}

/// The folder of all objects of one exchange.
pub fn exchange(exchange: &ExchangeId) -> Folder {
    Folder(format!("{FORMAT}/{exchange}"))
}

/// The folder of the segments of one exchange.
pub fn segments(exchange: &ExchangeId) -> Folder {
    Folder(format!("{FORMAT}/{exchange}/{SEGMENTS}"))
}

/// The marker of an exchange.
pub fn marker(exchange: &ExchangeId) -> Key {
    Key(format!("{FORMAT}/{exchange}/{MARKER}"))
}

/// A segment of an exchange.
pub fn segment(exchange: &ExchangeId, segment: SegmentId) -> Key {
    Key(format!("{FORMAT}/{exchange}/{SEGMENTS}/{segment}{SEGMENT}"))
}

/// The folder of probe objects.
pub fn probes() -> Folder {
    Folder(PROBES.into())
}

/// A probe object.
pub fn probe(random: u64) -> Key {
    Key(format!("{PROBES}/{random:016x}"))
}

/// The object that keeps the folder of all exchanges non-empty.
pub fn keep() -> Key {
    Key(format!("{FORMAT}/.keep"))
}

/// The whole base directory.
pub fn root() -> Folder {
    Folder(String::new())
}

/// The object that says which base directory this is. Its first line never changes.
pub fn identity() -> Key {
    Key(format!("{FORMAT}/identity"))
}

/// The object that lists the base directories of the fleet.
pub fn members() -> Key {
    Key(format!("{FORMAT}/members"))
}

/// Whose an object is, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Stopover wrote it, and it exists only in a base directory that has an identity.
    Fleet,
    /// A probe may have written it, before there was an identity.
    Probe,
    /// Stopover did not write it.
    Foreign,
}

/// Whose an object is.
pub fn owner(key: &Key) -> Owner {
    match key.as_str().split_once('/') {
        Some((FORMAT, _)) => Owner::Fleet,
        Some((PROBES, _)) => Owner::Probe,
        _ => Owner::Foreign,
    }
}

/// The segment that a key names, if it is a segment key of this exchange.
pub fn parse_segment(exchange: &ExchangeId, key: &Key) -> Option<SegmentId> {
    let name = key
        .as_str()
        .strip_prefix(segments(exchange).as_str())?
        .strip_prefix('/')?;
    name.strip_suffix(SEGMENT)?.parse().ok()
}

/// The query that an object or folder belongs to; empty if it belongs to none.
pub fn query(key: &str) -> &str {
    let within = key.strip_prefix(FORMAT).and_then(|k| k.strip_prefix('/'));
    let exchange = within.and_then(|k| k.split('/').next());
    exchange.map_or("", query_of)
}

/// The exchange that a folder belongs to, if its name is an exchange id.
pub fn parse_exchange(folder_name: &str) -> Option<ExchangeId> {
    folder_name.parse().ok()
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

    #[test]
    fn a_segment_key_is_parsed_back_to_its_segment() {
        let id = SegmentId {
            daemon: DaemonId(0xfeed),
            sequence: 42,
        };
        let key = segment(&exchange_id(), id);
        assert_eq!(parse_segment(&exchange_id(), &key), Some(id));
    }

    #[test]
    fn the_key_layout_of_version_one_does_not_change() {
        let id = SegmentId {
            daemon: DaemonId(0xfeed),
            sequence: 42,
        };
        let e: ExchangeId = "q".parse().unwrap();
        assert_eq!(marker(&e).as_str(), "v1/q/exchange.json");
        assert_eq!(
            segment(&e, id).as_str(),
            "v1/q/segments/000000000000feed-00000000002a.seg"
        );
        assert_eq!(keep().as_str(), "v1/.keep");
        assert_eq!(probe(7).as_str(), ".probe/0000000000000007");
    }

    #[test]
    fn keys_that_are_not_segments_of_the_exchange_do_not_parse() {
        let e: ExchangeId = "q".parse().unwrap();
        for key in [
            "v1/q/exchange.json",
            "v1/q/segments/000000000000feed-00000000002a.seg.tmp",
            "v1/q/segments/000000000000feed-00000000002a",
            "v1/q/segments/sub/000000000000feed-00000000002a.seg",
            "v1/q2/segments/000000000000feed-00000000002a.seg",
            "v1/q/segments2/000000000000feed-00000000002a.seg",
            "000000000000feed-00000000002a.seg",
        ] {
            assert_eq!(parse_segment(&e, &Key::listed(key)), None, "{key}");
        }
    }

    #[test]
    fn keys_and_folders_of_an_exchange_name_its_query() {
        let (e, daemon) = (exchange_id(), DaemonId(1));
        let id = SegmentId {
            daemon,
            sequence: 2,
        };
        let (segment, folder) = (segment(&e, id), exchange(&e));
        for text in [segment.as_str(), marker(&e).as_str(), folder.as_str()] {
            assert_eq!(query(text), "20261123_1_0_ab", "{text}");
        }
        assert_eq!(query(probe(7).as_str()), "");
        assert_eq!(query(exchanges().as_str()), "");
    }

    #[test]
    fn hidden_folders_are_not_exchanges() {
        for name in [".keep", ".probe", "lost+found", ""] {
            assert_eq!(parse_exchange(name), None, "{name}");
        }
    }
}
