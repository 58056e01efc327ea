//! Offsets and sizes of everything in a segment and on the wire; nothing else knows them.
//!
//! Owns: constants and the encoding of fixed-size records. Does not own: the footer's variable part
//! (`footer`) or any policy. All integers are little endian. `docs/segment-format.md` draws this.

use crate::crc::checksum;

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"STOPSEG1";
/// Last bytes of a segment.
pub const TRAILER_MAGIC: [u8; 8] = *b"STOPEND1";
/// Version of the segment format that this code writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes before the first block: magic, version, four zero bytes.
pub const SEGMENT_HEADER_LEN: usize = 16;
/// Bytes of the trailer, at the very end.
pub const TRAILER_LEN: usize = 40;
/// Bytes of a page frame before its page.
pub const FRAME_HEADER_LEN: usize = 12;
/// Bytes of a block record, and of an end record.
pub const RECORD_LEN: usize = 32;
/// First word of a block record, where a frame has its partition.
pub const BLOCK_MARKER: u32 = 0xFFFF_FFF0;
/// First word of the end record of a read.
pub const END_MARKER: u32 = 0xFFFF_FFF1;
/// First word of the error record of a read.
pub const ERROR_MARKER: u32 = 0xFFFF_FFF2;

/// Reads the u32 at `at`. The caller has checked the length.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads the u64 at `at`. The caller has checked the length.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The first 16 bytes of a segment.
pub fn segment_header() -> [u8; SEGMENT_HEADER_LEN] {
    let mut out = [0; SEGMENT_HEADER_LEN];
    out[..8].copy_from_slice(&SEGMENT_MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out
}

/// What stands before the page frames of one sink and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRecord {
    /// Output partition of every frame that follows.
    pub partition: u32,
    /// Task partition of the sink.
    pub task: u32,
    /// Attempt of the sink.
    pub attempt: u32,
    /// Frames that follow.
    pub pages: u32,
    /// Bytes of those frames.
    pub frames_length: u64,
}

impl BlockRecord {
    /// The record's 32 bytes.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        out[0..4].copy_from_slice(&BLOCK_MARKER.to_le_bytes());
        out[4..8].copy_from_slice(&self.partition.to_le_bytes());
        out[8..12].copy_from_slice(&self.task.to_le_bytes());
        out[12..16].copy_from_slice(&self.attempt.to_le_bytes());
        out[16..20].copy_from_slice(&self.pages.to_le_bytes());
        out[20..28].copy_from_slice(&self.frames_length.to_le_bytes());
        seal_record(out)
    }

    /// Decodes a record; `None` if it is not an undamaged block record.
    pub fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let intact =
            u32_at(bytes, 28) == checksum(&bytes[..28]) && u32_at(bytes, 0) == BLOCK_MARKER;
        intact.then(|| Self {
            partition: u32_at(bytes, 4),
            task: u32_at(bytes, 8),
            attempt: u32_at(bytes, 12),
            pages: u32_at(bytes, 16),
            frames_length: u64_at(bytes, 20),
        })
    }
}

/// The record that ends a complete read and counts what was sent.
pub fn end_record(blocks: u32, pages: u64, page_bytes: u64) -> [u8; RECORD_LEN] {
    let mut out = [0; RECORD_LEN];
    out[0..4].copy_from_slice(&END_MARKER.to_le_bytes());
    out[4..8].copy_from_slice(&blocks.to_le_bytes());
    out[8..16].copy_from_slice(&pages.to_le_bytes());
    out[16..24].copy_from_slice(&page_bytes.to_le_bytes());
    seal_record(out)
}

fn seal_record(mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let crc = checksum(&record[..28]);
    record[28..32].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The last bytes of a segment, which say where its footer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer begins, and so where the blocks end.
    pub footer_offset: u64,
    /// Bytes of the footer.
    pub footer_length: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
}

impl Trailer {
    /// The trailer's bytes.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let object_length = self.footer_offset + u64::from(self.footer_length) + TRAILER_LEN as u64;
        let mut out = [0; TRAILER_LEN];
        out[0..8].copy_from_slice(&self.footer_offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.footer_length.to_le_bytes());
        out[12..16].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[16..24].copy_from_slice(&object_length.to_le_bytes());
        out[24..28].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let crc = checksum(&out[..28]);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        out[32..40].copy_from_slice(&TRAILER_MAGIC);
        out
    }

    /// Decodes and checks the trailer of an object of `object_size` bytes.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(bytes: &[u8], object_size: u64) -> Result<Self, String> {
        let Some(start) = bytes.len().checked_sub(TRAILER_LEN) else {
            return Err(format!("{object_size} bytes are too few for a segment"));
        };
        let bytes = &bytes[start..];
        if bytes[32..40] != TRAILER_MAGIC {
            return Err("it does not end as a segment does".into());
        }
        let version = u32_at(bytes, 24);
        if version != FORMAT_VERSION {
            return Err(format!(
                "it has format version {version}; this daemon reads version {FORMAT_VERSION}: \
                 upgrade the daemons together"
            ));
        }
        if u32_at(bytes, 28) != checksum(&bytes[..28]) {
            return Err("its trailer does not fit its checksum".into());
        }
        let trailer = Self {
            footer_offset: u64_at(bytes, 0),
            footer_length: u32_at(bytes, 8),
            footer_crc: u32_at(bytes, 12),
        };
        let length = trailer
            .footer_offset
            .checked_add(u64::from(trailer.footer_length))
            .and_then(|end| end.checked_add(TRAILER_LEN as u64));
        if length != Some(object_size) || u64_at(bytes, 16) != object_size {
            return Err(format!(
                "it is {object_size} bytes long but was written with {}",
                u64_at(bytes, 16)
            ));
        }
        if trailer.footer_offset < SEGMENT_HEADER_LEN as u64 {
            return Err("its footer begins inside its header".into());
        }
        Ok(trailer)
    }
}
