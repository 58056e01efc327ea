//! Plans source handles from footers and chosen attempts. Pure.
//!
//! Does: pick the commit record of each chosen attempt, find its blocks, join adjacent ones into
//! ranges and cut these into handles of about the target size. Does not: fetch anything. Invariant:
//! the blocks of the ranges hold exactly the pages that the commit records count, in the order in
//! which each sink wrote them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::error::CatalogError;
use super::handle::{Handle, HandleRange, MAX_RANGES};
use crate::crc::Checksum;
use crate::id::{ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::segment::blocks::{BlockEntry, Position};
use crate::segment::footer::{CommitRecord, Footer};

/// The most blocks of a partition that is read without a handle.
const MAX_PARTITION_BLOCKS: usize = 1 << 18;

/// A segment that exists, with its footer.
#[derive(Debug, Clone)]
pub struct KnownSegment {
    pub address: SegmentAddress,
    pub footer: Arc<Footer>,
    /// How many plans of the exchange this daemon had made when it first read the segment's footer.
    pub round: u32,
}

/// Steps that planning with these segments takes, about: their blocks and commit records.
pub fn planning_steps(segments: &[KnownSegment]) -> usize {
    let steps = |known: &KnownSegment| known.footer.blocks.len() + known.footer.commits.len();
    segments.iter().map(steps).sum()
}

/// The commit records of an exchange, by attempt. If an attempt was committed twice (by a client
/// that wrote it through two daemons), the record in the segment that an earlier plan used counts,
/// so that no plan replaces the choice of another; otherwise the one in the segment with the lower
/// id.
pub fn committed(segments: &[KnownSegment]) -> BTreeMap<TaskAttempt, (SegmentId, &CommitRecord)> {
    let mut records: BTreeMap<TaskAttempt, (u32, SegmentId, &CommitRecord)> = BTreeMap::new();
    for known in segments {
        let (round, id) = (known.round, known.address.segment);
        for record in &known.footer.commits {
            let found = (round, id, record);
            let entry = records.entry(record.attempt).or_insert(found);
            if (round, id) < (entry.0, entry.1) {
                *entry = found;
            }
        }
    }
    let records = records.into_iter();
    records
        .map(|(attempt, (_, id, record))| (attempt, (id, record)))
        .collect()
}

/// Splits chosen attempts into those that can be planned from these segments alone, and others.
pub fn split_known(
    segments: &[KnownSegment],
    chosen: &[TaskAttempt],
) -> (Vec<TaskAttempt>, Vec<TaskAttempt>) {
    let ids: HashSet<SegmentId> = segments.iter().map(|s| s.address.segment).collect();
    let records = committed(segments);
    let is_known = |attempt: &TaskAttempt| {
        records.get(attempt).is_some_and(|(own, record)| {
            let mut predecessors = record.predecessors.iter();
            predecessors.all(|&(_, sequence)| ids.contains(&SegmentId { sequence, ..*own }))
        })
    };
    chosen.iter().partition(|attempt| is_known(attempt))
}

/// The handles for the chosen attempts, by partition. Each is made when it is requested, since all
/// of them together may need gigabytes. A clone continues where the original is.
#[derive(Debug, Clone)]
pub struct Plan {
    exchange: ExchangeId,
    target_size: u64,
    /// Sorted by id.
    segments: Vec<SegmentCursor>,
    /// For each segment that has blocks left: the partition of the next one, and the segment's
    /// index in `segments`.
    next: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A position among the blocks of chosen attempts in one segment.
#[derive(Debug, Clone)]
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
/// A chosen attempt that is not committed, a task chosen twice, or segments that contradict the
/// commit records.
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
    let plan = Plan {
        exchange: exchange.clone(),
        target_size: target_size.unwrap_or(u64::MAX),
        next: next.collect(),
        segments,
    };
    if target_size.is_none() {
        plan.check_one_handle_each()?;
    }
    Ok(plan)
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

impl Plan {
    /// Order holds within a handle, so each partition of an ordered exchange must be one.
    fn check_one_handle_each(&self) -> Result<(), CatalogError> {
        let blocks = self.segments.iter().map(|s| s.known.footer.blocks.len());
        if blocks.sum::<usize>() <= MAX_RANGES {
            return Ok(());
        }
        let mut last = None;
        for handle in self.clone() {
            let partition = handle.partition;
            if last.replace(partition) == Some(partition) {
                return Err(CatalogError::TooManyRanges {
                    exchange: self.exchange.clone(),
                    partition,
                    limit: MAX_RANGES,
                });
            }
        }
        Ok(())
    }
}

impl Iterator for Plan {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        let Reverse((partition, _)) = *self.next.peek()?;
        let mut handle = HandleBuilder::new(&self.exchange, partition);
        while let Some(&Reverse((found, at))) = self.next.peek()
            && found == partition
        {
            let segment = &mut self.segments[at];
            while let Some(block) = segment.next.filter(|block| block.partition == partition) {
                if !handle.has_room_for(&segment.known, &block, self.target_size) {
                    return Some(handle.finish());
                }
                handle.add(&segment.known, &block);
                segment.advance();
            }
            self.next.pop();
            if let Some(block) = segment.next {
                self.next.push(Reverse((block.partition, at)));
            }
        }
        Some(handle.finish())
    }
}

/// A handle to which blocks of one partition are added, in the order in which they are read.
struct HandleBuilder {
    handle: Handle,
    /// The checksum of the last range.
    crc: Checksum,
}

impl HandleBuilder {
    fn new(exchange: &ExchangeId, partition: u32) -> Self {
        let handle = Handle {
            exchange: exchange.clone(),
            partition,
            bytes: 0,
            ranges: Vec::new(),
        };
        let crc = Checksum::default();
        Self { handle, crc }
    }

    /// Whether a block still belongs to this handle. The first one always does.
    fn has_room_for(&self, known: &KnownSegment, block: &BlockEntry, target_size: u64) -> bool {
        let Handle { bytes, ranges, .. } = &self.handle;
        let fits = block.page_bytes() <= target_size.saturating_sub(*bytes);
        let is_new = || {
            !ranges
                .last()
                .is_some_and(|range| adjoins(range, known, block))
        };
        ranges.is_empty() || (fits && (ranges.len() < MAX_RANGES || !is_new()))
    }

    fn add(&mut self, known: &KnownSegment, block: &BlockEntry) {
        self.handle.bytes += block.page_bytes();
        let ranges = &mut self.handle.ranges;
        match ranges.last_mut().filter(|r| adjoins(r, known, block)) {
            Some(range) => {
                range.length += block.length();
                range.pages += u64::from(block.pages);
            }
            None => {
                self.crc = Checksum::default();
                ranges.push(HandleRange {
                    base: known.address.base.clone(),
                    segment: known.address.segment,
                    blocks_end: known.footer.blocks.end(),
                    offset: block.offset,
                    length: block.length(),
                    pages: u64::from(block.pages),
                    checksum: 0,
                });
            }
        }
        self.crc.update(&block.checksum.to_le_bytes());
        if let Some(range) = ranges.last_mut() {
            range.checksum = self.crc.value();
        }
    }

    fn finish(mut self) -> Handle {
        self.handle.ranges.shrink_to_fit();
        self.handle
    }
}

/// Whether a block follows a range without a gap.
fn adjoins(range: &HandleRange, known: &KnownSegment, block: &BlockEntry) -> bool {
    range.segment == known.address.segment && range.offset + range.length == block.offset
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
        if blocks.len() > MAX_PARTITION_BLOCKS {
            return Err(CatalogError::TooManyRanges {
                exchange: exchange.clone(),
                partition,
                limit: MAX_PARTITION_BLOCKS,
            });
        }
    }
    blocks.sort_by_key(|b| {
        (
            b.known.footer.sinks[b.block.sink as usize],
            b.known.address.segment,
            b.block.offset,
        )
    });
    let mut handle = HandleBuilder::new(exchange, partition);
    for PlannedBlock { known, block } in &blocks {
        handle.add(known, block);
    }
    Ok(handle.finish())
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
                sequence: *sequence,
                ..*own
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

#[cfg(test)]
mod tests;
