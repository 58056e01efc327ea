//! What must hold for a real cluster: each scenario is one claim that passes or fails.
//!
//! Every scenario leaves a complete cluster behind or reports why not. After every query the base
//! directories are inspected, and anything left in them fails the scenario.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use tokio::time::timeout;

use crate::artifacts::ExchangeManager;
use crate::base_away;
use crate::base_changes;
use crate::cluster::Cluster;
use crate::compare::same;
use crate::connectors;
use crate::daemon::Daemon;
use crate::observed;
use crate::process::wait_until;
use crate::queries::{COMPARED, LARGE_RESULT, LONG_ANYWHERE, LONG_TPCH, Query};
use crate::query::{Client, Row, Session};
use crate::store::StorageKind;
use crate::store_killed;

/// Closing is asynchronous: the coordinator does not wait for it. And where several daemons delete
/// late objects at the same time, a tombstone may stay until the next sweep, within a minute; where
/// the outcome of a marker's put was unknown, until the second sweep after its close.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(240);
/// What a daemon can learn only from the store, it learns in its sweep, once a minute.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(150);
/// How long queries may run one after another until a daemon holds one of their sinks.
const SINK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    Results,
    FewResults,
    QueryRetries,
    WorkerKilled,
    DaemonKilled,
    MachineKilled,
    RollingRestart,
    BaseAway,
    BaseChanges,
    StoreKilled,
    Observed,
    Connectors,
}

impl Scenario {
    pub const ALL: [Self; 12] = [
        Self::Results,
        Self::FewResults,
        Self::QueryRetries,
        Self::WorkerKilled,
        Self::DaemonKilled,
        Self::MachineKilled,
        Self::RollingRestart,
        Self::BaseAway,
        Self::BaseChanges,
        Self::StoreKilled,
        Self::Observed,
        Self::Connectors,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::FewResults => "few-results",
            Self::QueryRetries => "query-retries",
            Self::WorkerKilled => "worker-killed",
            Self::DaemonKilled => "daemon-killed",
            Self::MachineKilled => "machine-killed",
            Self::RollingRestart => "rolling-restart",
            Self::BaseAway => "base-away",
            Self::BaseChanges => "base-changes",
            Self::StoreKilled => "store-killed",
            Self::Observed => "observed",
            Self::Connectors => "connectors",
        }
    }

    pub fn claim(self) -> &'static str {
        match self {
            Self::Results => "queries return the same rows as without FTE",
            Self::FewResults => "a join and a large sort return the same rows as without FTE",
            Self::QueryRetries => "retry-policy=QUERY spools a large result and returns all of it",
            Self::WorkerKilled => "a query survives kill -9 of a worker that is restarted",
            Self::DaemonKilled => "a query survives kill -9 of the daemon beside a worker",
            Self::MachineKilled => "a query survives kill -9 of a worker and its daemon for ever",
            Self::RollingRestart => "a restart of all daemons in turn fails no task",
            Self::BaseAway => "a base directory that is away costs no query that begins after it",
            Self::BaseChanges => "a base directory is added, drained and abandoned under queries",
            Self::StoreKilled => "queries survive kill -9 of a DataNode and of the NameNode",
            Self::Observed => "Trino's own tools show what the exchange did",
            Self::Connectors => "writes to PostgreSQL and Iceberg survive kill -9 of a worker",
        }
    }

    /// Whether it applies to this exchange manager, and is worth its time on this storage.
    pub fn applies_to(self, manager: ExchangeManager, storage: StorageKind) -> bool {
        match self {
            Self::DaemonKilled
            | Self::RollingRestart
            | Self::BaseAway
            | Self::BaseChanges
            | Self::Observed => manager == ExchangeManager::Stopover,
            Self::Connectors => storage == StorageKind::S3,
            Self::StoreKilled => {
                storage == StorageKind::Hadoop && manager == ExchangeManager::Stopover
            }
            _ => true,
        }
    }

    /// Whether it is the same on any storage: it runs on one only, unless it is named.
    pub fn is_about_daemons_alone(self) -> bool {
        matches!(
            self,
            Self::MachineKilled | Self::RollingRestart | Self::Observed
        )
    }

    /// Whether it runs only when it is named: it is part of another one, or waits for edits of the
    /// list of members to be known everywhere, for minutes on a busy machine.
    pub fn is_only_when_named(self) -> bool {
        matches!(self, Self::FewResults | Self::BaseChanges)
    }

    pub async fn run(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Results => results(cluster, |_| true).await,
            Self::FewResults => results(cluster, |query| FEW.contains(&query.name)).await,
            Self::QueryRetries => query_retries(cluster).await,
            Self::WorkerKilled => lose(cluster, &LONG_TPCH, "sf1", Loss::WorkerThatReturns).await,
            Self::DaemonKilled => lose(cluster, &LONG_ANYWHERE, "tiny", Loss::Daemon).await,
            Self::RollingRestart => rolling_restart(cluster).await,
            Self::BaseAway => base_away::run(cluster).await,
            Self::BaseChanges => base_changes::run(cluster).await,
            Self::StoreKilled => store_killed::run(cluster).await,
            Self::Observed => observed::run(cluster).await,
            Self::Connectors => connectors::bounded(cluster).await,
            Self::MachineKilled => lose(cluster, &LONG_ANYWHERE, "tiny", Loss::Machine).await,
        }
    }
}

