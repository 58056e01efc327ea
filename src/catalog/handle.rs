//! The source handle: all that a read needs, compact, opaque to clients.
//!
//! Does: encode and decode, with a checksum. Does not: choose what goes into a handle (`plan`).
//! Invariant: a decoded handle is whole and consistent; whatever else a client sends is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crc::checksum;
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::segment::layout::{FRAME_HEADER_LEN, RECORD_LEN, SEGMENT_HEADER_LEN};
use crate::segment::varint::{Cursor, DecodeError, put, put_text};

/// Version of the encoding.
const VERSION: u8 = 1;

/// Consecutive blocks of one partition in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleRange {
    /// The base directory that holds the segment.
    pub base: BaseName,
    /// The segment.
    pub segment: SegmentId,
    /// Where the segment's blocks end: fetches must not go beyond.
    pub blocks_end: u64,
    /// Where the first block record begins.
    pub offset: u64,
    /// Bytes, block records included.
    pub length: u64,
    /// Pages.
    pub pages: u64,
    /// CRC-32C over the blocks' checksums.
    pub checksum: u32,
}

/// A source handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The output partition.
    pub partition: u32,
    /// Page bytes.
    pub bytes: u64,
    /// What to read, in this order.
    pub ranges: Vec<HandleRange>,
}

impl Handle {
    /// Pages in all.
    pub fn pages(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum, r| sum.saturating_add(r.pages))
    }

    /// Where the segment of a range lies.
    pub fn address(&self, range: &HandleRange) -> SegmentAddress {
        SegmentAddress {
            exchange: self.exchange.clone(),
            base: range.base.clone(),
            segment: range.segment,
        }
    }

    /// The handle as text: base64url without padding.
    pub fn encode(&self) -> String {
        let mut bases: Vec<&BaseName> = self.ranges.iter().map(|r| &r.base).collect();
        bases.sort();
        bases.dedup();
        let mut daemons: Vec<DaemonId> = self.ranges.iter().map(|r| r.segment.daemon).collect();
        daemons.sort();
        daemons.dedup();
        let mut out = vec![VERSION];
        put_text(&mut out, self.exchange.as_str());
        put(&mut out, u64::from(self.partition));
        put(&mut out, self.bytes);
        put(&mut out, bases.len() as u64);
        bases
            .iter()
            .for_each(|base| put_text(&mut out, base.as_str()));
        put(&mut out, daemons.len() as u64);
        daemons
            .iter()
            .for_each(|daemon| out.extend_from_slice(&daemon.0.to_le_bytes()));
        put(&mut out, self.ranges.len() as u64);
        for range in &self.ranges {
            put(
                &mut out,
                bases.binary_search(&&range.base).expect("just collected") as u64,
            );
            let daemon = daemons.binary_search(&range.segment.daemon);
            put(&mut out, daemon.expect("just collected") as u64);
            put(&mut out, range.segment.sequence);
            put(&mut out, range.offset);
            put(&mut out, range.length);
            put(&mut out, range.blocks_end - range.offset - range.length);
            put(&mut out, range.pages);
            out.extend_from_slice(&range.checksum.to_le_bytes());
        }
        let crc = checksum(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Decodes a handle's text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim())
            .map_err(|e| format!("not base64url: {e}"))?;
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
        if u32::from_le_bytes(*crc) != checksum(body) {
            return Err("it does not fit its checksum".into());
        }
        match body.first() {
            Some(&VERSION) => decode_body(&body[1..]).map_err(|e| e.to_string()),
            Some(other) => Err(format!(
                "its version is {other}; this daemon reads {VERSION}"
            )),
            None => Err("it is empty".into()),
        }
    }
}

