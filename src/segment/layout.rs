//! Offsets and sizes of everything in a segment and on the wire; no other file contains them.
//!
//! Does: define the constants and encode the fixed-size records. Does not: encode the footer
//! (`footer`, `blocks`) or decide anything. Invariant: fields are written and read in the same
//! order, without gaps; none reaches beyond the declared length. All integers are little endian.
//! `docs/segment-format.md` has a diagram.

use bytes::{Buf as _, BufMut as _};

use super::error::FormatError;
use crate::crc::{Checksum, checksum};

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"STOPSEG1";
/// Last bytes of a segment.
pub const TRAILER_MAGIC: [u8; 8] = *b"STOPEND1";
/// The segment format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes before the first block: magic, version, four zero bytes.
pub const SEGMENT_HEADER_LEN: usize = 16;
/// Bytes of the trailer, at the very end.
pub const TRAILER_LEN: usize = 40;
/// Bytes of a page frame before its page.
pub const FRAME_HEADER_LEN: usize = 12;
/// Bytes of a block, end or error record.
pub const RECORD_LEN: usize = 32;
/// First word of a block record, where a frame has its partition.
pub const BLOCK_MARKER: u32 = 0xFFFF_FFF0;
/// First word of the end record of a read.
pub const END_MARKER: u32 = 0xFFFF_FFF1;
/// First word of the error record of a read.
pub const ERROR_MARKER: u32 = 0xFFFF_FFF2;

/// Every record ends with the CRC-32C of the bytes before it.
const RECORD_CRC: usize = RECORD_LEN - size_of::<u32>();
/// A frame's header ends with its CRC-32C.
const FRAME_CRC: usize = FRAME_HEADER_LEN - size_of::<u32>();
/// The trailer ends with the CRC-32C of the bytes before it, and the magic.
const TRAILER_CRC: usize = TRAILER_LEN - TRAILER_MAGIC.len() - size_of::<u32>();

const _: () = {
    let word = size_of::<u32>();
    assert!(SEGMENT_HEADER_LEN == SEGMENT_MAGIC.len() + 2 * word);
    assert!(FRAME_HEADER_LEN == 3 * word);
    assert!(RECORD_CRC.is_multiple_of(word));
};

/// Whether an item is a record of the kind that begins with `marker`. The caller has checked the
/// length.
pub fn has_marker(item: &[u8], marker: u32) -> bool {
    item[..size_of::<u32>()] == marker.to_le_bytes()
}

/// The first bytes of a segment.
pub fn segment_header() -> [u8; SEGMENT_HEADER_LEN] {
    let mut out = [0; SEGMENT_HEADER_LEN];
    let mut fields = &mut out[..];
    fields.put_slice(&SEGMENT_MAGIC);
    fields.put_u32_le(FORMAT_VERSION);
    out
}

/// The header of a page frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Output partition.
    pub partition: u32,
    pub length: u32,
    /// CRC-32C of partition, length and page.
    pub crc: u32,
}

impl FrameHeader {
    /// Decodes the header at the front of `bytes`, of which there are at least
    /// [`FRAME_HEADER_LEN`].
    pub fn decode(mut bytes: &[u8]) -> Self {
        Self {
            partition: bytes.get_u32_le(),
            length: bytes.get_u32_le(),
            crc: bytes.get_u32_le(),
        }
    }

    /// Encodes a header for `page`, with its checksum.
    pub fn encode(partition: u32, page: &[u8]) -> [u8; FRAME_HEADER_LEN] {
        let length = u32::try_from(page.len()).expect("limits.max_page_size is at most 1GiB");
        let mut out = [0; FRAME_HEADER_LEN];
        let mut fields = &mut out[..];
        fields.put_u32_le(partition);
        fields.put_u32_le(length);
        let crc = frame_crc(&out, page);
        (&mut out[FRAME_CRC..]).put_u32_le(crc);
        out
    }

    /// A checksum that has covered the header and continues with the page.
    pub fn start_crc(header: &[u8]) -> Checksum {
        let mut crc = Checksum::default();
        crc.update(&header[..FRAME_CRC]);
        crc
    }
}

/// The CRC of a frame: over its header without the CRC field, and its page.
pub fn frame_crc(header: &[u8], page: &[u8]) -> u32 {
    let mut crc = FrameHeader::start_crc(header);
    crc.update(page);
    crc.value()
}

