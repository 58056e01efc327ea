//! Processes of the store itself are killed under queries: on HDFS a DataNode, then the NameNode.
//!
//! The NameNode is started again at once, as a supervisor does; the DataNode stays away until the
//! queries have ended, with the only other copy of what it held on one of two others.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::compare::same;
use crate::process::wait_until;
use crate::queries::LONG_ANYWHERE;
use crate::query::Session;
use crate::scenarios::{many_tasks, no_sink_open, nothing_left, run_while};

pub async fn run(cluster: &mut Cluster) -> Result<()> {
    let query = &LONG_ANYWHERE;
    let (sql, schema) = (query.sized(1), "tiny");
    let plain = cluster.plain(&sql, schema).await?;
    let session = many_tasks(&Session::new(schema, "TASK"));
    let (client, killed) = (cluster.client.clone(), Cell::new(false));
    let queries = run_while(&client, &sql, &session, || !killed.get());
    let kills = async {
        let outcome = kill(cluster).await;
        killed.set(true);
        outcome
    };
    let (runs, kills) = tokio::join!(queries, kills);
    let runs = runs?;
    kills?;
    for (_, rows) in &runs {
        same(&plain, rows, query.order)?;
    }
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    println!("    {}, {} time(s): correct rows", query.name, runs.len());
    let server = cluster.store.server().context("HDFS has a server")?;
    server.restart_data_nodes().await
}

/// Kills each while the exchange holds files.
async fn kill(cluster: &mut Cluster) -> Result<()> {
    until_files(cluster).await?;
    let server = cluster.store.server().context("HDFS has a server")?;
    server.kill_data_node(0);
    println!("    kill -9 of a DataNode");
    // Long enough that the NameNode first gives it to writers, and then no longer.
    tokio::time::sleep(Duration::from_secs(6)).await;
    until_files(cluster).await?;
    let server = cluster.store.server().context("HDFS has a server")?;
    let began = Instant::now();
    server.kill();
    println!("    kill -9 of the NameNode");
    server.restart().await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("    the NameNode works again after {seconds:.1} s");
    until_files(cluster).await
}

async fn until_files(cluster: &Cluster) -> Result<()> {
    let limit = Duration::from_secs(120);
    wait_until("the exchange holds files", limit, || async {
        Ok(!cluster.store.files().await?.is_empty())
    })
    .await
}
