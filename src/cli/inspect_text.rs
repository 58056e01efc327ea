//! The output of `stopover inspect`: a footer as text or as JSON.
//!
//! Does: format it. Does not: fetch or decode it. Invariant: both forms carry the same facts.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::table::utc;
use crate::human::{count, size};
use crate::segment::blocks::BlockEntry;
use crate::segment::footer::{CommitRecord, Footer};
use crate::segment::layout::FORMAT_VERSION;

/// A segment's footer, and the sizes that `inspect` prints.
pub(super) struct Inspected {
    /// Bytes of the whole object.
    pub size: u64,
    /// Bytes of the footer.
    pub footer_length: u32,
    /// The decoded footer.
    pub footer: Footer,
}

/// All blocks of one partition together.
#[derive(Serialize)]
struct PartitionSum {
    partition: u32,
    blocks: usize,
    pages: u64,
    #[serde(rename = "bytes")]
    page_bytes: u64,
    offset: u64,
    length: u64,
}

fn partitions(footer: &Footer) -> Vec<PartitionSum> {
    let blocks: Vec<BlockEntry> = footer.blocks.iter().collect();
    let groups = blocks.chunk_by(|a, b| a.partition == b.partition);
    groups
        .map(|blocks| PartitionSum {
            partition: blocks[0].partition,
            blocks: blocks.len(),
            pages: blocks.iter().map(|b| u64::from(b.pages)).sum(),
            page_bytes: blocks.iter().map(BlockEntry::page_bytes).sum(),
            offset: blocks[0].offset,
            length: blocks.iter().map(BlockEntry::length).sum(),
        })
        .collect()
}

/// The text form.
pub(super) fn as_text(found: &Inspected, blocks: bool) -> String {
    let footer = &found.footer;
    let sums = partitions(footer);
    let pages: u64 = sums.iter().map(|s| s.pages).sum();
    let page_bytes: u64 = sums.iter().map(|s| s.page_bytes).sum();
    let mut out = String::new();
    let _ = writeln!(out, "segment   {}", footer.segment);
    let _ = writeln!(out, "exchange  {}", footer.exchange);
    let _ = writeln!(
        out,
        "sealed    {} (by the daemon's clock)",
        utc(footer.sealed_millis)
    );
    let _ = writeln!(
        out,
        "size      {} ({}), of which footer {}, format version {FORMAT_VERSION}",
        size(found.size),
        count(found.size, "byte"),
        count(found.footer_length, "byte")
    );
    let _ = writeln!(
        out,
        "holds     {} of {} in {}: {}, {} ({})",
        count(footer.blocks.len(), "block"),
        count(footer.sinks.len(), "sink"),
        count(sums.len(), "partition"),
        count(pages, "page"),
        size(page_bytes),
        count(page_bytes, "byte")
    );
    let _ = writeln!(out, "\ncommits   {}", footer.commits.len());
    for commit in &footer.commits {
        let _ = writeln!(out, "  {}", commit_line(commit));
    }
    if blocks {
        let _ = writeln!(
            out,
            "\n{:>10} {:>8} {:>8} {:>8} {:>12} {:>12} {:>10}",
            "partition", "task", "attempt", "pages", "page bytes", "offset", "checksum"
        );
        for block in footer.blocks.iter() {
            let sink = footer.sinks[block.sink as usize];
            let _ = writeln!(
                out,
                "{:>10} {:>8} {:>8} {:>8} {:>12} {:>12}   {:08x}",
                block.partition,
                sink.task,
                sink.attempt,
                block.pages,
                block.page_bytes(),
                block.offset,
                block.checksum
            );
        }
    } else {
        let _ = writeln!(
            out,
            "\n{:>10} {:>8} {:>8} {:>12} {:>12} {:>12}",
            "partition", "blocks", "pages", "page bytes", "offset", "length"
        );
        for s in &sums {
            let _ = writeln!(
                out,
                "{:>10} {:>8} {:>8} {:>12} {:>12} {:>12}",
                s.partition, s.blocks, s.pages, s.page_bytes, s.offset, s.length
            );
        }
    }
    out
}

fn commit_line(commit: &CommitRecord) -> String {
    let totals = &commit.totals;
    let mut text = format!(
        "{}: {}, {}, {}, checksum {:08x}",
        commit.attempt,
        count(totals.batches, "batch"),
        count(totals.pages, "page"),
        count(totals.bytes, "byte"),
        totals.checksum
    );
    if !commit.predecessors.is_empty() {
        let earlier = commit.predecessors.iter();
        let earlier: Vec<_> = earlier.map(|(base, n)| format!("{n} on {base}")).collect();
        let _ = write!(text, "; earlier segments {}", earlier.join(", "));
    }
    text
}

