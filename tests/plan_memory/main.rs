//! A plan of many segments and blocks stays within the memory budget, or is refused.
//!
//! A binary of its own, since it measures the memory of its process. The segments are synthetic:
//! the store makes the tail of each when it is requested. Ten million blocks in half a million
//! segments (docs/lab/growth.md):
//!
//!     cargo test --release --test plan_memory -- --ignored --nocapture

#![allow(clippy::cast_possible_truncation, missing_docs)] // numbers of the tests' own

mod synthetic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stopover::app::Daemon;
use stopover::catalog::CatalogError;
use stopover::config::Config;
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::{ExchangeId, TaskAttempt};
use stopover::runtime::Runtime;
use stopover::storage::{Storage, StoreLimits};
use stopover::store::Store;

use synthetic::{Shape, SyntheticStore};

/// Memory that a daemon may use beyond its budget, as docs/operations.md states.
const OVERHEAD: u64 = 96 << 20;
const TARGET_SIZE: u64 = 64 << 20;

/// A value of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// The exchange planned at a daemon with this budget: how many handles and pages, and the most
/// memory that this process used until then.
async fn plan(shape: Shape, budget: u64) -> (Result<(usize, u64), CatalogError>, u64) {
    let runtime = Runtime::seeded(7);
    let exchange: ExchangeId = "20261128_091503_00001_abcde-1".parse().unwrap();
    let store: Arc<dyn Store> = SyntheticStore::new(&exchange, shape);
    let base = ("main".parse().unwrap(), "test".to_owned(), store);
    let storage = Storage::from_stores(vec![base], StoreLimits::REMOTE, &runtime);
    let mut config = Config::default();
    config.memory.budget = Some(budget);
    let daemon = Daemon::assemble(&config, &runtime, storage, Arc::default());
    daemon.start(Duration::from_secs(10)).await;
    let spec = ExchangeSpec {
        partitions: shape.partitions,
        ordered: false,
    };
    let announced = daemon
        .exchanges
        .announce(&exchange, spec, Announce::CreateOrRenew);
    announced.await.unwrap();
    let chosen: Vec<_> = (0..shape.tasks)
        .map(|task| TaskAttempt::new(task, 0).unwrap())
        .collect();
    let planned = daemon
        .catalog
        .plan_handles(&exchange, false, &chosen, TARGET_SIZE)
        .await;
    let planned = planned.map(|(handles, _memory)| {
        let pages = handles.map(|handle| handle.pages);
        pages.fold((0, 0), |(count, sum), pages| (count + 1, sum + pages))
    });
    (planned, status("VmHWM"))
}

async fn check(shape: Shape, too_small: u64, sufficient: u64) {
    let before = status("VmRSS");
    let (refused, peak) = plan(shape, too_small).await;
    let within = |peak: u64, budget: u64| {
        let (mib, most) = ((peak - before) >> 20, (budget + OVERHEAD) >> 20);
        println!("{} MiB of a budget of {} MiB", mib, budget >> 20);
        assert!(mib <= most, "{mib} MiB, {most} MiB are allowed");
    };
    let refused = refused.expect_err("the plan does not fit").to_string();
    println!("{refused}");
    assert!(refused.contains("memory.budget"), "{refused}");
    within(peak, too_small);
    let started = Instant::now();
    let (planned, peak) = plan(shape, sufficient).await;
    let (handles, pages) = planned.unwrap();
    println!(
        "{handles} handles in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(pages, shape.blocks());
    within(peak, sufficient);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_of_half_a_million_blocks_is_within_the_budget_or_refused() {
    check(Shape::with_tasks(1_000), 24 << 20, 128 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes gigabytes"]
async fn a_plan_of_ten_million_blocks_in_half_a_million_segments_is_within_the_budget() {
    check(Shape::with_tasks(20_000), 512 << 20, 1536 << 20).await;
}
