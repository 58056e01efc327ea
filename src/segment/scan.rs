//! Checks the blocks of one range as their bytes arrive, and gives out what was checked.
//!
//! Pure: parts of a range in, verified slices of the same memory out. Does not: fetch. Invariant: a
//! byte leaves only as part of a whole item (block record or page frame) that fits its checksum and
//! belongs to the expected partition; `finish` fails unless the range held exactly the expected
//! pages.

use bytes::Bytes;

use super::frame::frame_crc;
use super::layout::{BLOCK_MARKER, BlockRecord, FRAME_HEADER_LEN, RECORD_LEN, u32_at};
use crate::crc::Checksum;

/// Bytes of the pages' checksums that are taken into the block's at a time, to save calls.
const CRCS: usize = 1024;

/// What a range must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Output partition of every block.
    pub partition: u32,
    /// Pages in all.
    pub pages: u64,
    /// CRC-32C over the blocks' checksums, 4 bytes each.
    pub checksum: u32,
}

/// What is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Block records and page frames, as stored.
    Records,
    /// Page bytes only.
    Pages,
}

/// What was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Block records.
    pub blocks: u32,
    /// Pages.
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
}

/// The range is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScanError(&'static str);

/// Scans one range. A clone is a point to come back to.
#[derive(Debug, Clone)]
pub struct Scanner {
    expected: Expected,
    output: Output,
    skip: u64,
    block: Option<OpenBlock>,
    /// The `crc` fields of its last pages, which its checksum has not taken in yet.
    crcs: Vec<u8>,
    range_crc: Checksum,
    pages_seen: u64,
    /// Bytes of whole items.
    taken: u64,
    pending: Vec<Bytes>,
    pending_length: usize,
    sent: Sent,
}

#[derive(Debug, Clone)]
struct OpenBlock {
    record: BlockRecord,
    pages_left: u32,
    bytes_left: u64,
    crc: Checksum,
}

enum Emit {
    Whole,
    Nothing,
    /// Only what follows this many bytes.
    After(usize),
}

impl Scanner {
    /// Scans a range whose first `skip` pages are checked but not given out.
    pub fn new(expected: Expected, output: Output, skip: u64) -> Self {
        Self {
            expected,
            output,
            skip,
            block: None,
            crcs: Vec::with_capacity(CRCS),
            range_crc: Checksum::default(),
            pages_seen: 0,
            taken: 0,
            pending: Vec::new(),
            pending_length: 0,
            sent: Sent::default(),
        }
    }

    /// Takes the next part and appends what is verified to `out`.
    ///
    /// # Errors
    /// What does not fit; the range must not be read on.
    pub fn push(&mut self, mut part: Bytes, out: &mut Vec<Bytes>) -> Result<(), ScanError> {
        while self.pending_length > 0 && !part.is_empty() {
            let need = self.pending_need()?;
            let take = part.split_to((need - self.pending_length).min(part.len()));
            self.pending_length += take.len();
            self.pending.push(take);
            if self.pending_length == self.pending_need()? {
                let item = std::mem::take(&mut self.pending);
                self.pending_length = 0;
                self.take_item(&item, out)?;
            }
        }
        self.push_contiguous(part, out)
    }

    fn push_contiguous(&mut self, part: Bytes, out: &mut Vec<Bytes>) -> Result<(), ScanError> {
        let (mut start, mut at) = (0, 0);
        while let Some(length) = self.whole_item(&part[at..])? {
            let item = &part[at..at + length];
            let emit = self.accept_contiguous(item)?;
            let end = at + length;
            match emit {
                Emit::Whole => {}
                Emit::Nothing => {
                    emit_slice(&part, start, at, out);
                    start = end;
                }
                Emit::After(n) => {
                    emit_slice(&part, start, at, out);
                    start = at + n;
                }
            }
            at = end;
            if self.owes_record() {
                emit_slice(&part, start, at, out);
                start = at;
                out.push(self.rewritten_record());
            }
        }
        emit_slice(&part, start, at, out);
        if at < part.len() {
            self.pending_length = part.len() - at;
            self.pending.push(part.slice(at..));
        }
        Ok(())
    }

