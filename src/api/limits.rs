//! The bounds on request bodies, taken from the configuration once.
//!
//! Does: carry them to the extractors. Does not: enforce. Invariant: each has the name under which
//! an error mentions it.

use std::time::Duration;

use crate::config::LimitsConfig;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// Small bodies held at a time, all requests together, as a multiple of the largest.
const SMALL_BODIES: u64 = 2;

/// Bounds on request bodies. Cheap to clone.
#[derive(Clone)]
pub struct BodyLimits {
    /// `limits.max_page_size`
    pub max_page_size: u64,
    /// `limits.max_batch_size`
    pub max_batch_size: u64,
    /// `limits.max_json_size`
    pub max_json_size: u64,
    /// `limits.body_timeout`
    pub body_timeout: Duration,
    /// What times bodies.
    pub clock: Clock,
    /// Memory of all JSON and handle bodies that are being read.
    pub control_bodies: MemoryPool,
}

impl BodyLimits {
    /// From the configuration.
    pub fn new(limits: &LimitsConfig, clock: Clock) -> Self {
        Self {
            max_page_size: limits.max_page_size,
            max_batch_size: limits.max_batch_size,
            max_json_size: limits.max_json_size,
            body_timeout: limits.body_timeout,
            clock,
            control_bodies: MemoryPool::new(
                "request",
                limits.max_json_size.saturating_mul(SMALL_BODIES),
            ),
        }
    }
}
