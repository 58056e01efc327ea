//! Page frames: the one framing of pages on the wire and in segments.
//!
//! Does: check a batch as it came from a client and cut it into runs of one partition, without a
//! copy. Does not: know sinks or memory. Invariant: the bytes of a [`Run`] are whole frames whose
//! checksums were right when the run was made.

use bytes::Bytes;

use super::Checksum;
pub use super::layout::FRAME_HEADER;
use super::layout::u32_at;

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
        (self.frames.len() - self.pages() as usize * FRAME_HEADER) as u64
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
/// kept: a [`Piece`](super::writer::Piece), a block record and its entry in the index, and a slice
/// each of record and frames, which are there twice while they are stored.
const RUN_OVERHEAD: u64 = 256;

impl VerifiedBatch {
    /// Bytes of memory that it takes, until it is forgotten, besides its frames. For pages of some
    /// KiB that is next to nothing; of pages of some bytes, each for another partition, it is most.
    pub fn overhead(&self) -> u64 {
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

/// Writes the header of a frame for the page that follows it: `frame` is [`FRAME_HEADER`] bytes of
/// room and then the page.
pub fn seal_frame(frame: &mut [u8], partition: u32) {
    let (head, page) = frame.split_at_mut(FRAME_HEADER);
    head[0..4].copy_from_slice(&partition.to_le_bytes());
    head[4..8].copy_from_slice(&(page.len() as u32).to_le_bytes());
    let crc = frame_crc(head, page);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a batch; takes no copy of it. `partitions` is the exchange's count, `max_page_size` in
/// bytes.
///
/// # Errors
/// The first frame that is not as docs/protocol.md says, by its offset.
pub fn verify_batch(
    batch: Bytes,
    partitions: u32,
    max_page_size: u64,
) -> Result<VerifiedBatch, FrameError> {
    if batch.is_empty() {
        return Err(FrameError::Empty);
    }
    let mut verified = VerifiedBatch::default();
    let (mut run_start, mut run_pages) = (0, 0);
    let (mut crcs, mut pages_of_runs) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < batch.len() {
        let frame = check_frame(&batch, at, partitions, max_page_size)?;
        crcs.extend_from_slice(&batch[at + 8..at + 12]);
        run_pages += 1;
        verified.pages += 1;
        verified.page_bytes += frame.length as u64;
        at += FRAME_HEADER + frame.length;
        let run_goes_on = batch.len() >= at + 4 && u32_at(&batch, at) == frame.partition;
        if !run_goes_on {
            verified.runs.push(Run {
                partition: frame.partition,
                frames: batch.slice(run_start..at),
                crcs: Bytes::new(),
            });
            pages_of_runs.push(std::mem::take(&mut run_pages));
            run_start = at;
        }
    }
    let mut crcs = Bytes::from(crcs);
    for (run, pages) in verified.runs.iter_mut().zip(pages_of_runs) {
        run.crcs = crcs.split_to(pages * 4);
    }
    Ok(verified)
}

struct FrameHead {
    partition: u32,
    length: usize,
}

fn check_frame(
    batch: &Bytes,
    at: usize,
    partitions: u32,
    max_page_size: u64,
) -> Result<FrameHead, FrameError> {
    let offset = at as u64;
    let rest = &batch[at..];
    if rest.len() < FRAME_HEADER {
        return Err(FrameError::Truncated { offset });
    }
    let (partition, length) = (u32_at(rest, 0), u32_at(rest, 4) as usize);
    if partition >= partitions {
        return Err(FrameError::PartitionOutOfRange {
            offset,
            partition,
            partitions,
        });
    }
    if length == 0 {
        return Err(FrameError::EmptyPage { offset });
    }
    if length as u64 > max_page_size {
        let length = length as u64;
        return Err(FrameError::PageTooLarge {
            offset,
            length,
            limit: max_page_size,
        });
    }
    let (head, rest) = rest.split_at(FRAME_HEADER);
    let page = rest.get(..length).ok_or(FrameError::Truncated { offset })?;
    if frame_crc(head, page) != u32_at(head, 8) {
        return Err(FrameError::ChecksumMismatch { offset });
    }
    Ok(FrameHead { partition, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(partition: u32, page: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER];
        frame.extend_from_slice(page);
        seal_frame(&mut frame, partition);
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
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = verify_batch(bytes.into(), 3, 100);
        }
    }
}
