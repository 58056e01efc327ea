//! Page frames: the one framing of pages on the wire and in segments.
//!
//! Does: verify a batch while it is received, cut it into runs of one partition, without a copy,
//! and compute how much memory that needs. Does not: know sinks or reserve memory. Invariant: the
//! bytes of a [`Run`] are whole frames whose checksums matched when the run was made.

use bytes::Bytes;

pub use super::layout::FRAME_HEADER_LEN;
use super::layout::FrameHeader;
use crate::crc::Checksum;
use crate::human::count;

/// Bytes of a frame's checksum.
const CRC_LEN: usize = size_of::<u32>();
/// Number of `crc` fields that are gathered before a checksum is updated with them: one call for
/// each page would cost more.
const CRCS_AT_A_TIME: usize = 256;

/// Consecutive frames of one partition in a batch, each verified.
#[derive(Debug, Clone)]
pub struct Run {
    pub partition: u32,
    /// Number of frames.
    pub pages: u32,
    /// The frames, headers included; a slice of the batch.
    pub frames: Bytes,
}

impl Run {
    /// Updates a checksum with the `crc` fields of the frames, in order.
    pub fn add_crcs(&self, crc: &mut Checksum) {
        let mut fields = [0; CRCS_AT_A_TIME * CRC_LEN];
        let (mut filled, mut at) = (0, 0);
        while at < self.frames.len() {
            let header = FrameHeader::decode(&self.frames[at..]);
            fields[filled..filled + CRC_LEN].copy_from_slice(&header.crc.to_le_bytes());
            filled += CRC_LEN;
            at += FRAME_HEADER_LEN + header.length as usize;
            if filled == fields.len() {
                crc.update(&fields);
                filled = 0;
            }
        }
        crc.update(&fields[..filled]);
    }
}

/// A batch in which every checksum matches and every partition exists.
#[derive(Debug, Clone, Default)]
pub struct VerifiedBatch {
    /// All frames, in the order in which they were received.
    pub runs: Vec<Run>,
    pub pages: u64,
    /// Page bytes, without frame headers.
    pub page_bytes: u64,
    /// The `crc` fields of all frames, in order.
    pub crcs: Vec<u8>,
}

/// Memory that any batch needs besides its frames: its buffer's owner, its reservation, its entry
/// in the open segment.
const BATCH_OVERHEAD: u64 = 512;
/// The most memory that a run needs at any time from the batch to the hot segment. The peak is the
/// layout of the segment: a [`SinkRun`](super::writer::SinkRun), a block record, its entry in the
/// index, the slices of record and frames, and vectors that grow. During the upload the slices
/// exist twice.
const RUN_OVERHEAD: u64 = 256;
/// The `crc` field of a page, in a vector that grows.
const PAGE_OVERHEAD: u64 = 3 * CRC_LEN as u64;

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the batch is empty: send at least one frame")]
    Empty,
    #[error("the batch ends inside the frame at byte {offset}")]
    Truncated { offset: u64 },
    #[error(
        "the frame at byte {offset} is for partition {partition}, but the exchange has {partitions}"
    )]
    PartitionOutOfRange {
        offset: u64,
        partition: u32,
        partitions: u32,
    },
    #[error("the frame at byte {offset} has no page bytes")]
    EmptyPage { offset: u64 },
    #[error(
        "the frame at byte {offset} has a page of {}; limits.max_page_size is {limit}",
        count(*length, "byte")
    )]
    PageTooLarge {
        offset: u64,
        length: u64,
        limit: u64,
    },
    #[error("CRC-32C mismatch in the frame at byte {offset}")]
    ChecksumMismatch { offset: u64 },
}

/// Writes the header of a frame: `frame` has [`FRAME_HEADER_LEN`] bytes for it, then the page.
pub fn write_frame_header(frame: &mut [u8], partition: u32) {
    let (header, page) = frame.split_at_mut(FRAME_HEADER_LEN);
    header.copy_from_slice(&FrameHeader::encode(partition, page));
}

/// Verifies a batch that has been received completely, without copying it. `partitions` is the
/// exchange's count, `max_page_size` is in bytes.
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

/// Verifies a batch while it is received. Bytes that have just been copied are still in the
/// processor's cache, where a checksum costs half of what it costs after the whole batch.
#[derive(Debug)]
pub struct BatchVerifier {
    partitions: u32,
    max_page_size: u64,
    /// Bytes that have been verified.
    verified: usize,
    /// The frame in which they end.
    frame: Option<OpenFrame>,
    runs: Vec<RunShape>,
    crcs: Vec<u8>,
    failed: Option<FrameError>,
}

/// A frame whose header has been received.
#[derive(Debug)]
struct OpenFrame {
    start: usize,
    end: usize,
    header: FrameHeader,
    crc: Checksum,
}

#[derive(Debug)]
struct RunShape {
    partition: u32,
    pages: u32,
    end: usize,
}

impl BatchVerifier {
    /// A verifier for a batch of an exchange with this many partitions; `max_page_size` in bytes.
    pub fn new(partitions: u32, max_page_size: u64) -> Self {
        Self {
            partitions,
            max_page_size,
            verified: 0,
            frame: None,
            runs: Vec::new(),
            crcs: Vec::new(),
            failed: None,
        }
    }

    /// Verifies what has been received since the last call. `batch` is everything so far, from the
    /// beginning. [`BatchVerifier::finish`] reports a failure.
    pub fn update(&mut self, batch: &[u8]) {
        if self.failed.is_none()
            && let Err(error) = self.advance(batch)
        {
            self.failed = Some(error);
            (self.runs, self.crcs) = (Vec::new(), Vec::new());
        }
    }

    /// Bytes that have been verified.
    pub fn verified(&self) -> u64 {
        self.verified as u64
    }