fn decode_body(body: &[u8]) -> Result<Handle, DecodeError> {
    let mut cursor = Cursor::new(body);
    let exchange = cursor
        .text()?
        .parse()
        .map_err(|_| DecodeError("the exchange id is invalid"))?;
    let partition = cursor.u32()?;
    let bytes = cursor.u64()?;
    let mut bases: Vec<BaseName> = Vec::new();
    for _ in 0..cursor.count(2)? {
        let name = cursor.text()?.parse();
        bases.push(name.map_err(|_| DecodeError("a base directory's name is invalid"))?);
    }
    let mut daemons = Vec::new();
    for _ in 0..cursor.count(8)? {
        daemons.push(DaemonId(cursor.fixed_u64()?));
    }
    let mut ranges = Vec::new();
    for _ in 0..cursor.count(11)? {
        ranges.push(decode_range(&mut cursor, &bases, &daemons)?);
    }
    cursor.finish()?;
    let handle = Handle {
        exchange,
        partition,
        bytes,
        ranges,
    };
    let room = handle
        .ranges
        .iter()
        .fold(0u64, |sum, r| sum.saturating_add(r.length));
    let overhead = handle.pages().saturating_mul(FRAME_HEADER_LEN as u64);
    if handle.bytes.saturating_add(overhead) > room {
        return Err(DecodeError("its sizes contradict each other"));
    }
    Ok(handle)
}

fn decode_range(
    cursor: &mut Cursor<'_>,
    bases: &[BaseName],
    daemons: &[DaemonId],
) -> Result<HandleRange, DecodeError> {
    let base = bases
        .get(cursor.u32()? as usize)
        .ok_or(DecodeError("it names no base directory"))?;
    let daemon = daemons
        .get(cursor.u32()? as usize)
        .ok_or(DecodeError("it names no daemon"))?;
    let sequence = cursor.u64()?;
    let (offset, length, gap) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let pages = cursor.u64()?;
    let checksum = cursor.fixed_u32()?;
    // A segment is far below 2^48 bytes: sums of such numbers cannot overflow later on.
    const SANE: u64 = 1 << 48;
    let sane = offset >= SEGMENT_HEADER_LEN as u64
        && length > RECORD_LEN as u64
        && pages > 0
        && [offset, length, gap, pages].iter().all(|n| *n < SANE);
    if !sane {
        return Err(DecodeError("a range is out of bounds"));
    }
    Ok(HandleRange {
        base: base.clone(),
        segment: SegmentId {
            daemon: *daemon,
            sequence,
        },
        blocks_end: offset + length + gap,
        offset,
        length,
        pages,
        checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_handle(ranges: u64) -> Handle {
        let range = |n: u64| HandleRange {
            base: ["a", "b"][n as usize % 2].parse().unwrap(),
            segment: SegmentId {
                daemon: DaemonId(n / 3),
                sequence: n,
            },
            blocks_end: 100_000 + n,
            offset: 16 + n,
            length: 1000 + n,
            pages: 3,
            checksum: n as u32 * 77,
        };
        let ranges = (0..ranges).map(range).collect();
        Handle {
            exchange: "q-1".parse().unwrap(),
            partition: 5,
            bytes: 900,
            ranges,
        }
    }

    #[test]
    fn a_handle_comes_back_and_a_range_costs_less_than_forty_characters() {
        let one = some_handle(1).encode().len();
        let handle = some_handle(17);
        let text = handle.encode();
        assert_eq!(Handle::decode(&text).unwrap(), handle);
        assert!(
            (text.len() - one) / 16 < 40,
            "{} characters for 17 ranges",
            text.len()
        );
    }

    #[test]
    fn version_1_handles_stay_readable_for_ever() {
        let golden = include_str!("../../tests/golden/handle-v1.txt");
        assert_eq!(Handle::decode(golden).unwrap(), some_handle(3));
        assert_eq!(some_handle(3).encode(), golden.trim());
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut bytes = URL_SAFE_NO_PAD.decode(some_handle(1).encode()).unwrap();
        bytes.truncate(bytes.len() - 4);
        bytes[0] = 7;
        let crc = checksum(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let error = Handle::decode(&URL_SAFE_NO_PAD.encode(bytes)).unwrap_err();
        assert!(error.contains("version is 7"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_handle_is_refused(position: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = URL_SAFE_NO_PAD.decode(some_handle(3).encode()).unwrap();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            prop_assert!(Handle::decode(&URL_SAFE_NO_PAD.encode(bytes)).is_err());
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = decode_body(&body);
        }
    }
}
