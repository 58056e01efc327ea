//! The content of a marker: the properties of its exchange, its lease, its name and a checksum.
//!
//! Pure: an announcement to a line of JSON and back. Does not: store it. Invariant: what decodes
//! was encoded for that very exchange; a damaged marker, or another exchange's under this name, is
//! an error.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crc::Checksum;
use crate::id::ExchangeId;

/// The properties of an exchange, fixed when it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// Number of output partitions.
    pub partitions: u32,
    /// Whether the pages of a partition keep the order in which their sink added them.
    pub ordered: bool,
}

/// What a marker says. The lease is the exchange's own: daemons with other settings judge by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub spec: ExchangeSpec,
    /// How long the exchange stays open without a renewal, in whole milliseconds.
    pub lease: Duration,
}

/// Why the content of a marker cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    #[error("it is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("checksum mismatch")]
    Checksum,
    #[error("it belongs to exchange {named}")]
    OtherExchange { named: String },
}

/// The stored form. `crc` is the CRC-32C of the other fields, each followed by a newline.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkerContent {
    exchange: String,
    partitions: u32,
    ordered: bool,
    lease_millis: u64,
    crc: u32,
}

impl MarkerContent {
    fn expected_crc(&self) -> u32 {
        let Self {
            exchange,
            partitions,
            ordered,
            lease_millis,
            crc: _,
        } = self;
        let mut crc = Checksum::default();
        crc.update(format!("{exchange}\n{partitions}\n{ordered}\n{lease_millis}\n").as_bytes());
        crc.value()
    }
}

/// Encodes the marker of an exchange.
pub(super) fn encode(exchange: &ExchangeId, announcement: &Announcement) -> Vec<u8> {
    let Announcement { spec, lease } = announcement;
    let mut content = MarkerContent {
        exchange: exchange.to_string(),
        partitions: spec.partitions,
        ordered: spec.ordered,
        lease_millis: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        crc: 0,
    };
    content.crc = content.expected_crc();
    serde_json::to_vec(&content).expect("a struct of strings and numbers")
}

/// Decodes the marker found under an exchange's name.
///
/// # Errors
/// The marker is damaged or another exchange's.
pub(super) fn decode(exchange: &ExchangeId, bytes: &[u8]) -> Result<Announcement, MarkerError> {
    let content: MarkerContent = serde_json::from_slice(bytes)?;
    let spec = ExchangeSpec {
        partitions: content.partitions,
        ordered: content.ordered,
    };
    if content.expected_crc() != content.crc {
        return Err(MarkerError::Checksum);
    }
    if content.exchange != exchange.as_str() {
        let named = content.exchange;
        return Err(MarkerError::OtherExchange { named });
    }
    let lease = Duration::from_millis(content.lease_millis);
    Ok(Announcement { spec, lease })
}

/// The lease that the marker found under an exchange's name tells.
///
/// # Errors
/// As [`decode`].
pub(crate) fn lease_of(exchange: &ExchangeId, content: &[u8]) -> Result<Duration, MarkerError> {
    decode(exchange, content).map(|announced| announced.lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (ExchangeId, Announcement) {
        let id = "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8";
        let spec = ExchangeSpec {
            partitions: 50,
            ordered: false,
        };
        let lease = Duration::from_millis(900_001);
        (id.parse().unwrap(), Announcement { spec, lease })
    }

    #[test]
    fn a_marker_decodes_under_its_own_name_only() {
        let (id, announced) = example();
        let stored = encode(&id, &announced);
        assert_eq!(decode(&id, &stored).unwrap(), announced);
        let other: ExchangeId = "another".parse().unwrap();
        let refused = decode(&other, &stored).unwrap_err().to_string();
        assert!(
            refused.contains("belongs to exchange 20261123_1_0_ab"),
            "{refused}"
        );
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_of_a_marker_is_detected() {
        let (id, announced) = example();
        let stored = encode(&id, &announced);
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                let read = decode(&id, &damaged);
                assert!(read.is_err(), "{}", String::from_utf8_lossy(&damaged));
            }
            assert!(decode(&id, &stored[..at]).is_err());
        }
    }
}
