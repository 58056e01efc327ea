//! The index of a segment's blocks, held in its encoded form.
//!
//! Does: encode, validate and iterate over the index. Does not: resolve sinks, or decode commits
//! (`footer`). Invariant: blocks follow each other without gaps from the segment header on, sorted
//! by partition; a [`Blocks`] was encoded or validated here, so iterating over it cannot fail.
//!
//! A daemon that plans holds the indexes of all segments of an exchange at once. Encoded, a block
//! needs about ten bytes; a [`BlockEntry`] needs 32.

use bytes::Bytes;

use super::error::DecodeError;
use super::layout::{FRAME_HEADER_LEN, RECORD_LEN, SEGMENT_HEADER_LEN};
use super::varint::{Cursor, put, put_all};

/// The most bytes that a block adds to the index: five numbers of 32 bits and its checksum, if it
/// is the only one of its partition.
pub const MAX_BLOCK_ENTRY: u64 = 5 * 5 + 4;

/// A block: consecutive frames of one sink and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    pub partition: u32,
    /// Index into [`Footer::sinks`](super::footer::Footer::sinks).
    pub sink: u32,
    /// Number of pages, at least 1.
    pub pages: u32,
    /// Bytes of page frames, without the block record.
    pub frames_length: u32,
    /// CRC-32C over the frames' `crc` fields.
    pub checksum: u32,
    /// Offset of its block record in the segment.
    pub offset: u64,
}

impl BlockEntry {
    /// Bytes of the block, record included.
    pub fn length(&self) -> u64 {
        RECORD_LEN as u64 + u64::from(self.frames_length)
    }

    /// Page bytes, without frame headers.
    pub fn page_bytes(&self) -> u64 {
        u64::from(self.frames_length) - u64::from(self.pages) * FRAME_HEADER_LEN as u64
    }
}

/// All blocks of a segment, by partition, then by sink. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Blocks {
    encoded: Bytes,
    count: usize,
    end: u64,
}

/// A position in an index, between two blocks.
#[derive(Debug, Clone, Default)]
pub struct Position {
    /// Bytes of the index that have been read.
    read: usize,
    /// Number of partitions after the current one.
    partitions: usize,
    /// Blocks of the current partition that follow.
    blocks: usize,
    partition: u32,
    next_partition: u32,
    offset: u64,
}

impl Blocks {
    /// Encodes an index of blocks that are sorted and follow each other without gaps.
    pub fn new(entries: &[BlockEntry]) -> Self {
        let mut out = Vec::with_capacity(16 + entries.len() * 12);
        let partitions = || entries.chunk_by(|a, b| a.partition == b.partition);
        put(&mut out, partitions().count() as u64);
        let mut next_partition = 0;
        for blocks in partitions() {
            put(&mut out, u64::from(blocks[0].partition - next_partition));
            next_partition = blocks[0].partition + 1;
            put(&mut out, blocks.len() as u64);
            for block in blocks {
                let fields = [block.sink, block.pages, block.frames_length];
                put_all(&mut out, fields.map(u64::from));
                out.extend_from_slice(&block.checksum.to_le_bytes());
            }
        }
        out.shrink_to_fit();
        Self {
            encoded: out.into(),
            count: entries.len(),
            end: entries.last().map_or(EMPTY_END, |b| b.offset + b.length()),
        }
    }

    /// Validates the index at the front of the cursor, whose blocks refer to `sinks` sinks, and
    /// copies it.
    pub(super) fn decode(cursor: &mut Cursor<'_>, sinks: usize) -> Result<Self, DecodeError> {
        let bytes = cursor.rest();
        let mut position = Position::start();
        let (mut count, mut end) = (0, EMPTY_END);
        while let Some(block) = position.step(bytes)? {
            let least = u64::from(block.pages) * (FRAME_HEADER_LEN as u64 + 1);
            if block.sink as usize >= sinks {
                return Err(DecodeError::UnknownReference { field: "sink" });
            }
            if block.pages == 0 || u64::from(block.frames_length) < least {
                return Err(DecodeError::Contradiction {
                    field: "sizes of a block",
                });
            }
            count += 1;
            end = block.offset + block.length();
        }
        let encoded = Bytes::copy_from_slice(cursor.bytes(position.read)?);
        Ok(Self {
            encoded,
            count,
            end,
        })
    }

    /// The index as encoded in a footer.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Replaces the encoded bytes by equal ones that own a reservation.
    pub fn map_encoded(self, bind: impl FnOnce(Bytes) -> Bytes) -> Self {
        let encoded = bind(self.encoded);
        Self { encoded, ..self }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no blocks.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Offset at which the last block ends and the footer begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the block at `position` and advances past it. The position must belong to this
    /// index.
    pub fn next(&self, position: &mut Position) -> Option<BlockEntry> {
        position
            .step(&self.encoded)
            .expect("the index was encoded or validated here")
    }

    /// All blocks, in order.
    pub fn iter(&self) -> impl Iterator<Item = BlockEntry> + '_ {
        let mut position = Position::start();
        std::iter::from_fn(move || self.next(&mut position))
    }
}

