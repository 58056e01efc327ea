//! Tables written through Trino's connectors with and without fault-tolerant execution.
//!
//! Every statement is run twice: under TASK on one table, under NONE on its twin; then both must
//! hold the same rows. What a connector refuses under FTE must be refused in Trino's own words.
//! Source of all rows is `tpch.tiny`, by joins and a grouping that cross the exchange.

use anyhow::{Context, Result, bail, ensure};

use super::loss::{Ending, WORK, kill_under};
use crate::cluster::Cluster;
use crate::compare::{Order, same};
use crate::query::{Row, Session, Task};
use crate::scenarios::{many_tasks, no_sink_open, nothing_left};

/// What becomes of a statement under FTE.
#[derive(Clone, Copy, Debug)]
enum Under {
    Works,
    Refused(&'static str),
}
use Under::{Refused, Works};

/// A catalog that can be written under FTE.
pub struct Target {
    pub catalog: &'static str,
    /// Where tables are made, `catalog.schema`.
    schema: &'static str,
    /// The WITH clause with which many tasks write a table here: without partitions, or buckets,
    /// Trino gives these few rows to one.
    with: &'static str,
    /// Run on each new table; `$LOCAL` is its name without the catalog.
    afterwards: &'static str,
    /// UPDATE to constants and DELETE of a range, which a database can do by itself.
    simple: Under,
    /// UPDATE and DELETE by a subquery, and MERGE.
    rows: Under,
}

const NO_MERGE: &str = "This connector does not support MERGE with fault-tolerant execution";
const NO_ROWS: &str = "This connector does not support modifying table rows";
const NOT_TRANSACTIONAL: &str =
    "Modifying Hive table rows is only supported for transactional tables";

const TARGETS: [Target; 6] = [
    Target {
        catalog: "postgresql",
        schema: "postgresql.public",
        with: "",
        // Without a primary key Trino cannot change rows there, with or without FTE.
        afterwards: "CALL postgresql.system.execute(query => \
                     'ALTER TABLE $LOCAL ADD PRIMARY KEY (k)')",
        simple: Works,
        rows: Works,
    },
    Target {
        catalog: "iceberg",
        schema: "iceberg.stopover",
        with: "WITH (partitioning = ARRAY['bucket(k, 16)'])",
        afterwards: "",
        simple: Works,
        rows: Works,
    },
    Target {
        catalog: "delta",
        schema: "delta.stopover",
        with: "WITH (partitioned_by = ARRAY['segment'])",
        afterwards: "",
        simple: Works,
        rows: Works,
    },
    Target {
        catalog: "hive",
        schema: "hive.stopover",
        with: "WITH (format = 'PARQUET', partitioned_by = ARRAY['segment'])",
        afterwards: "",
        simple: Refused(NOT_TRANSACTIONAL),
        rows: Refused(NOT_TRANSACTIONAL),
    },
    Target {
        catalog: "mariadb",
        schema: "mariadb.stopover",
        with: "",
        afterwards: "",
        simple: Works,
        rows: Refused(NO_ROWS),
    },
    Target {
        catalog: "mysql",
        schema: "mysql.stopover",
        with: "",
        afterwards: "",
        simple: Works,
        rows: Refused(NO_MERGE),
    },
];

pub fn targets() -> &'static [Target] {
    &TARGETS
}

pub fn target(catalog: &str) -> Result<&'static Target> {
    let found = TARGETS.iter().find(|target| target.catalog == catalog);
    found.with_context(|| format!("no table is written in the catalog {catalog}"))
}

/// Rows with a unique key, out of two joins and a grouping that each need the exchange.
fn rows(part: &str, times: u32) -> String {
    format!(
        "SELECT w * 1000000 + l_partkey * 10 + l_linenumber AS k, count(*) AS lines, \
             sum(l_quantity) AS quantity, max(l_shipdate) AS last, max(c_mktsegment) AS segment \
         FROM tpch.tiny.lineitem JOIN tpch.tiny.orders ON o_orderkey = l_orderkey \
             JOIN tpch.tiny.customer ON c_custkey = o_custkey \
             CROSS JOIN UNNEST(sequence(1, {times})) AS u (w) \
         WHERE {part} GROUP BY 1"
    )
}

