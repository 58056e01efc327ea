//! A real Trino cluster on Stopover: separate JVMs, separate daemons, processes that are killed.
//!
//! This is a program of its own (`harness = false`) since it starts its cluster once and runs every
//! scenario on it. It owns no claim about the daemon alone; those are in the other tests.
//!
//!     cargo test --test trino                          everything, on local folders and on S3
//!     cargo test --test trino -- --storage s3 --scenario worker-killed
//!     cargo test --test trino -- --exchange-manager filesystem    Trino's own, to compare
//!     cargo test --test trino -- demo                  for people to watch, see tests/trino/demo

mod artifacts;
mod cluster;
mod compare;
mod daemon;
mod demo;
mod node;
mod process;
mod queries;
mod query;
mod scenarios;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use artifacts::{Artifacts, ExchangeManager};
use cluster::Cluster;
use scenarios::Scenario;
use store::StorageKind;

#[derive(Parser)]
#[command(about = "Runs a real Trino cluster on Stopover and kills parts of it")]
struct Arguments {
    #[arg(value_enum, default_value = "test")]
    mode: Mode,
    /// Only on this storage [default: all].
    #[arg(long, value_enum)]
    storage: Vec<StorageKind>,
    /// Only this scenario [default: all].
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// The exchange manager of the cluster; "filesystem" is Trino's own, on local folders.
    #[arg(long, value_enum, default_value = "stopover")]
    exchange_manager: ExchangeManager,
    /// Leave logs and configuration behind also after success.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Test,
    Demo,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    // `block_on` runs on this thread, so that children are started by a thread that stays.
    match runtime.block_on(until_signal(run(&arguments))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A signal drops the work, and with it every process it has started.
async fn until_signal(work: impl Future<Output = Result<bool>>) -> Result<bool> {
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

async fn run(arguments: &Arguments) -> Result<bool> {
    let artifacts = Artifacts::find(arguments.exchange_manager)?;
    let work = work_folder()?;
    println!("logs and configuration: {}", work.display());
    let passed = match arguments.mode {
        Mode::Test => test(arguments, &artifacts, &work).await?,
        Mode::Demo => demo::run(&artifacts, &work).await.map(|()| true)?,
    };
    if passed && !arguments.keep {
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    Ok(passed)
}

/// Runs the chosen scenarios on one cluster; whether all passed.
async fn test(arguments: &Arguments, artifacts: &Artifacts, work: &Path) -> Result<bool> {
    let manager = arguments.exchange_manager;
    let storages = match (manager, &arguments.storage[..]) {
        (ExchangeManager::Filesystem, _) => vec![StorageKind::Local],
        (_, []) => vec![StorageKind::Local, StorageKind::S3],
        (_, chosen) => chosen.to_vec(),
    };
    let (started, first) = (Instant::now(), storages[0]);
    let mut cluster = Cluster::start(artifacts, manager, first, work).await?;
    println!("cluster up after {:.0} s", started.elapsed().as_secs_f64());
    let (mut passed, mut failed) = (0, 0);
    for kind in storages {
        if cluster.store.kind != kind {
            cluster
                .change_storage(kind)
                .await
                .inspect_err(|_| cluster.print_logs())?;
        }
        for scenario in Scenario::ALL.into_iter().filter(|s| s.applies_to(manager)) {
            let wanted = match &arguments.scenario[..] {
                [] => kind == first || !scenario.is_about_daemons_alone(),
                named => named.contains(&scenario),
            };
            if !wanted {
                continue;
            }
            match report(scenario, &mut cluster).await? {
                true => passed += 1,
                false => failed += 1,
            }
        }
    }
    println!("total {:.0} s", started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs one scenario and prints how it went; an error only if no further one can be run.
async fn report(scenario: Scenario, cluster: &mut Cluster) -> Result<bool> {
    let title = format!("{} {}", cluster.store.kind.name(), scenario.name());
    println!("---- {title}: {} ----", scenario.claim());
    let started = Instant::now();
    let outcome = scenario.run(cluster).await;
    let seconds = started.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("PASS {title} ({seconds:.1} s)");
            Ok(true)
        }
        Err(error) => {
            println!("FAIL {title} ({seconds:.1} s): {error:#}");
            cluster.print_logs();
            cluster
                .repair()
                .await
                .context("the cluster cannot be made whole again")?;
            Ok(false)
        }
    }
}

/// A fresh folder for this run, beside what cargo builds.
fn work_folder() -> Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trino-{stamp}"));
    std::fs::create_dir_all(&work)?;
    Ok(work)
}
