//! Claims about reads that need base directories.

use std::sync::Arc;

use futures::StreamExt as _;

use super::reader::ReadRequest;
use super::{ReadError, Reader, ReaderDeps};
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::catalog::handle::{Handle, HandleRange, MAX_RANGES};
use crate::config::ReadConfig;
use crate::id::{DaemonId, SegmentId};
use crate::memory::MemoryPool;
use crate::runtime::Runtime;
use crate::storage::{Storage, StoreLimits};
use crate::store::Store;
use crate::store::local::{LocalStore, WriteMode};
use crate::telemetry::metrics::Metrics;

/// A reader of an empty base directory, and its pool.
fn reader(folder: &std::path::Path) -> (Reader, MemoryPool) {
    let runtime = Runtime::seeded(1);
    let store: Arc<dyn Store> =
        Arc::new(LocalStore::new(folder.to_owned(), WriteMode::Unsynced, 7));
    let stores = vec![("a".parse().unwrap(), "test".to_owned(), store)];
    let storage = Storage::from_stores(stores, StoreLimits::LOCAL, &runtime);
    let pool = MemoryPool::new("read", 256 << 20);
    let hot = HotSegments::new(MemoryPool::new("write", 1 << 20), pool.clone());
    let metrics = Arc::new(Metrics::default());
    let catalog = Catalog::new(
        storage.clone(),
        hot.clone(),
        1 << 20,
        Arc::clone(&metrics),
        pool.clone(),
    );
    let deps = ReaderDeps {
        storage,
        catalog,
        hot,
        pool: pool.clone(),
        runtime,
        metrics,
    };
    (Reader::new(deps, &ReadConfig::default()), pool)
}

fn range(sequence: u64, length: u64) -> HandleRange {
    HandleRange {
        base: "a".parse().unwrap(),
        segment: SegmentId {
            daemon: DaemonId(1),
            sequence,
        },
        blocks_end: 16 + length,
        offset: 16,
        length,
        pages: 1,
        checksum: 0,
    }
}

/// Story: all parts of all ranges were planned before the first was fetched, 160 bytes each: a
/// handle of 78 bytes that claimed a range of 2^48 bytes ended the process.
#[tokio::test]
async fn a_read_fetches_what_comes_next_whatever_its_handle_claims() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, pool) = reader(folder.path());
    let longest = vec![range(0, (1 << 48) - 1)];
    let most = (0..MAX_RANGES as u64).map(|n| range(n, 1000)).collect();
    for ranges in [longest, most] {
        let handle = Handle {
            exchange: "q".parse().unwrap(),
            partition: 0,
            bytes: 1,
            ranges,
        };
        let mut stream = reader.read(ReadRequest::new(handle, 0));
        let first = futures::poll!(stream.next());
        assert!(first.is_pending(), "the fetches have been started");
        // Four chunks of the first, sixteen ranges of the second.
        let ahead = ReadConfig::default().fetch_concurrency as u64 * (8 << 20);
        assert!((1..=ahead).contains(&pool.used()), "{}", pool.used());
        let answer = stream.next().await.unwrap();
        assert!(matches!(answer, Err(ReadError::Lost { .. })), "{answer:?}");
        drop(stream);
        assert_eq!(pool.used(), 0);
    }
}
