//! Tables written through Trino's connectors with and without fault-tolerant execution.
//!
//! Every statement runs twice: with TASK on one table, with NONE on its twin; then both tables must
//! hold the same rows. What a connector refuses under FTE must be refused with Trino's own message.
//! All rows come from `tpch.tiny`, through joins and a grouping that use the exchange.

use anyhow::{Context, Result, bail, ensure};

use super::loss::{Ending, WORK, kill_under};
use crate::cluster::Cluster;
use crate::compare::{Order, same};
use crate::query::{Row, Session, Task};
use crate::scenarios::{many_tasks, no_sink_open, nothing_left};

/// The outcome of a statement under FTE.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Works,
    Refused(&'static str),
}
use Outcome::{Refused, Works};

/// A catalog that can be written under FTE.
pub struct Target {
    pub catalog: &'static str,
    /// The `catalog.schema` in which tables are created.
    schema: &'static str,
    /// The WITH clause with which many tasks write a table: without partitions or buckets, Trino
    /// gives these few rows to one task.
    with: &'static str,
    /// Run on each new table; `$LOCAL` is its name without the catalog.
    afterwards: &'static str,
    /// UPDATE to constants and DELETE of a range, which a database can execute itself.
    simple: Outcome,
    /// UPDATE and DELETE with a subquery, and MERGE.
    rows: Outcome,
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
    found.with_context(|| format!("no test writes to catalog {catalog}"))
}