    /// Bytes of memory that the batch needs besides its frames, as far as it has been verified, for
    /// as long as it is buffered or hot. Negligible for pages of some KiB; twenty times the frames
    /// if each page has one byte and another partition than the one before.
    pub fn memory_overhead(&self) -> u64 {
        let (runs, pages) = (self.runs.len(), self.crcs.len() / CRC_LEN);
        BATCH_OVERHEAD + runs as u64 * RUN_OVERHEAD + pages as u64 * PAGE_OVERHEAD
    }

    /// Verifies the rest of a batch that has been received completely, and cuts it into runs.
    ///
    /// # Errors
    /// [`FrameError`] for the first frame that breaks a rule of docs/protocol.md.
    pub fn finish(mut self, batch: Bytes) -> Result<VerifiedBatch, FrameError> {
        self.update(&batch);
        if let Some(error) = self.failed {
            return Err(error);
        }
        if batch.is_empty() {
            return Err(FrameError::Empty);
        }
        if self.frame.is_some() || self.verified < batch.len() {
            let offset = self.frame.map_or(self.verified, |frame| frame.start) as u64;
            return Err(FrameError::Truncated { offset });
        }
        let pages = (self.crcs.len() / CRC_LEN) as u64;
        let mut start = 0;
        let runs = self.runs.into_iter().map(|shape| Run {
            partition: shape.partition,
            pages: shape.pages,
            frames: batch.slice(std::mem::replace(&mut start, shape.end)..shape.end),
        });
        Ok(VerifiedBatch {
            runs: runs.collect(),
            pages,
            page_bytes: batch.len() as u64 - pages * FRAME_HEADER_LEN as u64,
            crcs: self.crcs,
        })
    }

    fn advance(&mut self, batch: &[u8]) -> Result<(), FrameError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match batch[self.verified..].first_chunk() {
                    Some(header) => self.begin(header)?,
                    None => return Ok(()),
                },
            };
            let end = frame.end.min(batch.len());
            frame.crc.update(&batch[self.verified..end]);
            self.verified = end;
            if end < frame.end {
                self.frame = Some(frame);
                return Ok(());
            }
            self.end(&frame)?;
        }
    }

    fn begin(&mut self, bytes: &[u8; FRAME_HEADER_LEN]) -> Result<OpenFrame, FrameError> {
        let (start, offset) = (self.verified, self.verified as u64);
        let header = FrameHeader::decode(bytes);
        let (partition, partitions) = (header.partition, self.partitions);
        let (length, limit) = (u64::from(header.length), self.max_page_size);
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
        if length > limit {
            return Err(FrameError::PageTooLarge {
                offset,
                length,
                limit,
            });
        }
        self.verified += FRAME_HEADER_LEN;
        Ok(OpenFrame {
            start,
            end: self.verified + header.length as usize,
            header,
            crc: FrameHeader::start_crc(bytes),
        })
    }

    fn end(&mut self, frame: &OpenFrame) -> Result<(), FrameError> {
        let FrameHeader { partition, crc, .. } = frame.header;
        if frame.crc.value() != crc {
            let offset = frame.start as u64;
            return Err(FrameError::ChecksumMismatch { offset });
        }
        self.crcs.extend_from_slice(&crc.to_le_bytes());
        match self.runs.last_mut() {
            Some(run) if run.partition == partition => {
                run.end = frame.end;
                run.pages += 1;
            }
            _ => self.runs.push(RunShape {
                partition,
                pages: 1,
                end: frame.end,
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
    fn adjacent_frames_of_one_partition_become_one_run_without_a_copy() {
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
            .map(|r| (r.partition, r.pages))
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

    #[test]
    fn what_is_verified_of_a_batch_and_what_it_needs_grow_as_it_arrives() {
        let batch = [framed(1, b"abc"), framed(1, b"de"), framed(0, b"f")].concat();
        let mut verifier = BatchVerifier::new(2, 100);
        let needs = |runs, pages| BATCH_OVERHEAD + runs * RUN_OVERHEAD + pages * PAGE_OVERHEAD;
        for (received, verified, overhead) in [
            (0, 0, needs(0, 0)),
            (5, 0, needs(0, 0)),
            (13, 13, needs(0, 0)),
            (15, 15, needs(1, 1)),
            (29, 29, needs(1, 2)),
            (batch.len(), 42, needs(2, 3)),
        ] {
            verifier.update(&batch[..received]);
            let found = (verifier.verified(), verifier.memory_overhead());
            assert_eq!(found, (verified, overhead), "{received} bytes");
        }
    }

    fn some_pages() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
        let page = prop::collection::vec(any::<u8>(), 1..40);
        prop::collection::vec((0u32..3, page), 1..6)
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_detected(
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
        fn a_batch_received_in_pieces_is_verified_like_a_whole_one(
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
            let mut received = 0;
            for piece in pieces {
                received = (received + piece).min(batch.len());
                check.update(&batch[..received]);
            }
            let pieces = check.finish(batch.clone().into());
            let whole = verify_batch(batch.into(), 3, 100);
            prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
        }

        #[test]
        fn the_checksum_of_a_run_is_that_of_its_crc_fields(page in 1usize..40, pages in 1u32..600) {
            let batch: Vec<u8> = (0..pages).flat_map(|n| framed(0, &vec![n as u8; page])).collect();
            let batch = verify_batch(batch.into(), 1, 100).unwrap();
            let mut crc = Checksum::default();
            batch.runs[0].add_crcs(&mut crc);
            prop_assert_eq!(crc.value(), crate::crc::checksum(&batch.crcs));
        }

        #[test]
        fn verifying_any_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = verify_batch(bytes.into(), 3, 100);
        }
    }
}
