//! The soak: real daemons on local disk and on a real S3 server, killed, stopped, frozen and
//! restarted at random, their storage and their connections broken, their clocks wrong, while
//! clients write and read through them as Trino does. Every page is checked byte for byte, exactly
//! once and in order; at the end nothing is left and every gauge is at zero.
//!
//! A program of its own (`harness = false`), since what it starts must end with it. It owns no
//! client of the product: the protocol is written a second time here.
//!
//!     cargo test --test soak                                   some 30 kills
//!     cargo test --test soak -- --kills 1000                   the long run
//!     cargo test --test soak -- --world local --seed 7

#![allow(missing_docs, reason = "a program, not a library")]

mod chaos;
mod client;
mod clocks;
mod content;
mod daemon;
mod exchange;
#[allow(dead_code, reason = "also used by the tests with Trino")]
#[path = "../trino/process.rs"]
mod process;
mod proxy;
mod reader;
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
use tokio::signal::unix::{SignalKind, signal};

use clocks::WallClocks;
use exchange::Exchange;
use tally::Tally;
use world::World;

/// Exchanges that live at a time in one world.
const EXCHANGES: usize = 8;

#[derive(Parser)]
#[command(about = "Daemons, their storage and their connections break under real clients")]
struct Arguments {
    /// Daemons killed in all, the same number in each world.
    #[arg(long, default_value_t = 30)]
    kills: u64,
    /// What the faults are drawn from [default: a new one, which is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Only in this world [default: both at once].
    #[arg(long, value_enum)]
    world: Option<Kind>,
    /// Leave logs and configuration behind also after success.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Local,
    S3,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: children die with the thread that started them, and clients share plain cells.
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

/// A signal drops the work, and with it every process it has started.
async fn until_signal(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = hangup.recv() => anyhow::bail!("hung up"),
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
        None => vec![Kind::Local, Kind::S3],
    };
    let kills = arguments.kills.div_ceil(kinds.len() as u64);
    let started = Instant::now();
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

/// One world from its start to its rest.
async fn soak(kind: Kind, kills: u64, seed: u64, work: &Path, clocks: &WallClocks) -> Result<()> {
    let rng = Random::seeded(content::mix(&[seed, kind as u64]));
    let mut world = World::start(kind == Kind::S3, work, clocks, &rng).await?;
    let outcome = weather(&mut world, kills, &rng).await;
    outcome
        .inspect_err(|_| world.print_logs())
        .with_context(|| format!("in the world {}", world.name))
}

async fn weather(world: &mut World, kills: u64, rng: &Random) -> Result<()> {
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let over = Rc::new(Cell::new(false));
    let (clients, name) = (Rc::clone(&world.clients), world.name.clone());
    let queries = (0..EXCHANGES).map(|n| {
        let rng = Random::seeded(rng.next_u64());
        let (clients, over, name) = (Rc::clone(&clients), Rc::clone(&over), name.clone());
        async move {
            while !over.get() {
                let exchange = Exchange::new(&clients, &format!("{name}-{n}"), &rng);
                exchange.live(Random::seeded(rng.next_u64())).await?;
            }
            anyhow::Ok(())
        }
    });
    let queries = futures::future::try_join_all(queries);
    let storm = async {
        chaos::storm(world, kills, rng).await?;
        world.heal(rng).await?;
        over.set(true);
        println!("{name}: the storm is over after {:.0} s", seconds());
        anyhow::Ok(())
    };
    // The first broken promise ends it all.
    tokio::try_join!(queries, storm)?;
    println!(
        "{name}: the last exchange was closed after {:.0} s",
        seconds()
    );
    world.rest().await?;
    println!(
        "{name}: nothing is left, and all at rest, after {:.0} s",
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
    daemons_noticed(world)?;
    something_was_hit(&world.clients.tally)
}

/// What broke below the daemons was noticed by them, and for the right reason.
fn daemons_noticed(world: &World) -> Result<()> {
    let full = ["the file system is full", "File too large"];
    let local: [(&str, &[&str]); 2] = [
        ("a full disk", &full),
        ("a lost permission", &["Permission denied"]),
    ];
    let s3: [(&str, &[&str]); 1] = [("a store that is gone", &["excluded from placement"])];
    let expected: &[(&str, &[&str])] = match world.store {
        store::Store::Local(_) => &local,
        store::Store::S3(_) => &s3,
    };
    for (what, words) in expected {
        let lines = world.said(words)?;
        println!(
            "{}: {what} is in {lines} lines of the daemons' logs",
            world.name
        );
        ensure!(lines > 0, "no daemon has met {what}");
    }
    Ok(())
}

/// A storm that has met nobody proves nothing.
fn something_was_hit(tally: &Tally) -> Result<()> {
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
        ("file time was falsified", &tally.times_falsified),
        ("base directory failed", &tally.store_faults),
    ] {
        ensure!(counter.get() > 0, "no {what}: the faults hit nothing");
    }
    ensure!(
        tally.leases_lost.get() == 0,
        "leases ran out: this machine is too slow for the soak"
    );
    Ok(())
}
