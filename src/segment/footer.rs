//! The footer of a segment: the index of its blocks, and the commit records of the sinks that
//! finish with it.
//!
//! Does: encode and decode it, and check its values against each other. Does not: fetch bytes, or
//! know the encoding of the index (`blocks`). Invariant: in a decoded [`Footer`] the blocks end
//! where the footer begins, and every referenced sink exists.

use bytes::Bytes;

use super::blocks::Blocks;
use super::error::{DecodeError, FormatError};
use super::layout::Trailer;
use super::varint::{Cursor, index_in, put, put_all, put_text, table};
use crate::id::{BaseName, DaemonId, ExchangeId, MAX_BASE_NAME, SegmentId, TaskAttempt};

/// The most bytes of a footer without sinks, blocks and commit records: names and counts.
pub const MAX_FIXED_PART: u64 = 256;

/// The most bytes that a sink adds to the table of sinks.
pub const MAX_SINK_ENTRY: u64 = 2 * 5;

/// The most bytes that a commit record needs: the index of its sink, its totals, and its
/// predecessors, each with a base directory that no other record names.
pub fn max_commit_record(predecessors: usize) -> u64 {
    const NUMBER: u64 = 10;
    const NAME: u64 = 1 + MAX_BASE_NAME as u64;
    let fixed = 5 * NUMBER + size_of::<u32>() as u64;
    fixed + predecessors as u64 * (2 * NUMBER + NAME)
}

/// How much an attempt wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub batches: u64,
    pub pages: u64,
    /// Page bytes, without frame headers.
    pub bytes: u64,
    /// CRC-32C over the frames' `crc` fields, in the order in which the pages were written.
    pub checksum: u32,
}

/// The footer entry that commits an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    pub attempt: TaskAttempt,
    /// Pages and bytes in all its blocks.
    pub totals: Totals,
    /// Base directory and sequence number of each earlier segment of the same daemon that holds
    /// blocks of the attempt, in order. This segment is never listed, even if it holds some.
    pub predecessors: Vec<(BaseName, u64)>,
}

/// The content of a footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Recorded so that an object under the wrong key is detected.
    pub exchange: ExchangeId,
    /// Recorded for the same reason.
    pub segment: SegmentId,
    /// Wall clock time of sealing, milliseconds since 1970; for display only.
    pub sealed_millis: u64,
    /// The sinks that have blocks or commit records here, sorted.
    pub sinks: Vec<TaskAttempt>,
    /// All blocks, by partition, then by sink.
    pub blocks: Blocks,
    /// Attempts that finish with this segment.
    pub commits: Vec<CommitRecord>,
}

impl Footer {
    /// Approximate bytes of memory that it needs.
    pub fn memory_size(&self) -> u64 {
        let commits = self.commits.iter().map(|commit| {
            size_of::<CommitRecord>() + commit.predecessors.len() * size_of::<(BaseName, u64)>()
        });
        let sinks = self.sinks.len() * size_of::<TaskAttempt>();
        let index = self.blocks.encoded().len();
        (size_of::<Self>() + index + sinks + commits.sum::<usize>()) as u64
    }

    /// Encodes the footer, in three parts so that the index is not copied.
    pub fn encode(&self) -> [Bytes; 3] {
        let (head, commits) = (self.encode_head(), self.encode_commits());
        [head.into(), self.blocks.encoded().clone(), commits.into()]
    }

    fn encode_head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.sinks.len() * 4);
        put_text(&mut out, self.exchange.as_str());
        out.extend_from_slice(&self.segment.daemon.0.to_le_bytes());
        let count = self.sinks.len() as u64;
        put_all(&mut out, [self.segment.sequence, self.sealed_millis, count]);
        for sink in &self.sinks {
            put_all(&mut out, [sink.task, sink.attempt].map(u64::from));
        }
        out
    }

    fn encode_commits(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.commits.len() * 32);
        let predecessors = self.commits.iter().flat_map(|c| &c.predecessors);
        let bases = table(predecessors.map(|(base, _)| base));
        put(&mut out, bases.len() as u64);
        for base in &bases {
            put_text(&mut out, base.as_str());
        }
        put(&mut out, self.commits.len() as u64);
        for commit in &self.commits {
            let sink = index_in(&self.sinks, &commit.attempt);
            let totals = &commit.totals;
            put_all(&mut out, [sink, totals.batches, totals.pages, totals.bytes]);
            out.extend_from_slice(&totals.checksum.to_le_bytes());
            put(&mut out, commit.predecessors.len() as u64);
            for (base, sequence) in &commit.predecessors {
                put_all(&mut out, [index_in(&bases, &base), *sequence]);
            }
        }
        out
    }

    /// Decodes the footer that the trailer locates.
    ///
    /// # Errors
    /// [`FormatError`] if it is damaged, or contradicts itself or the trailer.
    pub fn decode(bytes: &[u8], trailer: &Trailer) -> Result<Self, FormatError> {
        if u32::try_from(bytes.len()) != Ok(trailer.footer_length) {
            return Err(FormatError::FooterLength {
                length: bytes.len(),
                recorded: trailer.footer_length,
            });
        }
        if crate::crc::checksum(bytes) != trailer.footer_crc {
            return Err(FormatError::FooterChecksum);
        }
        let footer = decode_fields(bytes)?;
        if footer.blocks.end() != trailer.footer_offset {
            return Err(FormatError::BlocksEnd {
                blocks_end: footer.blocks.end(),
                footer_offset: trailer.footer_offset,
            });
        }
        Ok(footer)
    }
}

fn decode_fields(bytes: &[u8]) -> Result<Footer, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let exchange = cursor.parsed("exchange id")?;
    let segment = SegmentId {
        daemon: DaemonId(cursor.fixed_u64()?),
        sequence: cursor.u64()?,
    };
    let sealed_millis = cursor.u64()?;
    let sinks: Vec<TaskAttempt> = cursor.list(2, |cursor| {
        let sink = TaskAttempt::new(cursor.u32()?, cursor.u32()?);
        sink.map_err(|_| DecodeError::Invalid { field: "sink" })
    })?;
    // Plans search in it.
    if !sinks.is_sorted_by(|sink, next| sink < next) {
        let field = "order of the sinks";
        return Err(DecodeError::Contradiction { field });
    }
    let blocks = Blocks::decode(&mut cursor, sinks.len())?;
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
    let bases: Vec<BaseName> = cursor.list(2, |cursor| cursor.parsed("base directory name"))?;
    cursor.list(9, |cursor| {
        Ok(CommitRecord {
            attempt: *cursor.entry(sinks, "sink")?,
            totals: Totals {
                batches: cursor.u64()?,
                pages: cursor.u64()?,
                bytes: cursor.u64()?,
                checksum: cursor.fixed_u32()?,
            },
            predecessors: cursor.list(2, |cursor| {
                let base = cursor.entry(&bases, "base directory")?;
                Ok((base.clone(), cursor.u64()?))
            })?,
        })
    })
}
