//! The promises of docs/semantics.md, as claims about daemons that share base directories.
//!
//! These call the daemon's parts in this process, without HTTP; `http.rs` tests the routes.
//! `tests/docs.rs` checks that docs/semantics-tests.md names tests that exist.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use stopover::app::Daemon;
use stopover::catalog::PlannedHandle;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::exchange::{Announce, ExchangeError, ExchangeSpec};
use stopover::gc::collect::{Collected, Collector, Inspection, Lease};
use stopover::gc::lease_tracker::Verdict;
use stopover::id::{ExchangeId, SinkId, TaskAttempt};
use stopover::ingest::{Aborted, ClientTotals, IngestError};
use stopover::read::{PageFormat, ReadError, Selection};
use stopover::runtime::Runtime;
use stopover::segment::frame::{BatchVerifier, FRAME_HEADER_LEN, write_frame_header};
use stopover::segment::layout::TRAILER_LEN;
use stopover::storage::{Storage, StoreLimits};
use stopover::store::Store;
use stopover::store::local::{LocalStore, WriteMode};
use tokio::sync::Semaphore;

use crate::support::slow::{Delay, SlowStore};

/// Base directories that several daemons share, deleted when dropped.
struct Shared {
    folder: tempfile::TempDir,
    bases: usize,
    budget: u64,
}

impl Shared {
    fn new(bases: usize) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            bases,
            budget: 64 << 20,
        }
    }

    fn base(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("base-{n}"))
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.memory.budget = Some(self.budget);
        config.segment.commit_linger = Duration::from_millis(2);
        config.base_directories = (0..self.bases)
            .map(|n| {
                // A test may have replaced the folder on purpose.
                let _ = std::fs::create_dir_all(self.base(n));
                BaseDirectoryConfig {
                    uri: format!("file://{}", self.base(n).display()),
                    name: format!("base-{n}"),
                    options: [("fsync".to_string(), "false".into())].into(),
                }
            })
            .collect();
        config
    }

    fn daemon(&self, seed: u64) -> Daemon {
        Daemon::build(&self.config(), &Runtime::seeded(seed)).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for n in 0..self.bases {
            collect(&self.base(n), &mut files);
        }
        let permanent = [".keep", "identity", "members", "sweeper"];
        files.retain(|f| !permanent.iter().any(|name| f.ends_with(name)));
        files.sort();
        files
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|f| f.extension().is_some_and(|e| e == "seg"));
        files
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

pub fn exchange(name: &str) -> ExchangeId {
    name.parse().unwrap()
}

pub fn sink(exchange: &ExchangeId, task: u32, attempt: u32) -> SinkId {
    let task_attempt = TaskAttempt::new(task, attempt).unwrap();
    SinkId {
        exchange: exchange.clone(),
        task_attempt,
    }
}

fn frames(pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut batch = Vec::new();
    for (partition, page) in pages {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(page);
        write_frame_header(&mut frame, *partition);
        batch.extend_from_slice(&frame);
    }
    batch
}

pub async fn announce(daemon: &Daemon, exchange: &ExchangeId, partitions: u32) {
    let spec = ExchangeSpec {
        partitions,
        ordered: false,
    };
    let announced = daemon
        .exchanges
        .announce(exchange, spec, Announce::CreateOrRenew);
    announced.await.unwrap();
}

/// Writes a batch as `api` does: reserves memory, then creates the bytes that own it.
pub async fn write(
    daemon: &Daemon,
    sink: &SinkId,
    number: u32,
    pages: &[(u32, Vec<u8>)],
) -> Result<(), IngestError> {
    let bytes = frames(pages);
    let admission = daemon.ingest.admit(sink, Some(number))?;
    let admission = admission.reserve(bytes.len() as u64).await?;
    let check = BatchVerifier::new(10_000, 16 << 20);
    admission.append(check, bytes.into()).map(drop)
}

fn claim(batches: u64, pages: &[(u32, Vec<u8>)]) -> Option<ClientTotals> {
    let bytes = pages.iter().map(|p| p.1.len() as u64).sum();
    Some(ClientTotals {
        batches,
        pages: pages.len() as u64,
        bytes,
        checksum: None,
    })
}

async fn planned(daemon: &Daemon, x: &ExchangeId, chosen: &[TaskAttempt]) -> Vec<PlannedHandle> {
    let planned = daemon.catalog.plan_handles(x, false, chosen, 1 << 20);
    let (handles, _memory) = planned.await.unwrap();
    handles.collect()
}

async fn write_task(daemon: &Daemon, sink: &SinkId, pages: &[(u32, Vec<u8>)]) {
    write(daemon, sink, 0, pages).await.unwrap();
    daemon.ingest.finish(sink, claim(1, pages)).await.unwrap();
}

pub async fn read(
    daemon: &Daemon,
    exchange: &ExchangeId,
    partition: u32,
) -> Result<Vec<u8>, ReadError> {
    use futures::TryStreamExt as _;
    let reader = &daemon.reader;
    let raw = PageFormat::Raw;
    let read = reader
        .read_partition(exchange, partition, Selection::default(), raw)
        .await?;
    // Copied out, as to a socket: bytes that are still held keep their memory reserved.
    let copy = async |mut all: Vec<u8>, part: Bytes| {
        all.extend_from_slice(&part);
        Ok(all)
    };
    read.stream.try_fold(Vec::new(), copy).await
}

