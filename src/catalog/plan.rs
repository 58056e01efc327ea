//! Plans source handles from footers and chosen attempts. Pure.
//!
//! Does: pick the commit record of each chosen attempt, find its blocks, join adjacent ones into
//! ranges and cut these into handles of about the target size. Does not: fetch anything. Invariant:
//! the blocks of the ranges hold exactly the pages that the commit records count, in the order in
//! which each sink wrote them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::error::CatalogError;
use super::handle::{Handle, HandleRange};
use crate::crc::Checksum;
use crate::id::{ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::segment::blocks::{BlockEntry, Position};
use crate::segment::footer::{CommitRecord, Footer};

/// A segment that exists, with its footer.
#[derive(Debug, Clone)]
pub struct KnownSegment {
    pub address: SegmentAddress,
    pub footer: Arc<Footer>,
}

/// The commit records of an exchange, by attempt. If an attempt was committed twice (by a client
/// that wrote it through two daemons), the record in the segment with the lower id counts.
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

/// The handles for the chosen attempts, by partition. Each is made when it is requested, since all
/// of them together may need gigabytes.
#[derive(Debug)]
pub struct Plan {
    exchange: ExchangeId,
    target_size: u64,
    /// Sorted by id.
    segments: Vec<SegmentCursor>,
    /// For each segment that has blocks left: the partition of the next one, and the segment's
    /// index in `segments`.
    next: BinaryHeap<Reverse<(u32, usize)>>,
    /// Handles of the current partition that have not been returned yet.
    ready: VecDeque<Handle>,
}

/// A position among the blocks of chosen attempts in one segment.
#[derive(Debug)]
struct SegmentCursor {
    known: KnownSegment,
    sinks: ChosenSinks,
    position: Position,
    /// The block before `position`, which is returned next.
    next: Option<BlockEntry>,
}

/// For each sink of a segment, whether its attempt was chosen.
type ChosenSinks = Vec<bool>;

/// Plans the handles for the chosen attempts, by partition.
///
/// # Errors
/// A chosen attempt that is not committed, a task chosen twice, or segments that do not hold what
/// the commit records say.
pub fn plan(
    exchange: &ExchangeId,
    segments: Vec<KnownSegment>,
    chosen: &[TaskAttempt],
    target_size: Option<u64>,
) -> Result<Plan, CatalogError> {
    let mut chosen_sinks = choose_sinks(exchange, &segments, chosen)?;
    // `remove`: a segment that an upload with failover stored twice is read once.
    let mut segments: Vec<SegmentCursor> = segments
        .into_iter()
        .filter_map(|known| {
            let sinks = chosen_sinks.remove(&known.address.segment)?;
            Some(SegmentCursor::new(known, sinks))
        })
        .collect();
    segments.sort_unstable_by_key(|cursor| cursor.known.address.segment);
    let heads = segments.iter().enumerate();
    let next = heads.filter_map(|(at, cursor)| Some(Reverse((cursor.next?.partition, at))));
    Ok(Plan {
        exchange: exchange.clone(),
        target_size: target_size.unwrap_or(u64::MAX),
        next: next.collect(),
        segments,
        ready: VecDeque::new(),
    })
}

impl SegmentCursor {
    fn new(known: KnownSegment, sinks: ChosenSinks) -> Self {
        let mut cursor = Self {
            known,
            sinks,
            position: Position::start(),
            next: None,
        };
        cursor.advance();
        cursor
    }

    /// Returns the current block and advances to the next one of a chosen attempt.
    fn advance(&mut self) -> Option<BlockEntry> {
        let index = &self.known.footer.blocks;
        let mut next = index.next(&mut self.position);
        while next.is_some_and(|block| !self.sinks[block.sink as usize]) {
            next = index.next(&mut self.position);
        }
        std::mem::replace(&mut self.next, next)
    }
}

impl Iterator for Plan {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        if let Some(handle) = self.ready.pop_front() {
            return Some(handle);
        }
        let Reverse((partition, _)) = *self.next.peek()?;
        let mut blocks = Vec::new();
        while let Some(&Reverse((found, at))) = self.next.peek()
            && found == partition
        {
            self.next.pop();
            let segment = &mut self.segments[at];
            while segment
                .next
                .is_some_and(|block| block.partition == partition)
            {
                blocks.extend(segment.advance().map(|block| (at, block)));
            }
            if let Some(block) = segment.next {
                self.next.push(Reverse((block.partition, at)));
            }
        }
        let planned = blocks.into_iter().map(|(at, block)| PlannedBlock {
            known: &self.segments[at].known,
            block,
        });
        let planned: Vec<_> = planned.collect();
        let (exchange, target_size) = (&self.exchange, self.target_size);
        self.ready = cut(exchange, partition, &planned, target_size).into();
        self.ready.pop_front()
    }
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
) -> Result<Handle, CatalogError> {
    let mut chosen_sinks = choose_sinks(exchange, segments, chosen)?;
    let mut blocks = Vec::new();
    for known in segments {
        // `remove`: as in `plan`.
        let Some(sinks) = chosen_sinks.remove(&known.address.segment) else {
            continue;
        };
        let all = known.footer.blocks.iter();
        let mine = all.filter(|b| b.partition == partition && sinks[b.sink as usize]);
        blocks.extend(mine.map(|block| PlannedBlock { known, block }));
    }
    blocks.sort_by_key(|b| {
        (
            b.known.footer.sinks[b.block.sink as usize],
            b.known.address.segment,
            b.block.offset,
        )
    });
    let mut handles = cut(exchange, partition, &blocks, u64::MAX);
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
    block: BlockEntry,
}

