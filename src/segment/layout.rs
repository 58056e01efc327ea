//! Offsets and sizes of everything in a segment and on the wire; no other file knows them.
//!
//! Does: define the constants and encode the fixed-size records. Does not: encode the footer
//! (`footer`, `blocks`) or decide anything. Invariant: each offset is derived from the field before
//! it, and each layout ends at its declared length. All integers are little endian.
//! `docs/segment-format.md` has the drawing.

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

const U32: usize = size_of::<u32>();
const U64: usize = size_of::<u64>();

/// Every record ends with the CRC-32C of the bytes before it.
const RECORD_CRC: usize = RECORD_LEN - U32;

mod segment_header {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = MAGIC + super::SEGMENT_MAGIC.len();
    pub const RESERVED: usize = VERSION + super::U32;
    const _: () = assert!(RESERVED + super::U32 == super::SEGMENT_HEADER_LEN);
}

mod frame_header {
    pub const PARTITION: usize = 0;
    pub const LENGTH: usize = PARTITION + super::U32;
    pub const CRC: usize = LENGTH + super::U32;
    const _: () = assert!(CRC + super::U32 == super::FRAME_HEADER_LEN);
}

mod block_record {
    pub const MARKER: usize = 0;
    pub const PARTITION: usize = MARKER + super::U32;
    pub const TASK: usize = PARTITION + super::U32;
    pub const ATTEMPT: usize = TASK + super::U32;
    pub const PAGES: usize = ATTEMPT + super::U32;
    pub const FRAMES_LENGTH: usize = PAGES + super::U32;
    const _: () = assert!(FRAMES_LENGTH + super::U64 == super::RECORD_CRC);
}

mod end_record {
    pub const MARKER: usize = 0;
    pub const BLOCKS: usize = MARKER + super::U32;
    pub const PAGES: usize = BLOCKS + super::U32;
    pub const PAGE_BYTES: usize = PAGES + super::U64;
    pub const RESERVED: usize = PAGE_BYTES + super::U64;
    const _: () = assert!(RESERVED + super::U32 == super::RECORD_CRC);
}

mod trailer {
    pub const FOOTER_OFFSET: usize = 0;
    pub const FOOTER_LENGTH: usize = FOOTER_OFFSET + super::U64;
    pub const FOOTER_CRC: usize = FOOTER_LENGTH + super::U32;
    pub const OBJECT_SIZE: usize = FOOTER_CRC + super::U32;
    pub const VERSION: usize = OBJECT_SIZE + super::U64;
    /// Of the bytes before it.
    pub const CRC: usize = VERSION + super::U32;
    pub const MAGIC: usize = CRC + super::U32;
    const _: () = assert!(MAGIC + super::TRAILER_MAGIC.len() == super::TRAILER_LEN);
}

/// Reads the u32 at `at`. The caller has checked the length.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + U32].try_into().expect("four bytes"))
}

/// Reads the u64 at `at`. The caller has checked the length.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + U64].try_into().expect("eight bytes"))
}

fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + U32].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + U64].copy_from_slice(&value.to_le_bytes());
}

