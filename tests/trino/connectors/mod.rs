//! Every available connector that Trino's fault-tolerant execution names.
//!
//! Does: define the checks and their order; each is one claim that passes or fails. `bounded` is
//! the subset that the test command runs.

mod catalogs;
mod databases;
mod evidence;
mod loss;
mod policy;
mod reads;
mod tpcds;
pub mod tpch;
mod writes;

use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::artifacts::Artifacts;
use crate::cluster::{Cluster, print_logs};
use crate::queries::Query;
use crate::scenarios::idle;
pub use catalogs::{Extent, Extras, Systems};
use tpcds::TPCDS;
use tpch::TPCH;
use writes::{Statement, Target, target, targets};

/// The parts that can be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Every statement on every catalog, compared with the same statement without FTE.
    Writes,
    /// The statements that write, each with a worker killed during it.
    Kills,
    /// A join over all connectors; writes that are refused.
    Reads,
    /// `retry-policy=QUERY`.
    QueryRetries,
    /// All of TPC-H.
    Tpch,
    /// Queries over tpcds.
    Tpcds,
    /// Whether the classes of the JDBC connectors declare support for retries.
    Classes,
}

enum Check {
    Written(&'static Target),
    Killed(&'static Target, Statement),
    Federated,
    Refusals,
    WholeStatements(&'static str),
    Tpch,
    Tpcds,
    Classes,
    Idle,
}

impl Check {
    fn all() -> Vec<(Part, Self)> {
        let kills = |statement: Statement| {
            let able = targets()
                .iter()
                .filter(move |t| t.kills().contains(&statement));
            able.map(move |target| (Part::Kills, Self::Killed(target, statement)))
        };
        let mut all = vec![
            (Part::Classes, Self::Classes),
            (Part::Reads, Self::Federated),
            (Part::Reads, Self::Refusals),
        ];
        all.extend(kills(Statement::Insert));
        all.extend([
            (Part::QueryRetries, Self::WholeStatements("postgresql")),
            (Part::QueryRetries, Self::WholeStatements("iceberg")),
            (Part::Tpcds, Self::Tpcds),
            (Part::Tpch, Self::Tpch),
        ]);
        all.extend(kills(Statement::Merge));
        all.extend(kills(Statement::Create));
        all.extend(targets().iter().map(|t| (Part::Writes, Self::Written(t))));
        all.push((Part::Writes, Self::Idle));
        all
    }

    fn catalog(&self) -> Option<&str> {
        match self {
            Self::Written(target) | Self::Killed(target, _) => Some(target.catalog),
            Self::WholeStatements(catalog) => Some(catalog),
            _ => None,
        }
    }

    fn claim(&self) -> String {
        match self {
            Self::Written(target) => format!(
                "{}: every statement has the same effect as without FTE",
                target.catalog
            ),
            Self::Killed(target, statement) => format!(
                "{}: {} survives kill -9 of a worker that writes, each row once",
                target.catalog,
                statement.name()
            ),
            Self::Federated => {
                "a join over all connectors gives the same rows as without FTE".to_owned()
            }
            Self::Refusals => {
                "Trino refuses unsupported writes, and they leave nothing behind".to_owned()
            }
            Self::WholeStatements(catalog) => format!(
                "{catalog}: with retry-policy=QUERY, a write and a spooled result survive kill -9"
            ),
            Self::Tpch => "the 22 queries of TPC-H return the same rows as without FTE".to_owned(),
            Self::Tpcds => format!(
                "{} queries over tpcds return the same rows as without FTE",
                TPCDS.len()
            ),
            Self::Classes => "support for retries of connectors that are not run".to_owned(),
            Self::Idle => "in the end the daemons hold nothing".to_owned(),
        }
    }

    async fn run(&self, cluster: &mut Cluster, artifacts: &Artifacts) -> Result<()> {
        match self {
            Self::Written(target) => writes::written(cluster, target).await,
            Self::Killed(target, statement) => writes::killed(cluster, target, *statement).await,
            Self::Federated => reads::federated(cluster).await,
            Self::Refusals => reads::refusals(cluster).await,
            Self::WholeStatements(catalog) => policy::whole_statements(cluster, catalog).await,
            Self::Tpch => reads::compared(cluster, "tpch", "tiny", &every(TPCH)).await,
            Self::Tpcds => reads::compared(cluster, "tpcds", "tiny", &every(TPCDS)).await,
            Self::Classes => evidence::retries_in_classes(artifacts),
            Self::Idle => idle(cluster).await,
        }
    }
}

fn every(queries: &'static [Query]) -> Vec<&'static Query> {
    queries.iter().collect()
}

/// Runs the checks of the chosen parts and catalogs, or all; returns whether all passed.
pub async fn run(
    cluster: &mut Cluster,
    artifacts: &Artifacts,
    systems: &Systems,
    parts: &[Part],
    catalogs: &[String],
) -> Result<bool> {
    let (mut passed, mut failed) = (0, 0);
    let mut times: Vec<(Part, f64)> = Vec::new();
    let chosen = |part: &Part, check: &Check| {
        let catalog = |name: &str| catalogs.iter().any(|chosen| chosen == name);
        (parts.is_empty() || parts.contains(part))
            && (catalogs.is_empty() || check.catalog().is_some_and(catalog))
    };
    for (part, check) in Check::all().into_iter().filter(|(p, c)| chosen(p, c)) {
        println!("---- {} ----", check.claim());
        let started = Instant::now();
        let outcome = check.run(cluster, artifacts).await;
        let seconds = started.elapsed().as_secs_f64();
        times.push((part, seconds));
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("PASS {} ({seconds:.1} s)", check.claim());
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {} ({seconds:.1} s): {error:#}", check.claim());
                print_logs(systems.logs());
                cluster.print_logs();
                cluster
                    .repair()
                    .await
                    .context("cannot repair the cluster")?;
            }
        }
    }
    print_times(&times);
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Prints the time of each part: its checks are spread over the run.
fn print_times(times: &[(Part, f64)]) {
    for part in Part::value_variants() {
        let of_it = times.iter().filter(|(of, _)| of == part);
        let (checks, seconds) = of_it.fold((0, 0.0), |(n, sum), (_, s)| (n + 1, sum + s));
        if checks > 0 {
            println!("{part:?}: {checks} check(s) in {seconds:.0} s");
        }
    }
}

/// The subset for the test command: a write with a kill on a database and on a data lake, and two
/// queries over tpcds.
pub async fn bounded(cluster: &mut Cluster) -> Result<()> {
    for catalog in ["postgresql", "iceberg"] {
        println!("    {catalog}: {}", Statement::Insert.name());
        let written = writes::killed(cluster, target(catalog)?, Statement::Insert).await;
        written.context(catalog)?;
    }
    let two: Vec<_> = TPCDS
        .iter()
        .filter(|query| BOUNDED.contains(&number(query)))
        .collect();
    reads::compared(cluster, "tpcds", "tiny", &two).await
}

/// A roll-up over a union of channels, and windows that meet in a full join.
const BOUNDED: [&str; 2] = ["like Q5", "like Q51"];

fn number(query: &Query) -> &str {
    query.name.split_once(':').map_or("", |(number, _)| number)
}
