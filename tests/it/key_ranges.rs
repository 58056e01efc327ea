//! Spread keys and dated keys at a store that divides its load by ranges of keys.
//!
//! `cargo test --test it key_ranges -- --nocapture` prints the table of docs/performance.md.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use stopover::id::{DaemonId, ExchangeId, SegmentId};
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::object::ObjectBackend;
use stopover::store::object::redact::Redactor;
use stopover::store::{Store, StoreLimits};
use tokio::time::Instant;

use crate::support::key_ranges::{KeyRanges, Limits};
use crate::support::slow::{Delay, SlowStore};

/// A hundredth of S3's; S3 takes half an hour to an hour to divide a range.
const LIMITS: Limits = Limits {
    puts: 35,
    gets: 55,
    divided_after: Duration::from_secs(20),
};
/// Tasks that write at a time, and how long each request takes.
const WRITERS: u32 = 40;
const LATENCY: Duration = Duration::from_millis(200);
/// Each query writes for so long; then a later one takes its place.
const QUERY: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_secs(60);
const PERIODS: usize = 6;

/// As they are.
fn spread(key: &str) -> String {
    key.to_owned()
}

/// As they were in layout 1: without the hash, so that they begin with the date of the query.
fn dated(key: &str) -> String {
    let parts = key.split('/');
    let parts = parts.map(|part| match part.split_once('-') {
        Some((hash, rest)) if hash.len() == 4 => rest,
        _ => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn storage(ranges: &Arc<KeyRanges>) -> Storage {
    let memory = Arc::new(InMemory::new());
    let inner = ObjectBackend::new(memory, "p".into(), Redactor::default(), false);
    let (inner, delay) = (
        Arc::new(inner),
        Delay::OfRanges(LATENCY, Arc::clone(ranges)),
    );
    let store: Arc<dyn Store> = Arc::new(SlowStore { inner, delay });
    let stores = vec![("s".parse().unwrap(), "test".to_owned(), store)];
    Storage::from_stores(stores, StoreLimits::REMOTE, &Runtime::seeded(3))
}

/// The exchange to which a writer writes at a time since midnight, named as Trino names queries.
fn exchange(writer: u32, now: Duration) -> ExchangeId {
    let began = now.as_secs() / QUERY.as_secs() * QUERY.as_secs();
    let (hour, minute, second) = (began / 3600, began / 60 % 60, began % 60);
    let query = format!("20261128_{hour:02}{minute:02}{second:02}_{writer:05}_abcde");
    format!("{query}-00000000-0000-0000-0000-{writer:012}")
        .parse()
        .unwrap()
}

/// Stores segments and reads each, one after the other.
async fn write(storage: Storage, writer: u32, start: Instant) {
    for sequence in 0.. {
        let segment = SegmentId {
            daemon: DaemonId(u64::from(writer)),
            sequence,
        };
        let exchange = exchange(writer, start.elapsed());
        let content = vec![Bytes::from_static(b"segment")];
        if let Ok(at) = storage.put_segment(&exchange, segment, content).await {
            let _ = storage.get_range(&at, 0..7).await;
        }
    }
}

/// What happened in one period.
#[derive(Debug, Clone, Copy)]
struct Period {
    ranges: usize,
    granted: u64,
    refused: u64,
}

async fn run(name: fn(&str) -> String) -> Vec<Period> {
    let ranges = Arc::new(KeyRanges::new(LIMITS, name));
    let storage = storage(&ranges);
    storage.probe().await;
    let start = Instant::now();
    let writers = (0..WRITERS).map(|n| tokio::spawn(write(storage.clone(), n, start)));
    let writers: Vec<_> = writers.collect();
    let mut periods = Vec::new();
    let mut before = ranges.counts();
    for _ in 0..PERIODS {
        tokio::time::sleep(PERIOD).await;
        let now = ranges.counts();
        periods.push(Period {
            ranges: now.0,
            granted: now.1 - before.1,
            refused: now.2 - before.2,
        });
        before = now;
    }
    for writer in writers {
        writer.abort();
    }
    periods
}

/// Story: all query ids of a day begin with the same date, and those of a moment are neighbours. A
/// store that divides the busiest range of keys divides it where the queries of the moment are, and
/// all that come later are in the last range again, however often it is divided.
#[tokio::test(start_paused = true)]
async fn spread_keys_use_every_range_of_a_store_and_dated_keys_only_the_last() {
    let (spread, dated) = (run(spread).await, run(dated).await);
    let mut table = String::from(
        "| minute | spread: ranges | granted/s | refused/s \
        | dated: ranges | granted/s | refused/s |\n|---|---|---|---|---|---|---|\n",
    );
    for (n, (spread, dated)) in (1..).zip(spread.iter().zip(&dated)) {
        write!(table, "| {n} ").unwrap();
        for Period {
            ranges,
            granted,
            refused,
        } in [spread, dated]
        {
            let (granted, refused) = (granted / PERIOD.as_secs(), refused / PERIOD.as_secs());
            write!(table, "| {ranges} | {granted} | {refused} ").unwrap();
        }
        table.push_str("|\n");
    }
    println!("{table}");
    let (spread, dated) = (spread[PERIODS - 1], dated[PERIODS - 1]);
    // As many as there would be without limits: each writer waits for one request at a time.
    let most = u64::from(WRITERS) * PERIOD.as_secs() * 1000 / LATENCY.as_millis() as u64;
    assert!(spread.granted * 10 > most * 9, "{spread:?} of {most}");
    assert!(spread.refused * 50 < spread.granted, "{spread:?}");
    // One range's worth, puts and gets, although there are as many ranges by now.
    assert!(dated.ranges > 4, "{dated:?}");
    let one = u64::from(LIMITS.puts + LIMITS.gets) * PERIOD.as_secs();
    assert!(dated.granted < one, "{dated:?}, of {one}");
    assert!(dated.refused * 10 > dated.granted, "{dated:?}");
    assert!(spread.granted > dated.granted * 2, "{spread:?}, {dated:?}");
}
