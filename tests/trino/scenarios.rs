//! What must hold of a real cluster, each as one claim that passes or fails.
//!
//! Every scenario leaves a whole cluster behind or says why not; after every query the base
//! directories are looked at, and anything left in them fails the scenario.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use tokio::time::timeout;

use crate::artifacts::ExchangeManager;
use crate::cluster::Cluster;
use crate::compare::same;
use crate::connectors;
use crate::daemon::Daemon;
use crate::process::wait_until;
use crate::queries::{COMPARED, LARGE_RESULT, LONG_ANYWHERE, LONG_TPCH, Query};
use crate::query::{Client, Row, Session};
use crate::store::StorageKind;

/// Closing is asynchronous: the coordinator does not wait for it. And where several daemons clear
/// away at once what came late, the tombstone of one may stay for the next sweep, within a minute.
const SETTLE: Duration = Duration::from_secs(90);
/// What a daemon has to learn from the store, it learns when it sweeps, once a minute.
const SWEPT: Duration = Duration::from_secs(150);
/// How long queries may run one after another until a daemon holds a sink of theirs.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    Results,
    QueryRetries,
    WorkerKilled,
    DaemonKilled,
    MachineKilled,
    RollingRestart,
    Connectors,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Results,
        Self::QueryRetries,
        Self::WorkerKilled,
        Self::DaemonKilled,
        Self::MachineKilled,
        Self::RollingRestart,
        Self::Connectors,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::QueryRetries => "query-retries",
            Self::WorkerKilled => "worker-killed",
            Self::DaemonKilled => "daemon-killed",
            Self::MachineKilled => "machine-killed",
            Self::RollingRestart => "rolling-restart",
            Self::Connectors => "connectors",
        }
    }

    pub fn claim(self) -> &'static str {
        match self {
            Self::Results => "queries give the results of the cluster without FTE",
            Self::QueryRetries => "retry-policy=QUERY spools a large result and gives it whole",
            Self::WorkerKilled => "a query survives kill -9 of a worker that comes back",
            Self::DaemonKilled => "a query survives kill -9 of the daemon beside a worker",
            Self::MachineKilled => "a query survives kill -9 of a worker and its daemon for good",
            Self::RollingRestart => "a restart of all daemons in turn fails no task of a query",
            Self::Connectors => "what PostgreSQL and Iceberg hold survives kill -9 in a write",
        }
    }

    /// Whether it has a meaning without daemons, and is worth its time on this storage.
    pub fn applies_to(self, manager: ExchangeManager, storage: StorageKind) -> bool {
        match self {
            Self::DaemonKilled | Self::RollingRestart => manager == ExchangeManager::Stopover,
            Self::Connectors => storage == StorageKind::S3,
            _ => true,
        }
    }

    /// Whether it is the same on any storage, so that one is enough unless it is named.
    pub fn is_about_daemons_alone(self) -> bool {
        self == Self::RollingRestart
    }

    pub async fn run(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Results => results(cluster).await,
            Self::QueryRetries => query_retries(cluster).await,
            Self::WorkerKilled => lose(cluster, &LONG_TPCH, "sf1", Loss::WorkerThatReturns).await,
            Self::DaemonKilled => lose(cluster, &LONG_ANYWHERE, "tiny", Loss::Daemon).await,
            Self::RollingRestart => rolling_restart(cluster).await,
            Self::Connectors => connectors::bounded(cluster).await,
            Self::MachineKilled => lose(cluster, &LONG_ANYWHERE, "tiny", Loss::Machine).await,
        }
    }
}

