//! Metrics of memory pools and request slots.
//!
//! Does: read the pools at each scrape. Does not: store counts that could drift from the pools.
//! Invariant: one series per pool and per direction.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalog::{self, Definition};
use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;

/// Reads one gauge of a source.
type ReadGauge<T> = fn(&T) -> u64;

/// Collects the same gauges of several sources, each under its name in one label.
pub struct GaugeCollector<T: 'static> {
    label: &'static str,
    gauges: &'static [(Definition, ReadGauge<T>)],
    sources: Vec<(&'static str, T)>,
}

/// Collects the metrics of memory pools.
pub type PoolCollector = GaugeCollector<MemoryPool>;

impl PoolCollector {
    /// A collector for these pools, by name.
    pub fn new(sources: Vec<(&'static str, MemoryPool)>) -> Self {
        Self {
            label: "pool",
            gauges: &[
                (catalog::MEMORY_CAPACITY, MemoryPool::capacity),
                (catalog::MEMORY_USED, MemoryPool::used),
                (catalog::MEMORY_WAITING, MemoryPool::waiting),
                (catalog::MEMORY_WAITING_QUERIES, |pool| {
                    pool.shortage().parties as u64
                }),
                (catalog::MEMORY_LIMITED_QUERIES, |pool| {
                    pool.shortage().limited.len() as u64
                }),
            ],
            sources,
        }
    }
}

/// Collects the metrics of request slots.
pub type SlotCollector = GaugeCollector<FairSemaphore>;

impl SlotCollector {
    /// A collector for these slots, by direction (`read`, `write`).
    pub fn new(sources: Vec<(&'static str, FairSemaphore)>) -> Self {
        Self {
            label: "direction",
            gauges: &[(catalog::SLOT_WAITERS, FairSemaphore::waiting)],
            sources,
        }
    }
}

impl<T> fmt::Debug for GaugeCollector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.sources.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl<T: Send + Sync> Collector for GaugeCollector<T> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (definition, read) in self.gauges {
            let mut metric = definition.encode(&mut encoder)?;
            for (name, source) in &self.sources {
                let value = i64::try_from(read(source)).unwrap_or(i64::MAX);
                let labels = [(self.label, *name)];
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