    fn take_item(&mut self, item: &[Bytes], out: &mut Vec<Bytes>) -> Result<(), ScanError> {
        let pieces: Vec<&[u8]> = item.iter().map(Bytes::as_ref).collect();
        let mut drop_first = match self.accept(&pieces)? {
            Emit::Whole => 0,
            Emit::Nothing => usize::MAX,
            Emit::After(n) => n,
        };
        for piece in item {
            let from = drop_first.min(piece.len());
            drop_first -= from;
            emit_slice(piece, from, piece.len(), out);
        }
        if self.owes_record() {
            out.push(self.rewritten_record());
        }
        Ok(())
    }

    /// Whether part of an item is held whose rest has not come.
    pub fn has_partial(&self) -> bool {
        self.pending_length > 0
    }

    /// Drops the part of an item that is held: the next part must begin where that item does, which
    /// is the first answer, in bytes of the range. The second is the item's length, if it is known.
    pub fn discard_partial(&mut self) -> (u64, Option<u64>) {
        let known = self.pending_length >= FRAME_HEADER_LEN;
        let need = self.pending_need().ok().filter(|_| known);
        self.pending = Vec::new();
        self.pending_length = 0;
        (self.taken, need.map(|need| need as u64))
    }

    /// Length of the item at the front, if all of it is there.
    fn whole_item(&self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        if bytes.len() < FRAME_HEADER_LEN {
            return Ok(None);
        }
        let length = self.item_length(bytes)?;
        Ok(Some(length).filter(|length| *length <= bytes.len()))
    }

    /// Length of the item that begins so: never beyond its block, so that nobody waits for what a
    /// damaged length asks for.
    fn item_length(&self, head: &[u8]) -> Result<usize, ScanError> {
        if u32_at(head, 0) == BLOCK_MARKER {
            return Ok(RECORD_LEN);
        }
        let block = self
            .block
            .as_ref()
            .ok_or(ScanError("a page lies outside of every block"))?;
        let length = FRAME_HEADER_LEN as u64 + u64::from(u32_at(head, 4));
        if length > block.bytes_left {
            return Err(ScanError("a block's pages are longer than its record says"));
        }
        Ok(length as usize)
    }

    /// Bytes that the pending item needs, as far as can be told yet.
    fn pending_need(&self) -> Result<usize, ScanError> {
        if self.pending_length < FRAME_HEADER_LEN {
            return Ok(FRAME_HEADER_LEN);
        }
        let mut head = [0; RECORD_LEN];
        let pieces: Vec<&[u8]> = self.pending.iter().map(Bytes::as_ref).collect();
        copy_head(&pieces, &mut head);
        self.item_length(&head)
    }

    /// Checks one whole item, given in one or more pieces.
    fn accept(&mut self, pieces: &[&[u8]]) -> Result<Emit, ScanError> {
        self.taken += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let mut head = [0; RECORD_LEN];
        let head_length = copy_head(pieces, &mut head);
        if u32_at(&head, 0) == BLOCK_MARKER {
            return self.accept_record(&head);
        }
        debug_assert!(head_length >= FRAME_HEADER_LEN);
        self.accept_frame(&head, item_crc(&head, pieces))
    }

    /// The same for an item in one piece, as nearly all are, without copying its head.
    fn accept_contiguous(&mut self, item: &[u8]) -> Result<Emit, ScanError> {
        self.taken += item.len() as u64;
        if u32_at(item, 0) == BLOCK_MARKER {
            let head = item.try_into().expect("a block record is as long as that");
            return self.accept_record(head);
        }
        let (head, page) = item.split_at(FRAME_HEADER_LEN);
        self.accept_frame(head, frame_crc(head, page))
    }

    fn accept_record(&mut self, head: &[u8; RECORD_LEN]) -> Result<Emit, ScanError> {
        let record = BlockRecord::decode(head).ok_or(ScanError("a block record is damaged"))?;
        if self.block.is_some() {
            return Err(ScanError("a block holds fewer pages than its record says"));
        }
        if record.partition != self.expected.partition || record.pages == 0 {
            return Err(ScanError(
                "a block is of another partition than it should be",
            ));
        }
        self.block = Some(OpenBlock {
            record,
            pages_left: record.pages,
            bytes_left: record.frames_length,
            crc: Checksum::default(),
        });
        if self.skip > 0 || self.output == Output::Pages {
            return Ok(Emit::Nothing);
        }
        self.sent.blocks += 1;
        Ok(Emit::Whole)
    }

