//! What Trino's own tools show of a query's exchange: the query's JSON, an event listener, JMX, and
//! its trace, which goes on in the plugin and the daemons.
//! Trino 476 prints metrics of exchanges in no plan, not even with `EXPLAIN ANALYZE VERBOSE`.
//!
//! Does: receive events as the listener's server, and check each tool after one query. Does not:
//! check figures exactly; that they count what was exchanged is a claim of the plugin's unit tests.

#![allow(clippy::disallowed_methods)] // the server of the events runs as a spawned task

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::wait_until;
use crate::query::Session;
use crate::scenarios::many_tasks;
use crate::traces::{FROM_STORE, Traces, USUAL};

/// A join and an aggregation, so that the exchange carries pages.
const QUERY: &str = "SELECT o_orderpriority, count(*) FROM orders JOIN lineitem \
                     ON o_orderkey = l_orderkey GROUP BY 1";

/// Writes some 200 MB that cannot be compressed: more than [`LITTLE_MEMORY`] at each daemon.
const LARGE: &str = "SELECT count(*), max(hash) FROM (SELECT hash, \
                     row_number() OVER (PARTITION BY n % 100003 ORDER BY n) AS i \
                     FROM (SELECT n, sha256(to_utf8(CAST(n AS varchar))) AS hash \
                     FROM (SELECT sequential_number AS n \
                     FROM TABLE(sequence(start => 1, stop => 6000000))))) WHERE i > 2";

/// What one query may hold of a daemon's memory: the least that is allowed.
const LITTLE_MEMORY: &str = "[query]\nmax_write_memory = \"32MiB\"\nmax_read_memory = \"24MiB\"\n";

/// A server for Trino's HTTP event listener. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    pub uri: String,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Events {
    pub async fn listen() -> Result<Self> {
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let events = Arc::clone(&received);
        let receive = async move |Json(event): Json<Value>| {
            events.lock().expect("no receiver panics").push(event);
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}/", listener.local_addr()?);
        let router = Router::new().route("/", post(receive));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { uri, received })
    }

    /// The event about a query, once it has arrived.
    async fn of(&self, query: &str) -> Result<Value> {
        let find = || {
            let received = self.received.lock().expect("no receiver panics");
            let mut events = received.iter();
            events
                .find(|event| event["metadata"]["queryId"] == query)
                .cloned()
        };
        let arrived = || async { Ok(find().is_some()) };
        wait_until("the event of the query", Duration::from_secs(60), arrived).await?;
        find().context("the event has gone")
    }
}

pub async fn run(cluster: &mut Cluster) -> Result<()> {
    let session = Session::new("tiny", "TASK");
    let traces = cluster.traces.clone().context("nothing is traced")?;
    traces.record();
    let running = cluster.client.start(QUERY, &session).await?;
    let id = running.id.clone();
    running.finish().await?;
    let info = cluster.client.info(&id).await?;
    shows("the query's JSON", &info.to_string())?;
    let events = cluster.events.as_ref();
    let event = events.context("no event listener is configured")?;
    shows("the event listener", &event.of(&id).await?.to_string())?;

    traces.expect_tree(&id, USUAL).await?;

    let sql = "SELECT sum(\"sinks.bytes\"), sum(\"sources.bytes\") FROM \
               jmx.current.\"trino.plugin.exchange.stopover:name=stopoverstats\"";
    let bytes = cluster.client.run(sql, &session).await?;
    let positive = |value: &Value| value.as_f64().is_some_and(|bytes| bytes > 0.0);
    ensure!(
        bytes[0].iter().all(positive),
        "jmx shows no bytes: {bytes:?}"
    );
    let sql = "SELECT node, inrotation FROM \
               jmx.current.\"trino.plugin.exchange.stopover.client:name=daemons\"";
    let daemons = cluster.client.run(sql, &session).await?;
    ensure!(
        daemons.len() == cluster.nodes.len()
            && daemons
                .iter()
                .all(|row| row[1].to_string().contains("http://")),
        "jmx shows other daemons: {daemons:?}"
    );
    println!(
        "    jmx: bytes {:?}, daemons of {} nodes",
        bytes[0],
        daemons.len()
    );
    from_store(cluster, &traces).await
}

/// The trace of a query that reads from the store what is in memory no more.
async fn from_store(cluster: &mut Cluster, traces: &Traces) -> Result<()> {
    cluster.reconfigure_daemons(LITTLE_MEMORY).await?;
    traces.record();
    let session = many_tasks(&Session::new("sf0.1", "TASK"));
    let running = cluster.client.start(LARGE, &session).await?;
    let id = running.id.clone();
    running.finish().await?;
    traces.expect_tree(&id, FROM_STORE).await?;
    cluster.reconfigure_daemons("").await
}

/// Checks that a text contains the metrics of sinks and sources, and prints the first of each.
fn shows(tool: &str, text: &str) -> Result<()> {
    for metric in ["StopoverSink.bytes", "StopoverSource.bytes"] {
        let at = text.find(metric);
        let at = at.with_context(|| format!("{tool} does not show {metric}"))?;
        let excerpt: String = text[at..].chars().take(60).collect();
        println!("    {tool}: {}", excerpt.replace('\n', " "));
    }
    Ok(())
}
