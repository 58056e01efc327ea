//! The composition root: builds a daemon from its configuration and runs it to its end.
//!
//! Does: give every part what it needs, in one place. Does not: decide anything else. Invariant: `api` is
//! bound only when every part behind it exists.

use std::sync::Arc;

use crate::clock::Runtime;
use crate::commit::CommitIndex;
use crate::commit::hot::HotSegments;
use crate::config::Config;
use crate::id::{DaemonId, ExchangeId};
use crate::ingest::{Ingest, IngestParts};
use crate::lifecycle::{Exchanges, Forget, LifecycleParts, sweep};
use crate::memory::MemoryPool;
use crate::read::{ReadParts, Reader};
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics::Metrics;

/// All parts of a daemon but its door.
#[derive(Clone)]
pub struct Daemon {
    /// Time, randomness, background work.
    pub runtime: Runtime,
    /// Base directories.
    pub storage: Storage,
    /// Exchanges.
    pub exchanges: Exchanges,
    /// The writing side.
    pub ingest: Ingest,
    /// Commit records and handles.
    pub commits: CommitIndex,
    /// The reading side.
    pub reader: Reader,
    /// Memory for writing.
    pub write_pool: MemoryPool,
    /// Memory for reading.
    pub read_pool: MemoryPool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

struct ForgetEverywhere {
    ingest: Ingest,
    commits: CommitIndex,
    reader: Reader,
}

impl Forget for ForgetEverywhere {
    fn forget(&self, exchange: &ExchangeId) {
        self.ingest.forget(exchange);
        self.commits.forget(exchange);
        self.reader.forget(exchange);
    }
}

impl Daemon {
    /// Builds a daemon on the base directories of its configuration, without touching them.
    ///
    /// # Errors
    /// A base directory that cannot be opened as configured.
    pub fn build(config: &Config, runtime: &Runtime) -> Result<Self, StorageError> {
        let metrics = Arc::new(Metrics::default());
        let storage = Storage::open(&config.base_directories, runtime, &metrics)?;
        Ok(Self::assemble(config, runtime, storage, metrics))
    }

    /// Builds a daemon on base directories that exist; the seam for tests and simulation.
    pub fn assemble(
        config: &Config,
        runtime: &Runtime,
        storage: Storage,
        metrics: Arc<Metrics>,
    ) -> Self {
        let budget = config.memory.resolve();
        let write_pool = MemoryPool::new("write", budget / 2);
        let read_pool = MemoryPool::new("read", budget / 2);
        let hot = HotSegments::new(write_pool.clone());
        let commits = CommitIndex::new(storage.clone(), hot, config.limits.max_footer_size);
        let parts = LifecycleParts {
            runtime: runtime.clone(),
            storage: storage.clone(),
            metrics: Arc::clone(&metrics),
        };
        let exchanges = Exchanges::new(parts, &config.lease, config.limits.max_partitions);
        let parts = IngestParts {
            daemon: DaemonId(runtime.random.next_u64()),
            runtime: runtime.clone(),
            storage: storage.clone(),
            commits: commits.clone(),
            pool: write_pool.clone(),
            gate: Arc::new(exchanges.clone()),
            metrics: Arc::clone(&metrics),
        };
        let ingest = Ingest::start(parts, &config.segment, &config.limits);
        let parts = ReadParts {
            storage: storage.clone(),
            commits: commits.clone(),
            pool: read_pool.clone(),
            tasks: runtime.tasks.clone(),
            metrics: Arc::clone(&metrics),
        };
        let reader = Reader::new(parts, &config.read);
        let forget = ForgetEverywhere {
            ingest: ingest.clone(),
            commits: commits.clone(),
            reader: reader.clone(),
        };
        exchanges.add_forgetter(Arc::new(forget));
        runtime
            .tasks
            .spawn_until_stopped(sweep::sweep(exchanges.clone(), ingest.clone()));
        let runtime = runtime.clone();
        Self {
            runtime,
            storage,
            exchanges,
            ingest,
            commits,
            reader,
            write_pool,
            read_pool,
            metrics,
        }
    }
}
