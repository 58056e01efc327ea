//! A cluster: a coordinator, two workers, and a daemon beside each of the three.
//!
//! Does: start the processes in order, and restore the cluster after a scenario has killed some.
//! The base directories can be replaced under a running Trino, since only the daemons know them:
//! that saves a second start of the JVMs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artifacts::{Artifacts, ExchangeManager};
use crate::connectors::Extras;
use crate::daemon::{DRAIN, Daemon};
use crate::node::{Layout, Node, Size, properties};
use crate::observed::Events;
use crate::process::{free_ports, tail, wait_until};
use crate::query::{Client, Row, Session};
use crate::store::{StorageKind, Store};
use crate::traces::Traces;

const WORKERS: usize = 2;
/// How often a query without fault tolerance is tried: on a busy machine its nodes may take one
/// another for dead.
const PLAIN_TRIES: usize = 3;

pub struct Cluster {
    pub manager: ExchangeManager,
    pub client: Client,
    /// `nodes[0]` is the coordinator, the others are the workers.
    pub nodes: Vec<Node>,
    /// `daemons[i]` runs beside `nodes[i]`; none with Trino's own exchange manager.
    pub daemons: Vec<Daemon>,
    pub store: Store,
    /// What Trino's event listener reports.
    pub events: Option<Events>,
    /// What Trino and the daemons send to their collector.
    pub traces: Option<Traces>,
    size: Size,
    collector: Option<String>,
    work: PathBuf,
    /// Results without fault-tolerant execution, by schema and SQL text.
    plain: HashMap<(String, String), Vec<Row>>,
}

impl Cluster {
    /// Starts everything. `work` must be an empty folder.
    pub async fn start(
        artifacts: &Artifacts,
        manager: ExchangeManager,
        kind: StorageKind,
        extras: &Extras,
        work: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(work.join("logs"))?;
        let store = Store::start(kind, work).await?;
        Self::over(store, artifacts, manager, extras, work).await
    }

    /// Starts everything on existing base directories. The folder `logs` must exist.
    pub async fn over(
        store: Store,
        artifacts: &Artifacts,
        manager: ExchangeManager,
        extras: &Extras,
        work: &Path,
    ) -> Result<Self> {
        let ports = free_ports(2 * (WORKERS + 1))?;
        let (node_ports, daemon_ports) = ports.split_at(WORKERS + 1);
        let mut daemons = Vec::new();
        if manager == ExchangeManager::Stopover {
            for (index, port) in daemon_ports.iter().enumerate() {
                let name = format!("daemon-{index}");
                daemons.push(Daemon::new(&name, *port, &artifacts.daemon, work)?);
            }
        }
        let mut nodes = Vec::new();
        for (index, port) in node_ports.iter().enumerate() {
            let layout = Layout {
                artifacts,
                work,
                coordinator_port: node_ports[0],
                manager,
                exchange: exchange_properties(manager, &daemons, index, &store),
                extras,
            };
            nodes.push(Node::create(&node_name(index), *port, &layout)?);
        }
        let client = Client::new(node_ports[0])?;
        let mut cluster = Self {
            manager,
            client,
            nodes,
            daemons,
            store,
            events: None,
            traces: None,
            size: extras.size,
            collector: extras.collector.clone(),
            work: work.to_owned(),
            plain: HashMap::new(),
        };
        cluster
            .start_processes()
            .await
            .inspect_err(|_| cluster.print_logs())?;
        Ok(cluster)
    }

    async fn start_processes(&mut self) -> Result<()> {
        self.start_daemons().await?;
        for node in &mut self.nodes {
            node.launch()?;
        }
        for node in &mut self.nodes {
            node.wait_until_up().await?;
        }
        self.wait_for_workers().await
    }

    async fn start_daemons(&mut self) -> Result<()> {
        let configuration = self.daemon_configuration();
        for daemon in &mut self.daemons {
            daemon.configure(&configuration)?;
            daemon.start().await?;
        }
        Ok(())
    }

    /// Stops the daemons gracefully and starts them again on base directories of another kind.
    pub async fn change_storage(&mut self, kind: StorageKind) -> Result<()> {
        ensure!(
            !self.daemons.is_empty(),
            "the base directories of Trino's own exchange manager cannot be changed"
        );
        for daemon in &mut self.daemons {
            daemon.stop().await?;
        }
        self.store = Store::start(kind, &self.work).await?;
        self.start_daemons().await
    }