async fn results(cluster: &mut Cluster) -> Result<()> {
    for query in COMPARED {
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
    Ok(())
}

async fn query_retries(cluster: &mut Cluster) -> Result<()> {
    let query = &LARGE_RESULT;
    let plain = cluster.plain(query.sql, "sf0.1").await?;
    let mut running = cluster
        .client
        .start(query.sql, &Session::new("sf0.1", "QUERY"))
        .await?;
    // With this policy no row is given out before the whole result has been held back.
    running.until_rows().await?;
    let spooled = cluster.store.files()?.len();
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

/// What is killed under a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    WorkerThatReturns,
    Daemon,
    Machine,
}

/// The query is given so much to do, one after the other, while it is over before its moment comes.
/// With four times the work Trino may run 33 tasks at once on one worker, and what they aggregate
/// fills its heap.
const WORK: [u32; 6] = [1, 2, 2, 2, 2, 2];

/// Runs `query`, kills what `loss` says once there is something to lose, and checks the rows. How
/// long a query takes is the machine's business: where the moment does not come, it has more to do
/// the next time.
async fn lose(cluster: &mut Cluster, query: &Query, schema: &str, loss: Loss) -> Result<()> {
    for work in WORK {
        let plain = cluster.plain(&query.sized(work), schema).await?;
        let ending = lose_once(cluster, &query.sized(work), schema, loss).await?;
        same(&plain, &ending.rows, query.order)?;
        nothing_left(cluster).await?;
        cluster.repair().await?;
        let (rows, again) = (ending.rows.len(), ending.tried_again);
        match ending.missed {
            None if again > 0 => {
                println!(
                    "    {}: {rows} right rows, {again} task(s) tried again",
                    query.name
                );
                return Ok(());
            }
            None => println!("    work {work}: what was killed was not needed any more"),
            Some(missed) => println!("    work {work}: {missed}"),
        }
    }
    bail!("no task was tried again, however long the query: nothing was killed in its midst")
}

/// How one run with a fault ended.
struct Ending {
    rows: Vec<Row>,
    tried_again: usize,
    /// Why the fault did not come in its midst.
    missed: Option<&'static str>,
}

/// Runs a query to its end while the loss is inflicted on it.
async fn lose_once(cluster: &mut Cluster, sql: &str, schema: &str, loss: Loss) -> Result<Ending> {
    let session = many_tasks(&Session::new(schema, "TASK"));
    let running = cluster.client.start(sql, &session).await?;
    let id = running.id.clone();
    let over = Cell::new(false);
    let to_its_end = async {
        let rows = running.finish().await;
        over.set(true);
        rows
    };
    // Both to their ends, also after an error: no query may run on into the next scenario.
    let (rows, missed) = tokio::join!(to_its_end, inflict_in_time(cluster, &id, &over, loss));
    let missed = missed?;
    Ok(Ending {
        rows: rows?,
        tried_again: tried_again(cluster, &id).await?,
        missed,
    })
}

/// How many tasks of a query had a second attempt.
async fn tried_again(cluster: &Cluster, query: &str) -> Result<usize> {
    let tasks = cluster.client.tasks(query).await?;
    Ok(tasks.iter().filter(|t| t.attempt() > 0).count())
}

/// Inflicts the loss once there is something to lose; why it came too late, if it did.
async fn inflict_in_time(
    cluster: &mut Cluster,
    query: &str,
    over: &Cell<bool>,
    loss: Loss,
) -> Result<Option<&'static str>> {
    let Some(number) = something_to_lose(cluster, query, over, loss).await? else {
        return Ok(Some(
            "the query was over before there was something to lose",
        ));
    };
    inflict(cluster, loss, number).await?;
    let held = describe_held(cluster, query).await;
    if over.get() {
        return Ok(Some("the query was over when the process was killed"));
    }
    held.map(|()| None)
}

/// Restarts all daemons one after another under queries that follow one another without a pause:
/// how long one query takes is the machine's business.
async fn rolling_restart(cluster: &mut Cluster) -> Result<()> {
    let query = &LONG_ANYWHERE;
    let (sql, schema) = (query.sized(2), "tiny");
    let plain = cluster.plain(&sql, schema).await?;
    let session = many_tasks(&Session::new(schema, "TASK"));
    let client = cluster.client.clone();
    let (restarted, ended) = (Cell::new(false), Cell::new(false));
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
    let runs = runs?;
    restarts?;
    for (id, rows) in &runs {
        same(&plain, rows, query.order)?;
        let again = tried_again(cluster, id).await?;
        ensure!(
            again == 0,
            "{again} task(s) were tried again: a restart has cost them their attempt"
        );
    }
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    println!(
        "    {}, {} time(s): right rows, no task tried again",
        query.name,
        runs.len()
    );
    Ok(())
}

/// Runs a query again and again, each to its end: the id and the rows of each run.
async fn run_while(
    client: &Client,
    sql: &str,
    session: &Session,
    wanted: impl Fn() -> bool,
) -> Result<Vec<(String, Vec<Row>)>> {
    let mut runs = Vec::new();
    while wanted() {
        let running = client.start(sql, session).await?;
        let id = running.id.clone();
        runs.push((id, running.finish().await?));
    }
    Ok(runs)
}

