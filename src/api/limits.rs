//! Limits on request bodies.
//!
//! Does: pass the settings to the extractors. Does not: enforce them.

use std::time::Duration;

use crate::catalog::handle::MAX_ENCODED;
use crate::config::LimitsConfig;
use crate::memory::MemoryPool;
use crate::read::MAX_SLICES_SIZE;
use crate::runtime::Clock;

/// The most memory that a JSON body needs, as a multiple of its size: its text, and a vector of
/// pairs of numbers, of 8 bytes for 6 characters, while it grows by a quarter.
pub const JSON_EXPANSION: u64 = 4;
/// The most memory that a source handle needs, as a multiple of its size: its text, the decoded
/// bytes, and ranges of up to 72 bytes for 15 characters each.
pub const HANDLE_EXPANSION: u64 = 7;
/// The most memory that a read needs for its handle and its slices.
const LARGEST_HANDLE: u64 = MAX_ENCODED * HANDLE_EXPANSION + MAX_SLICES_SIZE;
/// Number of the largest bodies that a pool holds at a time.
const LARGEST_BODIES: u64 = 2;

/// Limits on request bodies. Cheap to clone.
#[derive(Clone)]
pub struct BodyLimits {
    pub max_page_size: u64,
    pub max_batch_size: u64,
    pub max_control_body_size: u64,
    pub body_timeout: Duration,
    /// Measures `body_timeout`.
    pub clock: Clock,
    /// The request pool: memory for JSON bodies.
    pub control_bodies: MemoryPool,
    /// Memory for source handles and the slices of their reads, from the body to the end.
    pub handles: MemoryPool,
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
                limits.max_control_body_size * JSON_EXPANSION * LARGEST_BODIES,
            ),
            handles: MemoryPool::new("handle", LARGEST_HANDLE * LARGEST_BODIES),
        }
    }
}
