//! Identifiers that come from clients and end up in object keys, validated once, here.
//!
//! Does: parse and print the names of exchanges, sinks, segments and daemons. Does not: know keys
//! or HTTP. Invariant: a value of these types is always safe in an object key or a log line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Maximum length of an exchange id, in characters.
pub const MAX_EXCHANGE_ID: usize = 160;
/// Maximum length of a base directory's name, in characters.
pub const MAX_BASE_NAME: usize = 32;
/// Task partitions are below this bound.
pub const MAX_TASKS: u32 = 1 << 20;
/// The highest attempt number: Trino's output selector holds an attempt in one signed byte.
pub const MAX_ATTEMPT: u32 = 127;
/// Output partitions are below this bound; from here on, the first word of an item in a read stream
/// marks a record instead of a page.
pub const MAX_PARTITIONS: u32 = 0xFFFF_FF00;

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {rule}")]
pub struct InvalidId {
    pub what: &'static str,
    /// The invalid text, shortened.
    pub value: String,
    pub rule: &'static str,
}

fn invalid(what: &'static str, value: impl ToString, rule: &'static str) -> InvalidId {
    let value = value.to_string().chars().take(64).collect();
    InvalidId { what, value, rule }
}

/// Name of an exchange: 1 to 160 characters of `[A-Za-z0-9_-]`, not beginning with `-`.
///
/// ```
/// use stopover::id::ExchangeId;
///
/// assert!("20261128_q-1".parse::<ExchangeId>().is_ok());
/// assert!("../etc".parse::<ExchangeId>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(Arc<str>);

impl ExchangeId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The query it belongs to: the id without a final `-<uuid>`, or the whole id.
    pub fn query(&self) -> &str {
        query_of(self.as_str())
    }

    /// When its query started, in milliseconds since 1970, by the coordinator's clock: ids of
    /// Trino's queries begin with that time, such as `20261128_091503_`. `None` for other ids.
    pub fn query_started_millis(&self) -> Option<u64> {
        let start = self.query().get(..16)?.strip_suffix('_')?;
        let (date, time) = start.split_once('_')?;
        if date.len() != 8 || !date.bytes().chain(time.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
        let (hour, minute, second) = (&time[..2], &time[2..4], &time[4..]);
        let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
        let start = humantime::parse_rfc3339(&text).ok()?;
        let since = start.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }
}

/// The query that an exchange belongs to: its id without a final `-<uuid>`.
pub fn query_of(exchange: &str) -> &str {
    let without_uuid = || {
        let at = exchange.len().checked_sub(uuid::fmt::Hyphenated::LENGTH)?;
        let (query, uuid) = exchange.split_at_checked(at)?;
        uuid::Uuid::try_parse(uuid).ok()?;
        query.strip_suffix('-').filter(|query| !query.is_empty())
    };
    without_uuid().unwrap_or(exchange)
}

impl FromStr for ExchangeId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        const RULE: &str =
            "an exchange id is 1 to 160 characters of A-Z a-z 0-9 _ - and does not begin with -";
        let ok = !s.is_empty()
            && s.len() <= MAX_EXCHANGE_ID
            && !s.starts_with('-')
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        ok.then(|| Self(s.into()))
            .ok_or_else(|| invalid("exchange id", s, RULE))
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskAttempt {
    /// Task partition of the producer, below [`MAX_TASKS`].
    pub task: u32,
    /// Number of the attempt, at most [`MAX_ATTEMPT`].
    pub attempt: u32,
}

impl TaskAttempt {
    /// An attempt whose numbers are within their bounds.
    ///
    /// # Errors
    /// [`InvalidId`] if one is not.
    pub fn new(task: u32, attempt: u32) -> Result<Self, InvalidId> {
        if task >= MAX_TASKS {
            return Err(invalid("task", task, "a task is below 1048576"));
        }
        if attempt > MAX_ATTEMPT {
            return Err(invalid("attempt", attempt, "an attempt is at most 127"));
        }
        Ok(Self { task, attempt })
    }
}

impl fmt::Display for TaskAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} attempt {}", self.task, self.attempt)
    }
}

/// A sink: one attempt of one task of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SinkId {
    pub exchange: ExchangeId,
    pub task_attempt: TaskAttempt,
}