/// For stores that are tried beside those of the whole suite: pages of many tasks, and very many
/// pages in order.
const FEW: [&str; 2] = [
    "Q3 shipping priority",
    "all orders sorted (one ordered exchange, many pages)",
];

async fn results(cluster: &mut Cluster, wanted: impl Fn(&Query) -> bool) -> Result<()> {
    let queries: Vec<_> = COMPARED.iter().filter(|query| wanted(query)).collect();
    ensure!(!queries.is_empty(), "no query has one of these names");
    let before = at_homes(cluster).await?;
    for query in queries {
        let plain = cluster
            .plain(query.sql, "sf0.1")
            .await
            .context(query.name)?;
        let started = Instant::now();
        let rows = cluster
            .client
            .run(query.sql, &many_tasks(&Session::new("sf0.1", "TASK")))
            .await;
        let rows = rows.with_context(|| query.name)?;
        same(&plain, &rows, query.order).with_context(|| query.name)?;
        println!(
            "    {}: {} rows, {:.1} s",
            query.name,
            rows.len(),
            seconds(started)
        );
        nothing_left(cluster).await.with_context(|| query.name)?;
        no_sink_open(cluster).await.with_context(|| query.name)?;
    }
    homes_were_used(cluster, &before).await
}

/// What a daemon has accepted of small outputs of other nodes.
const MET_AT_HOMES: &str = "stopover_foreign_pages_written_bytes_total";

/// The page bytes that each daemon has accepted of small outputs of other nodes, as their home; of
/// daemons that do not run, nothing.
async fn at_homes(cluster: &mut Cluster) -> Result<Vec<f64>> {
    let mut bytes = Vec::new();
    for daemon in &mut cluster.daemons {
        bytes.push(if daemon.is_running() {
            daemon.metric(MET_AT_HOMES).await?
        } else {
            0.0
        });
    }
    Ok(bytes)
}

/// The bytes of small outputs that met at daemons other than those of their nodes, since these
/// daemons had accepted as many as in `before`. One that was restarted since counts from 0 again.
async fn met_at_homes(cluster: &mut Cluster, before: &[f64]) -> Result<f64> {
    let now = at_homes(cluster).await?;
    let gained = now.iter().zip(before);
    let gained = gained.map(|(now, before)| if now < before { *now } else { now - before });
    let bytes = gained.sum();
    if !cluster.daemons.is_empty() {
        println!("    {bytes} bytes of small outputs met at a home");
    }
    Ok(bytes)
}

/// Checks that there were some.
async fn homes_were_used(cluster: &mut Cluster, before: &[f64]) -> Result<()> {
    let bytes = met_at_homes(cluster, before).await?;
    ensure!(
        bytes > 0.0 || cluster.daemons.is_empty(),
        "no small output was sent to a home"
    );
    Ok(())
}

/// Within so many runs, small outputs have met at another daemon than that of their worker, unless
/// none is ever sent there: one exchange of a run has small outputs, and one home in three is
/// beside a worker that may have run all of its tasks.
const RUNS_UNTIL_MET: usize = 15;

/// Repeats a query until small outputs have met at a home, if `met` of their bytes have not yet.
async fn until_met(
    cluster: &mut Cluster,
    sql: &str,
    session: &Session,
    met: f64,
) -> Result<Vec<(String, Vec<Row>)>> {
    let (before, client) = (at_homes(cluster).await?, cluster.client.clone());
    let (mut met, mut runs) = (met, Vec::new());
    while met == 0.0 {
        ensure!(
            runs.len() < RUNS_UNTIL_MET,
            "no small output was sent to a home, in {RUNS_UNTIL_MET} runs"
        );
        runs.push(run_once(&client, sql, session).await?);
        met = met_at_homes(cluster, &before).await?;
    }
    Ok(runs)
}