const EVEN: &str = "l_partkey % 2 = 0";
const ODD: &str = "l_partkey % 2 = 1";
const ALL: &str = "true";

impl Target {
    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.schema)
    }

    fn create(&self, table: &str, rows: &str) -> String {
        format!("CREATE TABLE {table} {} AS {rows}", self.with)
    }

    /// A fresh start: the schema exists, the table does not.
    async fn clear(&self, cluster: &Cluster, table: &str) -> Result<()> {
        if !matches!(self.catalog, "postgresql" | "mariadb" | "mysql") {
            run_plain(
                cluster,
                &format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema),
            )
            .await?;
        }
        run_plain(cluster, &format!("DROP TABLE IF EXISTS {table}")).await?;
        Ok(())
    }

    async fn finish_new(&self, cluster: &Cluster, table: &str) -> Result<()> {
        if self.afterwards.is_empty() {
            return Ok(());
        }
        let local = table.split_once('.').map_or(table, |(_, local)| local);
        let sql = self.afterwards.replace("$LOCAL", local);
        run_plain(cluster, &sql).await.map(drop)
    }

    /// Every statement on `table`, each with what becomes of it under FTE.
    fn statements(&self, table: &str) -> Vec<(&'static str, String, Under)> {
        let rich = "SELECT c_custkey FROM tpch.tiny.customer WHERE c_acctbal > 4000";
        let merge = merge_into(table, &rows("l_partkey % 3 = 0", 1));
        vec![
            (
                "CREATE TABLE AS",
                format!("CREATE TABLE {table} AS {}", rows(EVEN, 1)),
                Works,
            ),
            (
                "INSERT ... SELECT",
                format!("INSERT INTO {table} {}", rows(ODD, 1)),
                Works,
            ),
            (
                "UPDATE to a constant",
                format!("UPDATE {table} SET segment = 'NONE' WHERE k < 1002000"),
                self.simple,
            ),
            (
                "DELETE of a range",
                format!("DELETE FROM {table} WHERE k BETWEEN 1003000 AND 1004000"),
                self.simple,
            ),
            (
                "UPDATE by a subquery",
                format!("UPDATE {table} SET lines = lines + 1 WHERE k % 1000000 / 10 IN ({rich})"),
                self.rows,
            ),
            (
                "DELETE by a subquery",
                format!("DELETE FROM {table} WHERE k % 500 IN ({rich})"),
                self.rows,
            ),
            ("MERGE", merge, self.rows),
        ]
    }
}

/// Deletes some rows, changes some, adds some.
fn merge_into(table: &str, rows: &str) -> String {
    format!(
        "MERGE INTO {table} t USING (SELECT k + 10 AS k, lines, quantity, last, segment \
             FROM ({rows})) s ON t.k = s.k \
         WHEN MATCHED AND s.lines > 4 THEN DELETE \
         WHEN MATCHED THEN UPDATE SET lines = t.lines + s.lines \
         WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.lines, s.quantity, s.last, s.segment)"
    )
}

/// Every statement on one catalog, each compared with its twin without FTE.
pub async fn written(cluster: &mut Cluster, target: &Target) -> Result<()> {
    let (table, twin) = (target.table("written"), target.table("twin"));
    target.clear(cluster, &table).await?;
    target.clear(cluster, &twin).await?;
    let statements = target.statements(&table).into_iter();
    for ((what, sql, under), (_, plain, _)) in statements.zip(target.statements(&twin)) {
        let result = cluster.client.run(&sql, &task_session()).await;
        match under {
            Works => {
                let told = result.with_context(|| what)?;
                run_plain(cluster, &plain).await.with_context(|| what)?;
                if what == "CREATE TABLE AS" {
                    target.finish_new(cluster, &table).await?;
                    target.finish_new(cluster, &twin).await?;
                }
                let held = held(cluster, &table).await?;
                same(&held_by(cluster, &twin).await?, &held, Order::Any).with_context(|| what)?;
                println!(
                    "    {what}: {} row(s), then {} held",
                    told_rows(&told),
                    held.len()
                );
            }
            Refused(message) => {
                refused(result, message).with_context(|| what)?;
                println!("    {what}: refused, \"{message}\"");
            }
        }
        nothing_left(cluster).await.with_context(|| what)?;
        no_sink_open(cluster).await.with_context(|| what)?;
    }
    Ok(())
}