/// The chosen sinks of each segment, after checking that all their segments and pages exist.
fn choose_sinks(
    exchange: &ExchangeId,
    segments: &[KnownSegment],
    chosen: &[TaskAttempt],
) -> Result<HashMap<SegmentId, ChosenSinks>, CatalogError> {
    let mut by_id = HashMap::with_capacity(segments.len());
    for known in segments {
        // The copies of a segment that an upload with failover stored twice are equal.
        by_id.entry(known.address.segment).or_insert(known);
    }
    let records = committed(segments);
    let mut tasks = HashSet::with_capacity(chosen.len());
    let mut sinks: HashMap<SegmentId, ChosenSinks> = HashMap::new();
    for attempt in chosen {
        if !tasks.insert(attempt.task) {
            return Err(CatalogError::ChosenTwice { task: attempt.task });
        }
        let (own, record) = records
            .get(attempt)
            .ok_or_else(|| CatalogError::NotCommitted {
                attempt: *attempt,
                exchange: exchange.clone(),
            })?;
        for (base, sequence) in &record.predecessors {
            let id = SegmentId {
                daemon: own.daemon,
                sequence: *sequence,
            };
            let known = by_id.get(&id).ok_or_else(|| CatalogError::Lost {
                segment: SegmentAddress {
                    exchange: exchange.clone(),
                    base: base.clone(),
                    segment: id,
                },
            })?;
            choose(&mut sinks, known, *attempt);
        }
        choose(&mut sinks, by_id[own], *attempt);
    }
    let counts = count_pages(&sinks, &by_id);
    for attempt in chosen {
        let (own, record) = records[attempt];
        let recorded = (record.totals.pages, record.totals.bytes);
        let found = counts.get(attempt).copied().unwrap_or_default();
        if found != recorded {
            return Err(CatalogError::CountMismatch {
                segment: by_id[&own].address.clone(),
                attempt: *attempt,
                recorded,
                found,
            });
        }
    }
    Ok(sinks)
}

fn choose(sinks: &mut HashMap<SegmentId, ChosenSinks>, known: &KnownSegment, attempt: TaskAttempt) {
    let footer = &known.footer;
    if let Ok(sink) = footer.sinks.binary_search(&attempt) {
        let sinks = sinks.entry(known.address.segment);
        sinks.or_insert_with(|| vec![false; footer.sinks.len()])[sink] = true;
    }
}

/// Pages and page bytes in the blocks of each chosen attempt.
fn count_pages(
    chosen: &HashMap<SegmentId, ChosenSinks>,
    by_id: &HashMap<SegmentId, &KnownSegment>,
) -> HashMap<TaskAttempt, (u64, u64)> {
    let mut totals: HashMap<TaskAttempt, (u64, u64)> = HashMap::new();
    for (id, sinks) in chosen {
        let footer = &by_id[id].footer;
        let mut counts = vec![(0, 0); sinks.len()];
        for block in footer.blocks.iter() {
            let count = &mut counts[block.sink as usize];
            count.0 += u64::from(block.pages);
            count.1 += block.page_bytes();
        }
        let counted = footer.sinks.iter().zip(counts).zip(sinks);
        for ((attempt, (pages, bytes)), _) in counted.filter(|(_, chosen)| **chosen) {
            let total = totals.entry(*attempt).or_default();
            total.0 += pages;
            total.1 += bytes;
        }
    }
    totals
}

/// Cuts the blocks of a partition into handles at block boundaries, and joins adjacent blocks into
/// ranges.
fn cut(
    exchange: &ExchangeId,
    partition: u32,
    blocks: &[PlannedBlock<'_>],
    target_size: u64,
) -> Vec<Handle> {
    let mut handles = Vec::new();
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
    handles
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
        blocks_end: first.known.footer.blocks.end(),
        offset: first.block.offset,
        length: last.block.offset + last.block.length() - first.block.offset,
        pages: blocks.iter().map(|b| u64::from(b.block.pages)).sum(),
        checksum: crc.value(),
    }
}
