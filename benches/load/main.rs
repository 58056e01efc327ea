//! A load test of the daemon alone, without a JVM, compared with what the machine can do.
//!
//! Does: send pages and read them back, alternating with a yardstick (the same bytes through the
//! same HTTP stack, dropped or served from memory; a plain file written and read), and print
//! ratios. Does not: belong to the tests, except a run of seconds (`--smoke`). Invariant: both
//! sides of a ratio come from consecutive runs.
//!
//!     cargo bench --bench load                       # ingest, serve, spool, fetch
//!     cargo bench --bench load -- instructions --page-kib 1
//!     cargo bench --bench load -- growth             # the table of docs/performance.md
//!
//! docs/performance.md has results.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod client;
mod disk;
mod exchange;
mod growth;
mod instructions;
mod server;
mod yardstick;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use exchange::{Batch, Exchange, PARTITIONS, on_connections};
use server::Server;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Write pages to memory; yardsticks: bodies dropped, and bodies copied to memory unchecked
    Ingest,
    /// Read pages from memory; yardstick: bytes from memory
    Serve,
    /// Write pages to disk, finished and synced; yardstick: the slower of dropped bodies and the
    /// disk
    Spool,
    /// Read pages from disk through a daemon that did not write them
    Fetch,
    /// Instructions per page, under valgrind
    Instructions,
    /// Requests, memory and time as tasks, partitions, daemons and bytes grow
    Growth,
}

#[derive(Parser)]
struct Options {
    /// What to measure [default: ingest, serve, spool, fetch]
    what: Vec<Benchmark>,
    /// MiB per round
    #[arg(long, default_value_t = 1024)]
    total_mib: usize,
    /// MiB per request
    #[arg(long, default_value_t = 4)]
    batch_mib: usize,
    /// KiB per page
    #[arg(long, default_value_t = 64)]
    page_kib: usize,
    /// Concurrent connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Measured rounds, after one that warms up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The daemon's binary
    #[arg(long, default_value = env!("CARGO_BIN_EXE_stopover"))]
    daemon: PathBuf,
    /// The folder for data, on the disk to be measured [default: temporary]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// For `growth`, instead of the table: TASKSxPARTITIONSxKIBxWRITERSxREADERS, with KiB per task;
    /// with 0 readers the writers read
    #[arg(long)]
    case: Vec<growth::Case>,
    /// For `growth`: a file with [[base_directory]] sections, instead of a local folder
    #[arg(long)]
    store: Option<PathBuf>,
    /// Run the smallest load that shows that everything works
    #[arg(long)]
    smoke: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn read() -> Self {
        let mut options = Self::parse();
        if options.smoke {
            (options.total_mib, options.batch_mib, options.rounds) = (4, 1, 1);
        }
        if options.what.is_empty() {
            options.what = vec![
                Benchmark::Ingest,
                Benchmark::Serve,
                Benchmark::Spool,
                Benchmark::Fetch,
            ];
        }
        options
    }

    fn batches(&self) -> usize {
        (self.total_mib / self.batch_mib / self.connections).max(1)
    }

    /// Settings with which a round stays in memory and fits into one segment, which may use at most
    /// a quarter of the memory for writing.
    fn large_memory(&self) -> String {
        let budget = self.total_mib * 5 + 512;
        format!("[memory]\nbudget = \"{budget}MiB\"\nwrite_share = 0.9\n")
    }
}

/// One side of a round.
#[derive(Debug, Clone, Copy)]
struct Run {
    seconds: f64,
    bytes: u64,
    cpu: f64,
}

