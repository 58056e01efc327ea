//! Claims about reads that need base directories.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::fetch::Fetcher;
use super::reader::ReadRequest;
use super::stream::stream;
use super::{PageFormat, ReadError, Reader, ReaderDeps};
use crate::cache::chunks::ChunkKey;
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::catalog::handle::{Handle, HandleRange, MAX_RANGES};
use crate::config::ReadConfig;
use crate::crc::Checksum;
use crate::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::memory::{MemoryPool, ReservedBytes};
use crate::runtime::Runtime;
use crate::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
use crate::segment::writer::{SegmentDraft, SegmentImage, SinkRun, write_segment};
use crate::storage::{Storage, StoreLimits};
use crate::store::Store;
use crate::store::local::{LocalStore, WriteMode};
use crate::telemetry::metrics::Metrics;

/// What a reader of an empty base directory needs, with a pool of this size.
fn deps(folder: &std::path::Path, memory: u64) -> ReaderDeps {
    let runtime = Runtime::seeded(1);
    let store: Arc<dyn Store> =
        Arc::new(LocalStore::new(folder.to_owned(), WriteMode::Unsynced, 7));
    let stores = vec![("a".parse().unwrap(), "test".to_owned(), store)];
    let storage = Storage::from_stores(stores, StoreLimits::LOCAL, &runtime);
    let pool = MemoryPool::new("read", memory);
    let hot = HotSegments::new(MemoryPool::new("write", 1 << 20), pool.clone());
    let metrics = Arc::new(Metrics::default());
    let catalog = Catalog::new(
        storage.clone(),
        hot.clone(),
        1 << 20,
        Arc::clone(&metrics),
        pool.clone(),
        runtime.tasks.clone(),
    );
    ReaderDeps {
        storage,
        catalog,
        hot,
        pool,
        runtime,
        metrics,
    }
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
    let deps = deps(folder.path(), 256 << 20);
    let pool = deps.pool.clone();
    let reader = Reader::new(deps, &ReadConfig::default());
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

fn segment_id(sequence: u64) -> SegmentId {
    SegmentId {
        daemon: DaemonId(1),
        sequence,
    }
}

/// A segment of pages, each of a partition and a length, in order of partition.
fn segment(sequence: u64, pages: &[(u32, usize)]) -> SegmentImage {
    let sink = TaskAttempt::new(0, 0).unwrap();
    let mut runs = Vec::new();
    for (partition, length) in pages {
        let mut frame = vec![7; FRAME_HEADER_LEN + length];
        write_frame_header(&mut frame, *partition);
        let batch = verify_batch(frame.into(), 2, 1 << 20).unwrap();
        runs.extend(batch.runs.into_iter().map(|run| SinkRun { sink, run }));
    }
    write_segment(SegmentDraft {
        exchange: "q".parse().unwrap(),
        segment: segment_id(sequence),
        sealed_millis: 0,
        runs,
        commits: Vec::new(),
    })
}

/// The range of partition 0 in a segment in which it has one block.
fn first_block(image: &SegmentImage) -> HandleRange {
    let block = image.footer.blocks.iter().next().unwrap();
    let mut checksum = Checksum::default();
    checksum.update(&block.checksum.to_le_bytes());
    HandleRange {
        base: "a".parse().unwrap(),
        segment: image.footer.segment,
        blocks_end: image.footer.blocks.end(),
        offset: block.offset,
        length: block.length(),
        pages: block.pages.into(),
        checksum: checksum.value(),
    }
}

/// Story: a part that was found in memory was held until its turn, without a position in the queue
/// for memory. A page of nearly all the read memory waited for the chunk that a later part of the
/// same read held, for ever.
#[tokio::test]
#[allow(clippy::disallowed_methods)]
async fn a_read_never_waits_for_memory_that_its_later_parts_hold() {
    let folder = tempfile::tempdir().unwrap();
    let deps = deps(folder.path(), 1 << 20);
    let exchange: ExchangeId = "q".parse().unwrap();
    let large = segment(1, &[(0, 1_000_000)]);
    let shared = segment(2, &[(0, 100), (1, 60_000)]);
    for image in [&large, &shared] {
        let put = deps
            .storage
            .put_segment(&exchange, image.footer.segment, image.content.clone());
        put.await.unwrap();
    }
    let (pool, tasks) = (deps.pool.clone(), deps.runtime.tasks.clone());
    let fetcher = Fetcher::new(deps, &ReadConfig::default());
    let ranges = vec![first_block(&large), first_block(&shared)];

    // Another read fetches the chunk; its memory is granted.
    let end = ranges[1].blocks_end;
    let key = ChunkKey {
        segment: SegmentAddress {
            exchange: exchange.clone(),
            base: "a".parse().unwrap(),
            segment: segment_id(2),
        },
        chunk: 0,
        end,
    };
    let reserved = pool.try_reserve("q", end).unwrap();
    let bytes = Bytes::from(shared.content.concat()).slice(..end as usize);
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    let fetch = async move {
        let _ = answered.await;
        Ok(ReservedBytes::into_bytes(bytes, reserved))
    };
    let mut other = Box::pin(fetcher.chunks.get(&tasks, key, fetch));
    assert!(futures::poll!(&mut other).is_pending());

    // This read waits for the memory of its page, while its next part finds that chunk.
    let held = pool.try_reserve("q", 600_000).unwrap();
    let handle = Handle {
        exchange: exchange.clone(),
        partition: 0,
        bytes: 1_000_100,
        ranges,
    };
    let reading = stream(fetcher.clone(), 4, handle, 0, PageFormat::Records);
    let received = reading.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len()) });
    let received = tokio::spawn(received);
    while pool.waiting() < 1_000_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    answer.send(()).unwrap();
    drop(other.await.unwrap());
    drop(held);
    let received = tokio::time::timeout(Duration::from_secs(60), received).await;
    let received = received.expect("the read waits for what it holds");
    let expected = 1_000_100 + 2 * 44 + 32;
    assert_eq!(received.unwrap().unwrap(), expected);
}
