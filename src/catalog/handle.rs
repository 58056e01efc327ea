//! The source handle: everything that one read needs, compact, and opaque to clients.
//!
//! Does: encode and decode it, with a checksum. Does not: choose what it contains (`plan`).
//! Invariant: a decoded handle is complete and consistent; anything else is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crc::checksum;
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::segment::error::DecodeError;
use crate::segment::layout::{FRAME_HEADER_LEN, RECORD_LEN, SEGMENT_HEADER_LEN};
use crate::segment::varint::{Cursor, index_in, put, put_all, put_text, table};

/// The encoding that this code writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// The most ranges of a planned handle. As a range needs at most 47 bytes, the text of such a
/// handle is shorter than [`MAX_ENCODED`].
pub const MAX_RANGES: usize = 32_000;

/// The longest text of a handle, in characters.
pub const MAX_ENCODED: u64 = 2 << 20;

/// Bound of every number in a range: a segment is far smaller, and sums cannot overflow.
const MAX_SEGMENT_SIZE: u64 = 1 << 48;

/// Adjacent blocks of one partition in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleRange {
    pub base: BaseName,
    pub segment: SegmentId,
    /// Offset at which the segment's blocks end; fetches must not go beyond it.
    pub blocks_end: u64,
    /// Offset of the first block record.
    pub offset: u64,
    /// Bytes of the blocks, records included.
    pub length: u64,
    /// Number of pages, at least 1.
    pub pages: u64,
    /// CRC-32C over the blocks' checksums.
    pub checksum: u32,
}

/// A source handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    pub exchange: ExchangeId,
    pub partition: u32,
    /// Page bytes, without frame headers.
    pub bytes: u64,
    /// In the order in which they are read.
    pub ranges: Vec<HandleRange>,
}

/// Why a text is not a source handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("not base64url: {0}")]
    NotBase64(#[from] base64::DecodeError),
    #[error("too short")]
    TooShort,
    #[error("checksum mismatch")]
    ChecksumMismatch,
    #[error("version {version}, but this daemon reads version {VERSION}")]
    UnknownVersion { version: u8 },
    /// The checksum is right, but the content is not.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
}

impl Handle {
    /// Number of pages in all ranges.
    pub fn pages(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum, r| sum.saturating_add(r.pages))
    }

    /// Bytes of memory that it needs.
    pub fn memory_size(&self) -> u64 {
        (size_of::<Self>() + self.ranges.capacity() * size_of::<HandleRange>()) as u64
    }

    /// The address of the segment that holds a range.
    pub fn address(&self, range: &HandleRange) -> SegmentAddress {
        SegmentAddress {
            exchange: self.exchange.clone(),
            base: range.base.clone(),
            segment: range.segment,
        }
    }

    /// Encodes the handle as text: base64url without padding.
    ///
    /// ```
    /// use stopover::catalog::handle::Handle;
    ///
    /// let handle = Handle {
    ///     exchange: "query-1".parse()?,
    ///     partition: 7,
    ///     bytes: 0,
    ///     ranges: Vec::new(),
    /// };
    /// assert_eq!(Handle::decode(&handle.encode())?, handle);
    /// assert!(Handle::decode("anything else").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode(&self) -> String {
        let bases = table(self.ranges.iter().map(|range| &range.base));
        let daemons = table(self.ranges.iter().map(|range| range.segment.daemon));
        let mut out = vec![VERSION];
        put_text(&mut out, self.exchange.as_str());
        let (partition, base_count) = (u64::from(self.partition), bases.len() as u64);
        put_all(&mut out, [partition, self.bytes, base_count]);
        bases
            .iter()
            .for_each(|base| put_text(&mut out, base.as_str()));
        put(&mut out, daemons.len() as u64);
        daemons
            .iter()
            .for_each(|daemon| out.extend_from_slice(&daemon.0.to_le_bytes()));
        put(&mut out, self.ranges.len() as u64);
        for range in &self.ranges {
            let base = index_in(&bases, &&range.base);
            let daemon = index_in(&daemons, &range.segment.daemon);
            let gap = range.blocks_end - range.offset - range.length;
            put_all(&mut out, [base, daemon, range.segment.sequence]);
            put_all(&mut out, [range.offset, range.length, gap, range.pages]);
            out.extend_from_slice(&range.checksum.to_le_bytes());
        }
        let crc = checksum(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Decodes the text of a handle.
    ///
    /// # Errors
    /// [`HandleError`] if it was not returned by [`Handle::encode`].
    pub fn decode(text: &str) -> Result<Self, HandleError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim())?;
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(HandleError::TooShort)?;
        if u32::from_le_bytes(*crc) != checksum(body) {
            return Err(HandleError::ChecksumMismatch);
        }
        match body.split_first() {
            Some((&VERSION, fields)) => Ok(decode_fields(fields)?),
            Some((&version, _)) => Err(HandleError::UnknownVersion { version }),
            None => Err(HandleError::TooShort),
        }
    }
}

