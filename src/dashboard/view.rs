//! The data of the status page.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::BaseStatus;
use crate::telemetry::metrics::Metrics;

/// All data of the page.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Version of the daemon.
    pub version: &'static str,
    /// Time since it started to serve.
    pub uptime: Duration,
    /// Whether it is starting.
    pub starting: bool,
    /// What prevents new exchanges from being opened.
    pub obstacles: Vec<String>,
    /// Whether it is stopping.
    pub draining: bool,
    /// Base directories.
    pub bases: Vec<BaseStatus>,
    /// Memory pools.
    pub pools: Vec<PoolView>,
    /// Queries that hold or wait for memory, the largest first; bounded.
    pub queries: Vec<QueryView>,
    /// Its gauges, and counters since the start.
    pub metrics: Arc<Metrics>,
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
