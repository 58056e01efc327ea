//! A real Trino cluster on Stopover: separate JVMs, separate daemons, processes that are killed.
//!
//! A separate program (`harness = false`), since it starts its cluster once and runs every
//! scenario on it. Claims about the daemon alone are in the other tests.
//!
//!     cargo test --test trino                          everything, on local folders and on S3
//!     cargo test --test trino -- --storage s3 --scenario worker-killed
//!     cargo test --test trino -- --exchange-manager filesystem    Trino's own, for comparison
//!     cargo test --test trino -- connectors        every available connector: docs/trino.md
//!     cargo test --test trino -- hold              the same cluster, for manual experiments
//!     cargo test --test trino -- measure       beside Trino's own exchange: docs/performance.md
//!     cargo test --test trino -- demo              a demonstration, see tests/trino/demo

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod artifacts;
mod base_away;
mod base_changes;
mod cluster;
mod compare;
mod connectors;
mod daemon;
mod demo;
#[allow(dead_code, reason = "also used by the soak and the tests of stores")]
#[path = "../emulators/mod.rs"]
mod emulators;
mod fetch;
mod measure;
mod node;
mod observed;
mod process;
mod queries;
mod query;
mod scenarios;
mod store;
mod store_killed;
mod traces;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use artifacts::{Artifacts, ExchangeManager};
use cluster::{Cluster, print_logs};
use connectors::{Extent, Part, Systems};
use measure::Beside;
use process::until_signal;
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
    /// connectors: only this part [default: all].
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// connectors: only the checks of this catalog [default: all].
    #[arg(long)]
    catalog: Vec<String>,
    /// measure: rounds after a first one that warms up.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// measure: the schema of tpch.
    #[arg(long, default_value = "sf1")]
    schema: String,
    /// measure: milliseconds added to every request at S3.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// measure: what Stopover is compared with, besides no fault tolerance.
    #[arg(long, value_enum, default_value = "filesystem")]
    beside: Vec<Beside>,
    /// Leave logs and configuration behind even after success.
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    /// `first`: whether this storage is the first of the run.
    fn wants(&self, scenario: Scenario, first: bool) -> bool {
        match &self.scenario[..] {
            [] if scenario.is_only_when_named() => false,
            [] => first || !scenario.is_about_daemons_alone(),
            named => named.contains(&scenario),
        }
    }

    fn storages(&self) -> Vec<StorageKind> {
        match (self.exchange_manager, &self.storage[..]) {
            (ExchangeManager::Filesystem, _) => vec![StorageKind::Local],
            (_, []) => vec![StorageKind::Local, StorageKind::S3],
            (_, chosen) => chosen.to_vec(),
        }
    }

    /// Whether the cluster needs more connectors than tpch.
    fn wants_connectors(&self) -> bool {
        let storages = self.storages();
        [Scenario::Connectors, Scenario::Observed]
            .iter()
            .any(|scenario| {
                let applies =
                    |kind: &StorageKind| scenario.applies_to(self.exchange_manager, *kind);
                self.wants(*scenario, true) && storages.iter().any(applies)
            })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Test,
    Demo,
    /// All checks of every available connector.
    Connectors,
    /// How long TPC-H takes without the exchange, with Stopover and with Trino's own exchange.
    Measure,
    /// The cluster of the connectors for manual experiments; runs until ctrl-C.
    Hold,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    // `block_on` runs on this thread, so children are started by a thread that does not end.
    match runtime.block_on(until_signal(run(&arguments))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool> {
    let connectors = match arguments.mode {
        Mode::Test => arguments.wants_connectors(),
        Mode::Connectors | Mode::Hold => true,
        Mode::Demo | Mode::Measure => false,
    };
    let artifacts = Artifacts::find(arguments.exchange_manager, connectors)?;
    let work = work_folder()?;
    println!("logs and configuration: {}", work.display());
    let passed = match arguments.mode {
        Mode::Test => test(arguments, &artifacts, &work).await?,
        Mode::Demo => demo::run(&artifacts, &work).await.map(|()| true)?,
        Mode::Measure => {
            let Arguments {
                schema,
                rounds,
                latency,
                beside,
                ..
            } = arguments;
            let kind = arguments.storages()[0];
            let trial = measure::Trial {
                kind,
                schema,
                rounds: *rounds,
                latency: *latency,
                beside,
            };
            measure::run(&artifacts, &trial, &work)
                .await
                .map(|()| true)?
        }
        Mode::Connectors | Mode::Hold => all_connectors(arguments, &artifacts, &work).await?,
    };
    if passed && !arguments.keep {
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    Ok(passed)
}

/// Starts a cluster with every connector, and runs its checks or holds it.
async fn all_connectors(arguments: &Arguments, artifacts: &Artifacts, work: &Path) -> Result<bool> {
    let started = Instant::now();
    let systems = Systems::start(Extent::All, work).await?;
    let manager = ExchangeManager::Stopover;
    let extras = systems.extras();
    let cluster = Cluster::start(artifacts, manager, StorageKind::S3, &extras, work).await;
    let mut cluster = cluster.inspect_err(|_| print_logs(systems.logs()))?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "cluster up after {seconds:.0} s: http://127.0.0.1:{}",
        cluster.nodes[0].port
    );
    if arguments.mode == Mode::Hold {
        std::future::pending::<()>().await;
    }
    let (parts, catalogs) = (&arguments.part, &arguments.catalog);
    let passed = connectors::run(&mut cluster, artifacts, &systems, parts, catalogs).await;
    println!("total {:.0} s", started.elapsed().as_secs_f64());
    passed
}

/// Runs the chosen scenarios on one cluster; returns whether all passed.
async fn test(arguments: &Arguments, artifacts: &Artifacts, work: &Path) -> Result<bool> {
    let manager = arguments.exchange_manager;
    let storages = arguments.storages();
    let (started, first) = (Instant::now(), storages[0]);
    let systems = match arguments.wants_connectors() {
        true => Some(Systems::start(Extent::Bounded, work).await?),
        false => None,
    };
    let extras = systems.as_ref().map(Systems::extras).unwrap_or_default();
    let mut cluster = Cluster::start(artifacts, manager, first, &extras, work).await?;
    cluster.events = systems.as_ref().map(Systems::events);
    cluster.traces = systems.as_ref().map(Systems::traces);
    println!("cluster up after {:.0} s", started.elapsed().as_secs_f64());
    let (mut passed, mut failed) = (0, 0);
    for kind in storages {
        if cluster.store.kind != kind {
            cluster
                .change_storage(kind)
                .await
                .inspect_err(|_| cluster.print_logs())?;
        }
        let applying = Scenario::ALL
            .into_iter()
            .filter(|s| s.applies_to(manager, kind));
        for scenario in applying.filter(|s| arguments.wants(*s, kind == first)) {
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

/// Runs one scenario and prints the outcome; an error means that no further one can run.
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
                .context("cannot repair the cluster")?;
            Ok(false)
        }
    }
}

/// A new folder for this run, beside cargo's build output.
fn work_folder() -> Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trino-{stamp}"));
    std::fs::create_dir_all(&work)?;
    Ok(work)
}