/// The first bytes of a segment.
pub fn segment_header() -> [u8; SEGMENT_HEADER_LEN] {
    use segment_header::{MAGIC, VERSION};
    let mut out = [0; SEGMENT_HEADER_LEN];
    out[MAGIC..VERSION].copy_from_slice(&SEGMENT_MAGIC);
    put_u32(&mut out, VERSION, FORMAT_VERSION);
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
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            partition: u32_at(bytes, frame_header::PARTITION),
            length: u32_at(bytes, frame_header::LENGTH),
            crc: u32_at(bytes, frame_header::CRC),
        }
    }

    /// Encodes a header for `page`, with the right checksum.
    pub fn encode(partition: u32, page: &[u8]) -> [u8; FRAME_HEADER_LEN] {
        let length = u32::try_from(page.len()).expect("limits.max_page_size is at most 1GiB");
        let mut out = [0; FRAME_HEADER_LEN];
        put_u32(&mut out, frame_header::PARTITION, partition);
        put_u32(&mut out, frame_header::LENGTH, length);
        let crc = frame_crc(&out, page);
        put_u32(&mut out, frame_header::CRC, crc);
        out
    }

    /// A checksum that has covered the header and goes on with the page.
    pub fn start_crc(header: &[u8]) -> Checksum {
        let mut crc = Checksum::default();
        crc.update(&header[..frame_header::CRC]);
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
        use block_record::{ATTEMPT, FRAMES_LENGTH, MARKER, PAGES, PARTITION, TASK};
        let mut out = [0; RECORD_LEN];
        put_u32(&mut out, MARKER, BLOCK_MARKER);
        put_u32(&mut out, PARTITION, self.partition);
        put_u32(&mut out, TASK, self.task);
        put_u32(&mut out, ATTEMPT, self.attempt);
        put_u32(&mut out, PAGES, self.pages);
        put_u64(&mut out, FRAMES_LENGTH, self.frames_length);
        with_crc(out)
    }

    /// Decodes a record; `None` if it is damaged or not a block record.
    pub fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        use block_record::{ATTEMPT, FRAMES_LENGTH, MARKER, PAGES, PARTITION, TASK};
        let intact = u32_at(bytes, RECORD_CRC) == checksum(&bytes[..RECORD_CRC]);
        (intact && u32_at(bytes, MARKER) == BLOCK_MARKER).then(|| Self {
            partition: u32_at(bytes, PARTITION),
            task: u32_at(bytes, TASK),
            attempt: u32_at(bytes, ATTEMPT),
            pages: u32_at(bytes, PAGES),
            frames_length: u64_at(bytes, FRAMES_LENGTH),
        })
    }
}

/// The record that ends a complete read and counts what was sent.
pub fn end_record(blocks: u32, pages: u64, page_bytes: u64) -> [u8; RECORD_LEN] {
    let mut out = [0; RECORD_LEN];
    put_u32(&mut out, end_record::MARKER, END_MARKER);
    put_u32(&mut out, end_record::BLOCKS, blocks);
    put_u64(&mut out, end_record::PAGES, pages);
    put_u64(&mut out, end_record::PAGE_BYTES, page_bytes);
    with_crc(out)
}

fn with_crc(mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let crc = checksum(&record[..RECORD_CRC]);
    put_u32(&mut record, RECORD_CRC, crc);
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
        use trailer::{CRC, FOOTER_CRC, FOOTER_LENGTH, FOOTER_OFFSET, MAGIC, OBJECT_SIZE, VERSION};
        let object_size = self.footer_offset + u64::from(self.footer_length) + TRAILER_LEN as u64;
        let mut out = [0; TRAILER_LEN];
        put_u64(&mut out, FOOTER_OFFSET, self.footer_offset);
        put_u32(&mut out, FOOTER_LENGTH, self.footer_length);
        put_u32(&mut out, FOOTER_CRC, self.footer_crc);
        put_u64(&mut out, OBJECT_SIZE, object_size);
        put_u32(&mut out, VERSION, FORMAT_VERSION);
        let crc = checksum(&out[..CRC]);
        put_u32(&mut out, CRC, crc);
        out[MAGIC..].copy_from_slice(&TRAILER_MAGIC);
        out
    }

    /// Decodes the trailer of an object of `size` bytes from its last bytes.
    ///
    /// # Errors
    /// [`FormatError`] if the object does not end with an intact trailer that fits its size.
    pub fn decode(tail: &[u8], size: u64) -> Result<Self, FormatError> {
        use trailer::{CRC, FOOTER_CRC, FOOTER_LENGTH, FOOTER_OFFSET, MAGIC, OBJECT_SIZE, VERSION};
        let Some(bytes) = tail.last_chunk::<TRAILER_LEN>() else {
            return Err(FormatError::TooShort { size });
        };
        if bytes[MAGIC..] != TRAILER_MAGIC {
            return Err(FormatError::NotASegment);
        }
        // Before the checksum: another version may compute it differently.
        let version = u32_at(bytes, VERSION);
        if version != FORMAT_VERSION {
            let supported = FORMAT_VERSION;
            return Err(FormatError::UnknownVersion { version, supported });
        }
        if u32_at(bytes, CRC) != checksum(&bytes[..CRC]) {
            return Err(FormatError::TrailerChecksum);
        }
        let trailer = Self {
            footer_offset: u64_at(bytes, FOOTER_OFFSET),
            footer_length: u32_at(bytes, FOOTER_LENGTH),
            footer_crc: u32_at(bytes, FOOTER_CRC),
        };
        let recorded = u64_at(bytes, OBJECT_SIZE);
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
