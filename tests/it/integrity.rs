//! Promise 5, byte by byte: all damage is detected and named, and never served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::json;

use stopover::app::Daemon;
use stopover::cache::hot::HotSegment;
use stopover::config::Config;
use stopover::id::{ExchangeId, SegmentAddress, TaskAttempt};
use stopover::read::{PageFormat, ReadError, Selection};
use stopover::runtime::Runtime;
use stopover::segment::blocks::Blocks;
use stopover::segment::footer::{CommitRecord, Footer, Totals};
use stopover::segment::layout::{END_MARKER, RECORD_LEN, SEGMENT_HEADER_LEN};
use stopover::store::keys;

use crate::support::frames::batch;
use crate::support::{BATCH, BaseFolder, TestServer, ok_json, sink};

const PAGES: [(u32, &[u8]); 3] = [(0, b"first"), (0, b"second page"), (1, b"third")];

/// Writes [`PAGES`] to exchange `w` in one small segment; returns the handle of partition 0 and the
/// segment file.
async fn write_pages(base_folder: &BaseFolder) -> (String, PathBuf) {
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("w", 2).await;
    let sink = sink("w", 0, 0);
    server.add(&sink, 0, batch(&PAGES)).await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let handles = server.handles("w", &json!([[0, 0]]), 1 << 20).await;
    let handle = handles[0]["handle"].as_str().unwrap().to_owned();
    server.shut_down().await;
    (handle, base_folder.segments().pop().unwrap())
}

/// Calls `work` with a daemon that has nothing cached.
async fn with_fresh_daemon<T>(config: &Config, work: impl AsyncFnOnce(&Daemon) -> T) -> T {
    let daemon = Daemon::build(config, &Runtime::seeded(1)).unwrap();
    let answer = work(&daemon).await;
    daemon.runtime.tasks.shut_down().await;
    answer
}

async fn read_handle(daemon: &Daemon, handle: &str) -> Result<Vec<u8>, ReadError> {
    let stream = daemon.reader.read_handle(handle, 0).await?;
    Ok(stream.try_collect::<Vec<Bytes>>().await?.concat())
}

async fn read_partition(daemon: &Daemon, exchange: &str) -> Result<Vec<u8>, ReadError> {
    let exchange: ExchangeId = exchange.parse().unwrap();
    let selected = Selection::default();
    let read = daemon
        .reader
        .read_partition(&exchange, 0, selected, PageFormat::Raw)
        .await?;
    Ok(read.stream.try_collect::<Vec<Bytes>>().await?.concat())
}

/// Whether the error reports corruption and names the segment.
fn is_named(error: &ReadError) -> bool {
    let corrupt = matches!(error, ReadError::Corrupt { .. } | ReadError::Catalog(_));
    corrupt && error.to_string().contains("segment ")
}

#[tokio::test]
async fn a_batch_with_any_byte_damaged_is_refused() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("w", 2).await;
    let (sink, good) = (sink("w", 0, 0), batch(&PAGES));
    let path = format!("{sink}/pages?batch=0");
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        let answer = server.post(&path, BATCH, damaged).await;
        let problem: serde_json::Value = answer.json().await.unwrap();
        let problem_type = problem["type"].as_str().unwrap();
        let found = ["checksum-mismatch", "invalid-frame", "page-too-large"];
        assert!(
            found.iter().any(|f| problem_type.ends_with(f)),
            "byte {at}: {problem}"
        );
    }
    assert_eq!(server.daemon.metrics.pages_written.get(), 0);
    // The same batch, undamaged, is still accepted as the first.
    server.add(&sink, 0, good).await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let read = server.get("/v1/exchanges/w/partitions/0").await;
    assert_eq!(read.bytes().await.unwrap(), "firstsecond page");
    server.shut_down().await;
}

#[tokio::test]
async fn no_damaged_byte_of_a_stored_segment_is_ever_served() {
    let base_folder = BaseFolder::new();
    let (handle, file) = write_pages(&base_folder).await;
    let good = std::fs::read(&file).unwrap();
    let config = base_folder.config();
    let expected =
        with_fresh_daemon(&config, async |d| read_handle(d, &handle).await.unwrap()).await;
    let (mut by_handle, mut by_footer) = (0, 0);
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&file, damaged).unwrap();
        let (one, other) = with_fresh_daemon(&config, async |daemon| {
            let one = read_handle(daemon, &handle).await;
            (one, read_partition(daemon, "w").await)
        })
        .await;
        match one {
            Ok(served) => assert_eq!(served, expected, "byte {at} of {}", good.len()),
            Err(error) => {
                assert!(is_named(&error), "byte {at}: {error}");
                by_handle += 1;
            }
        }
        match other {
            Ok(served) => assert_eq!(served, b"firstsecond page", "byte {at}"),
            Err(error) => {
                assert!(is_named(&error), "byte {at}: {error}");
                by_footer += 1;
            }
        }
    }
    // A read by handle detects damage to every byte of its range; planning also detects damage to
    // every byte of the footer. Nothing here reads the segment header and the other partition.
    let range = expected.len() - RECORD_LEN;
    assert_eq!(by_handle, range);
    let third = RECORD_LEN + 12 + PAGES[2].1.len();
    assert_eq!(by_footer, good.len() - SEGMENT_HEADER_LEN - third);
}

