//! Metrics of memory pools and request slots.
//!
//! Does: read the pools at each scrape. Does not: keep counts that could drift from the pools.
//! Invariant: one series per pool and per direction.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalog::{self, Definition};
use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;

type ReadGauge = fn(&MemoryPool) -> u64;

/// Collects the metrics of memory pools.
pub struct PoolCollector(Vec<(&'static str, MemoryPool)>);

impl PoolCollector {
    /// A collector for these pools, by name.
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
        let gauges: [(&Definition, ReadGauge); 5] = [
            (&catalog::MEMORY_CAPACITY, MemoryPool::capacity),
            (&catalog::MEMORY_USED, MemoryPool::used),
            (&catalog::MEMORY_WAITING, MemoryPool::waiting),
            (&catalog::MEMORY_WAITING_QUERIES, |pool| {
                pool.shortage().parties as u64
            }),
            (&catalog::MEMORY_LIMITED_QUERIES, |pool| {
                pool.shortage().limited.len() as u64
            }),
        ];
        for (definition, read) in gauges {
            let values = self.0.iter().map(|(name, pool)| (*name, read(pool)));
            encode(&mut encoder, definition, "pool", values)?;
        }
        Ok(())
    }
}

/// Collects the metrics of request slots.
pub struct SlotCollector(Vec<(&'static str, FairSemaphore)>);

impl SlotCollector {
    /// A collector for these slots, by direction (`read`, `write`).
    pub fn new(slots: Vec<(&'static str, FairSemaphore)>) -> Self {
        Self(slots)
    }
}

impl fmt::Debug for SlotCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Collector for SlotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let values = self.0.iter().map(|(name, slots)| (*name, slots.waiting()));
        encode(&mut encoder, &catalog::SLOT_WAITERS, "direction", values)
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    definition: &Definition,
    label: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let unit = definition.unit();
    let mut metric = encoder.encode_descriptor(
        definition.name,
        definition.help,
        unit.as_ref(),
        MetricType::Gauge,
    )?;
    for (name, value) in values {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let labels = [(label, name)];
        let labelled = metric.encode_family(&labels)?;
        ConstGauge::new(value).encode(labelled)?;
    }
    Ok(())
}
