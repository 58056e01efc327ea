//! The footer of a segment: its index of blocks and the commit records of the sinks that finish
//! with it.
//!
//! Does: encode and decode, with every number checked against the others. Does not: fetch bytes.
//! Invariant: in a decoded [`Footer`] blocks lie one after another from the header to the footer,
//! sorted by partition, and every sink that is named exists.

use super::layout::{FRAME_HEADER, RECORD, SEGMENT_HEADER, Trailer};
use super::varint::{Cursor, DecodeError, put, put_text};
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentId, TaskAttempt};

/// What an attempt holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Pages.
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
    /// CRC-32C over the frames' `crc` fields, in the order in which the pages came.
    pub checksum: u32,
}

/// Where the pages of one sink and partition lie in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// Output partition.
    pub partition: u32,
    /// Index into [`Footer::sinks`].
    pub sink: u32,
    /// Pages.
    pub pages: u32,
    /// Bytes of page frames, without the block record.
    pub frames_length: u32,
    /// CRC-32C over the frames' `crc` fields.
    pub checksum: u32,
    /// Where its block record begins in the segment.
    pub offset: u64,
}

impl BlockEntry {
    /// Bytes of the block with its record.
    pub fn length(&self) -> u64 {
        RECORD as u64 + u64::from(self.frames_length)
    }

    /// Page bytes.
    pub fn page_bytes(&self) -> u64 {
        u64::from(self.frames_length) - u64::from(self.pages) * FRAME_HEADER as u64
    }
}

/// That an attempt finished, what it holds and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// Which attempt.
    pub attempt: TaskAttempt,
    /// What it holds.
    pub totals: Totals,
    /// Earlier segments of the same daemon that hold blocks of it, in order. This segment is not
    /// among them, whether it holds blocks of the attempt or not.
    pub predecessors: Vec<(BaseName, u64)>,
}

/// Everything that a footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The exchange, so that a misplaced segment is noticed.
    pub exchange: ExchangeId,
    /// The segment, likewise.
    pub segment: SegmentId,
    /// Wall clock when it was sealed, milliseconds since 1970; for people only.
    pub sealed_millis: u64,
    /// The sinks that have blocks or commit records here.
    pub sinks: Vec<TaskAttempt>,
    /// All blocks, by partition, then by sink.
    pub blocks: Vec<BlockEntry>,
    /// Attempts that finish with this segment.
    pub commits: Vec<CommitRecord>,
}

impl Footer {
    /// Where the blocks end and the footer begins.
    pub fn blocks_end(&self) -> u64 {
        self.blocks
            .last()
            .map_or(SEGMENT_HEADER as u64, |b| b.offset + b.length())
    }

    /// The footer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.blocks.len() * 12 + self.commits.len() * 32);
        put_text(&mut out, self.exchange.as_str());
        out.extend_from_slice(&self.segment.daemon.0.to_le_bytes());
        put(&mut out, self.segment.sequence);
        put(&mut out, self.sealed_millis);
        put(&mut out, self.sinks.len() as u64);
        for sink in &self.sinks {
            put(&mut out, u64::from(sink.task));
            put(&mut out, u64::from(sink.attempt));
        }
        self.encode_blocks(&mut out);
        self.encode_commits(&mut out);
        out
    }

    fn encode_blocks(&self, out: &mut Vec<u8>) {
        let groups: Vec<_> = self
            .blocks
            .chunk_by(|a, b| a.partition == b.partition)
            .collect();
        put(out, groups.len() as u64);
        let mut next_partition = 0;
        for group in groups {
            put(out, u64::from(group[0].partition - next_partition));
            next_partition = group[0].partition + 1;
            put(out, group.len() as u64);
            for block in group {
                put(out, u64::from(block.sink));
                put(out, u64::from(block.pages));
                put(out, u64::from(block.frames_length));
                out.extend_from_slice(&block.checksum.to_le_bytes());
            }
        }
    }

    fn encode_commits(&self, out: &mut Vec<u8>) {
        let mut bases: Vec<&BaseName> = self
            .commits
            .iter()
            .flat_map(|c| c.predecessors.iter().map(|p| &p.0))
            .collect();
        bases.sort();
        bases.dedup();
        put(out, bases.len() as u64);
        for base in &bases {
            put_text(out, base.as_str());
        }
        put(out, self.commits.len() as u64);
        for commit in &self.commits {
            let sink = self.sinks.iter().position(|s| *s == commit.attempt);
            put(out, sink.expect("a committed sink is in the table") as u64);
            put(out, commit.totals.batches);
            put(out, commit.totals.pages);
            put(out, commit.totals.bytes);
            out.extend_from_slice(&commit.totals.checksum.to_le_bytes());
            put(out, commit.predecessors.len() as u64);
            for (base, sequence) in &commit.predecessors {
                put(
                    out,
                    bases.binary_search(&base).expect("just collected") as u64,
                );
                put(out, *sequence);
            }
        }
    }

    /// Decodes the footer whose place the trailer gives.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(bytes: &[u8], trailer: &Trailer) -> Result<Self, String> {
        if bytes.len() != trailer.footer_length as usize {
            return Err("its footer is not as long as its trailer says".into());
        }
        if super::checksum(bytes) != trailer.footer_crc {
            return Err("its footer does not fit its checksum".into());
        }
        let footer = decode_fields(bytes).map_err(|e| format!("its footer is malformed: {e}"))?;
        if footer.blocks_end() != trailer.footer_offset {
            return Err("its blocks do not end where its footer begins".into());
        }
        Ok(footer)
    }
}

