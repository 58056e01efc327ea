//! From footers and chosen attempts to source handles.
//!
//! Pure. Does: pick each chosen attempt's commit record, find its blocks, join neighbours into
//! ranges and cut them into handles of about the target size. Does not: fetch anything. Invariant:
//! the blocks of the ranges are exactly the pages which the commit records count, in the order of
//! the sink.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::CommitError;
use super::handle::{Handle, HandleRange};
use crate::id::{ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::segment::Checksum;
use crate::segment::footer::{BlockEntry, CommitRecord, Footer};

/// A segment that exists.
#[derive(Debug, Clone)]
pub struct KnownSegment {
    /// Where it lies.
    pub address: SegmentAddress,
    /// What it holds.
    pub footer: Arc<Footer>,
}

/// The commit records of an exchange, by attempt. Where an attempt was committed twice (a client
/// that wrote it through two daemons), the record in the first segment by id stands.
pub fn committed(segments: &[KnownSegment]) -> BTreeMap<TaskAttempt, (SegmentId, &CommitRecord)> {
    let mut records: BTreeMap<TaskAttempt, (SegmentId, &CommitRecord)> = BTreeMap::new();
    for known in segments {
        let id = known.address.segment;
        for record in &known.footer.commits {
            let entry = records.entry(record.attempt).or_insert((id, record));
            if id < entry.0 {
                *entry = (id, record);
            }
        }
    }
    records
}

/// Plans the handles for the chosen attempts, by partition.
///
/// # Errors
/// A chosen attempt that is not committed, a task chosen twice, or segments that do not hold what
/// the commit records say.
pub fn plan(
    exchange: &ExchangeId,
    segments: &[KnownSegment],
    chosen: &[TaskAttempt],
    target_size: Option<u64>,
) -> Result<Vec<Handle>, CommitError> {
    let by_id = index_segments(segments);
    let wanted = wanted_sinks(exchange, segments, &by_id, chosen)?;
    let mut ids: Vec<SegmentId> = wanted.keys().copied().collect();
    ids.sort_unstable();
    let mut partitions: BTreeMap<u32, Vec<PlannedBlock<'_>>> = BTreeMap::new();
    for id in ids {
        let known = by_id[&id];
        let sinks = &wanted[&id];
        for block in known
            .footer
            .blocks
            .iter()
            .filter(|b| sinks.contains(&b.sink))
        {
            partitions
                .entry(block.partition)
                .or_default()
                .push(PlannedBlock { known, block });
        }
    }
    let mut handles = Vec::new();
    for (partition, blocks) in partitions {
        cut(
            exchange,
            partition,
            &blocks,
            target_size.unwrap_or(u64::MAX),
            &mut handles,
        );
    }
    Ok(handles)
}

/// Plans one partition as one handle, in the order of the tasks.
///
/// # Errors
/// As [`plan`].
pub fn plan_partition(
    exchange: &ExchangeId,
    segments: &[KnownSegment],
    chosen: &[TaskAttempt],
    partition: u32,
) -> Result<Handle, CommitError> {
    let by_id = index_segments(segments);
    let wanted = wanted_sinks(exchange, segments, &by_id, chosen)?;
    let mut blocks = Vec::new();
    for (id, sinks) in &wanted {
        let known = by_id[id];
        let mine = known
            .footer
            .blocks
            .iter()
            .filter(|b| b.partition == partition);
        blocks.extend(
            mine.filter(|b| sinks.contains(&b.sink))
                .map(|block| PlannedBlock { known, block }),
        );
    }
    blocks.sort_by_key(|b| {
        (
            b.known.footer.sinks[b.block.sink as usize],
            b.known.address.segment,
            b.block.offset,
        )
    });
    let mut handles = Vec::new();
    cut(exchange, partition, &blocks, u64::MAX, &mut handles);
    let empty = Handle {
        exchange: exchange.clone(),
        partition,
        bytes: 0,
        ranges: Vec::new(),
    };
    Ok(handles.pop().unwrap_or(empty))
}

struct PlannedBlock<'a> {
    known: &'a KnownSegment,
    block: &'a BlockEntry,
}

/// One address for each segment; a segment that a failed-over upload left twice has equal content.
fn index_segments(segments: &[KnownSegment]) -> HashMap<SegmentId, &KnownSegment> {
    let mut by_id = HashMap::with_capacity(segments.len());
    for known in segments {
        by_id.entry(known.address.segment).or_insert(known);
    }
    by_id
}

