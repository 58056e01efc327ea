//! The cost of an exchange as it grows: requests, bytes fetched, handles, memory, time.
//!
//! Does: write each case through its writers, plan and read it through daemons that wrote none of
//! it and have nothing cached, and count the store requests and connections of all of them. Does
//! not: compare with anything. Invariant: every page that was written is read back once.
//!
//! The store is a local folder without fsync unless another one is given. Requests and bytes are
//! the same with any store, except lists: S3 returns them in pages of 1,000 keys.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::client::Client;
use crate::exchange::{Batch, Exchange};
use crate::server::Server;

/// Concurrent clients.
const CONNECTIONS: usize = 16;
/// How often connections are counted.
const CONNECTION_INTERVAL: Duration = Duration::from_millis(20);
const MAX_PAGE: usize = 64 << 10;
const MAX_BATCH: usize = 16 << 20;
/// Tasks, partitions, KiB per task, writing daemons, other reading daemons (0: the writers read).
const TABLE: [[usize; 5]; 16] = [
    [100, 100, 256, 1, 1],
    [1_000, 100, 256, 1, 1],
    [10_000, 100, 256, 1, 1],
    [100, 1_000, 1 << 10, 1, 1],
    [100, 10_000, 1 << 10, 1, 1],
    [1_000, 1_000, 1 << 10, 1, 1],
    [1_000, 10_000, 1 << 10, 1, 1],
    [1_000, 100, 1 << 10, 1, 1],
    [1_000, 100, 1 << 10, 3, 1],
    [1_000, 100, 1 << 10, 8, 1],
    [1_000, 100, 1 << 10, 1, 3],
    [1_000, 1_000, 1 << 10, 1, 3],
    [100, 100, 10 << 10, 1, 1],
    [100, 100, 100 << 10, 1, 1],
    [1_000, 50, 256, 1, 0],
    [1_000, 50, 256, 16, 0],
];

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Case([usize; 5]);

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<usize> = text
            .split('x')
            .map(|number| Ok(number.parse()?))
            .collect::<Result<_>>()?;
        let numbers = <[usize; 5]>::try_from(numbers);
        let case = numbers
            .ok()
            .context("expected five numbers separated by x")?;
        ensure!(!case[..4].contains(&0), "only the last number may be 0");
        Ok(Self(case))
    }
}

/// The store requests of some daemons so far.
#[derive(Debug, Clone, Copy, Default)]
struct StoreRequests {
    puts: u64,
    gets: u64,
    lists: u64,
    fetched: u64,
}

impl StoreRequests {
    fn of(daemons: &[Server]) -> Result<Self> {
        let mut all = Self::default();
        for daemon in daemons {
            let text =
                Client::connect(daemon.address)?.call("GET", "/metrics", "text/plain", b"")?;
            let text = String::from_utf8(text)?;
            let sums = sums(&text);
            let of = |name: &str| sums.get(name).copied().unwrap_or(0);
            all.puts += of("put");
            all.gets += of("get");
            all.lists += of("list");
            all.fetched += of("fetched");
        }
        Ok(all)
    }

    fn since(self, before: Self) -> Self {
        Self {
            puts: self.puts - before.puts,
            gets: self.gets - before.gets,
            lists: self.lists - before.lists,
            fetched: self.fetched - before.fetched,
        }
    }
}

/// Sums over base directories and outcomes, by operation; `fetched` is in bytes.
fn sums(metrics: &str) -> HashMap<&str, u64> {
    let mut sums = HashMap::new();
    for line in metrics.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let what = if name.starts_with("stopover_storage_requests_total{") {
            let after = name.split_once("operation=\"").map(|(_, after)| after);
            after.and_then(|after| after.split('"').next())
        } else {
            let read = name.starts_with("stopover_storage_read_bytes_total{");
            read.then_some("fetched")
        };
        if let Some(what) = what {
            *sums.entry(what).or_default() += value.parse().unwrap_or(0);
        }
    }
    sums
}

struct Row {
    case: Case,
    bytes: u64,
    /// Writing and finishing, planning, reading.
    seconds: [f64; 3],
    written: StoreRequests,
    planned: StoreRequests,
    read: StoreRequests,
    handles: usize,
    handle_bytes: usize,
    /// Peak resident memory of the largest writer, the planner and the largest reader, in bytes.
    peaks: [u64; 3],
    /// The most connections of one daemon at a time: accepted and made.
    connections: (usize, usize),
}

impl Row {
    fn print(&self) {
        let Case([tasks, partitions, kib, writers, readers]) = self.case;
        let [write, plan, read] = self.seconds;
        let (accepted, made) = self.connections;
        let [writer, planner, reader] = self.peaks.map(|bytes| bytes >> 20);
        println!(
            "| {tasks} × {partitions} × {kib} KiB | {writers} → {readers} | {write:.1} | {plan:.2} \
             | {read:.1} | {} | {} + {} | {} + {} | {:.2} | {} | {} | {writer} | {planner} \
             | {reader} | {accepted} + {made} |",
            self.written.puts,
            self.written.gets,
            self.written.lists,
            self.planned.gets,
            self.planned.lists,
            self.read.fetched as f64 / self.bytes as f64,
            self.read.gets,
            format_args!(
                "{} × {}",
                self.handles,
                self.handle_bytes / self.handles.max(1)
            ),
        );
    }
}

