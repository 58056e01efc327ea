//! The data of the pages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::history::History;
use crate::storage::{BaseStatus, OperationLatency};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::Recent;

/// All data of the overview.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Version of the daemon, with the commit where its build knows it.
    pub version: &'static str,
    /// The id of this run.
    pub run: String,
    /// The name of its machine or pod.
    pub host: String,
    /// The address on which it listens.
    pub listen: Option<SocketAddr>,
    /// URIs by which nodes on other machines reach it.
    pub advertise: Vec<String>,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Time since it started to serve.
    pub uptime: Duration,
    /// Whether it is starting.
    pub starting: bool,
    /// What prevents new exchanges from being opened.
    pub obstacles: Vec<String>,
    /// Why it collects no expired exchanges, if so.
    pub not_collecting: Option<String>,
    /// What is insecure, or expires soon, about its credentials.
    pub credential_warnings: Vec<String>,
    /// Whether it is stopping.
    pub draining: bool,
    /// Base directories.
    pub bases: Vec<BaseView>,
    /// Memory pools.
    pub pools: Vec<PoolView>,
    /// Queries that hold or wait for memory, the largest first; bounded.
    pub queries: Vec<QueryView>,
    /// The last warnings and errors of the log, the newest first.
    pub recent: Vec<Recent>,
    /// What happened in the last hour.
    pub history: History,
    /// Its gauges, and counters since the start.
    pub metrics: Arc<Metrics>,
}

/// A base directory.
#[derive(Debug, Clone)]
pub struct BaseView {
    pub status: BaseStatus,
    /// How long its operations took recently.
    pub latencies: Vec<OperationLatency>,
    /// Bytes that this daemon stored there for exchanges that are not known to be closed.
    pub stored: u64,
}

/// A memory pool, in bytes.
#[derive(Debug, Clone, Default)]
pub struct PoolView {
    /// Its purpose.
    pub name: &'static str,
    /// Granted now.
    pub used: u64,
    /// Requested by callers that wait.
    pub waiting: u64,
    /// The most it may grant.
    pub capacity: u64,
    /// Queries that wait because of their own limit.
    pub limited: usize,
}

/// The memory of one query, in bytes.
#[derive(Debug, Clone, Default)]
pub struct QueryView {
    /// Its name.
    pub name: String,
    /// Held for writing, hot segments included.
    pub writing: u64,
    /// Waiting to write.
    pub writing_waited: u64,
    /// Held for reading, cached chunks included.
    pub reading: u64,
    /// Waiting to read.
    pub reading_waited: u64,
}

/// What is left of the lease of an exchange.
#[derive(Debug, Clone, Copy, Default)]
pub enum LeaseLeft {
    /// It was announced after the last sweep, through another daemon.
    #[default]
    Unknown,
    /// This daemon has renewed it.
    Exactly(Duration),
    /// As the last sweep of the fleet saw it: it may have been renewed since.
    AtLeast(Duration),
}

/// An exchange at this daemon.
#[derive(Debug, Clone, Default)]
pub struct ExchangeView {
    pub exchange: String,
    pub query: String,
    /// Since its first request here.
    pub age: Duration,
    /// Since its last request here.
    pub idle: Duration,
    pub open: usize,
    pub finished: usize,
    pub given_up: usize,
    /// Bytes of pages that are not stored yet.
    pub held: u64,
    /// Bytes stored here, by base directory.
    pub stored: Vec<(String, u64)>,
    /// What is left of the lease.
    pub lease_left: LeaseLeft,
}

impl ExchangeView {
    /// Bytes stored and not stored yet.
    pub fn size(&self) -> u64 {
        self.held + self.stored.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

/// A sink of an exchange.
#[derive(Debug, Clone, Default)]
pub struct SinkView {
    pub task: u32,
    pub attempt: u32,
    pub state: &'static str,
    pub failure: Option<String>,
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
}