async fn query_retries(cluster: &mut Cluster) -> Result<()> {
    let query = &LARGE_RESULT;
    let plain = cluster.plain(query.sql, "sf0.1").await?;
    let mut running = cluster
        .client
        .start(query.sql, &Session::new("sf0.1", "QUERY"))
        .await?;
    // With this policy no row is returned before the whole result has been held back.
    running.until_rows().await?;
    let spooled = cluster.store.files().await?.len();
    ensure!(
        spooled > 0,
        "the result was not spooled: there is no file in the base directories"
    );
    describe_held(cluster, &running.id).await?;
    let rows = running.finish().await?;
    same(&plain, &rows, query.order)?;
    println!(
        "    {}: {} rows, by way of {spooled} file(s)",
        query.name,
        rows.len()
    );
    nothing_left(cluster).await
}

/// What is killed during a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    WorkerThatReturns,
    Daemon,
    Machine,
}

/// The amounts of work tried one after another until the fault comes before the query ends. With
/// four times the work Trino may run 33 tasks at once on one worker, whose aggregations fill its
/// heap.
const WORK: [u32; 6] = [1, 2, 2, 2, 2, 2];

/// Runs `query`, kills what `loss` names once there is something to lose, and checks the rows. How
/// long a query takes depends on the machine: if it ends too early, the next run gets more work.
async fn lose(cluster: &mut Cluster, query: &Query, schema: &str, loss: Loss) -> Result<()> {
    let mut met = 0.0;
    for work in WORK {
        let sql = query.sized(work);
        let plain = cluster.plain(&sql, schema).await?;
        let before = at_homes(cluster).await?;
        let ending = lose_once(cluster, &sql, schema, loss).await?;
        same(&plain, &ending.rows, query.order)?;
        nothing_left(cluster).await?;
        if loss == Loss::Daemon {
            met += met_at_homes(cluster, &before).await?;
        }
        cluster.repair().await?;
        let (rows, again) = (ending.rows.len(), ending.retried);
        match ending.missed {
            None if again > 0 => {
                if loss == Loss::Daemon {
                    let session = many_tasks(&Session::new(schema, "TASK"));
                    for (_, rows) in until_met(cluster, &sql, &session, met).await? {
                        same(&plain, &rows, query.order)?;
                    }
                }
                println!(
                    "    {}: {rows} correct rows, {again} task(s) retried",
                    query.name
                );
                return Ok(());
            }
            None => println!("    work {work}: the killed process was no longer needed"),
            Some(missed) => println!("    work {work}: {missed}"),
        }
    }
    bail!("with no amount of work a task was retried: no kill hit the running query")
}

/// The outcome of one run with a fault.
struct Ending {
    rows: Vec<Row>,
    retried: usize,
    /// Why the fault came too late, if it did.
    missed: Option<&'static str>,
}

/// Runs a query to its end while the fault is injected.
async fn lose_once(cluster: &mut Cluster, sql: &str, schema: &str, loss: Loss) -> Result<Ending> {
    let session = many_tasks(&Session::new(schema, "TASK"));
    let running = cluster.client.start(sql, &session).await?;
    let id = running.id.clone();
    let over = Cell::new(false);
    let run_to_end = async {
        let rows = running.finish().await;
        over.set(true);
        rows
    };
    // Both run to the end, even after an error: no query may run on into the next scenario.
    let (rows, missed) = tokio::join!(run_to_end, inject_in_time(cluster, &id, &over, loss));
    let missed = missed?;
    Ok(Ending {
        rows: rows?,
        retried: retried(cluster, &id).await?,
        missed,
    })
}

/// The number of task attempts of a query that were retries.
async fn retried(cluster: &Cluster, query: &str) -> Result<usize> {
    let tasks = cluster.client.tasks(query).await?;
    Ok(tasks.iter().filter(|t| t.attempt() > 0).count())
}

/// Injects the fault once there is something to lose; returns why it came too late, if it did.
async fn inject_in_time(
    cluster: &mut Cluster,
    query: &str,
    over: &Cell<bool>,
    loss: Loss,
) -> Result<Option<&'static str>> {
    let Some(number) = something_to_lose(cluster, query, over, loss).await? else {
        return Ok(Some("the query ended before there was something to lose"));
    };
    inject(cluster, loss, number).await?;
    let held = describe_held(cluster, query).await;
    if over.get() {
        return Ok(Some("the query had ended when the process was killed"));
    }
    held.map(|()| None)
}

