//! Claims about plans of arbitrary exchanges: every page of the chosen attempts exactly once, in
//! order, no other page, and adjacent blocks as one range.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::id::DaemonId;
use crate::segment::footer::Totals;
use crate::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
use crate::segment::writer::{SegmentDraft, SinkRun, write_segment};

const PARTITIONS: u32 = 4;
const TASKS: u32 = 4;

/// A run of pages: its writer, its partition, the length of each page, and whether the segment of
/// its daemon is sealed after it.
#[derive(Debug, Clone)]
struct Write {
    task: u32,
    attempt: u32,
    partition: u32,
    pages: Vec<usize>,
    seals: bool,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let pages = prop::collection::vec(1_usize..40, 1..4);
    let one = (0..TASKS, 0_u32..2, 0..PARTITIONS, pages, any::<bool>());
    let one = one.prop_map(|(task, attempt, partition, pages, seals)| Write {
        task,
        attempt,
        partition,
        pages,
        seals,
    });
    prop::collection::vec(one, 0..40)
}

/// What one daemon has written so far.
#[derive(Default)]
struct Writer {
    sequence: u64,
    runs: Vec<SinkRun>,
    /// The segments and the totals of each attempt.
    attempts: BTreeMap<TaskAttempt, (BTreeSet<u64>, Totals)>,
    segments: Vec<KnownSegment>,
}

impl Writer {
    fn write(&mut self, write: &Write) {
        let sink = TaskAttempt::new(write.task, write.attempt).unwrap();
        let mut batch = Vec::new();
        for length in &write.pages {
            let mut frame = vec![7; FRAME_HEADER_LEN + length];
            write_frame_header(&mut frame, write.partition);
            batch.extend(frame);
        }
        let batch = verify_batch(batch.into(), PARTITIONS, 100).unwrap();
        let (segments, totals) = self.attempts.entry(sink).or_default();
        segments.insert(self.sequence);
        totals.pages += batch.pages;
        totals.bytes += batch.page_bytes;
        let runs = batch.runs.into_iter();
        self.runs.extend(runs.map(|run| SinkRun { sink, run }));
    }

    fn seal(&mut self, daemon: u64, commits: Vec<CommitRecord>) {
        let segment = SegmentId {
            daemon: DaemonId(daemon),
            sequence: self.sequence,
        };
        let exchange: ExchangeId = "q".parse().unwrap();
        let image = write_segment(SegmentDraft {
            exchange: exchange.clone(),
            segment,
            sealed_millis: 0,
            runs: std::mem::take(&mut self.runs),
            commits,
        });
        self.segments.push(KnownSegment {
            address: SegmentAddress {
                exchange,
                base: "a".parse().unwrap(),
                segment,
            },
            footer: Arc::new(image.footer),
            round: 0,
        });
        self.sequence += 1;
    }

    /// Commits all attempts with the last segment.
    fn commit(mut self, daemon: u64) -> Vec<KnownSegment> {
        let last = self.sequence;
        let commits = std::mem::take(&mut self.attempts).into_iter();
        let commits = commits.map(|(attempt, (segments, totals))| CommitRecord {
            attempt,
            totals,
            predecessors: segments
                .into_iter()
                .filter(|sequence| *sequence != last)
                .map(|sequence| ("a".parse().unwrap(), sequence))
                .collect(),
        });
        let commits = commits.collect();
        self.seal(daemon, commits);
        self.segments
    }
}

/// The segments of two daemons, each of which has the tasks of one parity.
fn written(writes: &[Write]) -> Vec<KnownSegment> {
    let mut daemons = [Writer::default(), Writer::default()];
    for write in writes {
        let daemon = (write.task % 2) as usize;
        daemons[daemon].write(write);
        if write.seals {
            daemons[daemon].seal(daemon as u64, Vec::new());
        }
    }
    let daemons = (0..).zip(daemons);
    daemons.flat_map(|(n, writer)| writer.commit(n)).collect()
}

#[test]
fn planning_takes_a_step_for_each_block_and_each_commit() {
    let write = |task, partition| Write {
        task,
        attempt: 0,
        partition,
        pages: vec![5],
        seals: false,
    };
    let writes = [write(0, 0), write(0, 1), write(2, 0), write(1, 3)];
    let segments = written(&writes);
    assert_eq!(segments.len(), 2);
    // Four blocks and three attempts.
    assert_eq!(planning_steps(&segments), 7);
    assert_eq!(planning_steps(&segments[1..]), 2);
    assert_eq!(planning_steps(&[]), 0);
}

/// A block, by where it is.
type At = (SegmentId, u64);

