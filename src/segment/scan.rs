//! Verifies the blocks of one range as their bytes arrive. Pure.
//!
//! Does: turn parts of a range into verified slices of the same memory. Does not: fetch. Invariant:
//! a byte is emitted only as part of a whole item (block record or page frame) whose checksum
//! matches and whose partition is the expected one; `finish` fails unless the range held exactly
//! the expected pages.

use bytes::Bytes;

use super::layout::{
    BLOCK_MARKER, BlockRecord, FRAME_HEADER_LEN, FrameHeader, RECORD_LEN, frame_crc, has_marker,
};
use crate::crc::Checksum;
use crate::human::count;

/// Bytes of page checksums that are collected before the block's checksum is updated with them:
/// one call for each page would cost more.
const CRC_BUFFER: usize = 1024;

/// What a range must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Output partition of every block.
    pub partition: u32,
    pub pages: u64,
    /// CRC-32C over the blocks' checksums, 4 bytes each.
    pub checksum: u32,
}

/// The form of a read partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFormat {
    /// Page bytes without their framing.
    Raw,
    /// Block records and page frames, as stored; the end record follows the last range.
    Records,
}

/// Counts of what was emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    pub blocks: u32,
    pub pages: u64,
    /// Page bytes, without frame headers.
    pub bytes: u64,
}

/// How a range differs from what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("a page is outside of every block")]
    OutsideBlock,
    #[error("block record damaged")]
    DamagedRecord,
    #[error("a block has fewer pages than its record counts")]
    TooFewPages,
    #[error("the pages of a block are longer than its record states")]
    PagesTooLong,
    #[error("the pages of a block are shorter than its record states")]
    PagesTooShort,
    /// A block record has another partition than expected, or no pages.
    #[error(
        "unexpected block: partition {partition} with {}, not partition {expected}",
        count(*pages, "page")
    )]
    UnexpectedBlock {
        partition: u32,
        pages: u32,
        expected: u32,
    },
    #[error("a page has another partition than its block")]
    WrongPartition,
    #[error("page checksum mismatch")]
    PageChecksum,
    #[error("the range ends inside a block")]
    EndsInsideBlock,
    #[error("the range has {}, expected {expected}", count(*pages, "page"))]
    PageCount { pages: u64, expected: u64 },
    #[error("range checksum mismatch: it has other pages than expected")]
    RangeChecksum,
}

/// Scans one range. A clone is a checkpoint: scanning can resume from it.
#[derive(Debug, Clone)]
pub struct Scanner {
    expected: Expected,
    format: PageFormat,
    skip: u64,
    block: Option<OpenBlock>,
    /// The `crc` fields of its last pages, which its checksum does not cover yet.
    crcs: Vec<u8>,
    range_crc: Checksum,
    pages_seen: u64,
    /// Bytes of whole items that were accepted.
    consumed: u64,
    /// The beginning of an item whose end has not arrived.
    pending: Vec<Bytes>,
    sent: Sent,
}

#[derive(Debug, Clone)]
struct OpenBlock {
    record: BlockRecord,
    pages_left: u32,
    bytes_left: u64,
    crc: Checksum,
}

impl Scanner {
    /// A scanner for a range whose first `skip` pages are verified but not emitted.
    pub fn new(expected: Expected, format: PageFormat, skip: u64) -> Self {
        Self {
            expected,
            format,
            skip,
            block: None,
            crcs: Vec::with_capacity(CRC_BUFFER),
            range_crc: Checksum::default(),
            pages_seen: 0,
            consumed: 0,
            pending: Vec::new(),
            sent: Sent::default(),
        }
    }

    /// Scans the next part and appends what is verified to `out`.
    ///
    /// # Errors
    /// [`ScanError`] if the part is not as expected; this scanner must not be used further.
    pub fn push(&mut self, part: Bytes, out: &mut Vec<Bytes>) -> Result<(), ScanError> {
        self.push_until(part, out, usize::MAX).map(drop)
    }

    /// As [`Scanner::push`], until `out` has about `most` slices. Returns the rest of the part, for
    /// the next call.
    ///
    /// # Errors
    /// As [`Scanner::push`].
    pub fn push_until(
        &mut self,
        mut part: Bytes,
        out: &mut Vec<Bytes>,
        most: usize,
    ) -> Result<Bytes, ScanError> {
        while self.has_partial() && !part.is_empty() {
            let missing = self.pending_need()? - self.pending_length();
            self.pending.push(part.split_to(missing.min(part.len())));
            if self.pending_length() == self.pending_need()? {
                let item = std::mem::take(&mut self.pending);
                self.push_item(&item, out)?;
            }
        }
        self.push_contiguous(part, out, most)
    }

