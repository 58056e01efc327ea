//! Reading through several connectors at once, and writes that a connector must refuse.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::writes::{refused, run_patiently, run_plain, target, task_session};
use crate::cluster::Cluster;
use crate::compare::{Order, same};
use crate::queries::Query;
use crate::query::Session;
use crate::scenarios::{idle, many_tasks, nothing_left};

/// Two read-only connectors, tpch and tpcds, joined with a table of each system that can be
/// written.
const FEDERATED: &str = "
    SELECT c.c_mktsegment, d.c_birth_month, count(*), count(DISTINCT p.k), sum(i.quantity),
        max(h.last), sum(e.lines), count(m.k)
    FROM tpch.tiny.customer c JOIN tpcds.tiny.customer d ON d.c_customer_sk = c.c_custkey
        JOIN postgresql.public.federated p ON p.lines = c.c_custkey % 7
        LEFT JOIN iceberg.stopover.federated i ON i.k = p.k
        LEFT JOIN hive.stopover.federated h ON h.k = p.k
        LEFT JOIN delta.stopover.federated e ON e.k = p.k
        LEFT JOIN mariadb.stopover.federated m ON m.k = p.k AND m.lines = 4
    WHERE p.k % 20 = 1 GROUP BY 1, 2";

pub async fn federated(cluster: &mut Cluster) -> Result<()> {
    for catalog in ["postgresql", "iceberg", "hive", "delta", "mariadb"] {
        target(catalog)?.fill(cluster, "federated").await?;
    }
    let plain = run_plain(cluster, FEDERATED).await?;
    ensure!(!plain.is_empty(), "no rows, which would prove nothing");
    let rows = cluster.client.run(FEDERATED, &task_session()).await?;
    same(&plain, &rows, Order::Any)?;
    println!(
        "    seven connectors in one join: {} correct rows",
        rows.len()
    );
    nothing_left(cluster).await
}

/// Statement, session property, Trino's error message.
const REFUSED: [(&str, Option<&str>, &str); 7] = [
    (
        "CREATE TABLE duckdb.main.refused AS SELECT o_orderkey FROM tpch.tiny.orders",
        None,
        "This connector does not support query or task retries",
    ),
    (
        "INSERT INTO kafka.default.events SELECT o_orderkey FROM tpch.tiny.orders",
        None,
        "This connector does not support query retries",
    ),
    (
        "INSERT INTO tpch.tiny.nation SELECT * FROM tpch.tiny.nation",
        None,
        "This connector does not support inserts",
    ),
    (
        "CREATE TABLE tpcds.tiny.refused AS SELECT o_orderkey FROM tpch.tiny.orders",
        None,
        "This connector does not support creating tables with data",
    ),
    (
        "INSERT INTO postgresql.public.federated SELECT -k, lines, quantity, last, segment \
             FROM postgresql.public.federated",
        Some("postgresql.non_transactional_insert"),
        "Query and task retries are incompatible with non-transactional inserts",
    ),
    (
        "MERGE INTO postgresql.public.federated t USING tpch.tiny.nation ON k = n_nationkey \
             WHEN MATCHED THEN DELETE",
        Some("postgresql.non_transactional_merge"),
        "Query and task retries are incompatible with non-transactional merge",
    ),
    (
        "MERGE INTO mysql.stopover.federated t USING tpch.tiny.nation ON k = n_nationkey \
             WHEN MATCHED THEN DELETE",
        None,
        "This connector does not support MERGE with fault-tolerant execution",
    ),
];

/// A refused write leaves no file, no open sink, no exchange and no reserved memory.
pub async fn refusals(cluster: &mut Cluster) -> Result<()> {
    target("postgresql")?.fill(cluster, "federated").await?;
    target("postgresql")?.give_key(cluster, "federated").await?;
    target("mysql")?.fill(cluster, "federated").await?;
    for (sql, property, message) in REFUSED {
        for policy in ["TASK", "QUERY"] {
            let mut session = Session::new("tiny", policy);
            if let Some(name) = property {
                session = session.with(name, "true");
            }
            refused(cluster.client.run(sql, &session).await, message).context(sql)?;
            nothing_left(cluster).await.context(sql)?;
        }
        println!("    \"{message}\"");
    }
    idle(cluster).await
}

/// Compares queries with the same cluster without FTE; runs all of them even if some fail.
pub async fn compared(
    cluster: &mut Cluster,
    catalog: &str,
    schema: &str,
    queries: &[&Query],
) -> Result<()> {
    let plain = Session::new(schema, "NONE").in_catalog(catalog);
    let task = many_tasks(&Session::new(schema, "TASK").in_catalog(catalog));
    let mut failed = 0;
    for query in queries {
        let started = Instant::now();
        match compare_one(cluster, query, &plain, &task).await {
            Ok(rows) => {
                let seconds = started.elapsed().as_secs_f64();
                println!("    {}: {rows} rows, {seconds:.1} s", query.name);
            }
            Err(error) => {
                failed += 1;
                println!("    {} FAILED: {error:#}", query.name);
            }
        }
    }
    ensure!(
        failed == 0,
        "{failed} of {} queries failed, see above",
        queries.len()
    );
    Ok(())
}

async fn compare_one(
    cluster: &mut Cluster,
    query: &Query,
    plain: &Session,
    task: &Session,
) -> Result<usize> {
    let expected = run_patiently(cluster, query.sql, plain).await?;
    ensure!(!expected.is_empty(), "no rows, which would prove nothing");
    let rows = cluster.client.run(query.sql, task).await?;
    same(&expected, &rows, query.order)?;
    nothing_left(cluster).await?;
    Ok(rows.len())
}
