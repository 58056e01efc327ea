//! The source handle: everything that one read needs, compact, sealed, and opaque to clients.
//!
//! Does: encode it under a seal that only daemons of the fleet can make, and decode it. Does not:
//! choose what it contains (`plan`). Invariant: a handle that is opened was planned by a daemon
//! that has the same base directory; anything else is refused, with memory in proportion to its
//! text.

use crate::id::{BaseId, BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::segment::error::DecodeError;
use crate::segment::layout::{FRAME_HEADER_LEN, RECORD_LEN, SEGMENT_HEADER_LEN};
use crate::segment::varint::{Cursor, index_in, put, put_all, put_text, table};
pub use crate::storage::seals::{SealError, Seals, sealed_text};
use crate::storage::seals::{SealedText, sealing_key};

/// The encoding that this code writes, and the only one that it reads.
pub const VERSION: u8 = 2;

/// The most ranges of a planned handle. As a range needs at most 47 bytes, the text of such a
/// handle is shorter than [`MAX_ENCODED`].
pub const MAX_RANGES: usize = 32_000;

/// The longest text of a handle, in characters.
pub const MAX_ENCODED: u64 = 2 << 20;

/// Bound of every offset and length in a segment, which a footer holds in 32 bits.
const MAX_SEGMENT_SIZE: u64 = 1 << 32;

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

/// Why a text is not a source handle, or not one that this daemon can open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("version {version}, but this daemon reads version {VERSION}")]
    UnknownVersion { version: u8 },
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The seal is valid, but the content is not.
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

    /// Encodes the handle as text, base64url without padding, under a seal of the base directory
    /// of its first range; a handle without ranges is sealed with any.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use stopover::catalog::handle::{Handle, Seals};
    /// use stopover::id::BaseId;
    /// use stopover::storage::identity::Identity;
    ///
    /// let identity = Identity::new(BaseId(1), "main".parse()?, [7; 32]);
    /// let seals = Seals::new(vec![("main".parse()?, Some(Arc::new(identity)))]);
    /// let handle = Handle {
    ///     exchange: "query-1".parse()?,
    ///     partition: 7,
    ///     bytes: 0,
    ///     ranges: Vec::new(),
    /// };
    /// assert_eq!(Handle::open(&handle.seal(&seals)?, &seals)?, handle);
    /// assert!(Handle::open("anything else", &seals).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The identity of a base directory has not been read.
    pub fn seal(&self, seals: &Seals) -> Result<String, HandleError> {
        let mut names = table(self.ranges.iter().map(|range| &range.base));
        let first = match self.ranges.first() {
            Some(range) => &range.base,
            None => seals.any()?,
        };
        names.retain(|name| *name != first);
        names.insert(0, first);
        let sealing = seals.by_name(first)?;
        let key = sealing_key(first, sealing)?;
        let mut out = vec![VERSION];
        put_all(&mut out, [u64::from(key.number), names.len() as u64]);
        for name in &names {
            out.extend_from_slice(&seals.by_name(name)?.id.0.to_le_bytes());
        }
        self.encode_fields(&names, &mut out);
        Ok(sealed_text(&out, key.secret()))
    }

    fn encode_fields(&self, bases: &[&BaseName], out: &mut Vec<u8>) {
        let daemons = table(self.ranges.iter().map(|range| range.segment.daemon));
        put_text(out, self.exchange.as_str());
        put_all(out, [u64::from(self.partition), self.bytes]);
        put(out, daemons.len() as u64);
        for daemon in &daemons {
            out.extend_from_slice(&daemon.0.to_le_bytes());
        }
        put(out, self.ranges.len() as u64);
        for range in &self.ranges {
            let base = bases.iter().position(|base| **base == range.base);
            let base = base.expect("the table has all base directories") as u64;
            let daemon = index_in(&daemons, &range.segment.daemon);
            let gap = range.blocks_end - range.offset - range.length;
            put_all(out, [base, daemon, range.segment.sequence]);
            put_all(out, [range.offset, range.length, gap, range.pages]);
            out.extend_from_slice(&range.checksum.to_le_bytes());
        }
    }

    /// Decodes the text of a handle that a daemon of the fleet has sealed.
    ///
    /// # Errors
    /// [`HandleError`] if it was not returned by [`Handle::seal`], or this daemon lacks the base
    /// directory or the key.
    pub fn open(text: &str, seals: &Seals) -> Result<Self, HandleError> {
        let sealed = SealedText::decode(text)?;
        let fields = match sealed.body().split_first() {
            Some((&VERSION, fields)) => fields,
            Some((&version, _)) => return Err(HandleError::UnknownVersion { version }),
            None => return Err(SealError::TooShort.into()),
        };
        let mut cursor = Cursor::new(fields);
        let number = cursor.u32()?;
        let ids = cursor.list(8, |cursor| cursor.fixed_u64().map(BaseId))?;
        let first = *ids.first().ok_or(DecodeError::Invalid {
            field: "base directories",
        })?;
        sealed.check(seals.by_id(first)?, number)?;
        let bases = ids.into_iter();
        let bases = bases.map(|id| Ok(seals.by_id(id)?.0.clone()));
        let bases = bases.collect::<Result<Vec<_>, HandleError>>()?;
        Ok(decode_fields(cursor, &bases)?)
    }
}