fn page(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

// Promise 1

#[tokio::test]
async fn acknowledged_pages_are_read_through_a_daemon_that_never_saw_them() {
    let shared = Shared::new(2);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 3).await;
    let pages = vec![(0, page(1, 1000)), (2, page(2, 70_000)), (0, page(3, 1))];
    write_task(&writer, &sink(&x, 0, 0), &pages).await;
    drop(writer);

    let other = shared.daemon(2);
    assert_eq!(
        read(&other, &x, 0).await.unwrap(),
        [page(1, 1000), page(3, 1)].concat()
    );
    assert_eq!(read(&other, &x, 1).await.unwrap(), b"");
    assert_eq!(read(&other, &x, 2).await.unwrap(), page(2, 70_000));
}

#[tokio::test]
async fn the_writer_itself_serves_from_memory_what_another_reads_from_storage() {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 1).await;
    write_task(&writer, &sink(&x, 0, 0), &[(0, page(1, 5000))]).await;
    let read_here = read(&writer, &x, 0).await.unwrap();
    assert_eq!(writer.metrics.cache_miss_bytes.get(), 0);
    assert_eq!(read_here, read(&shared.daemon(2), &x, 0).await.unwrap());
}

// Promise 2

#[tokio::test]
async fn the_last_pages_of_an_attempt_do_not_wait_for_earlier_ones_but_its_commit_does() {
    let shared = Shared::new(2);
    let mut config = shared.config();
    config.segment.target_size = 64 << 10;
    let runtime = Runtime::seeded(1);
    let permits: Vec<_> = (0..2).map(|_| Arc::new(Semaphore::new(0))).collect();
    let bases = (0..2).map(|n| {
        let local = LocalStore::new(shared.base(n), WriteMode::Unsynced, n as u64);
        let held: Arc<dyn Store> = Arc::new(SlowStore {
            inner: Arc::new(local),
            delay: Delay::UntilPermitted(Arc::clone(&permits[n])),
        });
        let base = &config.base_directories[n];
        (base.name.parse().unwrap(), base.uri.clone(), held)
    });
    let storage = Storage::from_stores(bases.collect(), StoreLimits::LOCAL, &runtime);
    let daemon = Daemon::assemble(&config, &runtime, storage, Arc::default());
    let (x, target) = (exchange("x"), config.segment.target_size as usize);
    announce(&daemon, &x, 1).await;
    let (writer, pages) = (sink(&x, 0, 0), [page(1, target), page(2, target / 2)]);
    for (number, page) in pages.iter().enumerate() {
        let batch = [(0, page.clone())];
        write(&daemon, &writer, number as u32, &batch)
            .await
            .unwrap();
    }
    let claim = claim(2, &pages.clone().map(|page| (0, page)));
    let (ingest, at) = (daemon.ingest.clone(), writer.clone());
    let mut finish = tokio::spawn(async move { ingest.finish(&at, claim).await });
    // One base directory stores the later segment while the other delays the earlier one.
    permits[0].add_permits(1);
    wait_until(|| shared.segments().len() == 1).await;
    let later = shared.segments()[0].file_stem().unwrap().to_owned();
    assert!(
        later.to_str().unwrap().ends_with("-000000000001"),
        "{later:?}"
    );
    let early = tokio::time::timeout(Duration::from_millis(200), &mut finish).await;
    assert!(early.is_err(), "acknowledged before its pages were stored");
    let nothing = read(&daemon, &x, 0).await.unwrap_err();
    assert!(
        nothing.to_string().contains("is committed"),
        "not committed yet: {nothing}"
    );
    // Then both are stored, and the commit follows, in either base directory.
    permits.iter().for_each(|permit| permit.add_permits(100));
    let totals = finish.await.unwrap().unwrap();
    assert_eq!(totals.pages, 2);
    assert_eq!(shared.segments().len(), 3);
    let other = shared.daemon(2);
    assert_eq!(read(&other, &x, 0).await.unwrap(), pages.concat());
}

async fn wait_until(done: impl Fn() -> bool) {
    let limit = Duration::from_secs(60);
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, wait)
        .await
        .expect("not within 60 s");
}

