//! A base directory that is added, drained, lost and abandoned while queries run.
//!
//! Does: what operations.md tells an operator to do, with the same commands. Invariant: at the end
//! the daemons have the base directories of the beginning, also after a failure.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::compare::same;
use crate::process::wait_until;
use crate::queries::COMPARED;
use crate::query::Session;
use crate::scenarios::{many_tasks, no_sink_open, nothing_left, run_while};

/// An edit of the list of members is known everywhere after two of these, and four more if the
/// sweeper has just been restarted and another daemon has to replace it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3);
const KNOWN: Duration = Duration::from_secs(3 * 8);
const LIMIT: Duration = Duration::from_secs(90);

pub async fn run(cluster: &mut Cluster) -> Result<()> {
    let query = &COMPARED[1];
    let plain = cluster.plain(query.sql, "sf0.1").await?;
    let session = many_tasks(&Session::new("sf0.1", "TASK"));
    let (client, done) = (cluster.client.clone(), Cell::new(false));
    let queries = run_while(&client, query.sql, &session, || !done.get());
    let changes = async {
        let outcome = change(cluster).await;
        done.set(true);
        outcome
    };
    let (runs, changes) = tokio::join!(queries, changes);
    // What was added goes again, also after a failure.
    if cluster.store.remove_third()? {
        cluster.reconfigure_daemons("").await?;
    }
    changes?;
    let runs = runs?;
    for (_, rows) in &runs {
        same(&plain, rows, query.order)?;
    }
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    println!("    {}, {} time(s): correct rows", query.name, runs.len());
    Ok(())
}

async fn change(cluster: &mut Cluster) -> Result<()> {
    let interval = format!(
        "[lease]\nsweep_interval = \"{}s\"\n",
        SWEEP_INTERVAL.as_secs()
    );
    let third = cluster.store.add_third()?;
    cluster.reconfigure_daemons(&interval).await?;
    let before = cluster.store.segments_in_last()?;
    ensure!(before == 0, "{before} segment(s) before it was added");
    members(cluster, "add", &third).await?;
    let used = || async { Ok(cluster.store.segments_in_last()? > 0) };
    wait_until("the added base directory is used", LIMIT, used).await?;
    members(cluster, "drain", &third).await?;
    tokio::time::sleep(KNOWN).await;
    let empty = || async { Ok(cluster.store.segments_in_last()? == 0) };
    wait_until("the drained base directory is empty", LIMIT, empty).await?;
    let drained = Instant::now();
    while drained.elapsed() < SWEEP_INTERVAL * 3 {
        let segments = cluster.store.segments_in_last()?;
        ensure!(segments == 0, "{segments} segment(s) after it was drained");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing is in it any more, and the queries need nothing of it: they do not notice.
    cluster.store.lose_third()?;
    println!("    {third} is lost");
    tokio::time::sleep(SWEEP_INTERVAL * 3).await;
    members(cluster, "abandon", &third).await?;
    tokio::time::sleep(KNOWN).await;
    cluster.store.remove_third()?;
    cluster.reconfigure_daemons("").await
}

async fn members(cluster: &Cluster, action: &str, name: &str) -> Result<()> {
    let printed = cluster.daemons[0]
        .command(&["members", action, name])
        .await?;
    println!("    stopover members {action} {name}");
    let line = printed.lines().find(|line| line.contains(name));
    println!("      {}", line.unwrap_or("(nothing)").trim());
    Ok(())
}