    fn push_contiguous(
        &mut self,
        part: Bytes,
        out: &mut Vec<Bytes>,
        most: usize,
    ) -> Result<Bytes, ScanError> {
        let (mut start, mut at) = (0, 0);
        while let Some(length) = self.whole_item(&part[at..])? {
            if out.len() >= most {
                emit_slice(&part, start, at, out);
                return Ok(part.slice(at..));
            }
            let omitted = self.accept_contiguous(&part[at..at + length])?;
            if omitted > 0 {
                emit_slice(&part, start, at, out);
                start = at + omitted;
            }
            at += length;
            if let Some(record) = self.rewritten_record() {
                emit_slice(&part, start, at, out);
                start = at;
                out.push(record);
            }
        }
        emit_slice(&part, start, at, out);
        if at < part.len() {
            self.pending.push(part.slice(at..));
        }
        Ok(Bytes::new())
    }

    fn push_item(&mut self, item: &[Bytes], out: &mut Vec<Bytes>) -> Result<(), ScanError> {
        let mut omitted = self.accept(item)?;
        for piece in item {
            let from = omitted.min(piece.len());
            omitted -= from;
            emit_slice(piece, from, piece.len(), out);
        }
        out.extend(self.rewritten_record());
        Ok(())
    }

    /// Whether the beginning of an item is held whose end has not arrived.
    pub fn has_partial(&self) -> bool {
        !self.pending.is_empty()
    }

    fn pending_length(&self) -> usize {
        self.pending.iter().map(Bytes::len).sum()
    }

    /// Discards the partial item that is held. Returns the item's offset in the range, where the
    /// next part must begin, and the item's length if it is known.
    pub fn discard_partial(&mut self) -> (u64, Option<u64>) {
        let known = self.pending_length() >= FRAME_HEADER_LEN;
        let need = self.pending_need().ok().filter(|_| known);
        self.pending = Vec::new();
        (self.consumed, need.map(|need| need as u64))
    }

    /// Length of the item at the front, if it is complete.
    fn whole_item(&self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        if bytes.len() < FRAME_HEADER_LEN {
            return Ok(None);
        }
        let length = self.item_length(bytes)?;
        Ok(Some(length).filter(|length| *length <= bytes.len()))
    }

    /// Length of the item that begins with `head`. It never exceeds the block, so a damaged length
    /// does not make the scanner wait for bytes that will not come.
    fn item_length(&self, head: &[u8]) -> Result<usize, ScanError> {
        if has_marker(head, BLOCK_MARKER) {
            return Ok(RECORD_LEN);
        }
        let block = self.block.as_ref().ok_or(ScanError::OutsideBlock)?;
        let length = FRAME_HEADER_LEN as u64 + u64::from(FrameHeader::decode(head).length);
        usize::try_from(length)
            .ok()
            .filter(|_| length <= block.bytes_left)
            .ok_or(ScanError::PagesTooLong)
    }

    /// Bytes that the pending item needs, as far as its beginning shows.
    fn pending_need(&self) -> Result<usize, ScanError> {
        if self.pending_length() < FRAME_HEADER_LEN {
            return Ok(FRAME_HEADER_LEN);
        }
        self.item_length(&head(self.pending.iter().flatten()))
    }

    /// Verifies one whole item in several slices. Returns how many bytes at its front are not to be
    /// emitted.
    fn accept(&mut self, item: &[Bytes]) -> Result<usize, ScanError> {
        let length: usize = item.iter().map(Bytes::len).sum();
        self.consumed += length as u64;
        let head = head(item.iter().flatten());
        if has_marker(&head, BLOCK_MARKER) {
            return self.accept_record(&head);
        }
        debug_assert!(length >= FRAME_HEADER_LEN);
        self.accept_frame(&head, item_crc(&head, item))
    }

    /// As [`Scanner::accept`], for an item in one slice, as nearly all are: does not copy its head.
    fn accept_contiguous(&mut self, item: &[u8]) -> Result<usize, ScanError> {
        self.consumed += item.len() as u64;
        if has_marker(item, BLOCK_MARKER) {
            let head = item.try_into().expect("`item_length` returned RECORD_LEN");
            return self.accept_record(head);
        }
        let (head, page) = item.split_at(FRAME_HEADER_LEN);
        self.accept_frame(head, frame_crc(head, page))
    }

