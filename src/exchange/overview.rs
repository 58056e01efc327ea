//! What the base directories hold of an exchange, for display.
//!
//! Pure: what was listed and read to one value. Does not: list or read (`listing`, and the command
//! `inspect`). Invariant: unknown values are `None`, never zero.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::descriptor::ExchangeSpec;
use super::marker;
use crate::id::{BaseName, ExchangeId};
use crate::storage::{Digest, ListedSegment};

/// Whether an exchange is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeState {
    /// It has a marker.
    Open,
    /// It has only tombstones: a sweeper removes it.
    Claimed,
    /// It has neither: a late writer or a dead daemon left segments, which a sweeper will remove.
    Orphaned,
}

impl ExchangeState {
    /// Its name in answers and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Orphaned => "orphaned",
        }
    }
}

/// What one base directory holds of an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BaseShare {
    /// Whether it has the marker.
    pub marker: bool,
    /// Number of segments.
    pub segments: u64,
    /// Their bytes, footers included.
    pub bytes: u64,
}

/// What is known of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeOverview {
    pub exchange: ExchangeId,
    pub state: ExchangeState,
    /// From its marker; `None` if there is none, or it cannot be decoded.
    pub spec: Option<ExchangeSpec>,
    /// Likewise.
    pub lease: Option<Duration>,
    /// For how long the sweeper of the fleet has observed no renewal, as last published; `None` if
    /// its digest does not have this exchange yet.
    pub unrenewed: Option<Duration>,
    /// The base directories that hold anything of it.
    pub bases: BTreeMap<String, BaseShare>,
}

/// What was observed of the marker of an exchange.
#[derive(Debug, Clone)]
pub struct MarkerView<'a> {
    /// Names of the base directories that have it.
    pub bases: Vec<&'a str>,
    /// Whether there are tombstones instead.
    pub claimed: bool,
    /// Its contents, usually one.
    pub contents: Vec<Bytes>,
}

impl ExchangeOverview {
    /// Combines what was observed.
    pub fn new(
        exchange: &ExchangeId,
        marker: &MarkerView<'_>,
        segments: &[ListedSegment],
        digest: Option<&Digest>,
    ) -> Self {
        let mut bases: BTreeMap<String, BaseShare> = BTreeMap::new();
        for name in &marker.bases {
            bases.entry((*name).to_owned()).or_default().marker = true;
        }
        for segment in segments {
            let base: &BaseName = &segment.address.base;
            let share = bases.entry(base.to_string()).or_default();
            share.segments += 1;
            share.bytes += segment.size;
        }
        let contents = marker.contents.iter();
        let mut decoded = contents.filter_map(|bytes| marker::decode(exchange, bytes).ok());
        let announced = decoded.next();
        let state = match (marker.bases.is_empty(), marker.claimed) {
            (false, _) => ExchangeState::Open,
            (true, true) => ExchangeState::Claimed,
            (true, false) => ExchangeState::Orphaned,
        };
        let observed = digest.and_then(|digest| digest.exchanges.get(exchange));
        Self {
            exchange: exchange.clone(),
            state,
            lease: announced.as_ref().map(|announced| announced.lease),
            spec: announced.map(|announced| announced.spec),
            unrenewed: observed.map(|entry| entry.unrenewed),
            bases,
        }
    }

    /// Bytes of all its segments.
    pub fn bytes(&self) -> u64 {
        self.bases.values().map(|share| share.bytes).sum()
    }

    /// The time after which it is collected unless it is renewed, according to the sweeper's
    /// digest.
    pub fn lease_left(&self) -> Option<Duration> {
        Some(self.lease?.saturating_sub(self.unrenewed?))
    }

    /// The time since its query started, for ids of Trino. Never negative, although clocks differ.
    pub fn age(&self, wall_millis: u64) -> Option<Duration> {
        let started = self.exchange.query_started_millis()?;
        Some(Duration::from_millis(wall_millis.saturating_sub(started)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::descriptor::Descriptor;
    use crate::id::{DaemonId, SegmentAddress, SegmentId};

    fn listed(exchange: &ExchangeId, base: &str, size: u64) -> ListedSegment {
        let address = SegmentAddress {
            exchange: exchange.clone(),
            base: base.parse().unwrap(),
            segment: SegmentId {
                daemon: DaemonId(1),
                sequence: size,
            },
        };
        ListedSegment { address, size }
    }

    #[test]
    fn sizes_are_given_by_base_directory_and_what_is_unknown_is_left_out() {
        let exchange: ExchangeId = "20261123_120000_00001_abcde".parse().unwrap();
        let descriptor = Descriptor {
            exchange: exchange.clone(),
            spec: ExchangeSpec {
                partitions: 3,
                ordered: true,
            },
            lease: Duration::from_secs(900),
            announcement: Duration::from_secs(60),
            number: 1,
            set: Vec::new(),
        };
        let marker = MarkerView {
            bases: vec!["b"],
            claimed: false,
            contents: vec![Bytes::from("damaged"), marker::encode(&descriptor).into()],
        };
        let segments = [
            listed(&exchange, "a", 5),
            listed(&exchange, "a", 7),
            listed(&exchange, "b", 1),
        ];
        let whole = ExchangeOverview::new(&exchange, &marker, &segments, None);
        assert_eq!((whole.state, whole.bytes()), (ExchangeState::Open, 13));
        let share = |marker, segments, bytes| BaseShare {
            marker,
            segments,
            bytes,
        };
        assert_eq!(whole.bases["a"], share(false, 2, 12));
        assert_eq!(whole.bases["b"], share(true, 1, 1));
        assert_eq!(whole.lease, Some(Duration::from_secs(900)));
        assert_eq!(whole.lease_left(), None, "no digest has it");
        let minute_later = 1_795_435_200_000 + 60_000;
        assert_eq!(whole.age(minute_later), Some(Duration::from_secs(60)));
        assert_eq!(whole.age(0), Some(Duration::ZERO), "a clock that is behind");

        let left = MarkerView {
            bases: Vec::new(),
            claimed: true,
            contents: Vec::new(),
        };
        let claimed = ExchangeOverview::new(&exchange, &left, &[], None);
        assert_eq!(claimed.state, ExchangeState::Claimed);
        assert_eq!((claimed.spec, claimed.bases.len()), (None, 0));
    }
}
