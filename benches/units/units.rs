//! The pure parts of the data path in isolation: checksum, framing, segment, footer, scan, planner.
//!
//! Does: time each part on a typical shuffle. Does not: any I/O. Invariant: the result of what is
//! timed is checked once before.
//!
//!     cargo bench --manifest-path benches/units/Cargo.toml
//!     cargo test --manifest-path benches/units/Cargo.toml --benches    # run each once

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stopover::catalog::plan::{KnownSegment, plan};
use stopover::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use stopover::segment::footer::{CommitRecord, Footer, Totals};
use stopover::segment::frame::{FRAME_HEADER_LEN, Run, write_frame_header, verify_batch};
use stopover::segment::layout::{BlockRecord, RECORD_LEN, Trailer};
use stopover::segment::scan::{Expected, PageFormat, Scanner};
use stopover::segment::writer::{SinkRun, SegmentDraft, write_segment};
use stopover::crc::{Checksum, checksum};

const PARTITIONS: u32 = 50;
const SINKS: u32 = 32;
const BATCH: usize = 4 << 20;
const PAGES: [(&str, usize); 3] = [("64KiB", 64 << 10), ("16KiB", 16 << 10), ("1KiB", 1 << 10)];

/// A batch as the plugin sends it: sorted by partition.
fn batch(page: usize) -> Bytes {
    let pages = BATCH / page;
    let mut batch = Vec::with_capacity(pages * (page + FRAME_HEADER_LEN));
    for number in 0..pages {
        let start = batch.len();
        batch.resize(start + FRAME_HEADER_LEN + page, number as u8);
        write_frame_header(
            &mut batch[start..],
            (number * PARTITIONS as usize / pages) as u32,
        );
    }
    batch.into()
}

fn runs(page: usize) -> Vec<Run> {
    verify_batch(batch(page), PARTITIONS, BATCH as u64)
        .unwrap()
        .runs
}

fn exchange() -> ExchangeId {
    "20260101_000000_00000_abcde-00000000-0000-0000-0000-000000000000"
        .parse()
        .unwrap()
}

fn block_checksum(run: &Run) -> u32 {
    let mut crc = Checksum::default();
    run.add_crcs(&mut crc);
    crc.value()
}

/// A segment with one batch of each sink, in which all sinks finish.
fn draft(runs: &[Run]) -> SegmentDraft {
    let attempts = (0..SINKS).map(|task| TaskAttempt::new(task, 0).unwrap());
    let totals = {
        let mut crc = Checksum::default();
        runs.iter().for_each(|run| run.add_crcs(&mut crc));
        Totals {
            batches: 1,
            pages: runs.iter().map(|run| u64::from(run.pages)).sum(),
            bytes: runs.iter().map(Run::page_bytes).sum(),
            checksum: crc.value(),
        }
    };
    let pieces = attempts.clone().flat_map(|sink| {
        let runs = runs.iter().cloned();
        runs.map(move |run| SinkRun { sink, run })
    });
    let commits = attempts.map(|attempt| CommitRecord {
        attempt,
        totals,
        predecessors: Vec::new(),
    });
    SegmentDraft {
        exchange: exchange(),
        segment: SegmentId {
            daemon: DaemonId(1),
            sequence: 1,
        },
        sealed_millis: 1,
        runs: pieces.collect(),
        commits: commits.collect(),
    }
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify a batch of 4 MiB");
    group.throughput(Throughput::Bytes(BATCH as u64));
    for (name, page) in PAGES {
        let batch = batch(page);
        group.bench_function(name, |bencher| {
            bencher.iter(|| verify_batch(batch.clone(), PARTITIONS, BATCH as u64).unwrap());
        });
    }
    group.finish();
}

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for (name, page) in PAGES {
        let bytes = vec![7; page];
        group.throughput(Throughput::Bytes(page as u64));
        group.bench_function(name, |bencher| bencher.iter(|| checksum(black_box(&bytes))));
    }
    group.finish();
}

fn segments(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment of 32 sinks and 50 partitions");
    for (name, page) in PAGES {
        let runs = runs(page);
        group.bench_function(format!("lay out, pages of {name}"), |bencher| {
            let draft = draft(&runs);
            bencher.iter_batched(|| draft.clone(), write_segment, BatchSize::SmallInput);
        });
    }
    let footer = write_segment(draft(&runs(64 << 10))).footer;
    let encoded = footer.encode().concat();
    let trailer = Trailer {
        footer_offset: footer.blocks.end(),
        footer_length: encoded.len() as u32,
        footer_crc: checksum(&encoded),
    };
    assert_eq!(Footer::decode(&encoded, &trailer).unwrap(), footer);
    group.bench_function("encode the footer", |bencher| {
        bencher.iter(|| footer.encode());
    });
    group.bench_function("decode the footer", |bencher| {
        bencher.iter(|| Footer::decode(&encoded, &trailer).unwrap());
    });
    group.finish();
}

fn planner(criterion: &mut Criterion) {
    let image = write_segment(draft(&runs(64 << 10)));
    let segments: Vec<KnownSegment> = [KnownSegment {
        address: SegmentAddress {
            exchange: exchange(),
            base: "base".parse().unwrap(),
            segment: image.footer.segment,
        },
        footer: Arc::new(image.footer),
        round: 0,
    }]
    .into();
    let chosen: Vec<TaskAttempt> = (0..SINKS)
        .map(|task| TaskAttempt::new(task, 0).unwrap())
        .collect();
    let planned = || plan(&exchange(), segments.clone(), &chosen, Some(64 << 20)).unwrap();
    assert_eq!(planned().count(), PARTITIONS as usize);
    criterion.bench_function(
        "plan the handles of 32 sinks and 50 partitions",
        |bencher| bencher.iter(|| planned().collect::<Vec<_>>()),
    );
}

fn scanning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan the longest block of a batch");
    for (name, page) in PAGES {
        let frames: Vec<Run> = runs(page);
        let run = frames
            .into_iter()
            .max_by_key(|run| run.frames.len())
            .unwrap();
        let record = BlockRecord {
            partition: run.partition,
            task: 0,
            attempt: 0,
            pages: run.pages,
            frames_length: run.frames.len() as u64,
        };
        let block: Bytes = [&record.encode()[..RECORD_LEN], &run.frames].concat().into();
        let expected = Expected {
            partition: run.partition,
            pages: u64::from(run.pages()),
            checksum: checksum(&block_checksum(run).to_le_bytes()),
        };
        group.throughput(Throughput::Bytes(block.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut scanner = Scanner::new(expected, PageFormat::Records, 0);
                let mut out = Vec::new();
                scanner.push(block.clone(), &mut out).unwrap();
                scanner.finish().unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, checksums, framing, segments, planner, scanning);
criterion_main!(benches);
