//! From footers and chosen attempts to source handles.
//!
//! Pure. Does: pick each chosen attempt's commit record, find its blocks, join neighbours into
//! ranges and cut them into handles of about the target size. Does not: fetch anything. Invariant:
//! the blocks of the ranges are exactly the pages which the commit records count, in the order of
//! the sink.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::CatalogError;
use super::handle::{Handle, HandleRange};
use crate::crc::Checksum;
use crate::id::{ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::segment::blocks::{BlockEntry, Position};
use crate::segment::footer::{CommitRecord, Footer};

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

/// The handles for the chosen attempts, by partition, each made when it is asked for: of all of
/// them together there may be gigabytes.
#[derive(Debug)]
pub struct Plan {
    exchange: ExchangeId,
    target_size: u64,
    /// Sorted by id.
    segments: Vec<Wanted>,
    /// For each segment that has blocks left: the partition of the next, and which segment it is.
    next: BinaryHeap<Reverse<(u32, usize)>>,
    /// Handles of the present partition.
    ready: VecDeque<Handle>,
}

/// A segment that holds blocks of chosen attempts.
#[derive(Debug)]
struct Wanted {
    known: KnownSegment,
    /// Which of its sinks, by their index.
    sinks: Sinks,
    walked: Position,
    next: Option<BlockEntry>,
}

/// For each sink of a segment whether its attempt was chosen.
type Sinks = Vec<bool>;

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
    let mut wanted = {
        let by_id = index_segments(&segments);
        wanted_sinks(exchange, &segments, &by_id, chosen)?
    };
    // A segment that a failed-over upload left twice is taken once.
    let mut segments: Vec<Wanted> = segments
        .into_iter()
        .filter_map(|known| {
            let sinks = wanted.remove(&known.address.segment)?;
            Some(Wanted::new(known, sinks))
        })
        .collect();
    segments.sort_unstable_by_key(|wanted| wanted.known.address.segment);
    let heads = segments.iter().enumerate();
    let next = heads.filter_map(|(at, wanted)| Some(Reverse((wanted.next?.partition, at))));
    Ok(Plan {
        exchange: exchange.clone(),
        target_size: target_size.unwrap_or(u64::MAX),
        next: next.collect(),
        segments,
        ready: VecDeque::new(),
    })
}

impl Wanted {
    fn new(known: KnownSegment, sinks: Sinks) -> Self {
        let mut new = Self {
            known,
            sinks,
            walked: Position::start(),
            next: None,
        };
        new.step();
        new
    }

    /// Goes to the next block of a chosen attempt, and answers the present one.
    fn step(&mut self) -> Option<BlockEntry> {
        let index = &self.known.footer.blocks;
        let mut next = index.next(&mut self.walked);
        while next.is_some_and(|block| !self.sinks[block.sink as usize]) {
            next = index.next(&mut self.walked);
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
                blocks.extend(segment.step().map(|block| (at, block)));
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
    let by_id = index_segments(segments);
    let wanted = wanted_sinks(exchange, segments, &by_id, chosen)?;
    let mut blocks = Vec::new();
    for (id, sinks) in &wanted {
        let known = by_id[id];
        let mine = known
            .footer
            .blocks
            .iter()
            .filter(|b| b.partition == partition && sinks[b.sink as usize]);
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

/// One address for each segment; a segment that a failed-over upload left twice has equal content.
fn index_segments(segments: &[KnownSegment]) -> HashMap<SegmentId, &KnownSegment> {
    let mut by_id = HashMap::with_capacity(segments.len());
    for known in segments {
        by_id.entry(known.address.segment).or_insert(known);
    }
    by_id
}

/// For each segment the chosen sinks in it, after checking that all is there.
fn wanted_sinks(
    exchange: &ExchangeId,
    segments: &[KnownSegment],
    by_id: &HashMap<SegmentId, &KnownSegment>,
    chosen: &[TaskAttempt],
) -> Result<HashMap<SegmentId, Sinks>, CatalogError> {
    let records = committed(segments);
    let mut tasks = HashSet::with_capacity(chosen.len());
    let mut wanted: HashMap<SegmentId, Sinks> = HashMap::new();
    let mut held: HashMap<TaskAttempt, (u64, u64)> = HashMap::new();
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
                return Err(CatalogError::Lost { segment });
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
            return Err(CatalogError::Corrupt {
                segment,
                reason: reason.into(),
            });
        }
    }
    Ok(wanted)
}

fn want(wanted: &mut HashMap<SegmentId, Sinks>, known: &KnownSegment, attempt: TaskAttempt) {
    let footer = &known.footer;
    if let Ok(sink) = footer.sinks.binary_search(&attempt) {
        let sinks = wanted.entry(known.address.segment);
        sinks.or_insert_with(|| vec![false; footer.sinks.len()])[sink] = true;
    }
}

fn count_held(
    wanted: &HashMap<SegmentId, Sinks>,
    by_id: &HashMap<SegmentId, &KnownSegment>,
    held: &mut HashMap<TaskAttempt, (u64, u64)>,
) {
    for (id, sinks) in wanted {
        let footer = &by_id[id].footer;
        let mut counts = vec![(0, 0); sinks.len()];
        for block in footer.blocks.iter() {
            let count = &mut counts[block.sink as usize];
            count.0 += u64::from(block.pages);
            count.1 += block.page_bytes();
        }
        for ((sink, count), _) in footer
            .sinks
            .iter()
            .zip(counts)
            .zip(sinks)
            .filter(|(_, w)| **w)
        {
            let all = held.entry(*sink).or_default();
            (all.0, all.1) = (all.0 + count.0, all.1 + count.1);
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