impl fmt::Display for SinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of exchange {}", self.task_attempt, self.exchange)
    }
}

/// Identity of one run of a daemon: a random number drawn at start, so that a restarted daemon
/// never reuses a key of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DaemonId(pub u64);

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DaemonId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let id = u64::from_str_radix(s, 16).map(Self).ok();
        id.filter(|id| id.to_string() == s)
            .ok_or_else(|| invalid("run of a daemon", s, "a run is 16 hexadecimal digits"))
    }
}

/// Identity of a segment: the daemon run that wrote it, and its number there. The segments of one
/// daemon sort by the time of sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId {
    pub daemon: DaemonId,
    /// Number within that run, from 0.
    pub sequence: u64,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:012x}", self.daemon, self.sequence)
    }
}

impl FromStr for SegmentId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "a segment id is 16 and 12 hexadecimal digits joined by -";
        let parse = || {
            let (daemon, sequence) = s.split_once('-')?;
            let lengths_match = daemon.len() == 16 && sequence.len() == 12;
            let daemon = DaemonId(u64::from_str_radix(daemon, 16).ok()?);
            let sequence = u64::from_str_radix(sequence, 16).ok()?;
            let id = Self { daemon, sequence };
            (lengths_match && id.to_string() == s).then_some(id)
        };
        parse().ok_or_else(|| invalid("segment id", s, RULE))
    }
}

/// Name of a base directory: 1 to 32 characters of `[a-z0-9-]`. Segments and handles contain it, so
/// all daemons of a fleet must use the same names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseName(Arc<str>);

impl BaseName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BaseName {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "a base directory's name is 1 to 32 characters of a-z 0-9 -";
        let ok = (1..=MAX_BASE_NAME).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        ok.then(|| Self(s.into()))
            .ok_or_else(|| invalid("base directory name", s, RULE))
    }
}

impl fmt::Display for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a base directory: a random number drawn when its identity object is created. Unlike
/// its name it does not depend on the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseId(pub u64);

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for BaseId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "the id of a base directory is 16 hexadecimal digits";
        let id = u64::from_str_radix(s, 16).ok().map(Self);
        id.filter(|id| id.to_string() == s)
            .ok_or_else(|| invalid("base directory id", s, RULE))
    }
}

/// Where a segment is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SegmentAddress {
    pub exchange: ExchangeId,
    pub base: BaseName,
    pub segment: SegmentId,
}

impl fmt::Display for SegmentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} of exchange {} in base directory {}",
            self.segment, self.exchange, self.base
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_ids_that_could_escape_their_folder_are_refused() {
        for bad in [
            "", ".", "..", "a/b", "a\\b", "-x", "a b", "a%2f", "é", "a\0", "a.b",
        ] {
            assert!(bad.parse::<ExchangeId>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(161).parse::<ExchangeId>().is_err());
        assert!("x".repeat(160).parse::<ExchangeId>().is_ok());
    }

    #[test]
    fn the_query_is_the_id_without_its_uuid() {
        let id: ExchangeId = "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8"
            .parse()
            .unwrap();
        assert_eq!(id.query(), "20261123_1_0_ab");
        let plain: ExchangeId = "some-exchange".parse().unwrap();
        assert_eq!(plain.query(), "some-exchange");
    }

    #[test]
    fn the_start_of_a_query_is_read_from_the_id_that_trino_gives_it() {
        let started = |id: &str| id.parse::<ExchangeId>().unwrap().query_started_millis();
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let id = format!("20261123_120000_00001_abcde-{uuid}");
        assert_eq!(started(&id), Some(1_795_435_200_000));
        for other in [
            "q-1",
            "20261123_1_0_ab",
            "20261399_120000_0_a",
            "2026112x_120000_0_a",
        ] {
            assert_eq!(started(other), None, "{other}");
        }
    }

    #[test]
    fn segment_ids_parse_as_printed_and_nothing_else_parses() {
        let id = SegmentId {
            daemon: DaemonId(0xab),
            sequence: 7,
        };
        assert_eq!(id.to_string().parse::<SegmentId>().unwrap(), id);
        for bad in [
            "",
            "1-2",
            "00000000000000AB-000000000007",
            "00000000000000ab-0000000000007",
        ] {
            assert!(bad.parse::<SegmentId>().is_err(), "{bad:?}");
        }
    }
}
