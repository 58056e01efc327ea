//! The content of a source handle, as numbers that may be anything.
//!
//! Does: encode and seal it. Does not: check it. A second implementation of the encoding in
//! `docs/segment-format.md`, since the daemon's own cannot encode what is not valid. Invariant: the
//! fields of a planned handle are sealed as that handle.

#![allow(dead_code)] // each of its users needs a part

use stopover::catalog::handle::{Handle, VERSION, sealed_text};
use stopover::id::BaseId;
use stopover::segment::varint::{put, put_all, put_text};

/// Bytes of a block record and of a frame header.
pub const RECORD: u64 = 32;
pub const FRAME: u64 = 12;

#[derive(Debug, Clone)]
pub struct Range {
    /// Indexes in the tables of base directories and daemons.
    pub base: u64,
    pub daemon: u64,
    pub sequence: u64,
    pub offset: u64,
    pub length: u64,
    /// Bytes from the end of the range to the end of the segment's blocks.
    pub gap: u64,
    pub pages: u64,
    pub checksum: u32,
}

#[derive(Debug, Clone)]
pub struct Fields {
    pub key: u64,
    pub bases: Vec<u64>,
    pub exchange: String,
    pub partition: u64,
    pub bytes: u64,
    pub daemons: Vec<u64>,
    pub ranges: Vec<Range>,
}

impl Fields {
    /// The content of a planned handle, whose ranges lie in one base directory.
    pub fn of(handle: &Handle, base: BaseId) -> Self {
        let mut daemons: Vec<u64> = handle.ranges.iter().map(|r| r.segment.daemon.0).collect();
        daemons.sort_unstable();
        daemons.dedup();
        let ranges = handle.ranges.iter().map(|range| Range {
            base: 0,
            daemon: daemons.binary_search(&range.segment.daemon.0).unwrap() as u64,
            sequence: range.segment.sequence,
            offset: range.offset,
            length: range.length,
            gap: range.blocks_end - range.offset - range.length,
            pages: range.pages,
            checksum: range.checksum,
        });
        Self {
            key: 1,
            bases: vec![base.0],
            exchange: handle.exchange.to_string(),
            partition: u64::from(handle.partition),
            bytes: handle.bytes,
            ranges: ranges.collect(),
            daemons,
        }
    }

    pub fn seal(&self, secret: &[u8; 32]) -> String {
        let mut out = vec![VERSION];
        put_all(&mut out, [self.key, self.bases.len() as u64]);
        for id in &self.bases {
            out.extend_from_slice(&id.to_le_bytes());
        }
        put_text(&mut out, &self.exchange);
        put_all(&mut out, [self.partition, self.bytes]);
        put(&mut out, self.daemons.len() as u64);
        for daemon in &self.daemons {
            out.extend_from_slice(&daemon.to_le_bytes());
        }
        put(&mut out, self.ranges.len() as u64);
        for range in &self.ranges {
            put_all(&mut out, [range.base, range.daemon, range.sequence]);
            put_all(
                &mut out,
                [range.offset, range.length, range.gap, range.pages],
            );
            out.extend_from_slice(&range.checksum.to_le_bytes());
        }
        sealed_text(&out, secret)
    }

    /// Number of pages, if it is one.
    pub fn pages(&self) -> Option<u64> {
        let mut pages = self.ranges.iter().map(|range| range.pages);
        pages.try_fold(0, u64::checked_add)
    }

    /// Makes the sizes of pages and ranges agree, so that later checks are reached.
    pub fn agree(&mut self) {
        let lengths = self.ranges.iter().map(|range| range.length);
        let total = lengths.fold(0, u64::saturating_add);
        let headers = self.pages().unwrap_or(u64::MAX).saturating_mul(FRAME);
        let records = RECORD * self.ranges.len() as u64;
        self.bytes = total.saturating_sub(headers).saturating_sub(records);
    }
}