#[tokio::test]
async fn pages_of_a_task_are_read_in_the_order_written_across_many_segments() {
    let mut shared = Shared::new(2);
    shared.budget = 1 << 20;
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 2).await;
    let one = sink(&x, 0, 0);
    let pages: Vec<_> = (0..100u32)
        .map(|n| (n % 2, page(n as u8, 20_000)))
        .collect();
    for (number, page) in pages.iter().enumerate() {
        write(&writer, &one, number as u32, std::slice::from_ref(page))
            .await
            .unwrap();
    }
    writer
        .ingest
        .finish(&one, claim(100, &pages))
        .await
        .unwrap();
    assert!(shared.segments().len() > 3, "{:?}", shared.segments());
    for daemon in [writer, shared.daemon(2)] {
        for partition in 0..2 {
            let expected: Vec<u8> = pages
                .iter()
                .filter(|p| p.0 == partition)
                .flat_map(|p| p.1.clone())
                .collect();
            assert_eq!(read(&daemon, &x, partition).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn a_handle_gives_the_chosen_attempt_and_no_page_of_another() {
    use futures::TryStreamExt as _;
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    for attempt in 0..3u32 {
        let pages = [(0, page(attempt as u8, 3000 + attempt as usize))];
        write_task(&daemon, &sink(&x, 0, attempt), &pages).await;
    }
    let chosen = [TaskAttempt::new(0, 1).unwrap()];
    let handles = planned(&daemon, &x, &chosen).await;
    assert_eq!(handles.len(), 1);
    assert_eq!((handles[0].pages, handles[0].bytes), (1, 3001));
    let other = shared.daemon(2);
    let stream = other.reader.read_handle(&handles[0].text, 0).await.unwrap();
    let bytes = stream.try_collect::<Vec<Bytes>>().await.unwrap().concat();
    assert!(bytes.windows(3001).any(|w| w == page(1, 3001)));
    assert!(!bytes.windows(3000).any(|w| w == page(0, 3000)));
}

#[tokio::test]
async fn a_repeated_batch_is_appended_once_and_a_missing_one_is_an_error() {
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let (one, pages) = (sink(&x, 0, 0), [(0, page(1, 10))]);
    write(&daemon, &one, 0, &pages).await.unwrap();
    write(&daemon, &one, 0, &pages).await.unwrap();
    let error = write(&daemon, &one, 2, &pages).await.unwrap_err();
    assert!(matches!(
        error,
        IngestError::BatchOutOfOrder {
            given: 2,
            expected: 1,
            ..
        }
    ));
    write(&daemon, &one, 1, &pages).await.unwrap();
    let wrong = daemon
        .ingest
        .finish(&one, claim(3, &pages))
        .await
        .unwrap_err();
    assert!(
        matches!(wrong, IngestError::CountMismatch { .. }),
        "{wrong}"
    );
    let counts = [pages[0].clone(), pages[0].clone()];
    daemon.ingest.finish(&one, claim(2, &counts)).await.unwrap();
    assert_eq!(
        read(&daemon, &x, 0).await.unwrap(),
        [page(1, 10), page(1, 10)].concat()
    );
}

// Promise 3

#[tokio::test]
async fn nothing_of_an_unfinished_or_aborted_attempt_is_visible() {
    let mut shared = Shared::new(1);
    shared.budget = 1 << 20;
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let (open, aborted, good) = (sink(&x, 0, 0), sink(&x, 1, 0), sink(&x, 2, 0));
    // Enough that pages of all three are in sealed segments.
    for number in 0..10 {
        for each in [&open, &aborted, &good] {
            write(&daemon, each, number, &[(0, page(number as u8, 20_000))])
                .await
                .unwrap();
        }
    }
    assert_eq!(
        daemon.ingest.abort(&aborted).await.unwrap(),
        Aborted::Aborted
    );
    daemon.ingest.finish(&good, None).await.unwrap();
    for daemon in [daemon, shared.daemon(2)] {
        let (content, _memory) = daemon.catalog.summary(&x).await.unwrap();
        let attempts: Vec<_> = content.committed.iter().map(|c| c.attempt.task).collect();
        assert_eq!(attempts, [2]);
        assert_eq!(read(&daemon, &x, 0).await.unwrap().len(), 200_000);
        for hidden in [&open, &aborted] {
            let chosen = [hidden.task_attempt];
            assert!(
                daemon
                    .catalog
                    .plan_handles(&x, false, &chosen, 1)
                    .await
                    .is_err()
            );
        }
    }
}

// Promise 4

#[tokio::test]
async fn a_repeated_finish_gives_the_same_answer_also_through_another_daemon() {
    let shared = Shared::new(2);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let (one, pages) = (sink(&x, 3, 1), [(0, page(1, 999))]);
    write(&daemon, &one, 0, &pages).await.unwrap();
    let first = daemon.ingest.finish(&one, claim(1, &pages)).await.unwrap();
    assert_eq!(
        daemon.ingest.finish(&one, claim(1, &pages)).await.unwrap(),
        first
    );
    let other = shared.daemon(2);
    assert_eq!(
        other.ingest.finish(&one, claim(1, &pages)).await.unwrap(),
        first
    );
    let wrong = other
        .ingest
        .finish(&one, claim(2, &pages))
        .await
        .unwrap_err();
    assert!(matches!(wrong, IngestError::CountMismatch { .. }));
}

#[tokio::test]
async fn an_abort_after_finish_changes_nothing_here_or_elsewhere() {
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let one = sink(&x, 0, 0);
    write_task(&daemon, &one, &[(0, page(1, 10))]).await;
    let other = shared.daemon(2);
    assert_eq!(
        daemon.ingest.abort(&one).await.unwrap(),
        Aborted::AlreadyFinished
    );
    assert_eq!(
        other.ingest.abort(&one).await.unwrap(),
        Aborted::AlreadyFinished
    );
    assert_eq!(read(&other, &x, 0).await.unwrap(), page(1, 10));
}

#[tokio::test]
async fn a_finish_after_an_abort_is_refused_and_so_are_pages() {
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let (one, never_seen) = (sink(&x, 0, 0), sink(&x, 1, 0));
    write(&daemon, &one, 0, &[(0, page(1, 10))]).await.unwrap();
    for aborted in [&one, &never_seen] {
        assert_eq!(
            daemon.ingest.abort(aborted).await.unwrap(),
            Aborted::Aborted
        );
        let error = daemon.ingest.finish(aborted, None).await.unwrap_err();
        assert!(matches!(error, IngestError::SinkAborted { .. }), "{error}");
        let error = write(&daemon, aborted, 0, &[(0, page(1, 10))])
            .await
            .unwrap_err();
        assert!(matches!(error, IngestError::SinkAborted { .. }), "{error}");
    }
    let elsewhere = shared
        .daemon(2)
        .ingest
        .finish(&one, None)
        .await
        .unwrap_err();
    assert!(
        matches!(elsewhere, IngestError::SinkNotFound { .. }),
        "{elsewhere}"
    );
}

#[tokio::test]
async fn a_finish_and_an_abort_that_race_agree_on_one_outcome() {
    for round in 0..20 {
        let shared = Shared::new(1);
        let (daemon, x) = (shared.daemon(round), exchange("q-1"));
        announce(&daemon, &x, 1).await;
        let one = sink(&x, 0, 0);
        write(&daemon, &one, 0, &[(0, page(1, 10))]).await.unwrap();
        let (finished, aborted) =
            tokio::join!(daemon.ingest.finish(&one, None), daemon.ingest.abort(&one));
        let visible = !shared
            .daemon(99)
            .catalog
            .summary(&x)
            .await
            .unwrap()
            .0
            .committed
            .is_empty();
        assert_eq!(finished.is_ok(), visible);
        assert_eq!(aborted.unwrap() == Aborted::AlreadyFinished, visible);
    }
}

#[tokio::test]
async fn a_finish_completes_even_if_its_caller_disconnects() {
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    let (one, pages) = (sink(&x, 0, 0), [(0, page(1, 10))]);
    write(&daemon, &one, 0, &pages).await.unwrap();
    let left = tokio::time::timeout(Duration::ZERO, daemon.ingest.finish(&one, None)).await;
    assert!(
        left.is_err(),
        "the caller must disconnect before the commit"
    );
    daemon.ingest.finish(&one, claim(1, &pages)).await.unwrap();
    assert_eq!(read(&shared.daemon(2), &x, 0).await.unwrap(), page(1, 10));
}

// Promise 5

async fn damaged(damage: impl Fn(&mut Vec<u8>)) -> ReadError {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 1).await;
    write_task(&writer, &sink(&x, 0, 0), &[(0, page(1, 3000))]).await;
    let file = shared.segments().pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    damage(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    read(&shared.daemon(2), &x, 0).await.unwrap_err()
}

#[tokio::test]
async fn a_flipped_bit_in_a_page_is_an_error_that_names_the_segment() {
    let error = damaged(|bytes| bytes[1000] ^= 1).await;
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("segment "), "{error}");
}

#[tokio::test]
async fn a_truncated_segment_is_an_error_never_a_shorter_result() {
    let error = damaged(|bytes| bytes.truncate(bytes.len() - 100)).await;
    assert!(error.to_string().contains("segment"), "{error}");
}

#[tokio::test]
async fn a_damaged_footer_is_counted_each_time_it_is_read() {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 1).await;
    write_task(&writer, &sink(&x, 0, 0), &[(0, page(1, 3000))]).await;
    let file = shared.segments().pop().unwrap();
    let good = std::fs::read(&file).unwrap();
    let reader = shared.daemon(2);
    // The last byte of the footer, then one of the trailer.
    for (counted, from_the_end) in [(1, TRAILER_LEN + 1), (2, 1)] {
        let mut bytes = good.clone();
        let at = bytes.len() - from_the_end;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(reader.catalog.summary(&x).await.is_err());
        assert_eq!(reader.metrics.integrity_failures.get(), counted);
    }
    std::fs::write(&file, good).unwrap();
    assert_eq!(read(&reader, &x, 0).await.unwrap(), page(1, 3000));
    assert_eq!(reader.metrics.integrity_failures.get(), 2);
}

#[tokio::test]
async fn a_segment_under_the_name_of_another_is_an_error() {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 1).await;
    write_task(&writer, &sink(&x, 0, 0), &[(0, page(1, 3000))]).await;
    write_task(&writer, &sink(&x, 1, 0), &[(0, page(2, 3000))]).await;
    let files = shared.segments();
    let chosen = [
        TaskAttempt::new(0, 0).unwrap(),
        TaskAttempt::new(1, 0).unwrap(),
    ];
    let handles = planned(&writer, &x, &chosen).await;
    let (one, two) = (
        std::fs::read(&files[0]).unwrap(),
        std::fs::read(&files[1]).unwrap(),
    );
    std::fs::write(&files[0], two).unwrap();
    std::fs::write(&files[1], one).unwrap();
    let other = shared.daemon(2);
    assert!(
        read(&other, &x, 0).await.is_err(),
        "the footers name their segments"
    );
    use futures::TryStreamExt as _;
    let stream = other.reader.read_handle(&handles[0].text, 0).await.unwrap();
    let error = stream.try_collect::<Vec<Bytes>>().await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_reported_as_lost() {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    announce(&writer, &x, 1).await;
    write_task(&writer, &sink(&x, 0, 0), &[(0, page(1, 3000))]).await;
    let chosen = [TaskAttempt::new(0, 0).unwrap()];
    let handles = planned(&writer, &x, &chosen).await;
    shared
        .segments()
        .iter()
        .for_each(|f| std::fs::remove_file(f).unwrap());
    use futures::TryStreamExt as _;
    let stream = shared
        .daemon(2)
        .reader
        .read_handle(&handles[0].text, 0)
        .await
        .unwrap();
    let error = stream.try_collect::<Vec<Bytes>>().await.unwrap_err();
    assert!(matches!(error, ReadError::Lost { .. }), "{error}");
}

// Promise 6

#[tokio::test]
async fn close_removes_everything_from_every_base_directory() {
    let shared = Shared::new(3);
    let (daemon, x, kept) = (shared.daemon(1), exchange("q-1"), exchange("q-2"));
    announce(&daemon, &x, 1).await;
    announce(&daemon, &kept, 1).await;
    for task in 0..6 {
        write_task(&daemon, &sink(&x, task, 0), &[(0, page(1, 100))]).await;
    }
    write_task(&daemon, &sink(&kept, 0, 0), &[(0, page(1, 100))]).await;
    shared.daemon(2).closing.close(&x).await.unwrap();
    let left = shared.files();
    assert!(
        left.iter().all(|f| f.to_str().unwrap().contains("q-2")),
        "{left:?}"
    );
    assert_eq!(
        read(&shared.daemon(3), &kept, 0).await.unwrap(),
        page(1, 100)
    );
    daemon.closing.close(&kept).await.unwrap();
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_late_writer_is_refused_and_leaves_nothing() {
    let shared = Shared::new(2);
    let (closer, late, x) = (shared.daemon(1), shared.daemon(2), exchange("q-1"));
    announce(&closer, &x, 1).await;
    late.exchanges.lookup(&x).await.unwrap();
    let one = sink(&x, 0, 0);
    write(&late, &one, 0, &[(0, page(1, 100))]).await.unwrap();
    closer.closing.close(&x).await.unwrap();
    // The late daemon has not noticed yet: it uploads, rechecks, and deletes its segment.
    let _ = late.ingest.finish(&one, None).await;
    for _ in 0..200 {
        if shared.files().is_empty() && late.exchanges.lookup(&x).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
    for daemon in [&late, &closer] {
        let error = daemon.exchanges.lookup(&x).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Closed { .. }), "{error}");
    }
    let spec = ExchangeSpec {
        partitions: 1,
        ordered: false,
    };
    let again = closer
        .exchanges
        .announce(&x, spec, Announce::CreateOrRenew)
        .await;
    assert!(again.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_renewed_exchange_is_retained_and_an_unrenewed_one_collected() {
    let shared = Shared::new(2);
    let mut config = shared.config();
    config.lease.duration = Duration::from_secs(60);
    config.lease.sweep_interval = Duration::from_secs(5);
    let daemon = Daemon::build(&config, &Runtime::seeded(1)).unwrap();
    let (renewed, unrenewed) = (exchange("q-renewed"), exchange("q-unrenewed"));
    for x in [&renewed, &unrenewed] {
        announce(&daemon, x, 1).await;
        write_task(&daemon, &sink(x, 0, 0), &[(0, page(1, 100))]).await;
    }
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        announce(&daemon, &renewed, 1).await;
    }
    for _ in 0..500 {
        // Files are removed on real threads, which need real time.
        if !shared
            .files()
            .iter()
            .any(|f| f.to_str().unwrap().contains("q-unrenewed"))
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        announce(&daemon, &renewed, 1).await;
    }
    assert_eq!(
        read(&shared.daemon(2), &renewed, 0).await.unwrap(),
        page(1, 100)
    );
    assert!(
        !shared
            .files()
            .iter()
            .any(|f| f.to_str().unwrap().contains("q-unrenewed"))
    );
}

/// A collector of what is not renewed for one minute, in the daemon's base directories.
fn collector(daemon: &Daemon) -> Collector {
    let lease = Lease::Fixed(Duration::from_secs(60));
    let interval = Duration::from_secs(10);
    Collector::new(
        daemon.storage.clone(),
        daemon.runtime.clone(),
        lease,
        interval,
    )
}

/// Inspects until the exchange has expired, and returns that inspection.
async fn until_expired(collector: &mut Collector) -> Inspection {
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        for inspection in collector.inspect_all().await.unwrap() {
            if inspection.outcome.as_ref().unwrap().verdict == Verdict::Expired {
                return inspection;
            }
        }
    }
    panic!("the exchange did not expire");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_between_observation_and_claim_keeps_the_exchange() {
    // A sweeper may be suspended for any time right after its decision.
    let shared = Shared::new(2);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    write_task(&daemon, &sink(&x, 0, 0), &[(0, page(1, 100))]).await;
    let mut sweeper = collector(&daemon);
    let expired = until_expired(&mut sweeper).await;
    announce(&shared.daemon(2), &x, 1).await;
    let observed = expired.outcome.unwrap();
    let ended = sweeper
        .collect(&x, &expired.listed, &observed, || {
            panic!("a renewed exchange must not be collected")
        })
        .await;
    assert_eq!(ended.unwrap(), Collected::Retained);
    assert_eq!(read(&shared.daemon(3), &x, 0).await.unwrap(), page(1, 100));
    let again = sweeper.inspect_all().await.unwrap();
    let again = again[0].outcome.as_ref().unwrap();
    assert_eq!(
        again.verdict,
        Verdict::Fresh,
        "the lease is tracked from the start again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_collected_exchange_is_not_revived_by_a_renewal_or_a_late_writer() {
    let shared = Shared::new(2);
    let (owner, late, x) = (shared.daemon(1), shared.daemon(2), exchange("q-1"));
    announce(&owner, &x, 1).await;
    late.exchanges.lookup(&x).await.unwrap();
    let one = sink(&x, 0, 0);
    write(&late, &one, 0, &[(0, page(1, 100))]).await.unwrap();
    let sweeping = shared.daemon(3);
    let mut sweeper = collector(&sweeping);
    let expired = until_expired(&mut sweeper).await;
    let observed = expired.outcome.unwrap();
    let collected = sweeper.collect(&x, &expired.listed, &observed, || {});
    assert_eq!(collected.await.unwrap(), Collected::Removed(0));
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
    // The coordinator resumes: through a daemon that knew the exchange, and one that never saw it.
    let spec = ExchangeSpec {
        partitions: 1,
        ordered: false,
    };
    let renewed = owner
        .exchanges
        .announce(&x, spec.clone(), Announce::CreateOrRenew);
    let error = renewed.await.unwrap_err();
    assert!(matches!(error, ExchangeError::Closed { .. }), "{error}");
    let newcomer = shared.daemon(4);
    let renewed = newcomer.exchanges.announce(&x, spec, Announce::Renew);
    let error = renewed.await.unwrap_err();
    assert!(matches!(error, ExchangeError::NotFound { .. }), "{error}");
    // The writer resumes: it deletes what it stores.
    let _ = late.ingest.finish(&one, None).await;
    for _ in 0..2000 {
        if shared.files().is_empty() && late.exchanges.lookup_uncached(&x).await.is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn concurrent_collectors_do_no_harm() {
    let shared = Shared::new(2);
    let (daemon, x, kept) = (shared.daemon(1), exchange("q-1"), exchange("q-kept"));
    announce(&daemon, &x, 1).await;
    announce(&daemon, &kept, 1).await;
    for task in 0..4 {
        write_task(&daemon, &sink(&x, task, 0), &[(0, page(1, 100))]).await;
        write_task(&daemon, &sink(&kept, task, 0), &[(0, page(2, 100))]).await;
    }
    let daemons: Vec<Daemon> = (2..6).map(|seed| shared.daemon(seed)).collect();
    let mut collectors: Vec<Collector> = daemons.iter().map(collector).collect();
    for _ in 0..12 {
        announce(&daemon, &kept, 1).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let sweeps = collectors.iter_mut().map(async |collector| {
            for inspection in collector.inspect_all().await.unwrap() {
                let observed = inspection.outcome.unwrap();
                assert!(inspection.exchange == x || observed.verdict != Verdict::Expired);
                collector
                    .collect(&inspection.exchange, &inspection.listed, &observed, || {})
                    .await
                    .unwrap();
            }
        });
        futures::future::join_all(sweeps).await;
    }
    let left = shared.files();
    assert!(!left.is_empty());
    assert!(
        left.iter().all(|f| f.to_str().unwrap().contains("q-kept")),
        "{left:?}"
    );
    let pages = read(&shared.daemon(9), &kept, 0).await.unwrap();
    assert_eq!(pages, page(2, 100).repeat(4));
}

// Promise 7

/// Story: batches of one-byte pages needed twenty times their bytes, which was counted after they
/// had been read: four of them took 1.47 GB of a budget of 256 MiB.
#[tokio::test]
async fn what_a_batch_needs_besides_its_bytes_is_reserved_or_the_batch_is_refused_and_fits_later() {
    let shared = Shared::new(1);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1000).await;
    let pages: Vec<_> = (0..1000).map(|p| (p, vec![1])).collect();
    let bytes = 1000 * (FRAME_HEADER_LEN as u64 + 1);
    let (pool, one) = (&daemon.write_pool, sink(&x, 0, 0));
    let rest = pool.capacity() - 100_000;
    let rest = pool.try_reserve("r", rest).unwrap();
    let refused = write(&daemon, &one, 0, &pages).await.unwrap_err();
    let refusal = refused.to_string();
    assert!(
        matches!(refused, IngestError::MemoryShort { .. }),
        "{refusal}"
    );
    assert_eq!(pool.used(), pool.capacity() - 100_000, "{refusal}");
    // Sent again, it waits until there is memory for all that it needs.
    let again = write(&daemon, &one, 0, &pages);
    let mut again = Box::pin(again);
    assert!((&mut again).now_or_never().is_none(), "it must wait");
    drop(rest);
    again.await.unwrap();
    let overhead = pool.used() - bytes;
    let expected = 200_000..300_000;
    assert!(expected.contains(&overhead), "{overhead} for 1000 runs");
    daemon.closing.close(&x).await.unwrap();
    while pool.used() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_batch_that_could_never_fit_is_refused_while_it_is_read() {
    let mut shared = Shared::new(1);
    shared.budget = 1 << 20;
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 4).await;
    let pages: Vec<_> = (0..20_000).map(|n| (n % 2, vec![1])).collect();
    let one = sink(&x, 0, 0);
    let refused = write(&daemon, &one, 0, &pages).await.unwrap_err();
    let refusal = refused.to_string();
    assert!(
        matches!(refused, IngestError::TooManyRuns { .. }),
        "{refusal}"
    );
    assert_eq!(daemon.write_pool.used(), 0);
    // The same pages sorted by partition are two runs.
    let mut sorted = pages;
    sorted.sort();
    write(&daemon, &one, 0, &sorted[..10_000]).await.unwrap();
    daemon.ingest.finish(&one, None).await.unwrap();
    assert_eq!(read(&daemon, &x, 0).await.unwrap().len(), 10_000);
}

/// Story: `limits.max_footer_size` was checked when a footer was read and not when it was written,
/// so an acknowledged segment could be unreadable.
#[tokio::test]
async fn no_footer_is_written_that_would_be_refused_when_it_is_read() {
    let shared = Shared::new(1);
    let mut config = shared.config();
    config.limits.max_footer_size = 64 << 10;
    let daemon = |seed| Daemon::build(&config, &Runtime::seeded(seed)).unwrap();
    let (writer, x) = (daemon(1), exchange("q-1"));
    announce(&writer, &x, 1000).await;
    let pages: Vec<_> = (0..1000).map(|p| (p, vec![1])).collect();
    for task in 0..8 {
        write(&writer, &sink(&x, task, 0), 0, &pages).await.unwrap();
    }
    // The index of their 8,000 blocks has more than 64 KiB, and so have the records of 6,000
    // commits.
    let finishes = (0..6000).map(|task| {
        let (writer, one) = (&writer, sink(&x, task, 0));
        let claim = if task < 8 {
            claim(1, &pages)
        } else {
            claim(0, &[])
        };
        async move { writer.ingest.finish(&one, claim).await }
    });
    for finished in futures::future::join_all(finishes).await {
        finished.unwrap();
    }
    let fragments: Vec<_> = (0..1200).map(|n| (n % 2, vec![1])).collect();
    let refused = write(&writer, &sink(&x, 9000, 0), 0, &fragments).await;
    let refusal = refused.unwrap_err().to_string();
    assert!(refusal.contains("limits.max_footer_size"), "{refusal}");
    let reader = daemon(2);
    assert_eq!(read(&reader, &x, 7).await.unwrap().len(), 8);
    let (content, _memory) = reader.catalog.summary(&x).await.unwrap();
    assert_eq!(content.committed.len(), 6000);
}

/// Writes one page for each of four partitions in each of `tasks` tasks, one segment a task.
async fn write_segments(daemon: &Daemon, x: &ExchangeId, tasks: u32) -> Vec<TaskAttempt> {
    announce(daemon, x, 4).await;
    for task in 0..tasks {
        let pages: Vec<_> = (0..4).map(|p| (p, page(1, 100))).collect();
        write_task(daemon, &sink(x, task, 0), &pages).await;
    }
    let tasks = (0..tasks).map(|task| TaskAttempt::new(task, 0).unwrap());
    tasks.collect()
}

#[tokio::test]
async fn footers_are_evicted_for_readers_and_a_plan_waits_for_its_memory() {
    let shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    let chosen = write_segments(&writer, &x, 5).await;
    let planner = shared.daemon(2);
    let (pool, commits) = (&planner.read_pool, &planner.catalog);
    let all = pool.reserve("q", pool.capacity()).await.unwrap();
    let plan = || commits.plan_handles(&x, false, &chosen, 1 << 20);
    let mut waiting = Box::pin(plan());
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut waiting);
    assert!(waited.await.is_err(), "nothing is free");
    drop(all);
    let (handles, memory) = waiting.await.unwrap();
    let cached = commits.footer_bytes();
    assert!(cached > 0);
    assert_eq!(pool.used(), cached + memory.bytes());
    assert!(
        pool.try_reserve("r", pool.capacity()).is_none(),
        "a plan holds the footers"
    );
    assert_eq!(
        (pool.used(), commits.footer_bytes()),
        (cached + memory.bytes(), 0)
    );
    assert_eq!(handles.count(), 4);
    drop(memory);
    assert_eq!(pool.used(), 0);
}

/// If each plan held its footers while it waited for more memory, they would wait for each other.
#[tokio::test]
async fn plans_that_do_not_fit_together_run_one_after_another() {
    let shared = Shared::new(1);
    let writer = shared.daemon(1);
    let exchanges = ["q-1", "q-2", "q-3"].map(exchange);
    let mut chosen = Vec::new();
    for x in &exchanges {
        chosen = write_segments(&writer, x, 20).await;
    }
    let planner = shared.daemon(2);
    let pool = &planner.read_pool;
    let one = {
        let (_, memory) = planner
            .catalog
            .plan_handles(&exchanges[0], false, &chosen, 1)
            .await
            .unwrap();
        memory.bytes() + planner.catalog.footer_bytes()
    };
    planner.catalog.forget(&exchanges[0]);
    assert_eq!(pool.used(), 0);
    // Room for one plan while its last tails are read, and not for two.
    let room = one * 3 / 2 + 20 * (513 << 10);
    let rest = pool.try_reserve("r", pool.capacity() - room).unwrap();
    let plans = exchanges.iter().map(|x| planned(&planner, x, &chosen));
    let plans = futures::future::join_all(plans);
    let plans = tokio::time::timeout(Duration::from_secs(60), plans).await;
    let counts: Vec<_> = plans.unwrap().iter().map(Vec::len).collect();
    assert_eq!(counts, [4, 4, 4]);
    assert!(pool.used() <= pool.capacity());
    drop(rest);
}

#[tokio::test]
async fn an_exchange_whose_footers_exceed_the_read_memory_is_refused_with_the_setting() {
    let mut shared = Shared::new(1);
    let (writer, x) = (shared.daemon(1), exchange("q-1"));
    let chosen = write_segments(&writer, &x, 40).await;
    shared.budget = 32 << 10;
    let planner = shared.daemon(2);
    let refused = planner.catalog.plan_handles(&x, false, &chosen, 1).await;
    let refusal = refused.err().unwrap().to_string();
    assert!(refusal.contains("memory.budget"), "{refusal}");
    assert!(planner.read_pool.used() <= planner.read_pool.capacity());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sinks_finish_within_a_small_budget_and_every_byte_is_released() {
    let mut shared = Shared::new(2);
    shared.budget = 4 << 20;
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 4).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..100u32 {
        let (daemon, one) = (daemon.clone(), sink(&x, task, 0));
        tasks.spawn(async move {
            for number in 0..6u32 {
                let pages = [(number % 4, page((task + number) as u8, 100_000))];
                write(&daemon, &one, number, &pages).await.unwrap();
                assert!(daemon.write_pool.used() <= daemon.write_pool.capacity());
            }
            daemon.ingest.finish(&one, None).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let other = shared.daemon(2);
    let mut total = 0;
    for partition in 0..4 {
        total += read(&other, &x, partition).await.unwrap().len();
    }
    assert_eq!(total, 100 * 6 * 100_000);
    assert_eq!(
        other.read_pool.used(),
        other.reader.cached_bytes() + other.catalog.footer_bytes(),
        "only the caches hold memory"
    );
    daemon.closing.close(&x).await.unwrap();
    assert_eq!(
        (daemon.write_pool.used(), daemon.write_pool.waiting()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_reader_that_stops_reading_does_not_block_writers() {
    use futures::StreamExt as _;
    let mut shared = Shared::new(1);
    shared.budget = 2 << 20;
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    for task in 0..20 {
        write_task(&daemon, &sink(&x, task, 0), &[(0, page(1, 200_000))]).await;
    }
    let reader = &daemon.reader;
    let raw = PageFormat::Raw;
    let opened = reader
        .read_partition(&x, 0, Selection::default(), raw)
        .await
        .unwrap();
    let mut stuck = opened.stream;
    stuck.next().await.unwrap().unwrap();
    for task in 20..60 {
        write_task(&daemon, &sink(&x, task, 0), &[(0, page(1, 200_000))]).await;
    }
    drop(stuck);
}

// Promise 9

#[tokio::test]
async fn a_failing_base_directory_is_skipped_while_the_other_works() {
    let shared = Shared::new(2);
    let (daemon, x) = (shared.daemon(1), exchange("q-1"));
    announce(&daemon, &x, 1).await;
    // A file in place of the folder: every operation below it fails, for root too.
    std::fs::remove_dir_all(shared.base(1)).unwrap();
    std::fs::write(shared.base(1), b"not a folder").unwrap();
    let announced_there = daemon.exchanges.lookup(&x).await;
    for task in 0..6 {
        write_task(&daemon, &sink(&x, task, 0), &[(0, page(task as u8, 100))]).await;
    }
    assert!(announced_there.is_ok());
    let status = daemon.storage.status();
    assert!(status[0].healthy && !status[1].healthy, "{status:?}");
    assert!(
        status[1].error.as_ref().unwrap().contains("base-1"),
        "{status:?}"
    );
    let error = shared.daemon(2).catalog.summary(&x).await.unwrap_err();
    assert!(error.to_string().contains("base-1"), "{error}");
}
