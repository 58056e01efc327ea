//! Promise 7 under more load than the daemon can hold: it slows down, and nothing stops for good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use stopover::app::Daemon;
use stopover::runtime::Runtime;
use stopover::storage::{Storage, StoreLimits};
use stopover::store::Store;
use stopover::store::local::{LocalStore, WriteMode};

use crate::support::frames::batch;
use crate::support::process::{OVERHEAD, Process};
use crate::support::raw::RawClient;
use crate::support::slow::{Delay, SlowStore};
use crate::support::{BATCH, BaseFolder, TestServer, ok_json, sink};

/// Story: a read that waited for the rest of a page held the part that it had. Sixteen such reads
/// held all memory for reading, each waiting for the others, and none made progress.
#[tokio::test]
async fn many_reads_of_pages_that_span_chunks_all_complete_in_little_memory() {
    let base_folder = BaseFolder::new();
    let writer = TestServer::open(&base_folder.config()).await;
    writer.announce("w", 4).await;
    let pages: Vec<Vec<u8>> = (0..4u8)
        .map(|p| vec![p; 100_000 + usize::from(p)])
        .collect();
    for task in 0..4 {
        let sink = sink("w", task, 0);
        for number in 0..8 {
            let frames: Vec<(u32, &[u8])> = (0..4).map(|p| (p, &pages[p as usize][..])).collect();
            writer.add(&sink, number, batch(&frames)).await;
        }
        ok_json(writer.post_empty(&format!("{sink}/finish")).await).await;
    }
    let mut config = base_folder.config();
    config.memory.budget = Some(2 << 20);
    let reader = TestServer::open(&config).await;
    assert_eq!(reader.daemon.read_pool.capacity(), 1 << 20);
    let reads = (0..32usize).map(|n| {
        let (reader, pages) = (&reader, &pages);
        async move {
            let path = format!("/v1/exchanges/w/partitions/{}", n % 4);
            let read = reader.get(&path).await.bytes().await.unwrap();
            assert_eq!(read, pages[n % 4].repeat(4 * 8));
        }
    });
    let all = futures::future::join_all(reads);
    let completed = tokio::time::timeout(Duration::from_secs(300), all).await;
    let pool = &reader.daemon.read_pool;
    assert!(
        completed.is_ok(),
        "{} bytes reserved, {} waited for",
        pool.used(),
        pool.waiting()
    );
    reader.shut_down().await;
    writer.shut_down().await;
}

const PAGE: usize = 600_000;

/// A client of daemons that run as processes.
#[derive(Clone)]
struct HttpClient(reqwest::Client);

