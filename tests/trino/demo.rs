//! The cluster as a demonstration: a query, a killed worker, the end of the query.
//!
//! Does: print what happens. Does not: test anything; `scenarios.rs` does.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artifacts::{Artifacts, ExchangeManager};
use crate::cluster::Cluster;
use crate::connectors::Extras;
use crate::daemon::Held;
use crate::queries::LONG_ANYWHERE;
use crate::query::{Row, Session, Task};
use crate::store::StorageKind;

pub async fn run(artifacts: &Artifacts, work: &Path) -> Result<()> {
    println!("\nStarting Trino (a coordinator, two workers) and a Stopover daemon beside each ...");
    let manager = ExchangeManager::Stopover;
    let mut cluster = Cluster::start(
        artifacts,
        manager,
        StorageKind::Local,
        &Extras::default(),
        work,
    )
    .await?;
    for (node, daemon) in cluster.nodes.iter().zip(&cluster.daemons) {
        let url = daemon.url();
        println!(
            "  {:<12} http://127.0.0.1:{}  with Stopover at {url}",
            node.id, node.port
        );
    }
    println!("  base directories: {}", folders(&cluster));
    watch(&mut cluster)
        .await
        .inspect_err(|_| cluster.print_logs())?;
    println!("\nStopping everything.");
    Ok(())
}

async fn watch(cluster: &mut Cluster) -> Result<()> {
    let sql = LONG_ANYWHERE.sized(1);
    println!("\nThe query:\n  {}", sql.replace('\n', "\n  "));
    let session =
        Session::new("tiny", "TASK").with("fault_tolerant_execution_max_task_split_count", "2");
    let started = Instant::now();
    let running = cluster.client.start(&sql, &session).await?;
    let id = running.id.clone();
    let over = Cell::new(false);
    let run_to_end = async {
        let rows = running.finish().await;
        over.set(true);
        rows
    };
    let (rows, report) = tokio::join!(run_to_end, report_until(cluster, &id, started, &over));
    let (killed, peak) = report?;
    show(&rows?, seconds(started));
    println!("\nAt its peak, Stopover held {}.", describe(&peak));
    after(cluster).await?;
    if !killed {
        bail!("the query ended before the worker could be killed; run it again");
    }
    Ok(())
}

/// Prints the progress of the query and kills a worker under it. Returns whether a worker was
/// killed, and the most that Stopover was observed to hold.
async fn report_until(
    cluster: &mut Cluster,
    id: &str,
    started: Instant,
    over: &Cell<bool>,
) -> Result<(bool, Held)> {
    let mut killed = false;
    let mut peak = Held::default();
    println!("\n{:>6}  {:<40} what Stopover holds of it", "", "tasks");
    while !over.get() {
        let tasks = cluster.client.tasks(id).await.unwrap_or_default();
        let held = cluster.any_daemon()?.held(id).await.unwrap_or_default();
        println!(
            "{:>5.1}s  {:<40} {}",
            seconds(started),
            count(&tasks),
            describe(&held)
        );
        if held.bytes > peak.bytes {
            peak = held.clone();
        }
        let worker = &cluster.nodes[1].id;
        let busy = tasks.iter().any(|t| t.is_running_on(worker));
        if !killed && busy && held.bytes > 0 && tasks.iter().any(|t| t.is_finished_on(worker)) {
            println!(
                "{:>5.1}s  >>> kill -9 {worker}, not restarted",
                seconds(started)
            );
            cluster.nodes[1].kill();
            killed = true;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    Ok((killed, peak))
}

fn show(rows: &[Row], seconds: f64) {
    println!("\nThe query finished after {seconds:.1} s, on the remaining worker:");
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .map(|cell| format!("{:>18}", cell.to_string()))
            .collect();
        println!("  {}", cells.join(""));
    }
}

/// Prints the number of remaining files. Closing is asynchronous, hence the wait.
async fn after(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !cluster.store.files().await?.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let left = cluster.store.files().await?.len();
    println!("{left} files are left in the base directories.");
    Ok(())
}

fn count(tasks: &[Task]) -> String {
    let of = |state: &str| tasks.iter().filter(|t| t.state == state).count();
    let failed = of("FAILED") + of("ABORTED");
    format!(
        "{} running, {} finished, {failed} lost",
        of("RUNNING"),
        of("FINISHED")
    )
}

fn describe(held: &Held) -> String {
    format!(
        "{} exchange(s), {} committed attempt(s), {} segment(s), {:.1} MiB",
        held.exchanges,
        held.attempts,
        held.segments,
        held.bytes as f64 / f64::from(1 << 20)
    )
}

fn folders(cluster: &Cluster) -> String {
    let folders = cluster.store.folders();
    let folders = folders.iter();
    folders
        .map(|folder| folder.display().to_string())
        .collect::<Vec<_>>()
        .join("  ")
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