/// Restarts all daemons one after another while queries run back to back: a single query may be too
/// short for that.
async fn rolling_restart(cluster: &mut Cluster) -> Result<()> {
    let query = &LONG_ANYWHERE;
    let (sql, schema) = (query.sized(2), "tiny");
    let plain = cluster.plain(&sql, schema).await?;
    let session = many_tasks(&Session::new(schema, "TASK"));
    let client = cluster.client.clone();
    let (restarted, ended) = (Cell::new(false), Cell::new(false));
    let before: f64 = at_homes(cluster).await?.iter().sum();
    let queries = async {
        let runs = run_while(&client, &sql, &session, || !restarted.get()).await;
        ended.set(true);
        runs
    };
    let restarts = async {
        let outcome = restart_all(cluster, &ended).await;
        restarted.set(true);
        outcome
    };
    let (runs, restarts) = tokio::join!(queries, restarts);
    let (mut runs, until_restarted) = (runs?, restarts?);
    // All counters began at 0 when their daemon was restarted under these queries.
    let met = until_restarted - before + met_at_homes(cluster, &[0.0; 3]).await?;
    runs.extend(until_met(cluster, &sql, &session, met).await?);
    for (id, rows) in &runs {
        same(&plain, rows, query.order)?;
        let again = retried(cluster, id).await?;
        ensure!(
            again == 0,
            "{again} task(s) were retried: a restart made their attempts fail"
        );
    }
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    println!(
        "    {}, {} time(s): correct rows, no task retried",
        query.name,
        runs.len()
    );
    Ok(())
}

/// Runs a query repeatedly while `wanted`; returns the id and the rows of each run.
pub async fn run_while(
    client: &Client,
    sql: &str,
    session: &Session,
    wanted: impl Fn() -> bool,
) -> Result<Vec<(String, Vec<Row>)>> {
    let mut runs = Vec::new();
    while wanted() {
        runs.push(run_once(client, sql, session).await?);
    }
    Ok(runs)
}

async fn run_once(client: &Client, sql: &str, session: &Session) -> Result<(String, Vec<Row>)> {
    let running = client.start(sql, session).await?;
    let id = running.id.clone();
    Ok((id, running.finish().await?))
}

/// Stops each daemon while sinks are open (its own, if it runs beside a worker) and restarts it
/// before the next one. Returns the bytes of small outputs that they had accepted until then.
/// `ended`: no further query will start.
async fn restart_all(cluster: &mut Cluster, ended: &Cell<bool>) -> Result<f64> {
    let mut met = 0.0;
    // Tasks have no sinks at the coordinator's daemon: it is stopped while a worker's holds some.
    for (number, busy) in [(1, 1), (2, 2), (0, 1)] {
        let held = timeout(SINK_TIMEOUT, holds_a_sink(cluster, &[busy], ended)).await;
        let held =
            held.with_context(|| format!("no sink open at daemon-{busy} within {SINK_TIMEOUT:?}"))?;
        held?.context("the queries ended too early")?;
        let daemon = &mut cluster.daemons[number];
        let (sinks, began) = (open_sinks(daemon).await?, Instant::now());
        met += daemon.metric(MET_AT_HOMES).await?;
        daemon.stop().await?;
        println!(
            "    {}: SIGTERM with {sinks} open sink(s), drained in {:.1} s",
            daemon.name,
            seconds(began)
        );
        daemon.start().await?;
    }
    Ok(met)
}

/// Waits until a worker has committed output of this query and is running more of it; if a daemon
/// will be killed, until a daemon also holds uncommitted pages. Returns the number of the worker or
/// daemon; `None` if the query ended first. Any worker counts, as Trino may give all tasks to one.
async fn something_to_lose(
    cluster: &Cluster,
    query: &str,
    over: &Cell<bool>,
    loss: Loss,
) -> Result<Option<usize>> {
    let (number, limit) = (Cell::new(None), Duration::from_secs(300));
    let busy = &number;
    wait_until(
        "a worker has spooled data and is still running, or the query has ended",
        limit,
        || async move {
            if over.get() {
                return Ok(true);
            }
            let tasks = cluster.client.tasks(query).await?;
            busy.set([1, 2].into_iter().find(|number| {
                let worker = &cluster.nodes[*number].id;
                tasks.iter().any(|t| t.is_finished_on(worker))
                    && tasks.iter().any(|t| t.is_running_on(worker))
            }));
            Ok(busy.get().is_some() && !cluster.store.files().await?.is_empty())
        },
    )
    .await?;
    if loss != Loss::Daemon {
        return Ok(number.get().filter(|_| !over.get()));
    }
    holds_a_sink(cluster, &[1, 2], over).await
}

