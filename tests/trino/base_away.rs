//! A base directory that is taken away under running queries, and given back.
//!
//! Does: move its folder or kill its S3 server. Does not: check what happens to a query that needs
//! what lies there: it is cancelled. Invariant: the base directory is there again at the end, also
//! after a failure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::compare::same;
use crate::process::wait_until;
use crate::queries::{COMPARED, LONG_ANYWHERE, Query};
use crate::query::{RunningQuery, Session};
use crate::scenarios::{many_tasks, no_sink_open, nothing_left};

/// How many queries run before the base directory is taken away, and again without it.
const QUERIES: usize = 3;
/// What a query may take longer without it: the first one may find out that it is away.
const SLACK: Duration = Duration::from_secs(60);

pub async fn run(cluster: &mut Cluster) -> Result<()> {
    let outcome = take_away_and_give_back(cluster).await;
    cluster.store.give_back().await?;
    outcome
}

async fn take_away_and_give_back(cluster: &mut Cluster) -> Result<()> {
    let mut before = Vec::new();
    for query in &COMPARED[..QUERIES] {
        before.push(timed(cluster, query).await?);
    }
    nothing_left(cluster).await?;
    let running = run_until_in_second(cluster).await?;
    cluster.store.take_away()?;
    println!("    the second base directory is away, with segments of a running query");
    running.cancel().await?;
    for (query, before) in COMPARED[..QUERIES].iter().zip(before) {
        let without = timed(cluster, query).await.with_context(|| query.name)?;
        let (seconds, had) = (without.as_secs_f64(), before.as_secs_f64());
        println!("    {}: {seconds:.1} s, {had:.1} s before", query.name);
        ensure!(
            without < before + SLACK,
            "{} took {seconds:.1} s without the base directory, {had:.1} s before",
            query.name
        );
    }
    let left = cluster.store.segments_in_second()?;
    ensure!(
        left > 0,
        "the base directory that is away holds nothing that was closed meanwhile"
    );
    cluster.store.give_back().await?;
    let back = Instant::now();
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    println!(
        "    {left} segment(s) of the cancelled query were cleared {:.1} s after the return",
        back.elapsed().as_secs_f64()
    );
    let running = run_until_in_second(cluster).await;
    running
        .context("the base directory takes no part again")?
        .cancel()
        .await?;
    nothing_left(cluster).await
}

/// Runs a query, checks its rows, and returns how long it took.
async fn timed(cluster: &mut Cluster, query: &Query) -> Result<Duration> {
    let plain = cluster.plain(query.sql, "sf0.1").await?;
    let session = many_tasks(&Session::new("sf0.1", "TASK"));
    let started = Instant::now();
    let rows = cluster.client.run(query.sql, &session).await?;
    let elapsed = started.elapsed();
    same(&plain, &rows, query.order)?;
    Ok(elapsed)
}

/// Starts a query and waits until it has segments in the second base directory.
async fn run_until_in_second(cluster: &Cluster) -> Result<RunningQuery> {
    let session = many_tasks(&Session::new("tiny", "TASK"));
    let sql = LONG_ANYWHERE.sized(2);
    let mut running = cluster.client.start(&sql, &session).await?;
    running.until_running().await?;
    wait_until(
        "the query has segments in the second base directory",
        Duration::from_secs(120),
        || async { Ok(cluster.store.segments_in_second()? > 0) },
    )
    .await?;
    Ok(running)
}