/// What precedes the page frames of one sink and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRecord {
    /// Output partition of every frame that follows.
    pub partition: u32,
    /// Task partition of the sink.
    pub task: u32,
    /// Attempt of the sink.
    pub attempt: u32,
    /// Number of frames that follow.
    pub pages: u32,
    /// Bytes of those frames.
    pub frames_length: u64,
}

impl BlockRecord {
    /// Encodes the record.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        let mut fields = &mut out[..RECORD_CRC];
        fields.put_u32_le(BLOCK_MARKER);
        fields.put_u32_le(self.partition);
        fields.put_u32_le(self.task);
        fields.put_u32_le(self.attempt);
        fields.put_u32_le(self.pages);
        fields.put_u64_le(self.frames_length);
        with_crc(out)
    }

    /// Decodes a record; `None` if it is damaged or not a block record.
    pub fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let (mut fields, mut crc) = bytes.split_at(RECORD_CRC);
        let intact = crc.get_u32_le() == checksum(fields);
        (fields.get_u32_le() == BLOCK_MARKER && intact).then(|| Self {
            partition: fields.get_u32_le(),
            task: fields.get_u32_le(),
            attempt: fields.get_u32_le(),
            pages: fields.get_u32_le(),
            frames_length: fields.get_u64_le(),
        })
    }
}

/// The record that ends a complete read and counts what was sent.
pub fn end_record(blocks: u32, pages: u64, page_bytes: u64) -> [u8; RECORD_LEN] {
    let mut out = [0; RECORD_LEN];
    let mut fields = &mut out[..RECORD_CRC];
    fields.put_u32_le(END_MARKER);
    fields.put_u32_le(blocks);
    fields.put_u64_le(pages);
    fields.put_u64_le(page_bytes);
    with_crc(out)
}

fn with_crc(mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let crc = checksum(&record[..RECORD_CRC]);
    (&mut record[RECORD_CRC..]).put_u32_le(crc);
    record
}

/// The last bytes of a segment, which locate its footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the blocks end and the footer begins.
    pub footer_offset: u64,
    /// Bytes of the footer.
    pub footer_length: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
}

impl Trailer {
    /// Encodes the trailer.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        let mut fields = &mut out[..TRAILER_CRC];
        fields.put_u64_le(self.footer_offset);
        fields.put_u32_le(self.footer_length);
        fields.put_u32_le(self.footer_crc);
        fields.put_u64_le(self.footer_offset + u64::from(self.footer_length) + TRAILER_LEN as u64);
        fields.put_u32_le(FORMAT_VERSION);
        let crc = checksum(&out[..TRAILER_CRC]);
        let mut end = &mut out[TRAILER_CRC..];
        end.put_u32_le(crc);
        end.put_slice(&TRAILER_MAGIC);
        out
    }

    /// Decodes the trailer of an object of `size` bytes from its last bytes.
    ///
    /// # Errors
    /// [`FormatError`] if the object does not end with an intact trailer that fits its size.
    pub fn decode(tail: &[u8], size: u64) -> Result<Self, FormatError> {
        let Some(bytes) = tail.last_chunk::<TRAILER_LEN>() else {
            return Err(FormatError::TooShort { size });
        };
        let (mut fields, mut end) = bytes.split_at(TRAILER_CRC);
        let intact = end.get_u32_le() == checksum(fields);
        if end != TRAILER_MAGIC {
            return Err(FormatError::NotASegment);
        }
        let trailer = Self {
            footer_offset: fields.get_u64_le(),
            footer_length: fields.get_u32_le(),
            footer_crc: fields.get_u32_le(),
        };
        let recorded = fields.get_u64_le();
        // Checked before the checksum, which another version may compute differently.
        let version = fields.get_u32_le();
        if version != FORMAT_VERSION {
            let supported = FORMAT_VERSION;
            return Err(FormatError::UnknownVersion { version, supported });
        }
        if !intact {
            return Err(FormatError::TrailerChecksum);
        }
        let end = trailer
            .footer_offset
            .checked_add(u64::from(trailer.footer_length) + TRAILER_LEN as u64);
        if end != Some(size) || recorded != size {
            return Err(FormatError::SizeMismatch { size, recorded });
        }
        let footer_offset = trailer.footer_offset;
        if footer_offset < SEGMENT_HEADER_LEN as u64 {
            return Err(FormatError::FooterInHeader { footer_offset });
        }
        Ok(trailer)
    }
}