/// The end of an index without blocks: right after the segment header.
const EMPTY_END: u64 = SEGMENT_HEADER_LEN as u64;

impl Default for Blocks {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Position {
    /// Before the first block.
    pub fn start() -> Self {
        Self {
            offset: EMPTY_END,
            ..Self::default()
        }
    }

    fn step(&mut self, encoded: &[u8]) -> Result<Option<BlockEntry>, DecodeError> {
        let mut cursor = Cursor::new(&encoded[self.read..]);
        if self.read == 0 {
            self.partitions = cursor.count(9)?;
        }
        if self.blocks == 0 {
            if self.partitions == 0 {
                self.read = encoded.len() - cursor.rest().len();
                return Ok(None);
            }
            self.partitions -= 1;
            self.partition = self
                .next_partition
                .checked_add(cursor.u32()?)
                .filter(|p| *p < crate::id::MAX_PARTITIONS)
                .ok_or(DecodeError::Invalid { field: "partition" })?;
            self.next_partition = self.partition + 1;
            self.blocks = cursor.count(7)?;
            if self.blocks == 0 {
                return Err(DecodeError::Invalid {
                    field: "count of blocks of a partition",
                });
            }
        }
        self.blocks -= 1;
        let block = BlockEntry {
            partition: self.partition,
            sink: cursor.u32()?,
            pages: cursor.u32()?,
            frames_length: cursor.u32()?,
            checksum: cursor.fixed_u32()?,
            offset: self.offset,
        };
        self.offset += block.length();
        self.read = encoded.len() - cursor.rest().len();
        Ok(Some(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINKS: u32 = 5;

    fn some_blocks() -> impl Strategy<Value = Vec<BlockEntry>> {
        let block = (0u32..300, 0..SINKS, 1u32..1000, 0u32..100_000, any::<u32>());
        prop::collection::vec(block, 0..50).prop_map(|mut blocks| {
            blocks.sort();
            let mut offset = EMPTY_END;
            let entries = blocks
                .into_iter()
                .map(|(partition, sink, pages, more, checksum)| {
                    let frames_length = pages * (FRAME_HEADER_LEN as u32 + 1) + more;
                    let entry = BlockEntry {
                        partition,
                        sink,
                        pages,
                        frames_length,
                        checksum,
                        offset,
                    };
                    offset += entry.length();
                    entry
                });
            entries.collect()
        })
    }

    proptest! {
        #[test]
        fn an_index_returns_its_blocks_in_order_and_is_compact(
            entries in some_blocks(), tail: Vec<u8>,
        ) {
            let blocks = Blocks::new(&entries);
            prop_assert_eq!(blocks.iter().collect::<Vec<_>>(), entries.clone());
            prop_assert_eq!(blocks.len(), entries.len());
            prop_assert_eq!(blocks.is_empty(), entries.is_empty());
            prop_assert!(blocks.encoded().len() <= 5 + entries.len() * 14);
            let footer = [&blocks.encoded()[..], &tail].concat();
            let mut cursor = Cursor::new(&footer);
            prop_assert_eq!(Blocks::decode(&mut cursor, SINKS as usize).unwrap(), blocks);
            prop_assert_eq!(cursor.rest(), tail);
        }

        #[test]
        fn any_bytes_are_refused_or_can_be_iterated(
            entries in some_blocks(), changes: Vec<(prop::sample::Index, u8)>, tail: [u8; 40],
        ) {
            let mut bytes = [&Blocks::new(&entries).encoded()[..], &tail].concat();
            for (position, value) in changes {
                let at = position.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(blocks) = Blocks::decode(&mut Cursor::new(&bytes), SINKS as usize) {
                let walked: Vec<_> = blocks.iter().collect();
                prop_assert_eq!(walked.len(), blocks.len());
                prop_assert!(walked.is_sorted_by_key(|b| b.partition));
                prop_assert!(walked.iter().all(|b| b.sink < SINKS));
                let end = walked.last().map_or(EMPTY_END, |b| b.offset + b.length());
                prop_assert_eq!(end, blocks.end());
            }
        }
    }

    #[test]
    fn a_partition_without_blocks_is_refused() {
        // Its encoding would be shorter than the minimum that the count of partitions assumes.
        let bytes = [1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let error = Blocks::decode(&mut Cursor::new(&bytes), SINKS as usize).unwrap_err();
        let field = "count of blocks of a partition";
        assert_eq!(error, DecodeError::Invalid { field });
    }
}
