//! `retry-policy=QUERY`: Trino retries the whole statement, and only results use the exchange.

use anyhow::{Result, bail, ensure};

use super::loss::{Ending, WORK, kill_under};
use super::writes::{Statement, run_plain, target};
use crate::cluster::Cluster;
use crate::compare::{Order, same};
use crate::query::{Session, Task};
use crate::scenarios::nothing_left;

/// A write during which a worker is killed, then a spooled result during which one is killed.
pub async fn whole_statements(cluster: &mut Cluster, catalog: &str) -> Result<()> {
    write(cluster, catalog).await?;
    read(cluster, catalog).await
}

fn query_session() -> Session {
    Session::new("tiny", "QUERY")
}

async fn write(cluster: &mut Cluster, catalog: &str) -> Result<()> {
    let target = target(catalog)?;
    for work in WORK {
        let statement = Statement::Insert;
        let (sql, plain) = target.twins(cluster, statement, 10 * work).await?;
        run_plain(cluster, &plain).await?;
        let ending = kill_under(cluster, &sql, &query_session(), |tasks, _| writer(tasks)).await?;
        nothing_left(cluster).await?;
        cluster.repair().await?;
        let rows = target.same_as_twin(cluster).await?;
        if ending.killed && ran_again(&ending) {
            println!("    {}: {rows} row(s), each once", statement.name());
            return Ok(());
        }
        println!("    work {work}: no worker was killed while the statement had something to lose");
    }
    bail!("no worker was observed writing, with any amount of work")
}

/// Whether Trino ran the statement a second time.
fn ran_again(ending: &Ending) -> bool {
    ending.tasks.iter().any(|task| task.attempt() > 0)
}

/// A worker that has received rows to write.
fn writer(tasks: &[Task]) -> Option<String> {
    let mut tasks = tasks.iter();
    let busy = tasks.find(|t| t.state == "RUNNING" && t.writes.is_some_and(|rows| rows > 0));
    busy.map(|task| task.node.clone())
}

/// The result is larger than the buffer that holds it back, and a worker is killed once spooling
/// has started.
async fn read(cluster: &mut Cluster, catalog: &str) -> Result<()> {
    let target = target(catalog)?;
    target.fill(cluster, "spooled").await?;
    for work in WORK {
        let table = target.table("spooled");
        let sql = format!(
            "SELECT w, k, lines, quantity, last, segment, o_comment \
             FROM {table} CROSS JOIN UNNEST(sequence(1, {})) AS u (w) \
                 JOIN tpch.tiny.orders ON o_orderkey = k % 60000",
            20 * work
        );
        let plain = run_plain(cluster, &sql).await?;
        let ending = kill_under(cluster, &sql, &query_session(), |tasks, files| {
            let mut tasks = tasks.iter();
            let busy = tasks.find(|task| task.state == "RUNNING" && task.node != "coordinator");
            busy.filter(|_| files > 0).map(|task| task.node.clone())
        })
        .await?;
        same(&plain, &ending.rows, Order::Any)?;
        nothing_left(cluster).await?;
        cluster.repair().await?;
        if ending.killed && ran_again(&ending) {
            ensure!(ending.files > 0, "nothing was spooled");
            println!("    a result of {} rows, spooled, each once", plain.len());
            return Ok(());
        }
        println!("    work {work}: no worker was killed while the query had something to lose");
    }
    bail!("no result was observed to spool while a worker was busy, with any amount of work")
}
