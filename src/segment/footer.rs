//! The footer of a segment: its index of blocks and the commit records of the sinks that finish
//! with it.
//!
//! Does: encode and decode, with every number checked against the others. Does not: fetch bytes, or
//! know how the index is written (`blocks`). Invariant: in a decoded [`Footer`] the blocks end
//! where the footer begins, and every sink that is named exists.

use bytes::Bytes;

use super::blocks::Blocks;
use super::layout::Trailer;
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
    pub blocks: Blocks,
    /// Attempts that finish with this segment.
    pub commits: Vec<CommitRecord>,
}

impl Footer {
    /// Bytes of memory that it takes, about.
    pub fn memory_size(&self) -> u64 {
        let commits = self.commits.iter().map(|commit| {
            size_of::<CommitRecord>() + commit.predecessors.len() * size_of::<(BaseName, u64)>()
        });
        let sinks = self.sinks.len() * size_of::<TaskAttempt>();
        let index = self.blocks.encoded().len();
        (size_of::<Self>() + index + sinks + commits.sum::<usize>()) as u64
    }

    /// The footer's bytes, in pieces: the index is not copied.
    pub fn encode(&self) -> [Bytes; 3] {
        let (head, commits) = (self.encode_head(), self.encode_commits());
        [head.into(), self.blocks.encoded().clone(), commits.into()]
    }

    fn encode_head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.sinks.len() * 4);
        put_text(&mut out, self.exchange.as_str());
        out.extend_from_slice(&self.segment.daemon.0.to_le_bytes());
        put(&mut out, self.segment.sequence);
        put(&mut out, self.sealed_millis);
        put(&mut out, self.sinks.len() as u64);
        for sink in &self.sinks {
            put(&mut out, u64::from(sink.task));
            put(&mut out, u64::from(sink.attempt));
        }
        out
    }

    fn encode_commits(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.commits.len() * 32);
        let mut bases: Vec<&BaseName> = self
            .commits
            .iter()
            .flat_map(|c| c.predecessors.iter().map(|p| &p.0))
            .collect();
        bases.sort();
        bases.dedup();
        put(&mut out, bases.len() as u64);
        for base in &bases {
            put_text(&mut out, base.as_str());
        }
        put(&mut out, self.commits.len() as u64);
        for commit in &self.commits {
            let sink = self.sinks.iter().position(|s| *s == commit.attempt);
            put(
                &mut out,
                sink.expect("a committed sink is in the table") as u64,
            );
            put(&mut out, commit.totals.batches);
            put(&mut out, commit.totals.pages);
            put(&mut out, commit.totals.bytes);
            out.extend_from_slice(&commit.totals.checksum.to_le_bytes());
            put(&mut out, commit.predecessors.len() as u64);
            for (base, sequence) in &commit.predecessors {
                put(
                    &mut out,
                    bases.binary_search(&base).expect("just collected") as u64,
                );
                put(&mut out, *sequence);
            }
        }
        out
    }

    /// Decodes the footer whose place the trailer gives.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(bytes: &[u8], trailer: &Trailer) -> Result<Self, String> {
        if bytes.len() != trailer.footer_length as usize {
            return Err("its footer is not as long as its trailer says".into());
        }
        if crate::crc::checksum(bytes) != trailer.footer_crc {
            return Err("its footer does not fit its checksum".into());
        }
        let footer = decode_fields(bytes).map_err(|e| format!("its footer is malformed: {e}"))?;
        if footer.blocks.end() != trailer.footer_offset {
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
    let blocks = Blocks::decode(&mut cursor, sinks.len() as u32)?;
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