#[tokio::test]
async fn a_truncated_or_extended_segment_is_never_a_shorter_result() {
    let base_folder = BaseFolder::new();
    let (handle, file) = write_pages(&base_folder).await;
    let good = std::fs::read(&file).unwrap();
    let config = base_folder.config();
    let expected =
        with_fresh_daemon(&config, async |d| read_handle(d, &handle).await.unwrap()).await;
    for length in 0..good.len() {
        std::fs::write(&file, &good[..length]).unwrap();
        let (one, other) = with_fresh_daemon(&config, async |daemon| {
            let one = read_handle(daemon, &handle).await;
            (one, read_partition(daemon, "w").await)
        })
        .await;
        assert!(one.is_err() || one.unwrap() == expected, "{length} bytes");
        let error = other.unwrap_err();
        assert!(is_named(&error), "{length} bytes: {error}");
    }
    std::fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    let grown = with_fresh_daemon(&config, async |d| read_partition(d, "w").await).await;
    assert!(is_named(&grown.unwrap_err()));
}

/// A hot segment with this content and the address of the stored one.
async fn hot_segment(daemon: &Daemon, content: Vec<u8>) -> HotSegment {
    let exchange: ExchangeId = "w".parse().unwrap();
    let listed = daemon.storage.list_segments(&exchange).await.unwrap();
    let address: SegmentAddress = listed[0].address.clone();
    let footer = Footer {
        exchange,
        segment: address.segment,
        sealed_millis: 0,
        sinks: Vec::new(),
        blocks: Blocks::default(),
        commits: Vec::new(),
    };
    HotSegment::new(address, Arc::new(footer), vec![content.into()], Vec::new())
}

#[tokio::test]
async fn a_segment_damaged_in_memory_is_read_from_its_base_directory() {
    let base_folder = BaseFolder::new();
    let (handle, file) = write_pages(&base_folder).await;
    let good = std::fs::read(&file).unwrap();
    with_fresh_daemon(&base_folder.config(), async |daemon| {
        let expected = read_handle(daemon, &handle).await.unwrap();
        let hot = &daemon.hot;
        let mut found = 0;
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0x10;
            hot.insert(hot_segment(daemon, damaged).await);
            let served = read_handle(daemon, &handle).await.unwrap();
            assert_eq!(served, expected, "byte {at}");
            found += u64::from(hot.bytes() == 0);
            hot.forget(&"w".parse().unwrap());
        }
        assert_eq!(
            found as usize,
            expected.len() - RECORD_LEN,
            "evicted if damaged"
        );
        assert_eq!(daemon.metrics.integrity_failures.get(), found);
    })
    .await;
}

