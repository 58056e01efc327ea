//! The soak: real daemons on local disk and on a real S3 server (or another store), killed,
//! stopped, frozen and restarted at random, with faults in their storage and connections and with
//! wrong clocks, while clients write and read through them like Trino. Every page is checked byte
//! for byte, exactly once and in order; at the end nothing is left and every gauge is at zero.
//!
//! A separate program (`harness = false`), since its child processes must end with it. It shares no
//! client code with the product: it implements the protocol independently.
//!
//!     cargo test --test soak                                   some 30 kills
//!     cargo test --test soak -- --kills 1000                   the long run
//!     cargo test --test soak -- --world local --seed 7

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own
#![allow(missing_docs, reason = "a program, not a library")]

mod chaos;
mod client;
mod clocks;
mod content;
mod daemon;
#[allow(dead_code, reason = "also used by the tests of stores")]
#[path = "../emulators/mod.rs"]
mod emulators;
mod exchange;
#[path = "../trino/fetch.rs"]
mod fetch;
#[allow(dead_code, reason = "also used by the tests with Trino")]
#[path = "../trino/process.rs"]
mod process;
mod proxy;
mod reader;
mod stall;
mod store;
mod tally;
mod wire;
mod world;
mod writer;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use futures::stream::{FuturesUnordered, StreamExt as _};
use stopover::runtime::Random;

use clocks::WallClocks;
use exchange::Exchange;
use process::until_signal;
use tally::Tally;
use world::World;

/// Concurrent exchanges in one world.
const EXCHANGES: usize = 8;

#[derive(Parser)]
#[command(about = "Breaks daemons, their storage and their connections under real clients")]
struct Arguments {
    /// Total number of kills of daemons, divided equally between the worlds.
    #[arg(long, default_value_t = 30)]
    kills: u64,
    /// Seed of the faults [default: a new one, which is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Run only this world [default: local and versitygw concurrently].
    #[arg(long, value_enum)]
    world: Option<Kind>,
    /// Leave logs and configuration behind even after success.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Local,
    #[value(alias = "s3")]
    Versitygw,
    Minio,
    Azurite,
    #[value(name = "fake-gcs-server")]
    FakeGcs,
    #[value(name = "hadoop", alias = "hdfs")]
    Hadoop,
}

impl Kind {
    /// The server of an object store.
    pub fn emulator(self) -> Option<emulators::Kind> {
        Some(match self {
            Self::Local => return None,
            Self::Versitygw => emulators::Kind::Versitygw,
            Self::Minio => emulators::Kind::Minio,
            Self::Azurite => emulators::Kind::Azurite,
            Self::FakeGcs => emulators::Kind::FakeGcs,
            Self::Hadoop => emulators::Kind::Hadoop,
        })
    }