/// The JSON form.
pub(super) fn as_json(found: &Inspected, blocks: bool) -> String {
    let footer = &found.footer;
    let commits: Vec<_> = footer.commits.iter().map(commit_json).collect();
    let mut whole = json!({
        "segment": footer.segment.to_string(),
        "exchange": footer.exchange.as_str(),
        "format_version": FORMAT_VERSION,
        "sealed_millis": footer.sealed_millis,
        "size": found.size,
        "footer_length": found.footer_length,
        "sinks": footer.sinks.iter().map(|s| [s.task, s.attempt]).collect::<Vec<_>>(),
        "commits": commits,
        "partitions": partitions(footer),
    });
    if blocks {
        whole["blocks"] = footer
            .blocks
            .iter()
            .map(|b| block_json(footer, &b))
            .collect();
    }
    format!("{whole:#}\n")
}

fn commit_json(commit: &CommitRecord) -> serde_json::Value {
    let earlier = commit.predecessors.iter();
    let earlier = earlier.map(|(base, n)| json!({"base": base.as_str(), "sequence": n}));
    json!({
        "task": commit.attempt.task,
        "attempt": commit.attempt.attempt,
        "batches": commit.totals.batches,
        "pages": commit.totals.pages,
        "bytes": commit.totals.bytes,
        "checksum": commit.totals.checksum,
        "earlier_segments": earlier.collect::<Vec<_>>(),
    })
}

fn block_json(footer: &Footer, block: &BlockEntry) -> serde_json::Value {
    let sink = footer.sinks[block.sink as usize];
    json!({
        "partition": block.partition,
        "task": sink.task,
        "attempt": sink.attempt,
        "pages": block.pages,
        "bytes": block.page_bytes(),
        "offset": block.offset,
        "length": block.length(),
        "checksum": block.checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::blocks::Blocks;
    use crate::segment::footer::Totals;

    fn found() -> Inspected {
        let block = |partition, sink, offset| BlockEntry {
            partition,
            sink,
            pages: 2,
            frames_length: 124,
            checksum: 0xABCD,
            offset,
        };
        let commit = CommitRecord {
            attempt: crate::id::TaskAttempt::new(7, 1).unwrap(),
            totals: Totals {
                batches: 3,
                pages: 4,
                bytes: 200,
                checksum: 5,
            },
            predecessors: vec![("disk1".parse().unwrap(), 41)],
        };
        let sink = crate::id::TaskAttempt::new(8, 0).unwrap();
        let footer = Footer {
            exchange: "q".parse().unwrap(),
            segment: "000000000000feed-00000000002a".parse().unwrap(),
            sealed_millis: 1_795_464_900_123,
            sinks: vec![commit.attempt, sink],
            blocks: Blocks::new(&[block(3, 0, 16), block(3, 1, 172), block(9, 0, 328)]),
            commits: vec![commit],
        };
        Inspected {
            size: 4096,
            footer_length: 99,
            footer,
        }
    }

    #[test]
    fn the_text_shows_what_the_segment_holds_and_what_it_commits() {
        let text = as_text(&found(), false);
        for part in [
            "000000000000feed-00000000002a",
            "2026-11-23T20:15:00.123Z",
            "4.0 KiB (4096 bytes), of which footer 99 bytes",
            "3 blocks of 2 sinks in 2 partitions: 6 pages, 300 B (300 bytes)",
            "task 7 attempt 1: 3 batches, 4 pages, 200 bytes, checksum 00000005; earlier",
            "earlier segments 41 on disk1",
            "         3        2        4          200           16          312\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn single_blocks_are_listed_when_asked_for() {
        let text = as_text(&found(), true);
        let row = "         3        8        0        2          100          172   0000abcd\n";
        assert!(text.contains(row), "{text}");
        let json: serde_json::Value = serde_json::from_str(&as_json(&found(), true)).unwrap();
        assert_eq!(json["blocks"][1]["task"], 8);
    }

    #[test]
    fn the_json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&as_json(&found(), false)).unwrap();
        assert_eq!(json["segment"], "000000000000feed-00000000002a");
        assert_eq!(json["partitions"][0]["bytes"], 200);
        assert_eq!(json["commits"][0]["earlier_segments"][0]["sequence"], 41);
        assert!(json.get("blocks").is_none());
    }

    #[test]
    fn a_time_that_no_calendar_has_is_printed_all_the_same() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(utc(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
