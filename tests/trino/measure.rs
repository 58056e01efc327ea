//! How long TPC-H takes in a real Trino: without the exchange, with Stopover, with Trino's own.
//!
//! Two clusters run at the same time and take turns query by query, so that other load on the
//! machine affects all three sides alike; the first side rotates from query to query. Makes no
//! claim: prints seconds and ratios, and fails only if rows differ. docs/performance.md has
//! results.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

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
}

const SIDES: [&str; 3] = ["without FTE", "Stopover", "Trino's own"];

pub async fn run(artifacts: &Artifacts, trial: &Trial<'_>, work: &Path) -> Result<()> {
    ensure!(
        std::env::var_os("STOPOVER_BINARY").is_some(),
        "set STOPOVER_BINARY to a release build: cargo builds an unoptimized one for tests"
    );
    let stopover = start(artifacts, ExchangeManager::Stopover, trial, work).await?;
    let stock = start(artifacts, ExchangeManager::Filesystem, trial, work).await?;
    let clusters = [&stopover, &stopover, &stock];
    println!(
        "TPC-H {} on {}, {} ms away: {} rounds after one to warm up; seconds",
        trial.schema,
        trial.kind.name(),
        trial.latency,
        trial.rounds
    );
    let mut sums = Vec::new();
    for round in 0..=trial.rounds {
        let mut sum = [0.0; 3];
        for (number, query) in TPCH.iter().enumerate() {
            let seconds = time(query, trial.schema, clusters, number + round).await?;
            println!("round {round}  {:<32} {}", query.name, row(seconds));
            for (total, one) in sum.iter_mut().zip(seconds) {
                *total += one;
            }
        }
        println!("round {round}  {:<32} {}", "sum", row(sum));
        if round > 0 {
            sums.push(sum);
        }
    }
    println!(
        "{:<24} {:>22} {:>22}",
        "ratio of the sums", SIDES[1], SIDES[2]
    );
    for of in [0, 2] {
        let ratio = |side: usize| spread(sums.iter().map(|sum| sum[side] / sum[of]).collect());
        println!("to {:<21} {:>22} {:>22}", SIDES[of], ratio(1), ratio(2));
    }
    Ok(())
}

async fn start(
    artifacts: &Artifacts,
    manager: ExchangeManager,
    trial: &Trial<'_>,
    work: &Path,
) -> Result<Cluster> {
    let work = work.join(format!("{manager:?}").to_lowercase());
    std::fs::create_dir_all(work.join("logs"))?;
    let mut store = Store::start(trial.kind, &work).await?;
    if trial.latency > 0 {
        store.add_latency(trial.latency, &work).await?;
    }
    let extras = Extras::sized(Size::Large);
    Cluster::over(store, artifacts, manager, &extras, &work).await
}

/// The seconds of each side; all must return the same rows.
async fn time(
    query: &Query,
    schema: &str,
    clusters: [&Cluster; 3],
    turn: usize,
) -> Result<[f64; 3]> {
    let (mut seconds, mut results) = ([0.0; 3], [const { None }; 3]);
    for side in (0..3).map(|n| (n + turn) % 3) {
        let session = Session::new(schema, if side == 0 { "NONE" } else { "TASK" });
        let started = Instant::now();
        let rows = clusters[side].client.run(query.sql, &session).await;
        let rows = rows.with_context(|| format!("{} {}", query.name, SIDES[side]))?;
        seconds[side] = started.elapsed().as_secs_f64();
        results[side] = Some(rows);
    }
    let [plain, stopover, stock] = results.map(|rows| rows.expect("each side ran"));
    same(&plain, &stopover, query.order).with_context(|| format!("{} Stopover", query.name))?;
    same(&plain, &stock, query.order).with_context(|| format!("{} Trino's own", query.name))?;
    Ok(seconds)
}

fn row(seconds: [f64; 3]) -> String {
    let cells = SIDES.iter().zip(seconds);
    cells.map(|(side, s)| format!("  {side} {s:6.2}")).collect()
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