    fn accept_record(&mut self, head: &[u8; RECORD_LEN]) -> Result<usize, ScanError> {
        let record = BlockRecord::decode(head).ok_or(ScanError::DamagedRecord)?;
        if self.block.is_some() {
            return Err(ScanError::TooFewPages);
        }
        if record.partition != self.expected.partition || record.pages == 0 {
            return Err(ScanError::UnexpectedBlock {
                partition: record.partition,
                pages: record.pages,
                expected: self.expected.partition,
            });
        }
        self.block = Some(OpenBlock {
            record,
            pages_left: record.pages,
            bytes_left: record.frames_length,
            crc: Checksum::default(),
        });
        if self.skip > 0 || self.format == PageFormat::Raw {
            return Ok(RECORD_LEN);
        }
        self.sent.blocks += 1;
        Ok(0)
    }

    /// Verifies a frame by its header and the CRC that was computed over it.
    fn accept_frame(&mut self, head: &[u8], crc: u32) -> Result<usize, ScanError> {
        let block = self.block.as_mut().ok_or(ScanError::OutsideBlock)?;
        let header = FrameHeader::decode(head);
        if header.partition != block.record.partition {
            return Err(ScanError::WrongPartition);
        }
        if crc != header.crc {
            return Err(ScanError::PageChecksum);
        }
        self.crcs.extend_from_slice(&crc.to_le_bytes());
        block.pages_left -= 1;
        block.bytes_left = block
            .bytes_left
            .checked_sub(FRAME_HEADER_LEN as u64 + u64::from(header.length))
            .ok_or(ScanError::PagesTooLong)?;
        self.pages_seen += 1;
        if block.pages_left == 0 || self.crcs.len() >= CRC_BUFFER {
            block.crc.update(&self.crcs);
            self.crcs.clear();
        }
        if block.pages_left == 0 {
            if block.bytes_left != 0 {
                return Err(ScanError::PagesTooShort);
            }
            self.range_crc.update(&block.crc.value().to_le_bytes());
            self.block = None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(FRAME_HEADER_LEN + header.length as usize);
        }
        self.sent.pages += 1;
        self.sent.bytes += u64::from(header.length);
        Ok(match self.format {
            PageFormat::Raw => FRAME_HEADER_LEN,
            PageFormat::Records => 0,
        })
    }

    /// The record of the rest of the open block, if skipping ended inside the block.
    fn rewritten_record(&mut self) -> Option<Bytes> {
        let nothing_sent = self.skip == 0 && self.sent == Sent::default();
        if !nothing_sent || self.format == PageFormat::Raw {
            return None;
        }
        let block = self.block.as_ref()?;
        if block.pages_left == block.record.pages {
            return None;
        }
        let record = BlockRecord {
            pages: block.pages_left,
            frames_length: block.bytes_left,
            ..block.record
        };
        self.sent.blocks += 1;
        Some(Bytes::copy_from_slice(&record.encode()))
    }

    /// Ends the range.
    ///
    /// # Errors
    /// [`ScanError`] unless it held exactly the expected pages.
    pub fn finish(self) -> Result<Sent, ScanError> {
        if self.has_partial() || self.block.is_some() {
            return Err(ScanError::EndsInsideBlock);
        }
        if self.pages_seen != self.expected.pages {
            return Err(ScanError::PageCount {
                pages: self.pages_seen,
                expected: self.expected.pages,
            });
        }
        if self.range_crc.value() != self.expected.checksum {
            return Err(ScanError::RangeChecksum);
        }
        Ok(self.sent)
    }
}

fn emit_slice(part: &Bytes, start: usize, end: usize, out: &mut Vec<Bytes>) {
    if start < end {
        out.push(part.slice(start..end));
    }
}

/// The first bytes of an item, as many as a record has; zeros follow a shorter item.
fn head<'a>(item: impl Iterator<Item = &'a u8>) -> [u8; RECORD_LEN] {
    let mut head = [0; RECORD_LEN];
    head.iter_mut().zip(item).for_each(|(to, from)| *to = *from);
    head
}

fn item_crc(head: &[u8; RECORD_LEN], item: &[Bytes]) -> u32 {
    let mut crc = FrameHeader::start_crc(head);
    let mut header_left = FRAME_HEADER_LEN;
    for piece in item {
        let from = header_left.min(piece.len());
        header_left -= from;
        crc.update(&piece[from..]);
    }
    crc.value()
}