/// Runs the cases, or the whole table if there are none, and prints a row for each. `store` is TOML
/// that configures the base directories.
pub fn run(binary: &Path, folder: &Path, cases: &[Case], store: Option<&str>) -> Result<()> {
    println!(
        "| tasks × partitions × task | daemons | write, s | plan, s | read, s | PUT | GET + LIST \
         to write | to plan | fetched a byte | GET to read | handles × B | writer, MiB \
         | planner, MiB | reader, MiB | connections of a daemon, accepted + made |"
    );
    println!("{}|", "|---".repeat(15));
    let table = TABLE.map(Case);
    let cases = if cases.is_empty() { &table } else { cases };
    for (number, case) in cases.iter().enumerate() {
        let folder = folder.join(format!("case-{number}"));
        std::fs::create_dir(&folder)?;
        let local = format!(
            "[[base_directory]]\nuri = \"{}\"\nfsync = false\n",
            folder.join("base").display()
        );
        let setup = Setup {
            binary,
            folder: &folder,
            settings: format!(
                "{}\n[lease]\nsweep_interval = \"10m\"\n",
                store.unwrap_or(&local)
            ),
        };
        measure(
            &setup,
            *case,
            &format!("growth-{}-{number}", std::process::id()),
        )?
        .print();
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

struct Setup<'a> {
    binary: &'a Path,
    folder: &'a Path,
    settings: String,
}

impl Setup<'_> {
    fn start(&self, name: &str, count: usize) -> Result<Vec<Server>> {
        let start = |number| {
            let name = format!("{name}-{number}");
            Server::daemon(self.binary, self.folder, &name, &self.settings)
        };
        (0..count).map(start).collect()
    }
}

fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

fn peak(servers: &[Server]) -> Result<u64> {
    let mut peaks = servers.iter().map(Server::peak);
    peaks.try_fold(0, |most, peak| Ok(most.max(peak?)))
}

/// Does `work`, and returns the most connections that one of the daemons has meanwhile, accepted
/// and made.
fn counting_connections<T>(
    daemons: &[&Server],
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, (usize, usize))> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut most = (0, 0);
            while !done.load(Ordering::Relaxed) {
                for daemon in daemons {
                    let (accepted, made) = daemon.connections()?;
                    most = (most.0.max(accepted), most.1.max(made));
                }
                std::thread::sleep(CONNECTION_INTERVAL);
            }
            anyhow::Ok(most)
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let most = counting.join().expect("counting does not panic")?;
        Ok((worked?, most))
    })
}

fn measure(setup: &Setup<'_>, case: Case, name: &str) -> Result<Row> {
    let Case([_, _, _, writers, readers]) = case;
    let writers = setup.start("writer", writers)?;
    let others = setup.start("reader", readers)?;
    let readers = if others.is_empty() { &writers } else { &others };
    let planner = setup.start("planner", 1)?;
    let daemons: Vec<&Server> = writers.iter().chain(readers).chain(&planner).collect();
    let run = || measure_at(case, name, &writers, &planner, readers);
    let (row, connections) = counting_connections(&daemons, run)?;
    Ok(Row { connections, ..row })
}

fn measure_at(
    case: Case,
    name: &str,
    writers: &[Server],
    planner: &[Server],
    readers: &[Server],
) -> Result<Row> {
    let Case([tasks, partitions, kib, ..]) = case;
    let size = (kib << 10).min(MAX_BATCH);
    let page = (size / partitions).clamp(1, MAX_PAGE);
    let (batch, batches) = (Batch::new(size, page, partitions)?, (kib << 10) / size);
    let first = writers[0].address;
    let exchange = Exchange::announce(first, name, CONNECTIONS, batches, &batch)?;
    let exchange = exchange.with_sinks(tasks, addresses(writers));

    let (before, since) = (StoreRequests::of(writers)?, Instant::now());
    exchange.write_and_finish()?;
    let write = since.elapsed().as_secs_f64();
    let written = StoreRequests::of(writers)?.since(before);

    let (before, since) = (StoreRequests::of(planner)?, Instant::now());
    let handles = exchange.handles_from(planner[0].address)?;
    let plan = since.elapsed().as_secs_f64();
    let planned = StoreRequests::of(planner)?.since(before);

    let (before, since) = (StoreRequests::of(readers)?, Instant::now());
    exchange.read(&addresses(readers), &handles)?;
    let read = since.elapsed().as_secs_f64();
    let row = Row {
        case,
        bytes: exchange.bytes(),
        seconds: [write, plan, read],
        written,
        planned,
        read: StoreRequests::of(readers)?.since(before),
        handles: handles.len(),
        handle_bytes: handles.iter().map(|(text, _)| text.len()).sum(),
        peaks: [peak(writers)?, peak(planner)?, peak(readers)?],
        connections: (0, 0),
    };
    exchange.remove()?;
    Ok(row)
}
