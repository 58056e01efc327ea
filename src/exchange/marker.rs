//! The content of a marker: the descriptor of its exchange in readable form, and a checksum.
//!
//! Pure: a descriptor to a line of JSON and back. Does not: store it. Invariant: what decodes was
//! encoded for the same exchange; a damaged marker, or another exchange's under this name, is an
//! error.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::descriptor::{Descriptor, ExchangeSpec};
use crate::crc::Checksum;
use crate::id::{BaseId, ExchangeId};

/// Why the content of a marker cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    #[error("it is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("checksum mismatch")]
    Checksum,
    #[error("{field} is malformed")]
    Malformed { field: &'static str },
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
    announcement_millis: u64,
    number: String,
    set: Vec<String>,
    crc: u32,
}

impl MarkerContent {
    fn expected_crc(&self) -> u32 {
        let Self {
            exchange,
            partitions,
            ordered,
            lease_millis,
            announcement_millis,
            number,
            set,
            crc: _,
        } = self;
        let set = set.join(",");
        let mut crc = Checksum::default();
        let fixed = format!("{exchange}\n{partitions}\n{ordered}\n{lease_millis}\n");
        crc.update(fixed.as_bytes());
        crc.update(format!("{announcement_millis}\n{number}\n{set}\n").as_bytes());
        crc.value()
    }
}

/// Encodes the marker of an exchange.
pub(super) fn encode(descriptor: &Descriptor) -> Vec<u8> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut content = MarkerContent {
        exchange: descriptor.exchange.to_string(),
        partitions: descriptor.spec.partitions,
        ordered: descriptor.spec.ordered,
        lease_millis: millis(descriptor.lease),
        announcement_millis: millis(descriptor.announcement),
        number: format!("{:016x}", descriptor.number),
        set: descriptor.set.iter().map(BaseId::to_string).collect(),
        crc: 0,
    };
    content.crc = content.expected_crc();
    serde_json::to_vec(&content).expect("a struct of strings and numbers")
}

/// Decodes the marker found under an exchange's name.
///
/// # Errors
/// The marker is damaged or another exchange's.
pub(super) fn decode(exchange: &ExchangeId, bytes: &[u8]) -> Result<Descriptor, MarkerError> {
    let content: MarkerContent = serde_json::from_slice(bytes)?;
    if content.expected_crc() != content.crc {
        return Err(MarkerError::Checksum);
    }
    if content.exchange != exchange.as_str() {
        let named = content.exchange;
        return Err(MarkerError::OtherExchange { named });
    }
    let number = u64::from_str_radix(&content.number, 16);
    let number = number.map_err(|_| MarkerError::Malformed { field: "number" })?;
    let set = content.set.iter().map(|id| id.parse());
    let set = set.collect::<Result<Vec<BaseId>, _>>();
    let set = set.map_err(|_| MarkerError::Malformed { field: "set" })?;
    Ok(Descriptor {
        exchange: exchange.clone(),
        spec: ExchangeSpec {
            partitions: content.partitions,
            ordered: content.ordered,
        },
        lease: Duration::from_millis(content.lease_millis),
        announcement: Duration::from_millis(content.announcement_millis),
        number,
        set,
    })
}

/// The lease in the marker found under an exchange's name.
///
/// # Errors
/// As [`decode`].
pub(crate) fn lease_of(exchange: &ExchangeId, content: &[u8]) -> Result<Duration, MarkerError> {
    decode(exchange, content).map(|announced| announced.lease)
}

/// The set of the exchange whose marker this is.
///
/// # Errors
/// As [`decode`].
pub(crate) fn set_of(exchange: &ExchangeId, content: &[u8]) -> Result<Vec<BaseId>, MarkerError> {
    decode(exchange, content).map(|announced| announced.set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Descriptor {
        let id = "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8";
        Descriptor {
            exchange: id.parse().unwrap(),
            spec: ExchangeSpec {
                partitions: 50,
                ordered: false,
            },
            lease: Duration::from_millis(900_001),
            announcement: Duration::from_secs(60),
            number: 7,
            set: vec![BaseId(1), BaseId(0xFEED)],
        }
    }

    #[test]
    fn a_marker_decodes_under_its_own_name_only() {
        let announced = example();
        let stored = encode(&announced);
        assert_eq!(decode(&announced.exchange, &stored).unwrap(), announced);
        let lease = lease_of(&announced.exchange, &stored).unwrap();
        let set = set_of(&announced.exchange, &stored).unwrap();
        assert_eq!((lease, set), (announced.lease, announced.set));
        let other: ExchangeId = "another".parse().unwrap();
        let refused = decode(&other, &stored).unwrap_err().to_string();
        assert!(
            refused.contains("belongs to exchange 20261123_1_0_ab"),
            "{refused}"
        );
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_of_a_marker_is_detected() {
        let announced = example();
        let (id, stored) = (announced.exchange.clone(), encode(&announced));
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
