//! Limits on request bodies.
//!
//! Does: give the settings to the extractors. Does not: enforce them.

use std::time::Duration;

use crate::config::LimitsConfig;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// Capacity of the request pool, as a multiple of the largest control body.
const LARGEST_CONTROL_BODIES: u64 = 2;

/// Limits on request bodies. Cheap to clone.
#[derive(Clone)]
pub struct BodyLimits {
    pub max_page_size: u64,
    pub max_batch_size: u64,
    pub max_control_body_size: u64,
    pub body_timeout: Duration,
    /// Measures `body_timeout`.
    pub clock: Clock,
    /// The request pool: memory for control bodies.
    pub control_bodies: MemoryPool,
}

impl BodyLimits {
    /// The configured limits.
    pub fn new(limits: &LimitsConfig, clock: Clock) -> Self {
        Self {
            max_page_size: limits.max_page_size,
            max_batch_size: limits.max_batch_size,
            max_control_body_size: limits.max_control_body_size,
            body_timeout: limits.body_timeout,
            clock,
            control_bodies: MemoryPool::new(
                "request",
                limits
                    .max_control_body_size
                    .saturating_mul(LARGEST_CONTROL_BODIES),
            ),
        }
    }
}
