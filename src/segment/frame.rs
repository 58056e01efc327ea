//! Page frames: the one framing of pages on the wire and in segments.
//!
//! Does: check a batch as it comes from a client and cut it into runs of one partition, without a
//! copy. Does not: know sinks or memory. Invariant: the bytes of a [`Run`] are whole frames whose
//! checksums were right when the run was made.

use bytes::Bytes;

pub use super::layout::FRAME_HEADER_LEN;
use super::layout::u32_at;
use crate::crc::Checksum;

/// Consecutive frames of one partition, each checked.
#[derive(Debug, Clone)]
pub struct Run {
    /// Output partition.
    pub partition: u32,
    /// The frames, headers included.
    pub frames: Bytes,
    /// The `crc` fields of the frames, 4 bytes a page; of one piece of memory for all of a batch.
    pub crcs: Bytes,
}

impl Run {
    /// Pages in it.
    pub fn pages(&self) -> u32 {
        (self.crcs.len() / 4) as u32
    }

    /// Page bytes in it, without frame headers.
    pub fn page_bytes(&self) -> u64 {
        (self.frames.len() - self.pages() as usize * FRAME_HEADER_LEN) as u64
    }
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

/// Bytes of memory that a run takes besides its frames, from the batch to a stored segment that is
/// kept: a [`SinkRun`](super::writer::SinkRun), a block record and its entry in the index, and a slice
/// each of record and frames, which are there twice while they are stored.
const RUN_OVERHEAD: u64 = 256;

impl VerifiedBatch {
    /// Bytes of memory that it takes, until it is forgotten, besides its frames. For pages of some
    /// KiB that is next to nothing; of pages of some bytes, each for another partition, it is most.
    pub fn memory_overhead(&self) -> u64 {
        let checksums = self.pages * size_of::<u32>() as u64;
        self.runs.len() as u64 * RUN_OVERHEAD + checksums
    }
}

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame at all.
    #[error("the batch is empty: it holds one frame at least")]
    Empty,
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

/// The CRC of a frame: over its first 8 bytes and its page.
pub fn frame_crc(head: &[u8], page: &[u8]) -> u32 {
    let mut crc = Checksum::default();
    crc.update(&head[..8]);
    crc.update(page);
    crc.value()
}

/// Writes the header of a frame for the page that follows it: `frame` is [`FRAME_HEADER_LEN`] bytes of
/// room and then the page.
pub fn write_frame_header(frame: &mut [u8], partition: u32) {
    let (head, page) = frame.split_at_mut(FRAME_HEADER_LEN);
    head[0..4].copy_from_slice(&partition.to_le_bytes());
    head[4..8].copy_from_slice(&(page.len() as u32).to_le_bytes());
    let crc = frame_crc(head, page);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a batch that is here as a whole; takes no copy of it. `partitions` is the exchange's
/// count, `max_page_size` in bytes.
///
/// # Errors
/// As [`BatchVerifier::finish`].
pub fn verify_batch(
    batch: Bytes,
    partitions: u32,
    max_page_size: u64,
) -> Result<VerifiedBatch, FrameError> {
    BatchVerifier::new(partitions, max_page_size).finish(batch)
}

/// Checks a batch while it comes: bytes that have just been copied are still in the processor's
/// cache, where a checksum costs half of what it costs after the last byte has come.
#[derive(Debug)]
pub struct BatchVerifier {
    partitions: u32,
    max_page_size: u64,
    /// Bytes that were checked.
    read: usize,
    /// The frame that they end in.
    frame: Option<OpenFrame>,
    runs: Vec<RunShape>,
    crcs: Vec<u8>,
    page_bytes: u64,
    failed: Option<FrameError>,
}

/// A frame whose head is known.
#[derive(Debug)]
struct OpenFrame {
    start: usize,
    end: usize,
    partition: u32,
    expected: u32,
    crc: Checksum,
}

#[derive(Debug)]
struct RunShape {
    partition: u32,
    end: usize,
    pages: usize,
}

impl BatchVerifier {
    /// A check of a batch for an exchange of so many partitions; `max_page_size` in bytes.
    pub fn new(partitions: u32, max_page_size: u64) -> Self {
        Self {
            partitions,
            max_page_size,
            read: 0,
            frame: None,
            runs: Vec::new(),
            crcs: Vec::new(),
            page_bytes: 0,
            failed: None,
        }
    }

    /// Goes on with what has come: all of the batch so far, from its beginning. What is wrong with
    /// it is told at the end.
    pub fn read(&mut self, batch: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.advance(batch).err();
        }
    }

    /// Ends the check of a batch that has come as a whole.
    ///
    /// # Errors
    /// The first frame that is not as docs/protocol.md says, by its offset.
    pub fn finish(mut self, batch: Bytes) -> Result<VerifiedBatch, FrameError> {
        self.read(&batch);
        if let Some(error) = self.failed {
            return Err(error);
        }
        if batch.is_empty() {
            return Err(FrameError::Empty);
        }
        if self.frame.is_some() || self.read < batch.len() {
            let offset = self.frame.map_or(self.read, |frame| frame.start) as u64;
            return Err(FrameError::Truncated { offset });
        }
        let pages = self.crcs.len() as u64 / 4;
        let (mut start, mut crcs) = (0, Bytes::from(self.crcs));
        let runs = self.runs.into_iter().map(|shape| Run {
            partition: shape.partition,
            frames: batch.slice(std::mem::replace(&mut start, shape.end)..shape.end),
            crcs: crcs.split_to(shape.pages * 4),
        });
        Ok(VerifiedBatch {
            runs: runs.collect(),
            pages,
            page_bytes: self.page_bytes,
        })
    }

    fn advance(&mut self, batch: &[u8]) -> Result<(), FrameError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match batch[self.read..].first_chunk() {
                    Some(head) => self.begin(head)?,
                    None => return Ok(()),
                },
            };
            let come = frame.end.min(batch.len());
            frame.crc.update(&batch[self.read..come]);
            self.read = come;
            if come < frame.end {
                self.frame = Some(frame);
                return Ok(());
            }
            self.end(&frame)?;
        }
    }

    fn begin(&mut self, head: &[u8; FRAME_HEADER_LEN]) -> Result<OpenFrame, FrameError> {
        let (start, offset) = (self.read, self.read as u64);
        let (partition, length) = (u32_at(head, 0), u32_at(head, 4));
        if partition >= self.partitions {
            return Err(FrameError::PartitionOutOfRange {
                offset,
                partition,
                partitions: self.partitions,
            });
        }
        if length == 0 {
            return Err(FrameError::EmptyPage { offset });
        }
        if u64::from(length) > self.max_page_size {
            return Err(FrameError::PageTooLarge {
                offset,
                length: u64::from(length),
                limit: self.max_page_size,
            });
        }
        let mut crc = Checksum::default();
        crc.update(&head[..8]);
        self.read += FRAME_HEADER_LEN;
        Ok(OpenFrame {
            start,
            end: self.read + length as usize,
            partition,
            expected: u32_at(head, 8),
            crc,
        })
    }

    fn end(&mut self, frame: &OpenFrame) -> Result<(), FrameError> {
        if frame.crc.value() != frame.expected {
            let offset = frame.start as u64;
            return Err(FrameError::ChecksumMismatch { offset });
        }
        self.crcs.extend_from_slice(&frame.expected.to_le_bytes());
        self.page_bytes += (frame.end - frame.start - FRAME_HEADER_LEN) as u64;
        match self.runs.last_mut() {
            Some(run) if run.partition == frame.partition => {
                run.end = frame.end;
                run.pages += 1;
            }
            _ => self.runs.push(RunShape {
                partition: frame.partition,
                end: frame.end,
                pages: 1,
            }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(partition: u32, page: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(page);
        write_frame_header(&mut frame, partition);
        frame
    }

    #[test]
    fn neighbours_of_one_partition_become_one_run_without_a_copy() {
        let batch: Bytes = [
            framed(1, b"a"),
            framed(1, b"bb"),
            framed(0, b"c"),
            framed(1, b"d"),
        ]
        .concat()
        .into();
        let verified = verify_batch(batch.clone(), 2, 100).unwrap();
        let shape: Vec<_> = verified
            .runs
            .iter()
            .map(|r| (r.partition, r.pages()))
            .collect();
        assert_eq!(shape, [(1, 2), (0, 1), (1, 1)]);
        assert_eq!((verified.pages, verified.page_bytes), (4, 5));
        assert_eq!(verified.runs[0].frames.as_ptr(), batch.as_ptr());
        let joined: Vec<u8> = verified
            .runs
            .iter()
            .flat_map(|r| r.frames.to_vec())
            .collect();
        assert_eq!(joined, batch);
    }

    #[test]
    fn each_fault_is_named_with_its_offset() {
        let check = |bytes: Vec<u8>| verify_batch(bytes.into(), 2, 4).unwrap_err();
        let good = framed(1, b"abc");
        assert_eq!(check(vec![]), FrameError::Empty);
        let with = |next: Vec<u8>| [good.clone(), next].concat();
        assert_eq!(
            check(with(vec![1, 0, 0])),
            FrameError::Truncated { offset: 15 }
        );
        assert_eq!(
            check(with(framed(1, b"abcd")[..15].to_vec())),
            FrameError::Truncated { offset: 15 }
        );
        assert!(matches!(
            check(with(framed(2, b"x"))),
            FrameError::PartitionOutOfRange {
                offset: 15,
                partition: 2,
                partitions: 2
            }
        ));
        assert_eq!(
            check(with(framed(1, b""))),
            FrameError::EmptyPage { offset: 15 }
        );
        assert!(matches!(
            check(with(framed(0, b"12345"))),
            FrameError::PageTooLarge {
                offset: 15,
                length: 5,
                limit: 4
            }
        ));
    }

    fn some_pages() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
        let page = prop::collection::vec(any::<u8>(), 1..40);
        prop::collection::vec((0u32..3, page), 1..6)
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(
            pages in some_pages(),
            position: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let mut batch: Vec<u8> = pages.iter().flat_map(|(p, b)| framed(*p, b)).collect();
            prop_assert!(verify_batch(batch.clone().into(), 3, 100).is_ok());
            let position = position.index(batch.len());
            batch[position] ^= 1 << bit;
            prop_assert!(verify_batch(batch.into(), 3, 100).is_err());
        }

        #[test]
        fn a_batch_that_comes_in_pieces_is_judged_as_a_whole(
            pages in some_pages(),
            pieces in prop::collection::vec(0usize..30, 0..20),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in 0usize..20,
        ) {
            let mut batch: Vec<u8> = pages.iter().flat_map(|(p, b)| framed(*p, b)).collect();
            if let Some((position, value)) = damage {
                let position = position.index(batch.len());
                batch[position] = value;
            }
            batch.truncate(batch.len().saturating_sub(cut.saturating_sub(10)));
            let mut check = BatchVerifier::new(3, 100);
            let mut come = 0;
            for piece in pieces {
                come = (come + piece).min(batch.len());
                check.read(&batch[..come]);
            }
            let pieces = check.finish(batch.clone().into());
            let whole = verify_batch(batch.into(), 3, 100);
            prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = verify_batch(bytes.into(), 3, 100);
        }
    }
}
