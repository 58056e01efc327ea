//! Request budgets: what work costs in requests, counted by the S3 server.
//!
//! Counts, not times. Everything is read back by handle, through a daemon that wrote none of it or,
//! in a fleet, through the home of its small sinks; the daemon verifies and counts every page.
//! Trino's own exchange manager needs 7,442 PUT-class requests and 7,242 GETs for 200 small tasks,
//! 1,632 and 1,600 for a gibibyte of large ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use stopover::app::Daemon;
use stopover::config::Config;
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::{ExchangeId, SinkId, TaskAttempt};
use stopover::runtime::Runtime;
use stopover::segment::frame::{BatchVerifier, FRAME_HEADER_LEN, write_frame_header};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Gateway;

/// A shuffle of `tasks` × `partitions`: `task_bytes` for each task, in pages of `page_bytes`.
#[derive(Clone, Copy)]
struct Shuffle {
    tasks: u32,
    partitions: u32,
    task_bytes: usize,
    page_bytes: usize,
}

const SMALL_TASKS: Shuffle = Shuffle {
    tasks: 200,
    partitions: 50,
    task_bytes: 1 << 20,
    page_bytes: 16 << 10,
};

const LARGE_TASKS: Shuffle = Shuffle {
    tasks: 32,
    partitions: 50,
    task_bytes: 32 << 20,
    page_bytes: 64 << 10,
};

impl Shuffle {
    fn pages_of_a_task(&self) -> u32 {
        (self.task_bytes / self.page_bytes) as u32
    }

    fn pages(&self) -> u64 {
        u64::from(self.tasks) * u64::from(self.pages_of_a_task())
    }
}

fn daemon(gateway: &Gateway, seed: u64) -> Daemon {
    let mut config = Config {
        base_directories: vec![
            gateway.config("s3://bucket/a"),
            gateway.config("s3://bucket/b"),
        ],
        ..Config::default()
    };
    config.memory.budget = Some(1 << 30);
    // No sweeps: they are the daemons' housekeeping, not the cost of the work.
    config.lease.duration = Duration::from_secs(36_000);
    config.lease.sweep_interval = Duration::from_secs(3600);
    Daemon::build(&config, &Runtime::seeded(seed)).unwrap()
}

/// One batch of about 1 MiB: pages assigned round-robin to the partitions, then sorted by partition
/// as the plugin does. Each page begins with its task and page number.
fn batch(shuffle: Shuffle, task: u32, pages: std::ops::Range<u32>) -> Bytes {
    let mut order: Vec<u32> = pages.collect();
    order.sort_by_key(|page| page % shuffle.partitions);
    let mut batch = Vec::with_capacity(order.len() * (shuffle.page_bytes + FRAME_HEADER_LEN));
    for page in order {
        let start = batch.len();
        batch.resize(start + FRAME_HEADER_LEN + shuffle.page_bytes, task as u8);
        batch[start + FRAME_HEADER_LEN..][..4].copy_from_slice(&task.to_le_bytes());
        batch[start + FRAME_HEADER_LEN + 4..][..4].copy_from_slice(&page.to_le_bytes());
        write_frame_header(&mut batch[start..], page % shuffle.partitions);
    }
    batch.into()
}

async fn write_task(
    daemon: &Daemon,
    exchange: &ExchangeId,
    shuffle: Shuffle,
    task: u32,
    foreign: bool,
) {
    let task_attempt = TaskAttempt::new(task, 0).unwrap();
    let sink = SinkId {
        exchange: exchange.clone(),
        task_attempt,
    };
    let per_batch = ((1 << 20) / shuffle.page_bytes) as u32;
    let all = shuffle.pages_of_a_task();
    for (number, start) in (0..all).step_by(per_batch as usize).enumerate() {
        let bytes = batch(shuffle, task, start..(start + per_batch).min(all));
        let admission = daemon.ingest.admit(&sink, Some(number as u32)).unwrap();
        let length = bytes.len() as u64;
        let admission = match foreign {
            true => admission.reserve_foreign(length).unwrap(),
            false => admission.reserve(length).await.unwrap(),
        };
        let check = BatchVerifier::new(shuffle.partitions, 16 << 20);
        admission.append(check, bytes).unwrap();
    }
    daemon.ingest.finish(&sink, None).await.unwrap();
}

/// Reads a handle and returns its number of pages.
async fn read_handle(daemon: &Daemon, handle: &str) -> u64 {
    let stream = daemon.reader.read_handle(handle, 0).await.unwrap();
    let end = stream
        .try_fold(Bytes::new(), |_, part| async move {
            Ok(part.slice(part.len().saturating_sub(32)..))
        })
        .await
        .unwrap();
    // The daemon has verified every page; its end record counts them.
    u64::from_le_bytes(end[8..16].try_into().unwrap())
}

async fn at_once<F: Future<Output = u64> + Send + 'static>(
    most: usize,
    jobs: impl Iterator<Item = F>,
) -> u64 {
    let permits = Arc::new(Semaphore::new(most));
    let mut running = JoinSet::new();
    for job in jobs {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        running.spawn(async move {
            let count = job.await;
            drop(permit);
            count
        });
    }
    running.join_all().await.into_iter().sum()
}

struct Cost {
    puts: usize,
    gets: usize,
}

impl Cost {
    fn is_at_most(&self, puts: usize, gets: usize) {
        let Self { puts: p, gets: g } = self;
        assert!(*p <= puts && *g <= gets, "{p} PUT, {g} GET");
    }
}

/// What a server has counted.
struct Requests {
    puts: usize,
    gets: usize,
    lists: usize,
}