/// The attempt and the entry of every block.
fn blocks(segments: &[KnownSegment]) -> BTreeMap<At, (TaskAttempt, BlockEntry)> {
    let of = |known: &KnownSegment| {
        let (id, footer) = (known.address.segment, Arc::clone(&known.footer));
        let blocks: Vec<_> = footer.blocks.iter().collect();
        let with_attempt = move |block: BlockEntry| {
            (
                (id, block.offset),
                (footer.sinks[block.sink as usize], block),
            )
        };
        blocks.into_iter().map(with_attempt)
    };
    segments.iter().flat_map(of).collect()
}

/// The blocks of a handle in order, after a check of its ranges.
fn opened(handle: &Handle, all: &BTreeMap<At, (TaskAttempt, BlockEntry)>) -> Vec<At> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for range in &handle.ranges {
        let (mut at, end, mut pages) = (range.offset, range.offset + range.length, 0);
        let mut crc = Checksum::default();
        while at < end {
            let (_, block) = &all[&(range.segment, at)];
            assert_eq!(block.partition, handle.partition);
            crc.update(&block.checksum.to_le_bytes());
            pages += u64::from(block.pages);
            bytes += block.page_bytes();
            found.push((range.segment, at));
            at += block.length();
        }
        assert_eq!((at, pages, crc.value()), (end, range.pages, range.checksum));
        assert!(end <= range.blocks_end);
    }
    for pair in handle.ranges.windows(2) {
        let adjoin =
            pair[0].segment == pair[1].segment && pair[0].offset + pair[0].length == pair[1].offset;
        assert!(!adjoin, "two ranges could be one: {pair:?}");
    }
    assert_eq!(bytes, handle.bytes);
    found
}

/// The first attempt of each task that wrote anything, from those in `preferred` if it did.
fn choose(segments: &[KnownSegment], preferred: u32) -> Vec<TaskAttempt> {
    let committed = committed(segments);
    let of_task = |task: u32| {
        let mut mine = committed.keys().filter(move |attempt| attempt.task == task);
        let first = mine.clone().next();
        mine.find(|attempt| attempt.attempt == preferred).or(first)
    };
    (0..TASKS).filter_map(of_task).copied().collect()
}