/// For each segment the indexes of the chosen sinks in it, after checking that all is there.
fn wanted_sinks(
    exchange: &ExchangeId,
    segments: &[KnownSegment],
    by_id: &HashMap<SegmentId, &KnownSegment>,
    chosen: &[TaskAttempt],
) -> Result<HashMap<SegmentId, HashSet<u32>>, CommitError> {
    let records = committed(segments);
    let mut tasks = HashSet::with_capacity(chosen.len());
    let mut wanted: HashMap<SegmentId, HashSet<u32>> = HashMap::new();
    let mut held: HashMap<TaskAttempt, (u64, u64)> = HashMap::new();
    for attempt in chosen {
        if !tasks.insert(attempt.task) {
            return Err(CommitError::ChosenTwice { task: attempt.task });
        }
        let (own, record) = records
            .get(attempt)
            .ok_or_else(|| CommitError::NotCommitted {
                attempt: *attempt,
                exchange: exchange.clone(),
            })?;
        let before = record
            .predecessors
            .iter()
            .map(|(base, sequence)| SegmentAddress {
                exchange: exchange.clone(),
                base: base.clone(),
                segment: SegmentId {
                    daemon: own.daemon,
                    sequence: *sequence,
                },
            });
        for segment in before {
            if !by_id.contains_key(&segment.segment) {
                return Err(CommitError::Lost { segment });
            }
            want(&mut wanted, by_id[&segment.segment], *attempt);
        }
        want(&mut wanted, by_id[own], *attempt);
        held.insert(*attempt, (0, 0));
    }
    count_held(&wanted, by_id, &mut held);
    for attempt in chosen {
        let (own, record) = records[attempt];
        if held[attempt] != (record.totals.pages, record.totals.bytes) {
            let reason = format!(
                "the blocks of {attempt} hold {} pages, {} bytes; its commit record says {}, {}",
                held[attempt].0, held[attempt].1, record.totals.pages, record.totals.bytes
            );
            let segment = by_id[&own].address.clone();
            return Err(CommitError::Corrupt {
                segment,
                reason: reason.into(),
            });
        }
    }
    Ok(wanted)
}

fn want(wanted: &mut HashMap<SegmentId, HashSet<u32>>, known: &KnownSegment, attempt: TaskAttempt) {
    if let Ok(sink) = known.footer.sinks.binary_search(&attempt) {
        wanted
            .entry(known.address.segment)
            .or_default()
            .insert(sink as u32);
    }
}

fn count_held(
    wanted: &HashMap<SegmentId, HashSet<u32>>,
    by_id: &HashMap<SegmentId, &KnownSegment>,
    held: &mut HashMap<TaskAttempt, (u64, u64)>,
) {
    for (id, sinks) in wanted {
        let footer = &by_id[id].footer;
        for block in footer.blocks.iter().filter(|b| sinks.contains(&b.sink)) {
            let count = held.entry(footer.sinks[block.sink as usize]).or_default();
            count.0 += u64::from(block.pages);
            count.1 += block.page_bytes();
        }
    }
}

/// Cuts the blocks of a partition into handles at block boundaries and joins neighbours into
/// ranges.
fn cut(
    exchange: &ExchangeId,
    partition: u32,
    blocks: &[PlannedBlock<'_>],
    target_size: u64,
    handles: &mut Vec<Handle>,
) {
    let mut rest = blocks;
    while !rest.is_empty() {
        let (mut bytes, mut count) = (0, 0);
        for planned in rest {
            let more = planned.block.page_bytes();
            if count > 0 && more > target_size.saturating_sub(bytes) {
                break;
            }
            bytes += more;
            count += 1;
        }
        let (mine, others) = rest.split_at(count);
        let ranges = mine
            .chunk_by(|a, b| {
                a.known.address.segment == b.known.address.segment
                    && a.block.offset + a.block.length() == b.block.offset
            })
            .map(join)
            .collect();
        handles.push(Handle {
            exchange: exchange.clone(),
            partition,
            bytes,
            ranges,
        });
        rest = others;
    }
}

fn join(blocks: &[PlannedBlock<'_>]) -> HandleRange {
    let (first, last) = (&blocks[0], &blocks[blocks.len() - 1]);
    let mut crc = Checksum::default();
    blocks
        .iter()
        .for_each(|b| crc.update(&b.block.checksum.to_le_bytes()));
    HandleRange {
        base: first.known.address.base.clone(),
        segment: first.known.address.segment,
        blocks_end: first.known.footer.blocks_end(),
        offset: first.block.offset,
        length: last.block.offset + last.block.length() - first.block.offset,
        pages: blocks.iter().map(|b| u64::from(b.block.pages)).sum(),
        checksum: crc.value(),
    }
}
