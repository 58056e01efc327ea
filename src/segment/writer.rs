//! Makes a segment out of the runs of many sinks.
//!
//! Pure: runs and commit records in, the object's bytes out, without a copy of any page. Does not:
//! decide when to seal, or upload. Invariant: the image's bytes decode to the image's footer.

use bytes::{Bytes, BytesMut};

use super::blocks::{BlockEntry, Blocks};
use super::footer::{CommitRecord, Footer};
use super::frame::Run;
use super::layout::{BlockRecord, RECORD_LEN, SEGMENT_HEADER_LEN, Trailer, segment_header};
use crate::crc::Checksum;
use crate::id::{ExchangeId, SegmentId, TaskAttempt};

/// A run and the sink that sent it.
#[derive(Debug, Clone)]
pub struct SinkRun {
    /// Who sent it.
    pub sink: TaskAttempt,
    /// What.
    pub run: Run,
}

/// What goes into a segment.
#[derive(Debug, Clone)]
pub struct SegmentDraft {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The segment.
    pub segment: SegmentId,
    /// Wall clock, milliseconds since 1970.
    pub sealed_millis: u64,
    /// Runs, in the order in which they arrived.
    pub runs: Vec<SinkRun>,
    /// Attempts that finish with it.
    pub commits: Vec<CommitRecord>,
}

/// A segment ready to be stored.
#[derive(Debug, Clone)]
pub struct SegmentImage {
    /// The object's bytes, in order.
    pub content: Vec<Bytes>,
    /// What its footer says.
    pub footer: Footer,
    /// Bytes in all.
    pub size: u64,
}

/// Lays a segment out: blocks by partition, then by sink, each sink's runs in the order of arrival.
pub fn write_segment(draft: SegmentDraft) -> SegmentImage {
    let SegmentDraft {
        exchange,
        segment,
        sealed_millis,
        mut runs,
        commits,
    } = draft;
    runs.sort_by_key(|p| (p.run.partition, p.sink));
    let mut sinks: Vec<TaskAttempt> = runs
        .iter()
        .map(|p| p.sink)
        .chain(commits.iter().map(|c| c.attempt))
        .collect();
    sinks.sort_unstable();
    sinks.dedup();

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
        content.extend(group.iter().map(|p| p.run.frames.clone()));
        blocks.push(entry);
    }
    let footer = Footer {
        exchange,
        segment,
        sealed_millis,
        sinks,
        blocks: Blocks::new(&blocks),
        commits,
    };
    let encoded = footer.encode();
    let mut crc = Checksum::default();
    encoded.iter().for_each(|part| crc.update(part));
    let trailer = Trailer {
        footer_offset: offset,
        footer_length: encoded.iter().map(|part| part.len() as u32).sum(),
        footer_crc: crc.value(),
    };
    content.extend(encoded);
    content.push(Bytes::copy_from_slice(&trailer.encode()));
    let size = content.iter().map(|b| b.len() as u64).sum();
    SegmentImage {
        content,
        footer,
        size,
    }
}

fn block_entry(group: &[SinkRun], sinks: &[TaskAttempt], offset: u64) -> BlockEntry {
    let mut crc = Checksum::default();
    let (mut pages, mut frames_length) = (0, 0);
    for piece in group {
        crc.update(&piece.run.crcs);
        pages += piece.run.pages();
        frames_length += piece.run.frames.len() as u32;
    }
    let sink = sinks
        .binary_search(&group[0].sink)
        .expect("every run's sink is in the table");
    BlockEntry {
        partition: group[0].run.partition,
        sink: sink as u32,
        pages,
        frames_length,
        checksum: crc.value(),
        offset,
    }
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
