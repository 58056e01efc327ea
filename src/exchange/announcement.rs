//! The announcement of an exchange as it is stored: its properties, its name and a checksum.
//!
//! Pure: properties in, a line of JSON out, and back. Does not: store it. Invariant: what decodes
//! is what was encoded for that very exchange; a damaged announcement, or one of another exchange
//! under this one's name, is refused with the reason.

use serde::{Deserialize, Serialize};

use super::ExchangeSpec;
use crate::crc::Checksum;
use crate::id::ExchangeId;

/// What is stored. The checksum is the CRC-32C of the other fields, each followed by a line end.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announcement {
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

/// The announcement as it is stored.
pub fn encode(exchange: &ExchangeId, spec: &ExchangeSpec) -> Vec<u8> {
    let announcement = Announcement {
        exchange: exchange.to_string(),
        partitions: spec.partitions,
        ordered: spec.ordered,
        crc: crc(exchange.as_str(), spec),
    };
    serde_json::to_vec(&announcement).expect("a plain struct")
}

/// What an announcement says, found under this exchange's name.
///
/// # Errors
/// What does not fit.
pub fn decode(exchange: &ExchangeId, bytes: &[u8]) -> Result<ExchangeSpec, String> {
    let Announcement {
        exchange: named,
        partitions,
        ordered,
        crc: expected,
    } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let spec = ExchangeSpec {
        partitions,
        ordered,
    };
    if crc(&named, &spec) != expected {
        return Err("it does not fit its checksum".to_owned());
    }
    if named != exchange.as_str() {
        return Err(format!("it is that of exchange {named}"));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (ExchangeId, ExchangeSpec) {
        let id = "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8";
        let spec = ExchangeSpec {
            partitions: 50,
            ordered: false,
        };
        (id.parse().unwrap(), spec)
    }

    #[test]
    fn an_announcement_comes_back_under_its_own_name_only() {
        let (id, spec) = some();
        let stored = encode(&id, &spec);
        assert_eq!(decode(&id, &stored), Ok(spec));
        let other: ExchangeId = "another".parse().unwrap();
        let refused = decode(&other, &stored).unwrap_err();
        assert!(
            refused.contains("that of exchange 20261123_1_0_ab"),
            "{refused}"
        );
    }

    #[test]
    fn any_flipped_bit_of_an_announcement_is_found_and_any_missing_byte() {
        let (id, spec) = some();
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
