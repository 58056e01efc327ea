//! The content of a marker: the properties of its exchange, its name and a checksum.
//!
//! Pure: properties to a line of JSON and back. Does not: store it. Invariant: what decodes was
//! encoded for that very exchange; a damaged marker, or another exchange's under this name, is an
//! error.

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
    crc: u32,
}

fn crc(exchange: &str, spec: &ExchangeSpec) -> u32 {
    let ExchangeSpec {
        partitions,
        ordered,
    } = spec;
    let mut crc = Checksum::default();
    crc.update(format!("{exchange}\n{partitions}\n{ordered}\n").as_bytes());
    crc.value()
}

/// Encodes the marker of an exchange.
pub(super) fn encode(exchange: &ExchangeId, spec: &ExchangeSpec) -> Vec<u8> {
    let content = MarkerContent {
        exchange: exchange.to_string(),
        partitions: spec.partitions,
        ordered: spec.ordered,
        crc: crc(exchange.as_str(), spec),
    };
    serde_json::to_vec(&content).expect("a struct of strings and numbers")
}

/// Decodes the marker found under an exchange's name.
///
/// # Errors
/// The marker is damaged or another exchange's.
pub(super) fn decode(exchange: &ExchangeId, bytes: &[u8]) -> Result<ExchangeSpec, MarkerError> {
    let content: MarkerContent = serde_json::from_slice(bytes)?;
    let spec = ExchangeSpec {
        partitions: content.partitions,
        ordered: content.ordered,
    };
    if crc(&content.exchange, &spec) != content.crc {
        return Err(MarkerError::Checksum);
    }
    if content.exchange != exchange.as_str() {
        let named = content.exchange;
        return Err(MarkerError::OtherExchange { named });
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (ExchangeId, ExchangeSpec) {
        let id = "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8";
        let spec = ExchangeSpec {
            partitions: 50,
            ordered: false,
        };
        (id.parse().unwrap(), spec)
    }

    #[test]
    fn a_marker_decodes_under_its_own_name_only() {
        let (id, spec) = example();
        let stored = encode(&id, &spec);
        assert_eq!(decode(&id, &stored).unwrap(), spec);
        let other: ExchangeId = "another".parse().unwrap();
        let refused = decode(&other, &stored).unwrap_err().to_string();
        assert!(
            refused.contains("belongs to exchange 20261123_1_0_ab"),
            "{refused}"
        );
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_of_a_marker_is_detected() {
        let (id, spec) = example();
        let stored = encode(&id, &spec);
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
