//! Page frames: the one framing of pages on the wire and in segments.

use bytes::Bytes;

/// Consecutive frames of one partition, each checked.
#[derive(Debug, Clone)]
pub struct Run {
    /// Output partition.
    pub partition: u32,
    /// Pages in it.
    pub pages: u32,
    /// The frames, headers included.
    pub frames: Bytes,
}

/// A batch whose every page fits its checksum and whose every partition exists.
#[derive(Debug, Clone, Default)]
pub struct VerifiedBatch {
    /// The frames as runs of one partition each, in the order in which they came.
    pub runs: Vec<Run>,
    /// Pages.
    pub pages: u64,
    /// Bytes of pages, without frame headers.
    pub page_bytes: u64,
}

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end inside a frame.
    #[error("the batch ends inside the frame at byte {offset}")]
    Truncated {
        /// Where the frame begins.
        offset: u64,
    },
    /// The partition does not exist.
    #[error(
        "the frame at byte {offset} is for partition {partition}, but the exchange has {partitions}"
    )]
    PartitionOutOfRange {
        /// Where the frame begins.
        offset: u64,
        /// What it says.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A page without bytes.
    #[error("the frame at byte {offset} has no page bytes")]
    EmptyPage {
        /// Where the frame begins.
        offset: u64,
    },
    /// A page over the limit.
    #[error(
        "the frame at byte {offset} has a page of {length} bytes; limits.max_page_size is {limit}"
    )]
    PageTooLarge {
        /// Where the frame begins.
        offset: u64,
        /// Bytes of the page.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not what was sent.
    #[error("the page of the frame at byte {offset} does not fit its CRC-32C")]
    ChecksumMismatch {
        /// Where the frame begins.
        offset: u64,
    },
}

/// Bytes before a page.
pub const FRAME_HEADER: usize = 12;

/// Checks a batch; takes no copy of it.
pub fn verify_batch(
    _batch: Bytes,
    _partitions: u32,
    _max_page_size: u64,
) -> Result<VerifiedBatch, FrameError> {
    unimplemented!()
}

/// Writes the header of a frame for the page that follows it in `frame`: `frame` is
/// [`FRAME_HEADER`] bytes of room and then the page.
pub fn seal_frame(_frame: &mut [u8], _partition: u32) {
    unimplemented!()
}