/// That a statement failed, in these words of Trino's.
pub fn refused(result: Result<Vec<Row>>, message: &str) -> Result<()> {
    match result {
        Ok(_) => bail!("it works now, although it was expected to be refused: {message}"),
        Err(error) => {
            let told = format!("{error:#}");
            ensure!(told.contains(message), "refused in other words: {told}");
            Ok(())
        }
    }
}

/// The table that is written while a worker is killed, and its twin.
const KILLED: &str = "killed";
const WHOLE: &str = "whole";

/// A statement that writes while a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Create,
    Insert,
    Merge,
}

impl Statement {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE TABLE AS",
            Self::Insert => "INSERT ... SELECT",
            Self::Merge => "MERGE",
        }
    }
}

impl Target {
    /// Makes `name` and fills it, without FTE.
    pub async fn fill(&self, cluster: &Cluster, name: &str) -> Result<()> {
        let table = self.table(name);
        self.clear(cluster, &table).await?;
        run_plain(cluster, &self.create(&table, &rows(ALL, 1)))
            .await
            .map(drop)
    }

    /// Gives `name` what this connector needs to change rows.
    pub async fn give_key(&self, cluster: &Cluster, name: &str) -> Result<()> {
        self.finish_new(cluster, &self.table(name)).await
    }

    /// Makes two tables alike; the statement for the one, and the same for its twin.
    pub async fn twins(
        &self,
        cluster: &Cluster,
        statement: Statement,
        work: u32,
    ) -> Result<(String, String)> {
        let (table, twin) = (self.table(KILLED), self.table(WHOLE));
        self.prepare(cluster, &table, statement).await?;
        self.prepare(cluster, &twin, statement).await?;
        Ok((
            self.statement(&table, statement, work),
            self.statement(&twin, statement, work),
        ))
    }

    /// The number of rows, if the table holds what its twin holds.
    pub async fn same_as_twin(&self, cluster: &Cluster) -> Result<usize> {
        let held = held(cluster, &self.table(KILLED)).await?;
        same(
            &held_by(cluster, &self.table(WHOLE)).await?,
            &held,
            Order::Any,
        )?;
        Ok(held.len())
    }

    /// What can be written here under FTE by many tasks.
    pub fn kills(&self) -> &'static [Statement] {
        match self.rows {
            Works => &[Statement::Create, Statement::Insert, Statement::Merge],
            Refused(_) => &[Statement::Create, Statement::Insert],
        }
    }

    /// Makes `table` as it is before the statement.
    async fn prepare(&self, cluster: &Cluster, table: &str, statement: Statement) -> Result<()> {
        self.clear(cluster, table).await?;
        if statement != Statement::Create {
            let first = self.create(table, &rows(ALL, 1));
            run_plain(cluster, &first).await?;
        }
        if statement == Statement::Merge {
            self.finish_new(cluster, table).await?;
        }
        Ok(())
    }

    fn statement(&self, table: &str, statement: Statement, work: u32) -> String {
        let rows = rows(ALL, 2 * work);
        match statement {
            Statement::Create => self.create(table, &rows),
            Statement::Insert => format!(
                "INSERT INTO {table} SELECT -k, lines, quantity, last, segment FROM ({rows})"
            ),
            Statement::Merge => merge_into(table, &rows),
        }
    }
}