fn decode_fields(bytes: &[u8]) -> Result<Handle, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let exchange = cursor.parsed("exchange id")?;
    let partition = cursor.u32()?;
    let bytes = cursor.u64()?;
    let bases: Vec<BaseName> = cursor.list(2, |cursor| cursor.parsed("base directory name"))?;
    let daemons = cursor.list(8, |cursor| cursor.fixed_u64().map(DaemonId))?;
    let ranges = cursor.list(11, |cursor| decode_range(cursor, &bases, &daemons))?;
    cursor.finish()?;
    let handle = Handle {
        exchange,
        partition,
        bytes,
        ranges,
    };
    let lengths = handle.ranges.iter().map(|range| range.length);
    let available = lengths.fold(0, u64::saturating_add);
    let headers = handle.pages().saturating_mul(FRAME_HEADER_LEN as u64);
    if handle.bytes.saturating_add(headers) > available {
        let field = "sizes of pages and ranges";
        return Err(DecodeError::Contradiction { field });
    }
    Ok(handle)
}

fn decode_range(
    cursor: &mut Cursor<'_>,
    bases: &[BaseName],
    daemons: &[DaemonId],
) -> Result<HandleRange, DecodeError> {
    let base = cursor.entry(bases, "base directory")?.clone();
    let daemon = *cursor.entry(daemons, "daemon")?;
    let sequence = cursor.u64()?;
    let (offset, length, gap) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let pages = cursor.u64()?;
    let checksum = cursor.fixed_u32()?;
    let valid = offset >= SEGMENT_HEADER_LEN as u64
        && length > RECORD_LEN as u64
        && pages > 0
        && [offset, length, gap, pages]
            .iter()
            .all(|n| *n < MAX_SEGMENT_SIZE);
    if !valid {
        return Err(DecodeError::Invalid { field: "range" });
    }
    Ok(HandleRange {
        base,
        segment: SegmentId { daemon, sequence },
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
    fn a_handle_is_decoded_as_encoded_and_a_range_needs_fewer_than_forty_characters() {
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
    fn the_longest_planned_handle_is_shorter_than_the_limit_of_its_text() {
        let far = 0xFFFF_FFFF;
        let range = |n: u64| HandleRange {
            base: format!("{:032}", n % 300).parse().unwrap(),
            segment: SegmentId {
                daemon: DaemonId(u64::MAX - n),
                sequence: (1 << 48) - 1,
            },
            blocks_end: 3 * far,
            offset: far,
            length: far,
            pages: far,
            checksum: u32::MAX,
        };
        let handle = Handle {
            exchange: "q".repeat(crate::id::MAX_EXCHANGE_ID).parse().unwrap(),
            partition: u32::MAX,
            bytes: u64::MAX >> 8,
            ranges: (0..MAX_RANGES as u64).map(range).collect(),
        };
        let length = handle.encode().len() as u64;
        assert!(length <= MAX_ENCODED, "{length} characters");
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut bytes = URL_SAFE_NO_PAD.decode(some_handle(1).encode()).unwrap();
        bytes.truncate(bytes.len() - 4);
        bytes[0] = 7;
        let crc = checksum(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let error = Handle::decode(&URL_SAFE_NO_PAD.encode(bytes)).unwrap_err();
        assert_eq!(error, HandleError::UnknownVersion { version: 7 });
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
        fn decoding_any_bytes_does_not_panic(body: Vec<u8>) {
            let _ = decode_fields(&body);
        }
    }
}