proptest! {
    #[test]
    fn handles_name_every_block_of_the_chosen_attempts_once_and_in_order(
        writes in writes(), preferred in 0_u32..2, target in prop::option::of(1_u64..200),
    ) {
        let segments = written(&writes);
        let all = blocks(&segments);
        let chosen = choose(&segments, preferred);
        let exchange = "q".parse().unwrap();
        let handles: Vec<_> = plan(&exchange, segments.clone(), &chosen, target).unwrap().collect();
        let planned: Vec<Vec<At>> = handles.iter().map(|handle| opened(handle, &all)).collect();
        let mut found: Vec<At> = planned.concat();
        // In the order in which the sink wrote them, within a task and partition.
        for (task, partition) in (0..TASKS).flat_map(|t| (0..PARTITIONS).map(move |p| (t, p))) {
            let mine = |at: &&At| all[at].0.task == task && all[at].1.partition == partition;
            let mine: Vec<&At> = found.iter().filter(mine).collect();
            prop_assert!(mine.is_sorted(), "{mine:?}");
        }
        found.sort_unstable();
        let expected = all.iter().filter(|(_, (attempt, _))| chosen.contains(attempt));
        let expected: Vec<At> = expected.map(|(at, _)| *at).collect();
        prop_assert_eq!(found, expected);
        for (handle, blocks) in handles.iter().zip(&planned) {
            prop_assert!(!blocks.is_empty());
            let small = target.is_none_or(|target| handle.bytes <= target);
            prop_assert!(small || blocks.len() == 1, "a handle of several blocks is too large");
        }
        prop_assert!(handles.is_sorted_by_key(|handle| handle.partition));
        let partitions: BTreeSet<u32> = handles.iter().map(|handle| handle.partition).collect();
        prop_assert!(target.is_some() || partitions.len() == handles.len());
    }

    /// The same without handles: in the order of the tasks.
    #[test]
    fn a_partition_is_planned_task_by_task(writes in writes(), preferred in 0_u32..2) {
        let segments = written(&writes);
        let all = blocks(&segments);
        let chosen = choose(&segments, preferred);
        let exchange = "q".parse().unwrap();
        for partition in 0..PARTITIONS {
            let handle = plan_partition(&exchange, &segments, &chosen, partition).unwrap();
            let found = opened(&handle, &all);
            let of_partition = all.iter().filter(|(_, (attempt, block))| {
                chosen.contains(attempt) && block.partition == partition
            });
            let mut expected: Vec<_> = of_partition.map(|(at, (a, _))| (a.task, *at)).collect();
            expected.sort_unstable();
            let expected: Vec<At> = expected.into_iter().map(|(_, at)| at).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// An attempt of which any segment is missing is lost, or unknown.
    #[test]
    fn a_plan_without_one_of_its_segments_is_refused(
        writes in writes(), missing in any::<prop::sample::Index>(),
    ) {
        let mut segments = written(&writes);
        let chosen = choose(&segments, 0);
        let removed = segments.remove(missing.index(segments.len()));
        let sinks = &removed.footer.sinks;
        let touched = chosen.iter().any(|attempt| sinks.contains(attempt));
        let planned = plan(&"q".parse().unwrap(), segments.clone(), &chosen, Some(100));
        prop_assert_eq!(planned.is_err(), touched);
        let (known, others) = split_known(&segments, &chosen);
        prop_assert_eq!(known.len() + others.len(), chosen.len());
        prop_assert_eq!(others.is_empty(), !touched);
        prop_assert!(plan(&"q".parse().unwrap(), segments, &known, Some(100)).is_ok());
    }
}

#[test]
fn a_task_that_is_chosen_twice_and_an_attempt_without_record_are_refused() {
    let write = Write {
        task: 1,
        attempt: 0,
        partition: 0,
        pages: vec![1],
        seals: false,
    };
    let segments = written(&[
        write.clone(),
        Write {
            attempt: 1,
            ..write
        },
    ]);
    let exchange = "q".parse().unwrap();
    let attempt = |number| TaskAttempt::new(1, number).unwrap();
    let refused = |chosen: &[TaskAttempt]| {
        let planned = plan(&exchange, segments.clone(), chosen, Some(100));
        planned.unwrap_err()
    };
    let twice = refused(&[attempt(0), attempt(1)]);
    assert!(
        matches!(twice, CatalogError::ChosenTwice { task: 1 }),
        "{twice}"
    );
    let unknown = refused(&[attempt(2)]);
    assert!(
        matches!(unknown, CatalogError::NotCommitted { .. }),
        "{unknown}"
    );
}

/// Of two commits of an attempt, the one that an earlier plan used counts, then the lower id.
#[test]
fn of_two_commit_records_the_one_that_an_earlier_plan_knew_counts() {
    let write = Write {
        task: 0,
        attempt: 0,
        partition: 0,
        pages: vec![1],
        seals: false,
    };
    let commit = |daemon: u64, round: u32| {
        let mut writer = Writer::default();
        writer.write(&write);
        let mut known = writer.commit(daemon).remove(0);
        known.round = round;
        known
    };
    let chosen = |segments: &[KnownSegment]| {
        let attempt = TaskAttempt::new(0, 0).unwrap();
        committed(segments)[&attempt].0.daemon.0
    };
    assert_eq!(chosen(&[commit(5, 0), commit(3, 0)]), 3);
    assert_eq!(chosen(&[commit(3, 0), commit(5, 0)]), 3);
    assert_eq!(chosen(&[commit(5, 0), commit(3, 1)]), 5);
    assert_eq!(chosen(&[commit(3, 1), commit(5, 0)]), 5);
}

/// Blocks of chosen attempts that alternate with those of others are ranges of their own.
#[test]
fn an_ordered_partition_in_more_places_than_a_handle_names_is_refused() {
    let exchange = "q".parse().unwrap();
    let places = |partitions: u32, each: usize| {
        let mut writer = Writer::default();
        for partition in 0..partitions {
            for task in 0..2 * u32::try_from(each).unwrap() {
                writer.write(&Write {
                    task,
                    attempt: 0,
                    partition,
                    pages: vec![1],
                    seals: false,
                });
            }
        }
        let segments = writer.commit(0);
        let attempts = committed(&segments).into_keys();
        let chosen: Vec<_> = attempts.filter(|attempt| attempt.task % 2 == 0).collect();
        (segments, chosen)
    };
    let (segments, chosen) = places(1, MAX_RANGES + 1);
    let refused = plan(&exchange, segments.clone(), &chosen, None).unwrap_err();
    assert!(
        matches!(refused, CatalogError::TooManyRanges { partition: 0, .. }),
        "{refused}"
    );
    let cut = plan(&exchange, segments.clone(), &chosen, Some(u64::MAX)).unwrap();
    let ranges: Vec<usize> = cut.map(|handle| handle.ranges.len()).collect();
    assert_eq!(ranges, [MAX_RANGES, 1]);
    let most = plan(&exchange, segments, &chosen[1..], None).unwrap();
    assert_eq!(most.count(), 1);
    let (segments, chosen) = places(2, MAX_RANGES / 2 + 1);
    let two = plan(&exchange, segments, &chosen, None).unwrap();
    assert_eq!(two.count(), 2, "each fits, if not all together");
}