/// `kill -9` of a worker while some tasks have written and others write: the statement finishes,
/// and the table holds each row exactly once.
pub async fn killed(cluster: &mut Cluster, target: &Target, statement: Statement) -> Result<()> {
    for work in WORK {
        let (sql, plain) = target.twins(cluster, statement, work).await?;
        run_plain(cluster, &plain).await?;
        let ending = kill_under(cluster, &sql, &writing_session(), |tasks, _| {
            worker_in_the_midst(tasks)
        })
        .await?;
        nothing_left(cluster).await?;
        no_sink_open(cluster).await?;
        // Without FTE a statement fails on a worker that has come back only half.
        cluster.repair().await?;
        let rows = target.same_as_twin(cluster).await?;
        let again = written_again(&ending);
        if ending.killed && again > 0 {
            println!("    {rows} row(s), each once; {again} write task(s) tried again");
            return Ok(());
        }
        println!("    work {work}: the statement had nothing to lose");
    }
    bail!("no write task was tried again, however long the statement: nothing was killed")
}

/// A worker that is writing while some task of the same stage has written rows.
fn worker_in_the_midst(tasks: &[Task]) -> Option<String> {
    let stage = write_stage(tasks)?;
    let writers = || tasks.iter().filter(|task| task.stage() == stage);
    let wrote = |task: &&Task| task.writes.is_some_and(|rows| rows > 0);
    writers().filter(wrote).find(|t| t.state == "FINISHED")?;
    let mut busy = writers().filter(|task| task.state == "RUNNING");
    // One that has rows in hand, if that is known yet: those without have nothing to write again.
    let best = busy.clone().find(wrote).or_else(|| busy.next());
    best.map(|task| task.node.clone())
}

fn write_stage(tasks: &[Task]) -> Option<&str> {
    tasks
        .iter()
        .find(|task| task.writes.is_some())
        .map(Task::stage)
}

/// How many second tries there were of tasks that have rows to write.
fn written_again(ending: &Ending) -> usize {
    let tasks = ending.tasks.iter();
    let writers = tasks.filter(|task| task.writes.is_some_and(|rows| rows > 0));
    writers.filter(|task| task.attempt() > 0).count()
}

/// TASK, with small tasks.
pub fn task_session() -> Session {
    many_tasks(&Session::new("tiny", "TASK"))
}

/// TASK, with many small tasks that write.
fn writing_session() -> Session {
    task_session().with("redistribute_writes", "false").with(
        "fault_tolerant_execution_hash_distribution_write_task_target_size",
        "100kB",
    )
}

pub async fn run_plain(cluster: &Cluster, sql: &str) -> Result<Vec<Row>> {
    run_patiently(cluster, sql, &Session::new("tiny", "NONE")).await
}

/// A statement without FTE. Trino gives it up where a worker does not answer for seconds, as on a
/// machine that is too busy; then it is begun again. What had been written of it does not count:
/// the rows of the table are compared afterwards in any case.
pub async fn run_patiently(cluster: &Cluster, sql: &str, session: &Session) -> Result<Vec<Row>> {
    let mut tries = 1;
    loop {
        let rows = cluster.client.run(sql, session).await;
        let rows = rows.with_context(|| format!("without FTE: {sql}"));
        let busy = |error: &anyhow::Error| format!("{error:#}").contains(TOO_BUSY);
        if tries == 5 || !rows.as_ref().is_err_and(busy) {
            return rows;
        }
        println!("    a worker is too busy to answer; once more");
        tries += 1;
    }
}

/// How Trino says it.
const TOO_BUSY: &str = "Encountered too many errors talking to a worker node";

async fn held(cluster: &Cluster, table: &str) -> Result<Vec<Row>> {
    let rows = held_by(cluster, table).await?;
    ensure!(
        !rows.is_empty(),
        "{table} holds no rows, which would prove nothing"
    );
    Ok(rows)
}

async fn held_by(cluster: &Cluster, table: &str) -> Result<Vec<Row>> {
    run_plain(cluster, &format!("SELECT * FROM {table}")).await
}

/// The number of rows that a statement says it has written rows.
fn told_rows(rows: &[Row]) -> String {
    let first = rows.first().and_then(|row| row.first());
    first.map_or("?".to_owned(), ToString::to_string)
}