impl Run {
    /// MB/s.
    fn speed(self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// CPU seconds of the server per GB.
    fn cost(self) -> f64 {
        self.cpu / (self.bytes as f64 / 1e9)
    }
}

fn timed(server: &Server, bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Run> {
    let (cpu, start) = (server.cpu()?, Instant::now());
    work()?;
    Ok(Run {
        seconds: start.elapsed().as_secs_f64(),
        bytes,
        cpu: server.cpu()? - cpu,
    })
}

/// A benchmark, which compares round by round.
struct Bench<'a> {
    options: &'a Options,
    batch: &'a Batch,
    folder: &'a Path,
    yardstick: Server,
}

impl Bench<'_> {
    fn exchange(&self, daemon: &Server, name: &str) -> Result<Exchange<'_>> {
        let Options { connections, .. } = *self.options;
        let batches = self.options.batches();
        Exchange::announce(daemon.address, name, connections, batches, self.batch)
    }

    fn daemon(&self, name: &str, settings: &str, base: &str) -> Result<Server> {
        let uri = self.folder.join("base");
        let uri = uri.display();
        let settings = format!("{settings}[[base_directory]]\nuri = \"{uri}\"\n{base}");
        Server::daemon(&self.options.daemon, self.folder, name, &settings)
    }

    /// Sends the bodies of a round to this path of the yardstick.
    fn send_yardstick(&self, path: &str) -> Result<Run> {
        let Options { connections, .. } = *self.options;
        let batches = self.options.batches();
        let bytes = connections * batches * self.batch.bytes.len();
        timed(&self.yardstick, bytes as u64, || {
            on_connections(&[self.yardstick.address], connections, |_, client| {
                let body = &self.batch.bytes;
                (0..batches).try_for_each(|_| {
                    client.call("POST", path, "application/octet-stream", body)?;
                    Ok(())
                })
            })
        })
    }

    fn read_yardstick(&self, handles: &[(String, u64)], bytes: u64) -> Result<Run> {
        let Options { connections, .. } = *self.options;
        let next = std::sync::Mutex::new(handles.iter());
        timed(&self.yardstick, bytes, || {
            on_connections(&[self.yardstick.address], connections, |_, client| {
                while let Some((_, length)) = {
                    let mut next = next.lock().expect("no panics");
                    next.next()
                } {
                    let mut came = 0;
                    let path = format!("/read/{length}");
                    client.stream("GET", &path, "text/plain", b"", |b| came += b.len() as u64)?;
                    ensure!(came == *length, "{came} bytes received instead of {length}");
                }
                Ok(())
            })
        })
    }

    fn rounds(&self, mut round: impl FnMut(usize) -> Result<Round>) -> Result<Vec<Round>> {
        round(0)?;
        (1..=self.options.rounds).map(round).collect()
    }

    fn ingest(&self) -> Result<Vec<Round>> {
        let large_memory = self.options.large_memory();
        // No segment is sealed: one holds everything.
        let size = self.options.total_mib + 64;
        let settings = format!("{large_memory}[segment]\ntarget_size = \"{size}MiB\"\n");
        let daemon = self.daemon("ingest", &settings, "fsync = false\n")?;
        self.rounds(|number| {
            let yardstick = self.send_yardstick("/drop")?;
            let copying = self.send_yardstick(&format!("/copy/{}", self.batch.bytes.len()))?;
            let exchange = self.exchange(&daemon, &format!("ingest-{number}"))?;
            let run = timed(&daemon, exchange.bytes(), || exchange.write())?;
            exchange.abort()?;
            exchange.remove()?;
            Ok(Round {
                copying: Some(copying),
                ..Round::new(run, yardstick, None)
            })
        })
    }

    fn serve(&self) -> Result<Vec<Round>> {
        let large_memory = self.options.large_memory();
        let daemon = self.daemon("serve", &large_memory, "fsync = false\n")?;
        let exchange = self.exchange(&daemon, "serve")?;
        exchange.write()?;
        exchange.finish()?;
        let handles = exchange.handles()?;
        let rounds = self.rounds(|_| {
            let bytes = exchange.bytes();
            let yardstick = self.read_yardstick(&handles, bytes)?;
            let run = timed(&daemon, bytes, || {
                exchange.read(&[daemon.address], &handles)
            })?;
            Ok(Round::new(run, yardstick, None))
        })?;
        exchange.remove()?;
        Ok(rounds)
    }

    fn spool(&self) -> Result<Vec<Round>> {
        let daemon = self.daemon("spool", "", "")?;
        self.rounds(|number| {
            let yardstick = self.send_yardstick("/drop")?;
            let exchange = self.exchange(&daemon, &format!("spool-{number}"))?;
            let disk = disk::write(self.folder, &self.batch.bytes, exchange.bytes())?;
            let run = timed(&daemon, exchange.bytes(), || {
                exchange.write()?;
                exchange.finish()
            })?;
            exchange.remove()?;
            Ok(Round::new(run, yardstick, Some(disk)))
        })
    }

    fn fetch(&self) -> Result<Vec<Round>> {
        let writer = self.daemon("fetch-writer", "", "")?;
        let exchange = self.exchange(&writer, "fetch")?;
        exchange.write()?;
        exchange.finish()?;
        let handles = exchange.handles()?;
        let bytes = exchange.bytes();
        let file = disk::write_file(self.folder, &self.batch.bytes, bytes)?;
        let rounds = self.rounds(|number| {
            let yardstick = self.read_yardstick(&handles, bytes)?;
            let disk = disk::read(&file)?;
            let reader = self.daemon(&format!("fetch-reader-{number}"), "", "")?;
            let run = timed(&reader, bytes, || {
                exchange.read(&[reader.address], &handles)
            })?;
            Ok(Round::new(run, yardstick, Some(disk)))
        })?;
        std::fs::remove_file(file)?;
        exchange.remove()?;
        Ok(rounds)
    }
}