fn decode_fields(mut cursor: Cursor<'_>, bases: &[BaseName]) -> Result<Handle, DecodeError> {
    let exchange = cursor.parsed("exchange id")?;
    let partition = cursor.u32()?;
    let bytes = cursor.u64()?;
    let daemons = cursor.list(8, |cursor| cursor.fixed_u64().map(DaemonId))?;
    let ranges = cursor.list(11, |cursor| decode_range(cursor, bases, &daemons))?;
    cursor.finish()?;
    let handle = Handle {
        exchange,
        partition,
        bytes,
        ranges,
    };
    match lengths_agree(&handle) {
        true => Ok(handle),
        false => Err(DecodeError::Contradiction {
            field: "sizes of pages and ranges",
        }),
    }
}

/// Whether the ranges hold the pages and, for each block, a record; a block has at least one page.
fn lengths_agree(handle: &Handle) -> bool {
    let lengths = handle.ranges.iter().map(|range| range.length);
    let total = lengths.fold(0, u64::saturating_add);
    let pages = handle.pages();
    let headers = pages.saturating_mul(FRAME_HEADER_LEN as u64);
    let frames = handle.bytes.saturating_add(headers);
    let (record, ranges) = (RECORD_LEN as u64, handle.ranges.len() as u64);
    let fewest = frames.saturating_add(ranges.saturating_mul(record));
    let most = frames.saturating_add(pages.saturating_mul(record));
    (fewest..=most).contains(&total)
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
    let parts = [offset, length, gap].into_iter();
    let blocks_end = parts.fold(0, u64::saturating_add);
    let valid = offset >= SEGMENT_HEADER_LEN as u64
        && length > RECORD_LEN as u64
        && (1..MAX_SEGMENT_SIZE).contains(&pages)
        && blocks_end <= MAX_SEGMENT_SIZE;
    if !valid {
        return Err(DecodeError::Invalid { field: "range" });
    }
    Ok(HandleRange {
        base,
        segment: SegmentId { daemon, sequence },
        blocks_end,
        offset,
        length,
        pages,
        checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::seals::testing::{identity, seals};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use std::sync::Arc;

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
        let ranges: Vec<_> = (0..ranges).map(range).collect();
        let length: u64 = ranges.iter().map(|range| range.length).sum();
        let count = ranges.len();
        Handle {
            exchange: "q-1".parse().unwrap(),
            partition: 5,
            bytes: length - (count * (3 * FRAME_HEADER_LEN + RECORD_LEN)) as u64,
            ranges,
        }
    }

    fn sealed(body: &[u8]) -> String {
        sealed_text(body, &[1; 32])
    }

    /// The fields of a handle after the version, the key and base directory `a`.
    fn with_fields(fields: &[u8]) -> Result<Handle, HandleError> {
        let mut body = vec![VERSION, 1, 1];
        body.extend_from_slice(&1_u64.to_le_bytes());
        body.extend_from_slice(fields);
        Handle::open(&sealed(&body), &seals())
    }

    #[test]
    fn a_handle_is_opened_as_sealed_and_a_range_needs_fewer_than_forty_characters() {
        let one = some_handle(1).seal(&seals()).unwrap().len();
        for ranges in [0, 1, 17] {
            let handle = some_handle(ranges);
            let text = handle.seal(&seals()).unwrap();
            assert_eq!(Handle::open(&text, &seals()).unwrap(), handle);
        }
        let seventeen = some_handle(17).seal(&seals()).unwrap().len();
        assert!((seventeen - one) / 16 < 40, "{seventeen} characters");
    }

    #[test]
    fn the_memory_of_a_handle_is_that_of_all_its_ranges() {
        let ranges = |n| some_handle(n).memory_size();
        assert_eq!(ranges(0), size_of::<Handle>() as u64);
        let more = ranges(17) - ranges(0);
        assert_eq!(more, 17 * size_of::<HandleRange>() as u64);
    }

    #[test]
    fn version_2_handles_stay_readable_for_ever() {
        let golden = include_str!("../../tests/golden/handle-v2.txt");
        assert_eq!(some_handle(3).seal(&seals()).unwrap(), golden.trim());
        assert_eq!(Handle::open(golden, &seals()).unwrap(), some_handle(3));
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
        let names = (0..300).map(|n| identity(n, &format!("{n:032}")));
        let handle = Handle {
            exchange: "q".repeat(crate::id::MAX_EXCHANGE_ID).parse().unwrap(),
            partition: u32::MAX,
            bytes: u64::MAX >> 8,
            ranges: (0..MAX_RANGES as u64).map(range).collect(),
        };
        let sealed = handle.seal(&Seals::new(names.collect())).unwrap();
        let length = sealed.len() as u64;
        assert!(length <= MAX_ENCODED, "{length} characters");
    }

    #[test]
    fn an_unknown_version_is_named() {
        let error = Handle::open(&sealed(&[7, 1, 1]), &seals()).unwrap_err();
        assert_eq!(error, HandleError::UnknownVersion { version: 7 });
    }

    #[test]
    fn a_handle_that_no_daemon_of_the_fleet_sealed_is_refused() {
        let text = some_handle(3).seal(&seals()).unwrap();
        let sealed = SealedText::decode(&text).unwrap();
        let forged = sealed_text(sealed.body(), &[9; 32]);
        let error = Handle::open(&forged, &seals()).unwrap_err();
        assert_eq!(error, SealError::WrongSeal.into());
    }

    #[test]
    fn a_daemon_that_lacks_the_base_directory_or_the_key_says_which() {
        let text = some_handle(1).seal(&seals()).unwrap();
        let lacks = Seals::new(vec![identity(2, "b")]);
        let id = BaseId(1);
        assert_eq!(
            Handle::open(&text, &lacks),
            Err(SealError::UnknownBase { id }.into())
        );
        let unread = Seals::new(vec![("a".parse().unwrap(), None), identity(2, "b")]);
        let bases = "a".to_owned();
        assert_eq!(
            Handle::open(&text, &unread),
            Err(SealError::Unidentified { bases }.into())
        );
        // The second base directory of a handle is needed too.
        let two = some_handle(2).seal(&seals()).unwrap();
        let lacks = Seals::new(vec![identity(1, "a")]);
        let id = BaseId(2);
        assert_eq!(
            Handle::open(&two, &lacks),
            Err(SealError::UnknownBase { id }.into())
        );
    }

    #[test]
    fn after_a_rotation_the_new_key_seals_and_the_previous_one_still_opens() {
        let old = seals();
        let (name, first) = identity(1, "a");
        let rotated = first.unwrap().rotated([3; 32]);
        let new = Seals::new(vec![(name, Some(Arc::new(rotated))), identity(2, "b")]);
        let handle = some_handle(3);
        let before = handle.seal(&old).unwrap();
        assert_eq!(Handle::open(&before, &new).unwrap(), handle);
        let after = handle.seal(&new).unwrap();
        let base = "a".parse().unwrap();
        let unknown = SealError::UnknownKey { base, number: 2 };
        assert_eq!(Handle::open(&after, &old), Err(unknown.into()));
        assert_eq!(Handle::open(&after, &new).unwrap(), handle);
    }

    /// Story: a forged handle of 78 bytes with one range of 2^48-1 bytes made the daemon plan
    /// gigabytes of fetches. It is refused even with a valid seal.
    #[test]
    fn a_range_larger_than_a_segment_and_sizes_that_contradict_each_other_are_refused() {
        let range = |length: u64, pages: u64, bytes: u64| {
            let mut fields = Vec::new();
            put_text(&mut fields, "q");
            put_all(&mut fields, [0, bytes, 1]);
            fields.extend_from_slice(&1_u64.to_le_bytes());
            put_all(&mut fields, [1, 0, 0, 0, 16, length, 0, pages]);
            fields.extend_from_slice(&[0; 4]);
            with_fields(&fields)
        };
        let (header, record) = (FRAME_HEADER_LEN as u64, RECORD_LEN as u64);
        assert!(range(record + header + 5, 1, 5).is_ok());
        let invalid = HandleError::Malformed(DecodeError::Invalid { field: "range" });
        assert_eq!(range((1 << 48) - 1, 1, 1), Err(invalid.clone()));
        assert_eq!(range(u64::MAX, 1, 1), Err(invalid.clone()));
        assert_eq!(range(1 << 32, 1, 1), Err(invalid));
        for (length, bytes) in [(record + header + 5, 6), (record + header + 5, 4)] {
            let refused = range(length, 1, bytes).unwrap_err();
            let HandleError::Malformed(DecodeError::Contradiction { .. }) = refused else {
                panic!("{refused}");
            };
        }
    }

    proptest! {
        #[test]
        fn a_damaged_handle_is_refused(position: prop::sample::Index, bit in 0u8..8) {
            let text = some_handle(3).seal(&seals()).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            prop_assert!(Handle::open(&URL_SAFE_NO_PAD.encode(bytes), &seals()).is_err());
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(body: Vec<u8>) {
            let _ = with_fields(&body);
        }

        #[test]
        fn an_opened_handle_takes_memory_in_proportion_to_its_text(body: Vec<u8>) {
            if let Ok(handle) = with_fields(&body) {
                prop_assert!(handle.ranges.capacity() <= body.len() / 11 + 1);
            }
        }
    }
}