/// Rows with a unique key, from two joins and a grouping that each need the exchange.
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

    /// Creates the schema if needed and drops the table.
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

    /// Every statement on `table`, each with its outcome under FTE.
    fn statements(&self, table: &str) -> Vec<(&'static str, String, Outcome)> {
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

/// Runs every statement on one catalog and compares each table with its twin without FTE.
pub async fn written(cluster: &mut Cluster, target: &Target) -> Result<()> {
    let (table, twin) = (target.table("written"), target.table("twin"));
    target.clear(cluster, &table).await?;
    target.clear(cluster, &twin).await?;
    let statements = target.statements(&table).into_iter();
    for ((what, sql, outcome), (_, plain, _)) in statements.zip(target.statements(&twin)) {
        let result = cluster.client.run(&sql, &task_session()).await;
        match outcome {
            Works => {
                let result = result.with_context(|| what)?;
                run_plain(cluster, &plain).await.with_context(|| what)?;
                if what == "CREATE TABLE AS" {
                    target.finish_new(cluster, &table).await?;
                    target.finish_new(cluster, &twin).await?;
                }
                let held = held(cluster, &table).await?;
                same(&held_by(cluster, &twin).await?, &held, Order::Any).with_context(|| what)?;
                println!(
                    "    {what}: {} row(s), then {} held",
                    written_rows(&result),
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

/// Checks that a statement failed with Trino's error message.
pub fn refused(result: Result<Vec<Row>>, message: &str) -> Result<()> {
    match result {
        Ok(_) => bail!("the statement works now; expected the error: {message}"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(
                text.contains(message),
                "refused with another message: {text}"
            );
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
    /// Creates `name` and fills it, without FTE.
    pub async fn fill(&self, cluster: &Cluster, name: &str) -> Result<()> {
        let table = self.table(name);
        self.clear(cluster, &table).await?;
        run_plain(cluster, &self.create(&table, &rows(ALL, 1)))
            .await
            .map(drop)
    }

    /// Adds to `name` what this connector needs to change rows.
    pub async fn give_key(&self, cluster: &Cluster, name: &str) -> Result<()> {
        self.finish_new(cluster, &self.table(name)).await
    }

    /// Creates two equal tables; returns the statement for the one, and the same for its twin.
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

    /// The number of rows, if the table has the same content as its twin.
    pub async fn same_as_twin(&self, cluster: &Cluster) -> Result<usize> {
        let held = held(cluster, &self.table(KILLED)).await?;
        same(
            &held_by(cluster, &self.table(WHOLE)).await?,
            &held,
            Order::Any,
        )?;
        Ok(held.len())
    }

    /// The statements that many tasks can write under FTE on this catalog.
    pub fn kills(&self) -> &'static [Statement] {
        match self.rows {
            Works => &[Statement::Create, Statement::Insert, Statement::Merge],
            Refused(_) => &[Statement::Create, Statement::Insert],
        }
    }

    /// Creates `table` in the state that the statement starts from.
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

/// `kill -9` of a worker when some tasks have written and others are writing: the statement
/// finishes, and the table holds each row exactly once.
pub async fn killed(cluster: &mut Cluster, target: &Target, statement: Statement) -> Result<()> {
    for work in WORK {
        let (sql, plain) = target.twins(cluster, statement, work).await?;
        run_plain(cluster, &plain).await?;
        let ending = kill_under(cluster, &sql, &writing_session(), |tasks, _| {
            writing_worker(tasks)
        })
        .await?;
        nothing_left(cluster).await?;
        no_sink_open(cluster).await?;
        // Without FTE a statement fails if a restarted worker is not ready.
        cluster.repair().await?;
        let rows = target.same_as_twin(cluster).await?;
        let again = written_again(&ending);
        if ending.killed && again > 0 {
            println!("    {rows} row(s), each once; {again} write task(s) retried");
            return Ok(());
        }
        println!("    work {work}: no worker was killed while the statement had something to lose");
    }
    bail!("no write task was retried with any amount of work: no kill hit the running statement")
}

/// A worker that is writing after some task of the same stage has written rows.
fn writing_worker(tasks: &[Task]) -> Option<String> {
    let stage = write_stage(tasks)?;
    let writers = || tasks.iter().filter(|task| task.stage() == stage);
    let wrote = |task: &&Task| task.writes.is_some_and(|rows| rows > 0);
    writers().filter(wrote).find(|t| t.state == "FINISHED")?;
    let mut busy = writers().filter(|task| task.state == "RUNNING");
    // Preferably one that has received rows, if that is known: others have nothing to write again.
    let best = busy.clone().find(wrote).or_else(|| busy.next());
    best.map(|task| task.node.clone())
}

fn write_stage(tasks: &[Task]) -> Option<&str> {
    tasks
        .iter()
        .find(|task| task.writes.is_some())
        .map(Task::stage)
}

/// The number of retries of tasks that have rows to write.
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

/// Runs a statement without FTE. Trino fails it if a worker does not answer for some seconds, as on
/// a busy machine; then it is retried. Rows that the failed statement wrote do no harm: the tables
/// are compared afterwards in any case.
pub async fn run_patiently(cluster: &Cluster, sql: &str, session: &Session) -> Result<Vec<Row>> {
    let mut tries = 1;
    loop {
        let rows = cluster.client.run(sql, session).await;
        let rows = rows.with_context(|| format!("without FTE: {sql}"));
        let busy = |error: &anyhow::Error| format!("{error:#}").contains(TOO_BUSY);
        if tries == 5 || !rows.as_ref().is_err_and(busy) {
            return rows;
        }
        println!("    a worker is too busy to answer; retrying");
        tries += 1;
    }
}

/// Trino's message for an unresponsive worker.
const TOO_BUSY: &str = "Encountered too many errors talking to a worker node";

async fn held(cluster: &Cluster, table: &str) -> Result<Vec<Row>> {
    let rows = held_by(cluster, table).await?;
    ensure!(
        !rows.is_empty(),
        "{table} is empty, which would prove nothing"
    );
    Ok(rows)
}

async fn held_by(cluster: &Cluster, table: &str) -> Result<Vec<Row>> {
    run_plain(cluster, &format!("SELECT * FROM {table}")).await
}

/// The number of rows that a statement reports to have written.
fn written_rows(rows: &[Row]) -> String {
    let first = rows.first().and_then(|row| row.first());
    first.map_or("?".to_owned(), ToString::to_string)
}