impl Requests {
    fn until_now(gateway: &Gateway) -> Self {
        let puts = [
            "s3_PutObject",
            "s3_CreateMultipartUpload",
            "s3_UploadPart",
            "s3_CompleteMultipartUpload",
            "s3_CopyObject",
        ];
        Self {
            puts: puts.iter().map(|name| gateway.requests(name)).sum(),
            gets: gateway.requests("s3_GetObject") + gateway.requests("s3_HeadObject"),
            lists: gateway.requests("s3_ListObjectsV2"),
        }
    }
}

/// An announced exchange, and the daemons of a fleet. The first one announced it.
struct Work {
    gateway: Gateway,
    /// Of the start of the daemons, which is not counted.
    before: Requests,
    fleet: Vec<Daemon>,
    exchange: ExchangeId,
    shuffle: Shuffle,
}

impl Work {
    async fn begin(shuffle: Shuffle, daemons: u64) -> Self {
        let gateway = Gateway::start("bucket", "key", "secret");
        let fleet: Vec<_> = (1..=daemons).map(|seed| daemon(&gateway, seed)).collect();
        // As when they start: they make the base directories, and test them.
        for daemon in &fleet {
            daemon.storage.probe().await;
        }
        let before = Requests::until_now(&gateway);
        let exchange: ExchangeId = "q-budget".parse().unwrap();
        let spec = ExchangeSpec {
            partitions: shuffle.partitions,
            ordered: false,
        };
        let announced = fleet[0]
            .exchanges
            .announce(&exchange, spec, Announce::CreateOrRenew);
        announced.await.unwrap();
        Self {
            gateway,
            before,
            fleet,
            exchange,
            shuffle,
        }
    }

    /// Writes all tasks at the first daemon, as many at once as there are writers in a fleet.
    async fn write(&self, foreign: bool) {
        let shuffle = self.shuffle;
        let writes = (0..shuffle.tasks).map(|task| {
            let (writer, exchange) = (self.fleet[0].clone(), self.exchange.clone());
            async move {
                write_task(&writer, &exchange, shuffle, task, foreign).await;
                1
            }
        });
        assert_eq!(at_once(8, writes).await, u64::from(shuffle.tasks));
    }

    fn chosen(&self) -> Vec<TaskAttempt> {
        let tasks = 0..self.shuffle.tasks;
        tasks.map(|t| TaskAttempt::new(t, 0).unwrap()).collect()
    }

    /// Reads all pages, and ends.
    async fn read(self, reader: Daemon, handles: Vec<String>) -> Cost {
        let length = handles.iter().map(String::len).sum();
        let reads = handles.into_iter().map(|handle| {
            let reader = reader.clone();
            async move { read_handle(&reader, &handle).await }
        });
        assert_eq!(at_once(8, reads).await, self.shuffle.pages());
        self.end(length).await
    }

    /// Counts the requests, and closes the exchange, which leaves nothing.
    async fn end(self, handles: usize) -> Cost {
        let gateway = self.gateway;
        let (all, before) = (Requests::until_now(&gateway), self.before);
        let (puts, gets) = (all.puts - before.puts, all.gets - before.gets);
        let lists = all.lists - before.lists;
        println!("{puts} PUT-class, {gets} GET, {lists} LIST, {handles} bytes of handles");
        let closer = self.fleet.last().unwrap();
        closer.closing.close(&self.exchange).await.unwrap();
        let is_permanent = |file: &String| {
            let permanent = [".keep", "identity", "members", "sweeper"];
            permanent.iter().any(|name| file.ends_with(name))
        };
        // A writer that checks at this moment whether the exchange is open claims what it finds.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = gateway.files();
            if left.iter().all(is_permanent) {
                break;
            }
            assert!(Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Cost { puts, gets }
    }
}

/// What one daemon writes, another one plans and reads.
async fn run(shuffle: Shuffle) -> Cost {
    let work = Work::begin(shuffle, 2).await;
    work.write(false).await;
    let (reader, chosen) = (work.fleet[1].clone(), work.chosen());
    let planned = reader
        .catalog
        .plan_handles(&work.exchange, false, &chosen, 64 << 20);
    let (planned, _memory) = planned.await.unwrap();
    let handles = planned.map(|handle| handle.text).collect();
    work.read(reader, handles).await
}

/// The small sinks of eight nodes meet at one of their daemons. The coordinator asks all eight
/// for what they have in memory, and reads it where it is.
async fn run_in_a_fleet(shuffle: Shuffle) -> Cost {
    let work = Work::begin(shuffle, 8).await;
    work.write(true).await;
    let (mut handles, mut unknown) = (Vec::new(), work.chosen());
    for daemon in &work.fleet {
        let (own, exchange) = (daemon.ingest.daemon(), &work.exchange);
        let planned = daemon
            .catalog
            .plan_from_memory(exchange, own, false, &unknown, 64 << 20);
        let planned = planned.await.unwrap();
        handles.extend(planned.handles.map(|handle| handle.text));
        unknown = planned.unknown;
    }
    assert!(unknown.is_empty(), "not in memory: {unknown:?}");
    let home = work.fleet[0].clone();
    work.read(home, handles).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_small_tasks_cost_at_most_60_puts_and_200_gets() {
    run(SMALL_TASKS).await.is_at_most(60, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_small_tasks_of_eight_nodes_cost_at_most_60_puts_and_60_gets() {
    run_in_a_fleet(SMALL_TASKS).await.is_at_most(60, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_of_large_tasks_costs_at_most_100_puts_and_1000_gets() {
    run(LARGE_TASKS).await.is_at_most(100, 1000);
}