#[tokio::test]
async fn a_commit_record_that_the_blocks_contradict_is_named_and_counted() {
    let base_folder = BaseFolder::new();
    let (handle, _) = write_pages(&base_folder).await;
    with_fresh_daemon(&base_folder.config(), async |daemon| {
        let mut segment = hot_segment(daemon, Vec::new()).await;
        let footer = Arc::get_mut(&mut segment.footer).unwrap();
        let attempt = TaskAttempt {
            task: 0,
            attempt: 0,
        };
        footer.commits.push(CommitRecord {
            attempt,
            totals: Totals {
                pages: 3,
                ..Totals::default()
            },
            predecessors: Vec::new(),
        });
        daemon.hot.insert(segment);
        let error = read_partition(daemon, "w").await.unwrap_err();
        assert!(is_named(&error), "{error}");
        assert!(error.to_string().contains("commit record"), "{error}");
        assert_eq!(daemon.metrics.integrity_failures.get(), 1);
        daemon.hot.forget(&"w".parse().unwrap());
        assert!(!read_handle(daemon, &handle).await.unwrap().is_empty());
        assert_eq!(daemon.metrics.integrity_failures.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_shared_chunk_damaged_in_transit_or_in_memory_is_fetched_again() {
    // Partitions 0 and 1 share a chunk: reading partition 0 caches it for partition 1.
    let base_folder = BaseFolder::new();
    let (handle, file) = write_pages(&base_folder).await;
    let good = std::fs::read(&file).unwrap();
    let config = base_folder.config();
    let read = async |daemon: &Daemon, partition| {
        let (exchange, selected) = ("w".parse().unwrap(), Selection::default());
        let raw = PageFormat::Raw;
        let read = daemon
            .reader
            .read_partition(&exchange, partition, selected, raw)
            .await?;
        let pieces: Vec<Bytes> = read.stream.try_collect().await?;
        Ok::<_, ReadError>(pieces.concat())
    };
    let opened = with_fresh_daemon(&config, async |daemon| {
        daemon.catalog.open_handle(&handle).await.unwrap()
    });
    let end = opened.await.ranges[0].length as usize + SEGMENT_HEADER_LEN;
    let third = end..end + RECORD_LEN + 12 + PAGES[2].1.len();
    for at in third {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        with_fresh_daemon(&config, async |daemon| {
            std::fs::write(&file, &damaged).unwrap();
            assert_eq!(read(daemon, 0).await.unwrap(), b"firstsecond page");
            std::fs::write(&file, &good).unwrap();
            assert!(daemon.reader.cached_bytes() > 0);
            assert_eq!(read(daemon, 1).await.unwrap(), b"third", "byte {at}");
            assert_eq!(daemon.metrics.integrity_failures.get(), 1, "byte {at}");
            // Damage in the base directory itself is an error that names the segment.
            std::fs::write(&file, &damaged).unwrap();
            assert_eq!(read(daemon, 0).await.unwrap(), b"firstsecond page");
            let error = read(daemon, 1).await.unwrap_err();
            assert!(is_named(&error), "byte {at}: {error}");
            assert_eq!(daemon.metrics.integrity_failures.get(), 3, "byte {at}");
        })
        .await;
    }
}

fn marker(base: &Path, exchange: &str) -> PathBuf {
    base.join(keys::marker(&exchange.parse().unwrap()).as_str())
}

#[tokio::test]
async fn swapped_or_damaged_markers_are_refused_by_name() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("one", 2).await;
    server.announce("other", 3).await;
    server.shut_down().await;
    let (one, other) = (
        marker(base_folder.path(), "one"),
        marker(base_folder.path(), "other"),
    );
    let good = std::fs::read(&one).unwrap();
    let end = good.iter().position(|b| *b == b'}').unwrap();
    std::fs::copy(&other, &one).unwrap();
    let swapped = with_fresh_daemon(&base_folder.config(), async |daemon| {
        daemon.exchanges.lookup(&"one".parse().unwrap()).await
    })
    .await;
    let swapped = swapped.unwrap_err().to_string();
    assert!(swapped.contains("exchange one"), "{swapped}");
    assert!(swapped.contains("belongs to exchange other"), "{swapped}");
    for at in 0..=end {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&one, damaged).unwrap();
        let read = with_fresh_daemon(&base_folder.config(), async |daemon| {
            daemon.exchanges.lookup(&"one".parse().unwrap()).await
        })
        .await;
        let error = read.unwrap_err().to_string();
        assert!(error.contains("exchange one"), "byte {at}: {error}");
    }
    std::fs::write(&one, good).unwrap();
    let server = TestServer::open(&base_folder.config()).await;
    assert_eq!(server.get("/v1/exchanges/one").await.status(), 200);
    server.shut_down().await;
}

#[tokio::test]
async fn damage_reaches_a_client_as_a_retryable_problem() {
    let base_folder = BaseFolder::new();
    let (handle, file) = write_pages(&base_folder).await;
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[SEGMENT_HEADER_LEN + RECORD_LEN + 14] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let server = TestServer::open(&base_folder.config()).await;
    let stream = server.read(&handle, 0).await.bytes().await.unwrap();
    let error = stream
        .windows(4)
        .position(|w| w == (END_MARKER + 1).to_le_bytes());
    let json = &stream[error.expect("an error record") + 8..];
    let problem: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(problem["type"], "urn:stopover:problem:data-corrupt");
    assert_eq!(
        (problem["status"].as_u64(), &problem["retryable"]),
        (Some(502), &json!(true))
    );
    let name = file.file_stem().unwrap().to_str().unwrap();
    assert!(
        problem["detail"].as_str().unwrap().contains(name),
        "{problem}"
    );
    // Another attempt of the same task is not affected.
    let retried = sink("w", 0, 1);
    server.add(&retried, 0, batch(&PAGES)).await;
    ok_json(server.post_empty(&format!("{retried}/finish")).await).await;
    let handles = server.handles("w", &json!([[0, 1]]), 1 << 20).await;
    let second = server.read(handles[0]["handle"].as_str().unwrap(), 0).await;
    let second = second.bytes().await.unwrap();
    assert_eq!(
        second[second.len() - RECORD_LEN..][..4],
        END_MARKER.to_le_bytes()
    );
    server.shut_down().await;
}
