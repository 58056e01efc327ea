//! Limits on the use of one store: concurrency and retries.
//!
//! Does: hold the numbers, with their defaults for stores behind a network and on this machine.
//! Does not: enforce them (`limit`, `retry`).

use super::retry::RetryPolicy;

/// Concurrency and retries of one store.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Operations at a time.
    pub concurrency: usize,
    /// How failed operations are repeated.
    pub retry: RetryPolicy,
    /// Whether an operation stops when its future is dropped. An HTTP request does; a blocking file
    /// operation continues, and so must hold its permit until it has ended.
    pub cancellable: bool,
}

impl StoreLimits {
    /// For stores behind a network: enough to saturate it, few enough for one connection each.
    pub const REMOTE: Self = Self {
        concurrency: 64,
        retry: RetryPolicy::REMOTE,
        cancellable: true,
    };
    /// For file systems and memory: more operations would only queue in the kernel.
    pub const LOCAL: Self = Self {
        concurrency: 32,
        retry: RetryPolicy::LOCAL,
        cancellable: false,
    };
}