impl HttpClient {
    fn new() -> Self {
        // Shorter than the daemon's `Keep-Alive`, which this client ignores.
        let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(10));
        Self(http.no_proxy().build().unwrap())
    }

    async fn announce(&self, daemon: &Process, exchange: &str, partitions: u32) {
        let url = format!("{}/v1/exchanges/{exchange}", daemon.url);
        let body = serde_json::json!({"partitions": partitions, "ordered": false});
        let answer = self.0.put(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    /// Retries until the request is accepted, as a correct client does: a repeated batch or finish
    /// takes effect once, and a connection may be closed when the machine is too busy to serve it.
    async fn post(&self, url: &str, body: Vec<u8>) {
        for _ in 0..100 {
            let sent = self.0.post(url).header("content-type", BATCH);
            match sent.body(body.clone()).send().await {
                Ok(answer) if answer.status() == 200 => return,
                Ok(answer) if answer.status() != 408 => {
                    panic!("{url}: {}", answer.text().await.unwrap_or_default())
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        panic!("{url} was never answered");
    }

    /// Writes and finishes a sink: `batches` batches of one page in partition `task % 8`.
    async fn write(self, url: String, exchange: &'static str, task: u32, batches: u32) {
        let sink = format!("{url}{}", sink(exchange, task, 0));
        for number in 0..batches {
            let page = vec![(task + number) as u8; PAGE];
            let body = batch(&[(task % 8, &page)]);
            self.post(&format!("{sink}/pages?batch={number}"), body)
                .await;
        }
        let finish = format!("{sink}/finish");
        for _ in 0..100 {
            match self.0.post(&finish).send().await {
                Ok(answer) => return assert_eq!(answer.status(), 200, "{answer:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        panic!("{finish} was never answered");
    }

    /// Reads a partition without buffering it, again if it is cut off: on a busy machine a reader
    /// that does not run for some seconds looks stalled to the daemon.
    async fn read(self, url: String, exchange: &'static str, partition: u32) -> usize {
        let url = format!("{url}/v1/exchanges/{exchange}/partitions/{partition}");
        loop {
            let Ok(mut read) = self.0.get(&url).send().await else {
                continue;
            };
            assert_eq!(read.status(), 200);
            let (mut bytes, whole) = (0, read.content_length().unwrap() as usize);
            while let Ok(Some(chunk)) = read.chunk().await {
                bytes += chunk.len();
            }
            if bytes == whole {
                return bytes;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sinks_finish_in_64_mib_and_the_process_stays_within_budget_plus_overhead() {
    let folder = tempfile::tempdir().unwrap();
    let budget = ["--memory-budget", "64MiB"];
    let (before, http) = (Process::start(folder.path(), &budget), HttpClient::new());
    http.announce(&before, "before", 8).await;
    let writes = (0..40).map(|task| {
        let http = http.clone();
        tokio::spawn(http.write(before.url.clone(), "before", task, 2))
    });
    for done in futures::future::join_all(writes).await {
        done.unwrap();
    }
    // The other daemon has none of that cached: it fetches while it is written to.
    let daemon = Process::start(folder.path(), &budget);
    http.announce(&daemon, "now", 8).await;
    let reads = (0..24).map(|n| {
        let http = http.clone();
        tokio::spawn(http.read(daemon.url.clone(), "before", n % 8))
    });
    let writes = (0..200).map(|task| {
        let http = http.clone();
        tokio::spawn(http.write(daemon.url.clone(), "now", task, 1))
    });
    let (reads, writes): (Vec<_>, Vec<_>) = (reads.collect(), writes.collect());
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), 5 * 2 * PAGE);
    }
    for done in futures::future::join_all(writes).await {
        done.unwrap();
    }
    for partition in 0..8 {
        let read = http.clone().read(before.url.clone(), "now", partition);
        assert_eq!(read.await, 25 * PAGE);
    }
    let (peak, most) = (daemon.peak_resident(), (64 << 20) + OVERHEAD);
    println!("peak resident memory: {peak} bytes of {most} allowed");
    assert!(peak <= most, "{peak} bytes resident, {most} are allowed");
}

/// A batch of pages of `page` bytes that alternate between two partitions.
fn alternating(bytes: usize, page: usize) -> Vec<u8> {
    let pages = [vec![1; page], vec![2; page]];
    let one = batch(&[(0, &pages[0][..]), (1, &pages[1][..])]);
    one.repeat(bytes / one.len())
}

/// Story: four batches of one-byte pages, each in another partition than the one before, took
/// 1.47 GB of a budget of 256 MiB: what a batch needs besides its bytes was counted after it had
/// been read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_tiny_pages_wait_or_are_refused_and_stay_within_budget_plus_overhead() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Process::start(folder.path(), &["--memory-budget", "256MiB"]);
    let http = HttpClient::new();
    http.announce(&daemon, "w", 2).await;
    let send = |task: u32, body: Vec<u8>| {
        let (http, url) = (http.0.clone(), daemon.url.clone());
        tokio::spawn(async move {
            let url = format!("{url}{}/pages?batch=0", sink("w", task, 0));
            for _ in 0..100 {
                let post = http.post(&url).header("content-type", BATCH);
                // The connection may be closed before the body has been sent.
                if let Ok(answer) = post.body(body.clone()).send().await
                    && answer.status() != 503
                {
                    return answer.status().as_u16();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            0
        })
    };
    let hostile = (0..4).map(|task| send(task, alternating(32 << 20, 1)));
    // Tiny pages that fit, one batch at a time.
    let small = (4..12).map(|task| send(task, alternating(4 << 20, 20)));
    let (hostile, small): (Vec<_>, Vec<_>) = (hostile.collect(), small.collect());
    for sent in small {
        assert_eq!(sent.await.unwrap(), 200);
    }
    for sent in hostile {
        assert!([0, 413].contains(&sent.await.unwrap()));
    }
    for task in 4..12 {
        let finish = format!("{}{}/finish", daemon.url, sink("w", task, 0));
        assert_eq!(http.0.post(finish).send().await.unwrap().status(), 200);
    }
    let per_partition = 8 * ((4 << 20) / (2 * 32)) * 20;
    for partition in 0..2 {
        let read = http.clone().read(daemon.url.clone(), "w", partition);
        assert_eq!(read.await, per_partition);
    }
    let (peak, most) = (daemon.peak_resident(), (256 << 20) + OVERHEAD);
    println!("peak resident memory: {peak} bytes of {most} allowed");
    assert!(peak <= most, "{peak} bytes resident, {most} are allowed");
}

/// The number of connections that the system lets this process open, at most 10,000.
fn many_connections() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raised within what is allowed");
    let room = limit.maximum.unwrap_or(u64::MAX).saturating_sub(1000);
    usize::try_from(room).unwrap_or(usize::MAX).min(10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_and_endless_uploads_keep_no_client_from_being_served() {
    let folder = tempfile::tempdir().unwrap();
    let (idle, http) = (many_connections(), HttpClient::new());
    // The idle connections alone reach the connection limit.
    let most = format!("limits.max_connections={idle}");
    let daemon = Process::start(folder.path(), &["--set", &most, "--memory-budget", "64MiB"]);
    let address: SocketAddr = daemon.url.strip_prefix("http://").unwrap().parse().unwrap();
    http.announce(&daemon, "w", 8).await;
    let mut silent = Vec::with_capacity(idle);
    for n in 0..idle {
        let mut client = RawClient::connect(address).await;
        // The first request takes a slot.
        client.send_head("GET /nowhere", &[]).await;
        assert_eq!(client.answer().await.status, 404);
        if n % 100 == 0 {
            // Some send the start of a head that never ends.
            client
                .send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
                .await;
        }
        silent.push(client);
    }
    let (stop, trickling) = (tokio_util::sync::CancellationToken::new(), 20u32);
    let trickles = (0..trickling).map(|n| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST {}/pages?batch=0 HTTP/1.1\r\nhost: localhost\r\ncontent-type: {BATCH}\r\n\
                 content-length: 1000000\r\n\r\n",
                sink("w", 1000 + n, 0)
            );
            // The daemon may close the connection: it does not wait for ever.
            let mut sent = client.write_all(head.as_bytes()).await;
            while sent.is_ok() && !stop.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sent = client.write_all(&[7]).await;
            }
        })
    });
    let trickles: Vec<_> = trickles.collect();
    for task in 0..8 {
        let served = http.clone().write(daemon.url.clone(), "w", task, 2);
        let served = tokio::time::timeout(Duration::from_secs(300), served).await;
        assert!(served.is_ok(), "a writer was not served within 300 s");
    }
    let read = http.clone().read(daemon.url.clone(), "w", 3);
    let read = tokio::time::timeout(Duration::from_secs(300), read).await;
    assert_eq!(
        read.expect("a reader was not served within 300 s"),
        2 * PAGE
    );
    let (peak, allowed) = (daemon.peak_resident(), (64 << 20) + OVERHEAD);
    println!("{idle} idle connections, {peak} bytes resident at the peak");
    let idle_cost = 10_000 * 16 * 1024;
    assert!(peak <= allowed + idle_cost, "{peak} bytes resident");
    stop.cancel();
    for trickle in trickles {
        trickle.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_slows_writers_down_and_fails_none_of_them() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.memory.budget = Some(8 << 20);
    config.limits.max_batch_size = 1 << 20;
    let runtime = Runtime::system();
    let local = LocalStore::new(base_folder.path().to_owned(), WriteMode::Unsynced, 7);
    let slow: Arc<dyn Store> = Arc::new(SlowStore {
        inner: Arc::new(local),
        delay: Delay::Fixed(Duration::from_millis(100)),
    });
    let name = "slow".parse().unwrap();
    let stores = vec![(name, "test".to_owned(), slow)];
    let storage = Storage::from_stores(stores, StoreLimits::REMOTE, &runtime);
    let daemon = Daemon::assemble(&config, &runtime, storage, Arc::default());
    let server = TestServer::around(daemon, &config, runtime).await;
    server.announce("w", 8).await;
    let page = vec![7; PAGE];
    let sinks = (0..40).map(|task| {
        let (server, page) = (&server, &page);
        async move {
            let sink = sink("w", task, 0);
            for number in 0..2 {
                server.add(&sink, number, batch(&[(task % 8, page)])).await;
                let pool = &server.daemon.write_pool;
                assert!(pool.used() <= pool.capacity());
            }
            ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
        }
    });
    futures::future::join_all(sinks).await;
    for partition in 0..8 {
        let path = format!("/v1/exchanges/w/partitions/{partition}");
        assert_eq!(
            server.get(&path).await.bytes().await.unwrap().len(),
            5 * 2 * PAGE
        );
    }
    server.delete("/v1/exchanges/w").await;
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

/// A daemon over local base directories whose puts and reads are delayed.
async fn server_over(
    folder: &BaseFolder,
    limits: StoreLimits,
    delays: Vec<(&str, Delay)>,
) -> TestServer {
    let config = folder.config();
    let runtime = Runtime::system();
    let stores = delays.into_iter().map(|(name, delay)| {
        let local = LocalStore::new(folder.path().join(name), WriteMode::Unsynced, 7);
        let inner = Arc::new(local);
        let store: Arc<dyn Store> = Arc::new(SlowStore { inner, delay });
        (name.parse().unwrap(), "test".to_owned(), store)
    });
    let storage = Storage::from_stores(stores.collect(), limits, &runtime);
    let daemon = Daemon::assemble(&config, &runtime, storage, Arc::default());
    TestServer::around(daemon, &config, runtime).await
}

/// Story: with one of two file systems frozen (`fsfreeze`) 4 of 12 finishes were answered, the
/// others waited for ever, and both base directories counted as healthy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_file_system_is_frozen_every_finish_is_answered_and_it_is_out_of_order() {
    let folder = BaseFolder::new();
    let mut limits = StoreLimits::LOCAL;
    limits.deadline.timeout = Duration::from_millis(300);
    let permits = Arc::new(Semaphore::new(1000));
    let delays = vec![
        ("frozen", Delay::UntilPermitted(Arc::clone(&permits))),
        ("works", Delay::Fixed(Duration::ZERO)),
    ];
    let server = server_over(&folder, limits, delays).await;
    let page = vec![7; PAGE];
    let names: Vec<String> = (0..12).map(|n| format!("w-{n}")).collect();
    for name in &names {
        server.announce(name, 1).await;
    }
    permits.forget_permits(usize::MAX);
    let finishes = names.iter().map(|name| {
        let (server, page) = (&server, &page);
        async move {
            let sink = sink(name, 0, 0);
            server.add(&sink, 0, batch(&[(0, page)])).await;
            ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
        }
    });
    let all = futures::future::join_all(finishes);
    let answered = tokio::time::timeout(Duration::from_secs(60), all).await;
    assert!(answered.is_ok(), "a finish was not answered within 60 s");
    let frozen = |server: &TestServer| {
        let status = server.daemon.storage.status();
        status
            .into_iter()
            .find(|base| base.name.as_str() == "frozen")
    };
    let status = frozen(&server).unwrap();
    let reason = status.error.expect("it is out of order");
    assert!(reason.contains("not answered within"), "{reason}");
    for name in &names {
        let path = format!("/v1/exchanges/{name}/partitions/0");
        let read = server.get(&path).await.bytes().await.unwrap();
        assert_eq!(read.len(), PAGE, "{name}");
    }
    permits.add_permits(1000);
    let thawed = async {
        while !frozen(&server).unwrap().healthy {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let thawed = tokio::time::timeout(Duration::from_secs(60), thawed).await;
    assert!(thawed.is_ok(), "still out of order after it thawed");
    for name in &names {
        server.delete(&format!("/v1/exchanges/{name}")).await;
    }
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

/// Story: the task of an upload that panicked left its sinks finishing for ever, and its bytes and
/// its place among the uploads taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_panics_fails_its_sinks_and_the_next_one_is_stored() {
    let folder = BaseFolder::new();
    let panics = Arc::new(AtomicBool::new(false));
    let delays = vec![("only", Delay::Panics(Arc::clone(&panics)))];
    // Remote: the store then runs in the task of the upload.
    let server = server_over(&folder, StoreLimits::REMOTE, delays).await;
    server.announce("w", 1).await;
    panics.store(true, Ordering::SeqCst);
    let page = vec![7; PAGE];
    let write = async |task, status| {
        let sink = sink("w", task, 0);
        server.add(&sink, 0, batch(&[(0, &page[..])])).await;
        let path = format!("{sink}/finish");
        let finish = server.post_empty(&path);
        let finish = tokio::time::timeout(Duration::from_secs(60), finish).await;
        let answer = finish.expect("the finish was not answered within 60 s");
        let (given, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(given.as_u16(), status, "{text}");
        text
    };
    let text = write(0, 503).await;
    assert!(
        text.contains("sink-failed") && text.contains("injected panic"),
        "{text}"
    );
    write(1, 200).await;
    server.delete("/v1/exchanges/w").await;
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

/// Foreign sinks filled the memory of a daemon, and the tasks of its own node waited.
#[tokio::test]
async fn foreign_sinks_never_wait_and_leave_the_rest_of_the_memory_to_the_own_node() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.memory.budget = Some(2 << 20);
    config.memory.home_share = 0.25;
    let server = TestServer::open(&config).await;
    server.announce("w", 1).await;
    let body = batch(&[(0, &vec![7; 100_000])]);
    let send = async |task: u32, foreign: &str| {
        let path = format!("{}/pages?batch=0", sink("w", task, 0));
        let request = server.request(Method::POST, &path);
        let request = request.header("content-type", BATCH).body(body.clone());
        request.header("stopover-foreign", foreign).send().await
    };
    for task in 0..2 {
        ok_json(send(task, "1").await.unwrap()).await;
    }
    let refused = send(2, "1").await.unwrap();
    assert_eq!(refused.status(), 503, "a quarter of 1 MiB is in use");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:stopover:problem:overloaded");
    assert_eq!(problem["retryable"], true);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("memory.home_share"), "{detail}");
    assert_eq!(send(2, "yes").await.unwrap().status(), 400);
    for task in 3..8 {
        server.add(&sink("w", task, 0), 0, body.clone()).await;
    }
    let refused_batches = "stopover_foreign_batches_refused_total";
    assert_eq!(server.metric(refused_batches).await, 1);
    let foreign_bytes = "stopover_foreign_pages_written_bytes_total";
    assert_eq!(server.metric(foreign_bytes).await, 200_000);

    // What is stored or aborted is no longer counted.
    ok_json(
        server
            .post_empty(&format!("{}/finish", sink("w", 0, 0)))
            .await,
    )
    .await;
    ok_json(
        server
            .post_empty(&format!("{}/abort", sink("w", 1, 0)))
            .await,
    )
    .await;
    for task in [10, 11] {
        ok_json(send(task, "1").await.unwrap()).await;
    }
    assert_eq!(send(12, "1").await.unwrap().status(), 503);
    server.shut_down().await;
}