/// Kills the worker or the daemon of this number, or both.
async fn inject(cluster: &mut Cluster, loss: Loss, number: usize) -> Result<()> {
    let node = &mut cluster.nodes[number];
    match loss {
        Loss::WorkerThatReturns => {
            println!("    kill -9 {}", node.id);
            node.kill();
            tokio::time::sleep(Duration::from_secs(2)).await;
            node.launch()?;
        }
        Loss::Daemon => {
            let daemon = &mut cluster.daemons[number];
            daemon.kill();
            println!("    kill -9 {}", daemon.name);
        }
        Loss::Machine => {
            println!("    kill -9 {} and its daemon", node.id);
            node.kill();
            if let Some(daemon) = cluster.daemons.get_mut(number) {
                daemon.kill();
            }
        }
    }
    Ok(())
}

/// Small tasks, so that a small query, too, has many tasks with data in the exchange.
pub fn many_tasks(session: &Session) -> Session {
    session
        .clone()
        .with(
            "fault_tolerant_execution_small_stage_estimation_enabled",
            "false",
        )
        .with(
            "fault_tolerant_execution_hash_distribution_compute_task_target_size",
            "4MB",
        )
        .with("fault_tolerant_execution_max_task_split_count", "2")
}

async fn describe_held(cluster: &mut Cluster, query: &str) -> Result<()> {
    if cluster.manager == ExchangeManager::Stopover {
        let held = cluster.any_daemon()?.held(query).await?;
        println!(
            "    held: {} exchange(s), {} attempt(s), {} segment(s), {} bytes",
            held.exchanges, held.attempts, held.segments, held.bytes
        );
        ensure!(
            held.bytes > 0,
            "there are files, but no daemon reports committed bytes"
        );
    }
    Ok(())
}

pub async fn nothing_left(cluster: &mut Cluster) -> Result<()> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    loop {
        let mut left: Vec<String> = cluster
            .store
            .files()
            .await?
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        if cluster.manager == ExchangeManager::Stopover {
            left.extend(cluster.any_daemon()?.exchanges("").await?);
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            left.truncate(10);
            bail!(
                "still there {} s after the query: {left:#?}",
                CLEANUP_TIMEOUT.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sinks that a daemon held after the end of their query would accumulate.
pub async fn no_sink_open(cluster: &Cluster) -> Result<()> {
    for daemon in &cluster.daemons {
        wait_until(
            &format!("no sink is open at {}", daemon.name),
            CLEANUP_TIMEOUT,
            || async { Ok(open_sinks(daemon).await? == 0.0) },
        )
        .await?;
    }
    Ok(())
}

/// Waits until no daemon holds a sink, an exchange or memory for writing. Data that was read stays
/// cached, within its share of the memory for reading, until that memory is needed.
pub async fn idle(cluster: &mut Cluster) -> Result<()> {
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    for daemon in &cluster.daemons {
        wait_until(
            &format!("{} is idle", daemon.name),
            SWEEP_TIMEOUT,
            || async {
                let exchanges = daemon.metric("stopover_exchanges_with_sinks").await?;
                let written = daemon
                    .metric(r#"stopover_memory_used_bytes{pool="write"}"#)
                    .await?;
                let waiting = daemon
                    .metric(r#"stopover_memory_waiting_bytes{pool="read"}"#)
                    .await?;
                Ok(exchanges == 0.0 && written == 0.0 && waiting == 0.0)
            },
        )
        .await?;
    }
    Ok(())
}

/// Waits until one of these daemons holds an open sink; `None` once the query has ended. Sinks of
/// small tasks are open only for moments.
async fn holds_a_sink(
    cluster: &Cluster,
    daemons: &[usize],
    over: &Cell<bool>,
) -> Result<Option<usize>> {
    while !over.get() {
        for number in daemons {
            if open_sinks(&cluster.daemons[*number]).await? > 0.0 {
                return Ok(Some(*number));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(None)
}

async fn open_sinks(daemon: &Daemon) -> Result<f64> {
    daemon.metric("stopover_sinks_open").await
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