    pub fn name(self) -> &'static str {
        self.emulator().map_or("local", emulators::Kind::name)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: children die with the thread that spawned them, and clients share `Cell`s.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let local = tokio::task::LocalSet::new();
    match runtime.block_on(local.run_until(until_signal(run(&arguments)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = arguments.seed.unwrap_or(now.as_nanos() as u64 % 1_000_000);
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}", now.as_millis()));
    std::fs::create_dir_all(&work)?;
    println!("seed {seed}; logs and configuration: {}", work.display());
    let clocks = WallClocks::build(&work);
    let kinds = match arguments.world {
        Some(kind) => vec![kind],
        None => vec![Kind::Local, Kind::Versitygw],
    };
    let kills = arguments.kills.div_ceil(kinds.len() as u64);
    let started = Instant::now();
    tokio::task::spawn_local(stall::watch());
    let mut worlds: FuturesUnordered<_> = kinds
        .into_iter()
        .map(|kind| soak(kind, kills, seed, &work, &clocks))
        .collect();
    while let Some(outcome) = worlds.next().await {
        outcome.with_context(|| format!("with --seed {seed}"))?;
    }
    drop(worlds);
    println!("PASS in {:.0} s", started.elapsed().as_secs_f64());
    if !arguments.keep {
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    Ok(())
}

/// Runs one world from start to end.
async fn soak(kind: Kind, kills: u64, seed: u64, work: &Path, clocks: &WallClocks) -> Result<()> {
    let rng = Random::seeded(content::mix(&[seed, kind as u64]));
    let mut world = World::start(kind, work, clocks, &rng).await?;
    let outcome = soak_world(&mut world, kills, &rng).await;
    outcome
        .inspect_err(|_| world.print_logs())
        .with_context(|| format!("in the world {}", world.name))
}

async fn soak_world(world: &mut World, kills: u64, rng: &Random) -> Result<()> {
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let done = Rc::new(Cell::new(false));
    let (clients, name) = (Rc::clone(&world.clients), world.name.clone());
    let queries = (0..EXCHANGES).map(|n| {
        let rng = Random::seeded(rng.next_u64());
        let (clients, done, name) = (Rc::clone(&clients), Rc::clone(&done), name.clone());
        async move {
            while !done.get() {
                let exchange = Exchange::new(&clients, &format!("{name}-{n}"), &rng);
                exchange.run(Random::seeded(rng.next_u64())).await?;
            }
            anyhow::Ok(())
        }
    });
    let queries = futures::future::try_join_all(queries);
    let faults = async {
        chaos::inject_faults(world, kills, rng).await?;
        world.stop_faults(rng).await?;
        done.set(true);
        println!("{name}: no more faults after {:.0} s", seconds());
        anyhow::Ok(())
    };
    // The first broken promise ends the world.
    tokio::try_join!(queries, faults)?;
    println!(
        "{name}: the last exchange was closed after {:.0} s",
        seconds()
    );
    world.check_at_rest().await?;
    println!(
        "{name}: nothing is left and all gauges are at rest after {:.0} s",
        seconds()
    );
    world.clients.tally.report(&name);
    let cut: u64 = world.proxies.iter().map(|proxy| proxy.counted().cut).sum();
    let all: u64 = world
        .proxies
        .iter()
        .map(|proxy| proxy.counted().connections)
        .sum();
    println!("{name}: {cut} of {all} connections through the proxies were cut");
    check_faults_were_logged(world)?;
    check_faults_had_effects(&world.clients.tally, &world.store)
}

/// The daemons logged the faults of their storage with the right cause.
fn check_faults_were_logged(world: &World) -> Result<()> {
    let full = [
        "base directory full",
        "the file system is full",
        "File too large",
    ];
    let local: [(&str, &[&str]); 2] = [
        ("a full disk", &full),
        ("a lost permission", &["Permission denied"]),
    ];
    let remote: [(&str, &[&str]); 1] = [("an unreachable store", &["tried last for new segments"])];
    let expected: &[(&str, &[&str])] = match world.store {
        store::Store::Local(_) => &local,
        store::Store::Remote(_) => &remote,
    };
    for (what, words) in expected {
        let lines = world.log_lines(words)?;
        println!(
            "{}: {lines} lines in the daemons' logs report {what}",
            world.name
        );
        ensure!(lines > 0, "no daemon has logged {what}");
    }
    Ok(())
}

/// Faults without effect on any client prove nothing.
fn check_faults_had_effects(tally: &Tally, store: &store::Store) -> Result<()> {
    for (what, counter) in [
        ("attempt was lost", &tally.lost),
        ("batch was sent again", &tally.batches_repeated),
        (
            "finish was answered by another daemon",
            &tally.finishes_elsewhere,
        ),
        (
            "read was resumed at another daemon",
            &tally.resumed_elsewhere,
        ),
        ("small attempt was written at its home", &tally.at_home),
        ("exchange was planned from memory", &tally.plans_from_memory),
        ("base directory failed", &tally.store_faults),
    ] {
        ensure!(counter.get() > 0, "no {what}: the faults had no effect");
    }
    ensure!(
        tally.taken_away.get() > 0,
        "no base directory was taken away: the faults had no effect"
    );
    ensure!(
        tally.file_times_changed.get() > 0 || store.folders().is_empty(),
        "no file time was changed: the faults had no effect"
    );
    ensure!(
        tally.leases_expired.get() == 0,
        "leases expired: this machine is too slow for the soak"
    );
    Ok(())
}