    /// Gives each daemon in turn the base directories that there are now, and restarts it. `more`
    /// is added to its configuration.
    pub async fn reconfigure_daemons(&mut self, more: &str) -> Result<()> {
        let configuration = self.daemon_configuration();
        for daemon in &mut self.daemons {
            daemon.configure(&format!("{configuration}\n{more}"))?;
            daemon.stop().await?;
            daemon.start().await?;
        }
        Ok(())
    }

    /// Restarts every process that is not running.
    pub async fn repair(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if !daemon.is_running() {
                daemon.start().await?;
            }
        }
        for node in &mut self.nodes {
            if !node.is_running() {
                node.launch()?;
            }
        }
        for node in &mut self.nodes {
            node.wait_until_up().await?;
        }
        self.wait_for_workers().await
    }

    async fn wait_for_workers(&self) -> Result<()> {
        // retry_policy=NONE: this must not depend on the exchange under test.
        let session = Session::new("tiny", "NONE");
        let sql = "SELECT count(*) FROM system.runtime.nodes WHERE NOT coordinator \
                   AND state = 'active'";
        let wanted = serde_json::json!(self.nodes.len() - 1);
        wait_until(
            "the coordinator knows its workers",
            Duration::from_secs(300),
            || {
                let (client, session, wanted) =
                    (self.client.clone(), session.clone(), wanted.clone());
                async move {
                    let rows = client.run(sql, &session).await.unwrap_or_default();
                    Ok(rows.first().is_some_and(|row| row[0] == wanted))
                }
            },
        )
        .await
    }

    /// The rows of a query without fault-tolerant execution, hence without the exchange.
    pub async fn plain(&mut self, sql: &str, schema: &str) -> Result<Vec<Row>> {
        let key = (schema.to_owned(), sql.to_owned());
        if let Some(rows) = self.plain.get(&key) {
            return Ok(rows.clone());
        }
        let session = Session::new(schema, "NONE");
        let mut rows = self.client.run(sql, &session).await;
        for _ in 1..PLAIN_TRIES {
            let Err(error) = &rows else { break };
            println!("    once more without FTE: {error:#}");
            rows = self.client.run(sql, &session).await;
        }
        let rows = rows.context("without FTE")?;
        self.plain.insert(key, rows.clone());
        Ok(rows)
    }

    fn daemon_configuration(&self) -> String {
        let tracing = self.collector.as_ref();
        let tracing = tracing.map(|url| format!("[tracing]\ncollector = \"{url}\"\n\n"));
        format!(
            "[server]\ndrain_timeout = \"{}s\"\n\n[memory]\nbudget = \"{}\"\n\n{}{}",
            DRAIN.as_secs(),
            self.size.daemon_budget(),
            tracing.unwrap_or_default(),
            self.store.configuration()
        )
    }

    /// A running daemon: any of them reports what all of them hold.
    pub fn any_daemon(&mut self) -> Result<&Daemon> {
        let running = self
            .daemons
            .iter_mut()
            .find_map(|d| d.is_running().then_some(&*d));
        running.context("no daemon is running")
    }

    pub fn print_logs(&self) {
        let nodes = self.nodes.iter().map(Node::log);
        let daemons = self.daemons.iter().map(Daemon::log);
        print_logs(self.store.logs().into_iter().chain(daemons).chain(nodes));
    }
}

/// The ends of logs, each with its name and path.
pub fn print_logs(logs: impl IntoIterator<Item = (String, PathBuf)>) {
    for (name, log) in logs {
        println!(
            "---- {name}: the end of {} ----\n{}",
            log.display(),
            tail(&log, 25)
        );
    }
}

fn node_name(index: usize) -> String {
    if index == 0 {
        "coordinator".to_owned()
    } else {
        format!("worker-{index}")
    }
}

/// A node names its own daemon first, then the others, which it uses when its own is down.
fn exchange_properties(
    manager: ExchangeManager,
    daemons: &[Daemon],
    own: usize,
    store: &Store,
) -> String {
    match manager {
        ExchangeManager::Stopover => {
            let (before, from_own) = daemons.split_at(own);
            let uris: Vec<_> = from_own.iter().chain(before).map(Daemon::url).collect();
            properties(&[
                ("exchange-manager.name", "stopover".to_owned()),
                ("stopover.uris", uris.join(",")),
            ])
        }
        ExchangeManager::Filesystem => {
            let name = ("exchange-manager.name", "filesystem".to_owned());
            let stock = store.stock_properties();
            properties(&[vec![name], stock].concat())
        }
    }
}
