//! Limits on the use of one store: concurrency, deadlines and retries.
//!
//! Does: hold the numbers, with their defaults for remote and local stores.
//! Does not: enforce them (`limit`, `deadline`, `retry`).

use super::deadline::DeadlinePolicy;
use super::retry::RetryPolicy;

/// Concurrency, deadlines and retries of one store.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Operations at a time.
    pub concurrency: usize,
    /// The deadlines of operations.
    pub deadline: DeadlinePolicy,
    /// How failed operations are repeated.
    pub retry: RetryPolicy,
    /// Whether an operation stops when its future is dropped. An HTTP request does; a blocking file
    /// operation continues, and so must hold its permit until it has ended or its deadline passed.
    pub cancellable: bool,
}

impl StoreLimits {
    /// For stores behind a network: enough to saturate it, few enough for one connection each.
    pub const REMOTE: Self = Self {
        concurrency: 64,
        deadline: DeadlinePolicy::REMOTE,
        retry: RetryPolicy::REMOTE,
        cancellable: true,
    };
    /// For file systems and memory: more operations would only queue in the kernel.
    pub const LOCAL: Self = Self {
        concurrency: 32,
        deadline: DeadlinePolicy::LOCAL,
        retry: RetryPolicy::LOCAL,
        cancellable: false,
    };
}