    /// Checks a frame by its header and the CRC that was found over it.
    fn accept_frame(&mut self, head: &[u8], crc: u32) -> Result<Emit, ScanError> {
        let block = self
            .block
            .as_mut()
            .ok_or(ScanError("a page lies outside of every block"))?;
        if u32_at(head, 0) != block.record.partition {
            return Err(ScanError("a page is of another partition than its block"));
        }
        if crc != u32_at(head, 8) {
            return Err(ScanError("a page does not fit its CRC-32C"));
        }
        let length = u64::from(u32_at(head, 4));
        self.crcs.extend_from_slice(&head[8..12]);
        block.pages_left -= 1;
        block.bytes_left = block
            .bytes_left
            .checked_sub(length + FRAME_HEADER_LEN as u64)
            .ok_or(ScanError("a block's pages are longer than its record says"))?;
        self.pages_seen += 1;
        if block.pages_left == 0 || self.crcs.len() >= CRCS {
            block.crc.update(&self.crcs);
            self.crcs.clear();
        }
        if block.pages_left == 0 {
            if block.bytes_left != 0 {
                return Err(ScanError(
                    "a block's pages are shorter than its record says",
                ));
            }
            self.range_crc.update(&block.crc.value().to_le_bytes());
            self.block = None;
        }
        Ok(self.emit_frame(length))
    }

    fn emit_frame(&mut self, length: u64) -> Emit {
        if self.skip > 0 {
            self.skip -= 1;
            return Emit::Nothing;
        }
        self.sent.pages += 1;
        self.sent.bytes += length;
        match self.output {
            Output::Records => Emit::Whole,
            Output::Pages => Emit::After(FRAME_HEADER_LEN),
        }
    }

    /// Whether pages of the open block were skipped, all that had to be, and its record is still
    /// owed.
    fn owes_record(&self) -> bool {
        let Some(block) = &self.block else {
            return false;
        };
        self.output == Output::Records
            && self.skip == 0
            && self.sent.pages == 0
            && self.sent.blocks == 0
            && block.pages_left < block.record.pages
    }

    fn rewritten_record(&mut self) -> Bytes {
        let block = self
            .block
            .as_ref()
            .expect("a record is owed only inside a block");
        let record = BlockRecord {
            pages: block.pages_left,
            frames_length: block.bytes_left,
            ..block.record
        };
        self.sent.blocks += 1;
        Bytes::copy_from_slice(&record.encode())
    }

    /// Ends the range.
    ///
    /// # Errors
    /// When it held less or other than expected.
    pub fn finish(self) -> Result<Sent, ScanError> {
        if self.pending_length > 0 || self.block.is_some() {
            return Err(ScanError("the range ends inside a block"));
        }
        if self.pages_seen != self.expected.pages {
            return Err(ScanError(
                "the range holds another number of pages than it should",
            ));
        }
        if self.range_crc.value() != self.expected.checksum {
            return Err(ScanError("the range holds other pages than it should"));
        }
        Ok(self.sent)
    }
}

fn emit_slice(part: &Bytes, start: usize, end: usize, out: &mut Vec<Bytes>) {
    if start < end {
        out.push(part.slice(start..end));
    }
}

fn copy_head(pieces: &[&[u8]], head: &mut [u8; RECORD_LEN]) -> usize {
    let mut filled = 0;
    for piece in pieces {
        let n = piece.len().min(RECORD_LEN - filled);
        head[filled..filled + n].copy_from_slice(&piece[..n]);
        filled += n;
    }
    filled
}

fn item_crc(head: &[u8; RECORD_LEN], pieces: &[&[u8]]) -> u32 {
    let mut crc = Checksum::default();
    crc.update(&head[..8]);
    let mut header_left = FRAME_HEADER_LEN;
    for piece in pieces {
        let from = header_left.min(piece.len());
        header_left -= from;
        crc.update(&piece[from..]);
    }
    crc.value()
}
