//! Lays out a segment from the runs of many sinks. Pure.
//!
//! Does: turn runs and commit records into the object's bytes, without copying pages. Does not:
//! decide when to seal, or upload. Invariant: the image's bytes decode to the image's footer.

use bytes::{Bytes, BytesMut};

use super::blocks::{BlockEntry, Blocks};
use super::footer::{CommitRecord, Footer};
use super::frame::Run;
use super::layout::{BlockRecord, RECORD_LEN, SEGMENT_HEADER_LEN, Trailer, segment_header};
use super::varint::table;
use crate::crc::Checksum;
use crate::id::{ExchangeId, SegmentId, TaskAttempt};

/// A run and the sink that wrote it.
#[derive(Debug, Clone)]
pub struct SinkRun {
    pub sink: TaskAttempt,
    pub run: Run,
}

/// The content of a segment that is to be written.
#[derive(Debug, Clone)]
pub struct SegmentDraft {
    pub exchange: ExchangeId,
    pub segment: SegmentId,
    /// Wall clock time of sealing, milliseconds since 1970.
    pub sealed_millis: u64,
    /// In the order in which they were received.
    pub runs: Vec<SinkRun>,
    pub commits: Vec<CommitRecord>,
}

/// A segment ready to be stored.
#[derive(Debug, Clone)]
pub struct SegmentImage {
    /// The object's bytes, in order.
    pub content: Vec<Bytes>,
    /// Decoded form of the footer in `content`.
    pub footer: Footer,
    /// Sum of the bytes in `content`.
    pub size: u64,
    /// Bytes of the encoded footer.
    pub footer_length: u64,
}

/// Lays out a segment: blocks by partition, then by sink, the runs of each sink in the order in
/// which they were received.
///
/// # Panics
/// If a block or the footer reaches 4 GiB. The bounds of `segment.target_size` and
/// `limits.max_batch_size` keep a segment below that.
pub fn write_segment(draft: SegmentDraft) -> SegmentImage {
    let (mut runs, commits) = (draft.runs, draft.commits);
    runs.sort_by_key(|r| (r.run.partition, r.sink));
    let writers = runs.iter().map(|r| r.sink);
    let sinks = table(writers.chain(commits.iter().map(|c| c.attempt)));

    let groups: Vec<_> = runs
        .chunk_by(|a, b| (a.run.partition, a.sink) == (b.run.partition, b.sink))
        .collect();
    let mut content = Vec::with_capacity(runs.len() + groups.len() + 5);
    content.push(Bytes::copy_from_slice(&segment_header()));
    let mut records = BytesMut::with_capacity(groups.len() * RECORD_LEN);
    let mut blocks = Vec::with_capacity(groups.len());
    let mut offset = SEGMENT_HEADER_LEN as u64;
    for group in groups {
        let entry = block_entry(group, &sinks, offset);
        offset += entry.length();
        records.extend_from_slice(&block_record(&entry, group[0].sink).encode());
        content.push(records.split().freeze());
        content.extend(group.iter().map(|r| r.run.frames.clone()));
        blocks.push(entry);
    }
    let footer = Footer {
        exchange: draft.exchange,
        segment: draft.segment,
        sealed_millis: draft.sealed_millis,
        sinks,
        blocks: Blocks::new(&blocks),
        commits,
    };
    let encoded = footer.encode();
    let mut crc = Checksum::default();
    encoded.iter().for_each(|part| crc.update(part));
    let trailer = Trailer {
        footer_offset: offset,
        footer_length: below_4_gib(encoded.iter().map(Bytes::len).sum()),
        footer_crc: crc.value(),
    };
    content.extend(encoded);
    content.push(Bytes::copy_from_slice(&trailer.encode()));
    let size = content.iter().map(|b| b.len() as u64).sum();
    SegmentImage {
        content,
        footer,
        size,
        footer_length: u64::from(trailer.footer_length),
    }
}

fn block_entry(group: &[SinkRun], sinks: &[TaskAttempt], offset: u64) -> BlockEntry {
    let mut crc = Checksum::default();
    group.iter().for_each(|r| r.run.add_crcs(&mut crc));
    let sink = sinks
        .binary_search(&group[0].sink)
        .expect("every run's sink is in the table");
    BlockEntry {
        partition: group[0].run.partition,
        sink: below_4_gib(sink),
        pages: group.iter().map(|r| r.run.pages).sum(),
        frames_length: below_4_gib(group.iter().map(|r| r.run.frames.len()).sum()),
        checksum: crc.value(),
        offset,
    }
}

/// The formats hold lengths within a segment in 32 bits.
fn below_4_gib(length: usize) -> u32 {
    u32::try_from(length).expect("a segment is smaller than 4 GiB")
}

fn block_record(entry: &BlockEntry, sink: TaskAttempt) -> BlockRecord {
    BlockRecord {
        partition: entry.partition,
        task: sink.task,
        attempt: sink.attempt,
        pages: entry.pages,
        frames_length: u64::from(entry.frames_length),
    }
}