fn decode_fields(bytes: &[u8]) -> Result<Footer, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let exchange = cursor
        .text()?
        .parse()
        .map_err(|_| DecodeError("the exchange id is not valid"))?;
    let daemon = DaemonId(cursor.fixed_u64()?);
    let segment = SegmentId {
        daemon,
        sequence: cursor.u64()?,
    };
    let sealed_millis = cursor.u64()?;
    let mut sinks = Vec::with_capacity(cursor.count(2)?);
    for _ in 0..sinks.capacity() {
        let (task, attempt) = (cursor.u32()?, cursor.u32()?);
        sinks
            .push(TaskAttempt::new(task, attempt).map_err(|_| DecodeError("a sink is not valid"))?);
    }
    let blocks = decode_blocks(&mut cursor, sinks.len() as u32)?;
    let commits = decode_commits(&mut cursor, &sinks)?;
    cursor.finish()?;
    Ok(Footer {
        exchange,
        segment,
        sealed_millis,
        sinks,
        blocks,
        commits,
    })
}

fn decode_blocks(cursor: &mut Cursor<'_>, sinks: u32) -> Result<Vec<BlockEntry>, DecodeError> {
    let mut blocks = Vec::new();
    let mut offset = SEGMENT_HEADER as u64;
    let mut next_partition = 0u32;
    for _ in 0..cursor.count(9)? {
        let partition = next_partition
            .checked_add(cursor.u32()?)
            .filter(|p| *p < crate::id::PARTITION_MARKERS)
            .ok_or(DecodeError("a partition is out of range"))?;
        next_partition = partition + 1;
        for _ in 0..cursor.count(7)? {
            let block = BlockEntry {
                partition,
                sink: cursor.u32()?,
                pages: cursor.u32()?,
                frames_length: cursor.u32()?,
                checksum: cursor.fixed_u32()?,
                offset,
            };
            let least = u64::from(block.pages) * (FRAME_HEADER as u64 + 1);
            if block.sink >= sinks || block.pages == 0 || u64::from(block.frames_length) < least {
                return Err(DecodeError("a block's numbers contradict each other"));
            }
            offset += block.length();
            blocks.push(block);
        }
    }
    Ok(blocks)
}

fn decode_commits(
    cursor: &mut Cursor<'_>,
    sinks: &[TaskAttempt],
) -> Result<Vec<CommitRecord>, DecodeError> {
    let mut bases = Vec::new();
    for _ in 0..cursor.count(2)? {
        let base = cursor.text()?.parse();
        bases.push(base.map_err(|_| DecodeError("a base directory's name is not valid"))?);
    }
    let mut commits = Vec::new();
    for _ in 0..cursor.count(9)? {
        let sink = cursor.u32()? as usize;
        let attempt = *sinks
            .get(sink)
            .ok_or(DecodeError("a commit names no sink"))?;
        let totals = Totals {
            batches: cursor.u64()?,
            pages: cursor.u64()?,
            bytes: cursor.u64()?,
            checksum: cursor.fixed_u32()?,
        };
        let mut predecessors = Vec::new();
        for _ in 0..cursor.count(2)? {
            let base: &BaseName = bases
                .get(cursor.u32()? as usize)
                .ok_or(DecodeError("a commit names no base directory"))?;
            predecessors.push((base.clone(), cursor.u64()?));
        }
        commits.push(CommitRecord {
            attempt,
            totals,
            predecessors,
        });
    }
    Ok(commits)
}
