//! The format of pages, blocks and segments: bytes in, bytes out, no I/O.
//!
//! `docs/segment-format.md` has a diagram; [`layout`] is the only file that contains offsets.
//! Invariant: what [`writer`] writes, [`footer`] and [`scan`] read back; anything else is refused
//! with a reason.
//!
//! ```
//! use stopover::id::{DaemonId, SegmentId, TaskAttempt};
//! use stopover::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
//! use stopover::segment::scan::{Expected, PageFormat, Scanner};
//! use stopover::segment::writer::{SegmentDraft, SinkRun, write_segment};
//!
//! let mut frame = vec![0; FRAME_HEADER_LEN];
//! frame.extend_from_slice(b"a page");
//! write_frame_header(&mut frame, 7);
//! let batch = verify_batch(frame.into(), 50, 1 << 20)?;
//! let sink = TaskAttempt::new(0, 0)?;
//! let runs = batch.runs.into_iter().map(|run| SinkRun { sink, run });
//! let image = write_segment(SegmentDraft {
//!     exchange: "query-1".parse()?,
//!     segment: SegmentId { daemon: DaemonId(1), sequence: 0 },
//!     sealed_millis: 0,
//!     runs: runs.collect(),
//!     commits: Vec::new(),
//! });
//!
//! // The object has one block, which can be scanned in parts of any size.
//! let object = bytes::Bytes::from(image.content.concat());
//! let block = image.footer.blocks.iter().next().unwrap();
//! let expected = Expected {
//!     partition: 7,
//!     pages: 1,
//!     checksum: stopover::crc::checksum(&block.checksum.to_le_bytes()),
//! };
//! let mut scanner = Scanner::new(expected, PageFormat::Raw, 0);
//! let mut pages = Vec::new();
//! let (start, end) = (block.offset as usize, (block.offset + block.length()) as usize);
//! scanner.push(object.slice(start..start + 40), &mut pages)?;
//! scanner.push(object.slice(start + 40..end), &mut pages)?;
//! assert_eq!(scanner.finish()?.pages, 1);
//! assert_eq!(pages.concat(), b"a page");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod blocks;
pub mod error;
pub mod footer;
pub mod frame;
pub mod layout;
pub mod scan;
pub mod varint;
pub mod writer;

#[cfg(test)]
mod tests;
