//! Memory pools, as metrics.
//!
//! Does: read the pools when somebody scrapes. Does not: count anything itself, so that the figures
//! cannot drift from the pools. Invariant: one series per pool.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalog::{self, Definition};
use crate::memory::MemoryPool;

type Reading = fn(&MemoryPool) -> u64;

/// The pools by name.
pub struct PoolCollector(Vec<(&'static str, MemoryPool)>);

impl PoolCollector {
    /// A collector of these pools.
    pub fn new(pools: Vec<(&'static str, MemoryPool)>) -> Self {
        Self(pools)
    }
}

impl fmt::Debug for PoolCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauges: [(&Definition, Reading); 3] = [
            (&catalog::MEMORY_CAPACITY, MemoryPool::capacity),
            (&catalog::MEMORY_USED, MemoryPool::used),
            (&catalog::MEMORY_WAITING, MemoryPool::waiting),
        ];
        for (definition, read) in gauges {
            let unit = definition.unit();
            let mut metric = encoder.encode_descriptor(
                definition.name,
                definition.help,
                unit.as_ref(),
                MetricType::Gauge,
            )?;
            for (name, pool) in &self.0 {
                let value = i64::try_from(read(pool)).unwrap_or(i64::MAX);
                let labels = [("pool", *name)];
                let labelled = metric.encode_family(&labels)?;
                ConstGauge::new(value).encode(labelled)?;
            }
        }
        Ok(())
    }
}
