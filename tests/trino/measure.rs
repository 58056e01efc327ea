//! How long TPC-H takes in a real Trino: without the exchange, with Stopover, and with others.
//!
//! All clusters run at the same time and take turns query by query, so that other load on the
//! machine affects all sides alike; the first side rotates from query to query. Makes no claim:
//! prints seconds and ratios, and fails only if rows differ. docs/performance.md has results.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::artifacts::{Artifacts, ExchangeManager};
use crate::cluster::Cluster;
use crate::compare::same;
use crate::connectors::Extras;
use crate::connectors::tpch::TPCH;
use crate::node::Size;
use crate::queries::Query;
use crate::query::Session;
use crate::store::{StorageKind, Store};

pub struct Trial<'a> {
    pub kind: StorageKind,
    pub schema: &'a str,
    pub rounds: usize,
    /// Milliseconds added to every request at S3.
    pub latency: u64,
    pub beside: &'a [Beside],
}

/// What Stopover is compared with, besides Trino without an exchange manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beside {
    /// Trino's own exchange manager on the same storage.
    Filesystem,
    /// Stopover on local folders.
    Local,
    /// Nothing.
    Nothing,
}

/// One of the ways in which each query runs.
struct Side {
    name: &'static str,
    /// Index of the cluster.
    cluster: usize,
    retry_policy: &'static str,
}

pub async fn run(artifacts: &Artifacts, trial: &Trial<'_>, work: &Path) -> Result<()> {
    ensure!(
        std::env::var_os("STOPOVER_BINARY").is_some(),
        "set STOPOVER_BINARY to a release build: cargo builds an unoptimized one for tests"
    );
    let (clusters, sides) = start_all(artifacts, trial, work).await?;
    println!(
        "TPC-H {} on {}, {} ms away: {} rounds after one to warm up; seconds",
        trial.schema,
        trial.kind.name(),
        trial.latency,
        trial.rounds
    );
    let mut sums = Vec::new();
    for round in 0..=trial.rounds {
        let mut sum = vec![0.0; sides.len()];
        for (number, query) in TPCH.iter().enumerate() {
            let seconds = time(query, trial.schema, &clusters, &sides, number + round).await?;
            println!(
                "round {round}  {:<32} {}",
                query.name,
                row(&sides, &seconds)
            );
            for (total, one) in sum.iter_mut().zip(seconds) {
                *total += one;
            }
        }
        println!("round {round}  {:<32} {}", "sum", row(&sides, &sum));
        if round > 0 {
            sums.push(sum);
        }
    }
    print_ratios(&sides, &sums);
    Ok(())
}

/// The clusters, and the sides that use them: Stopover is the second.
async fn start_all(
    artifacts: &Artifacts,
    trial: &Trial<'_>,
    work: &Path,
) -> Result<(Vec<Cluster>, Vec<Side>)> {
    let stock = trial.beside.contains(&Beside::Filesystem);
    // Small suffices for Stopover; all clusters have the same size.
    let size = if stock || trial.schema != "tiny" {
        Size::Large
    } else {
        Size::Small
    };
    let (manager, latency) = (ExchangeManager::Stopover, trial.latency);
    let mut clusters = vec![
        start(
            artifacts,
            manager,
            trial.kind,
            latency,
            size,
            &work.join("stopover"),
        )
        .await?,
    ];
    let side = |name, cluster, retry_policy| Side {
        name,
        cluster,
        retry_policy,
    };
    let mut sides = vec![side("without FTE", 0, "NONE"), side("Stopover", 0, "TASK")];
    for beside in trial.beside {
        let (name, manager, kind, latency) = match beside {
            Beside::Filesystem => {
                let manager = ExchangeManager::Filesystem;
                ("Trino's own", manager, trial.kind, latency)
            }
            Beside::Local => ("Stopover local", manager, StorageKind::Local, 0),
            Beside::Nothing => continue,
        };
        let folder = work.join(format!("{beside:?}").to_lowercase());
        sides.push(side(name, clusters.len(), "TASK"));
        clusters.push(start(artifacts, manager, kind, latency, size, &folder).await?);
    }
    Ok((clusters, sides))
}

async fn start(
    artifacts: &Artifacts,
    manager: ExchangeManager,
    kind: StorageKind,
    latency: u64,
    size: Size,
    work: &Path,
) -> Result<Cluster> {
    std::fs::create_dir_all(work.join("logs"))?;
    let mut store = Store::start(kind, work).await?;
    if latency > 0 {
        store.add_latency(latency, work).await?;
    }
    let extras = Extras::sized(size);
    Cluster::over(store, artifacts, manager, &extras, work).await
}

/// The seconds of each side; all must return the same rows.
async fn time(
    query: &Query,
    schema: &str,
    clusters: &[Cluster],
    sides: &[Side],
    turn: usize,
) -> Result<Vec<f64>> {
    let mut seconds = vec![0.0; sides.len()];
    let mut results = vec![Vec::new(); sides.len()];
    for index in (0..sides.len()).map(|n| (n + turn) % sides.len()) {
        let side = &sides[index];
        let session = Session::new(schema, side.retry_policy);
        let started = Instant::now();
        let rows = clusters[side.cluster].client.run(query.sql, &session).await;
        results[index] = rows.with_context(|| format!("{} {}", query.name, side.name))?;
        seconds[index] = started.elapsed().as_secs_f64();
    }
    for (side, rows) in sides.iter().zip(&results).skip(1) {
        same(&results[0], rows, query.order)
            .with_context(|| format!("{} {}", query.name, side.name))?;
    }
    Ok(seconds)
}

fn row(sides: &[Side], seconds: &[f64]) -> String {
    let cells = sides.iter().zip(seconds);
    cells
        .map(|(side, s)| format!("  {} {s:6.2}", side.name))
        .collect()
}

/// The ratio of the sums of each side to each one before it, by round.
fn print_ratios(sides: &[Side], sums: &[Vec<f64>]) {
    for (index, side) in sides.iter().enumerate().skip(1) {
        for (of, base) in sides.iter().enumerate().take(index) {
            let ratios = sums.iter().map(|sum| sum[index] / sum[of]).collect();
            println!("{} to {}: {}", side.name, base.name, spread(ratios));
        }
    }
}

/// The median, the minimum and the maximum.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => "-".to_owned(),
        [least, ..] => {
            let most = values[values.len() - 1];
            format!("{:.2} ({least:.2}-{most:.2})", values[values.len() / 2])
        }
    }
}