/// Each daemon is stopped while sinks are open that are not finished (at itself, if it is beside a
/// worker), and has come back before the next one goes. `ended`: no further query will come.
async fn restart_all(cluster: &mut Cluster, ended: &Cell<bool>) -> Result<()> {
    // Tasks have no sinks at the coordinator's daemon: it goes while a worker's holds some.
    for (number, busy) in [(1, 1), (2, 2), (0, 1)] {
        let held = timeout(PATIENCE, holds_a_sink(cluster, &[busy], ended)).await;
        let held =
            held.with_context(|| format!("no sink open at daemon-{busy} in {PATIENCE:?}"))?;
        held?.context("the queries ended before their time")?;
        let daemon = &mut cluster.daemons[number];
        let (sinks, began) = (open_sinks(daemon).await?, Instant::now());
        daemon.stop().await?;
        println!(
            "    {}: SIGTERM with {sinks} open sink(s), drained in {:.1} s",
            daemon.name,
            seconds(began)
        );
        daemon.start().await?;
    }
    Ok(())
}

/// Waits until a worker has committed output of this query and is busy with more of it; and, if it
/// is a daemon that will be lost, until one holds pages which are not committed. Answers who has
/// something to lose, by number; `None` if the query ended first. Trino may give all tasks to one
/// worker, so that it can be any.
async fn something_to_lose(
    cluster: &Cluster,
    query: &str,
    over: &Cell<bool>,
    loss: Loss,
) -> Result<Option<usize>> {
    let (number, patience) = (Cell::new(None), Duration::from_secs(300));
    let busy = &number;
    wait_until(
        "a worker has spooled data and works on, or the query is over",
        patience,
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
            Ok(busy.get().is_some() && !cluster.store.files()?.is_empty())
        },
    )
    .await?;
    if loss != Loss::Daemon {
        return Ok(number.get().filter(|_| !over.get()));
    }
    holds_a_sink(cluster, &[1, 2], over).await
}

/// Kills the worker or the daemon of this number, or both.
async fn inflict(cluster: &mut Cluster, loss: Loss, number: usize) -> Result<()> {
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
            println!("    kill -9 {} and what runs beside it", node.id);
            node.kill();
            if let Some(daemon) = cluster.daemons.get_mut(number) {
                daemon.kill();
            }
        }
    }
    Ok(())
}

/// Small tasks, so that also a small query has many of them and they meet in the exchange.
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
            "there are files, but no daemon tells of committed bytes"
        );
    }
    Ok(())
}

pub async fn nothing_left(cluster: &mut Cluster) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let mut left: Vec<String> = cluster
            .store
            .files()?
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
            bail!("left {} s after the query: {left:#?}", SETTLE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sinks that a daemon goes on holding after the end of their query would add up.
pub async fn no_sink_open(cluster: &Cluster) -> Result<()> {
    for daemon in &cluster.daemons {
        wait_until(
            &format!("no sink is open at {}", daemon.name),
            SETTLE,
            || async { Ok(open_sinks(daemon).await? == 0.0) },
        )
        .await?;
    }
    Ok(())
}

/// That no daemon holds anything any more: no sink, no exchange, no memory for writing. What was
/// read stays cached, within its share of the memory for reading, until that is needed.
pub async fn idle(cluster: &mut Cluster) -> Result<()> {
    nothing_left(cluster).await?;
    no_sink_open(cluster).await?;
    for daemon in &cluster.daemons {
        wait_until(&format!("{} is idle", daemon.name), SWEPT, || async {
            let exchanges = daemon.metric("stopover_exchanges_open").await?;
            let written = daemon
                .metric(r#"stopover_memory_used_bytes{pool="write"}"#)
                .await?;
            let waiting = daemon
                .metric(r#"stopover_memory_waiting_bytes{pool="read"}"#)
                .await?;
            Ok(exchanges == 0.0 && written == 0.0 && waiting == 0.0)
        })
        .await?;
    }
    Ok(())
}

/// Waits until one of these daemons holds an open sink; `None` once nothing runs any more. Sinks of
/// small tasks are open for moments only.
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