/// Both sides of a round, and the speed of the disk where it matters.
struct Round {
    run: Run,
    yardstick: Run,
    /// The yardstick that copies bodies to memory.
    copying: Option<Run>,
    disk: Option<f64>,
}

impl Round {
    fn new(run: Run, yardstick: Run, disk: Option<f64>) -> Self {
        Self {
            run,
            yardstick,
            copying: None,
            disk,
        }
    }

    /// The speed relative to the slower of yardstick and disk.
    fn ratio(&self) -> f64 {
        let best = self.disk.unwrap_or(f64::INFINITY);
        self.run.speed() / self.yardstick.speed().min(best)
    }
}

fn spread(rounds: &[Round], value: impl Fn(&Round) -> f64) -> String {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let middle = values[values.len() / 2];
    let digits = if middle < 10.0 { 2 } else { 0 };
    format!("{middle:.digits$} ({least:.digits$}-{most:.digits$})")
}

fn print(name: &str, rounds: &[Round]) {
    println!("{name}");
    println!(
        "  daemon     {:>24} MB/s",
        spread(rounds, |r| r.run.speed())
    );
    println!(
        "             {:>24} CPU s/GB",
        spread(rounds, |r| r.run.cost())
    );
    println!(
        "  yardstick  {:>24} MB/s",
        spread(rounds, |r| r.yardstick.speed())
    );
    println!(
        "             {:>24} CPU s/GB",
        spread(rounds, |r| r.yardstick.cost())
    );
    if rounds[0].copying.is_some() {
        let ratio = |r: &Round| {
            r.copying
                .map_or(0.0, |copying| copying.speed() / r.yardstick.speed())
        };
        println!(
            "  copying    {:>24} of the yardstick",
            spread(rounds, ratio)
        );
    }
    if rounds[0].disk.is_some() {
        println!(
            "  plain file {:>24} MB/s",
            spread(rounds, |r| r.disk.unwrap_or(0.0))
        );
    }
    println!("  ratio      {:>24}", spread(rounds, Round::ratio));
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, bytes] = &arguments[..]
        && first == server::YARDSTICK
    {
        return yardstick::serve(bytes.parse()?);
    }
    let options = Options::read();
    let temporary = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let page = options.page_kib << 10;
    let batch = Batch::new(options.batch_mib << 20, page, PARTITIONS)?;
    let bench = Bench {
        options: &options,
        batch: &batch,
        folder: temporary.path(),
        yardstick: Server::yardstick(options.total_mib << 20)?,
    };
    println!(
        "{} MiB per round in batches of {} MiB with pages of {} KiB, {} connections, {} rounds",
        options.total_mib, options.batch_mib, options.page_kib, options.connections, options.rounds
    );
    for what in &options.what {
        match what {
            Benchmark::Ingest => print("ingest: pages written to memory", &bench.ingest()?),
            Benchmark::Serve => print("serve: pages read from memory", &bench.serve()?),
            Benchmark::Spool => print("spool: pages written to disk, synced", &bench.spool()?),
            Benchmark::Fetch => print("fetch: pages read from disk", &bench.fetch()?),
            Benchmark::Growth => {
                let store = options.store.as_ref().map(std::fs::read_to_string);
                let store = store.transpose()?;
                let folder = temporary.path();
                growth::run(&options.daemon, folder, &options.case, store.as_deref())?;
            }
            Benchmark::Instructions => {
                let cost = instructions::count(&options.daemon, temporary.path(), &batch)?;
                println!("instructions per page of {} KiB", options.page_kib);
                println!("  in   {:>10.0}\n  out  {:>10.0}", cost.ingest, cost.serve);
            }
        }
    }
    Ok(())
}
