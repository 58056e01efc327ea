//! A real daemon with one base directory behind a slow connection to a real S3 server.
//!
//! The test sets the rate of the connection, so what happens while almost no bytes pass does not
//! depend on timing. Invariant: the connection loses and reorders nothing.

#![allow(clippy::disallowed_methods)] // connections and clients run as spawned tasks

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::Gateway;
use crate::frames::batch;
use crate::process::{OVERHEAD, Process};

const PAGE: usize = 600_000;
const PARTITIONS: u32 = 8;
const WRITERS: u32 = 128;
const BUDGET: u64 = 64 << 20;
/// Bytes that pass in ten milliseconds, in each direction of each connection.
const SLOW: usize = 640;
const FAST: usize = 1 << 20;

/// A TCP proxy to a local port, with an adjustable rate.
struct SlowProxy {
    address: SocketAddr,
    rate: Arc<AtomicUsize>,
}

impl SlowProxy {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rate = Arc::new(AtomicUsize::new(FAST));
        let shared = Arc::clone(&rate);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(forward(near_in, far_out, Arc::clone(&shared)));
                tokio::spawn(forward(far_in, near_out, Arc::clone(&shared)));
            }
        });
        Self { address, rate }
    }

    fn set_rate(&self, rate: usize) {
        self.rate.store(rate, Ordering::Relaxed);
    }
}

/// Forwards one direction until either side closes it.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: Arc<AtomicUsize>) {
    let mut buffer = vec![0; FAST];
    loop {
        let most = rate.load(Ordering::Relaxed);
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return,
            Ok(came) if to.write_all(&buffer[..came]).await.is_err() => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A TCP proxy to a local port through which all connections together pass this many bytes in a
/// second towards that port.
async fn shared_proxy(port: u16, bytes_per_second: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let turn = Arc::new(Mutex::new(()));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                continue;
            };
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            let (turn, rate) = (Arc::clone(&turn), Arc::clone(&bytes_per_second));
            tokio::spawn(async move {
                let mut buffer = vec![0; SHARED_CHUNK];
                while let Ok(came @ 1..) = near_in.read(&mut buffer).await {
                    let _turn = turn.lock().await;
                    let rate = rate.load(Ordering::Relaxed) as f64;
                    tokio::time::sleep(Duration::from_secs_f64(came as f64 / rate)).await;
                    if far_out.write_all(&buffer[..came]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
        }
    });
    address
}

/// Bytes of one turn.
const SHARED_CHUNK: usize = 16 << 10;

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
    /// The size of a page.
    page: usize,
}

impl Client {
    fn of(daemon: &Process) -> Self {
        let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(10));
        Self {
            http: http.no_proxy().build().unwrap(),
            url: format!("{}/v1/exchanges", daemon.url),
            page: PAGE,
        }
    }

    async fn announce(&self, exchange: &str) {
        let body = serde_json::json!({"partitions": PARTITIONS, "ordered": false});
        let put = self
            .http
            .put(format!("{}/{exchange}", self.url))
            .json(&body);
        assert_eq!(put.send().await.unwrap().status(), 201);
    }

    async fn post(&self, url: String, body: Vec<u8>) {
        let post = self.http.post(&url).body(body);
        let post = post.header("content-type", "application/vnd.stopover.pages");
        let answer = post.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, 200, "{url}: {}", answer.text().await.unwrap());
    }

    /// Writes and finishes a sink of one page. Nothing is retried: no request may fail.
    async fn write(self, exchange: &'static str, task: u32) {
        let sink = format!("{}/{exchange}/sinks/{task}/0", self.url);
        let page = vec![task as u8; self.page];
        let body = batch(&[(task % PARTITIONS, &page)]);
        self.post(format!("{sink}/pages?batch=0"), body).await;
        let finished = self.http.post(format!("{sink}/finish")).send().await;
        assert_eq!(finished.unwrap().status(), 200, "{sink}");
    }

    async fn write_all(&self, exchange: &'static str, tasks: u32) {
        let tasks = (0..tasks).map(|task| tokio::spawn(self.clone().write(exchange, task)));
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }

    async fn expect_pages(&self, exchange: &str, tasks: u32) {
        for partition in 0..PARTITIONS {
            let url = format!("{}/{exchange}/partitions/{partition}", self.url);
            let read = self.http.get(url).send().await.unwrap();
            let bytes = read.bytes().await.unwrap();
            let writers = (0..tasks).filter(|task| task % PARTITIONS == partition);
            let mut seen: Vec<u8> = bytes.chunks(self.page).map(|page| page[0]).collect();
            seen.sort_unstable();
            assert_eq!(seen, writers.map(|task| task as u8).collect::<Vec<_>>());
            let is_whole = |page: &[u8]| page == vec![page[0]; self.page];
            assert!(bytes.chunks(self.page).all(is_whole));
        }
    }

    /// The number of bytes that writers wait for.
    async fn waited_for(&self) -> u64 {
        let values = self
            .metric("stopover_memory_waiting_bytes{pool=\"write\"}")
            .await;
        assert_eq!(values.len(), 1, "the gauge of the write pool");
        values[0]
    }

    /// The values of the metrics whose names and labels begin like this.
    async fn metric(&self, start: &str) -> Vec<u64> {
        let url = self.url.replace("/v1/exchanges", "/metrics");
        let metrics = self.http.get(url).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(start));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap());
        values.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_base_directory_stalls_the_other_is_read_and_writers_wait() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let proxy = SlowProxy::to(gateway.port).await;
    let folder = tempfile::tempdir().unwrap();
    let local = Process::start(folder.path(), &["--memory-budget", "64MiB"]);
    let client = Client::of(&local);
    client.announce("before").await;
    client.write_all("before", 16).await;
    local.kill();

    let mut options = gateway.config("s3://bucket/pages").options;
    options.insert(
        "endpoint".into(),
        format!("http://{}", proxy.address).into(),
    );
    options.insert("uri".into(), "s3://bucket/pages".into());
    options.insert("name".into(), "pages".into());
    let options = options
        .iter()
        .map(|(key, value)| format!("--set=base_directories.1.{key}={}", value.expose()));
    let budget = ["--memory-budget=64MiB".to_owned()];
    let flags: Vec<String> = options.chain(budget).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let added = Command::new(env!("CARGO_BIN_EXE_stopover"))
        .args(["members", "add", "pages", "--base-directory"])
        .arg(format!("file://{}", folder.path().display()))
        .args(&flags)
        .status();
    assert!(added.unwrap().success());
    let daemon = Process::start(folder.path(), &flags);
    let client = Client::of(&daemon);
    client.announce("now").await;
    proxy.set_rate(SLOW);
    let (other, written) = (client.clone(), Arc::new(AtomicUsize::new(0)));
    let done = Arc::clone(&written);
    let writers = tokio::spawn(async move {
        other.write_all("now", WRITERS).await;
        done.store(1, Ordering::Relaxed);
    });
    while client.waited_for().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.expect_pages("before", 16).await;
    assert_eq!(written.load(Ordering::Relaxed), 0, "writers wait meanwhile");
    proxy.set_rate(FAST);
    writers.await.unwrap();
    client.expect_pages("now", WRITERS).await;
    let uploaded = gateway.files();
    assert!(uploaded.iter().any(|file| file.ends_with(".seg")));
    let peak = daemon.peak_resident();
    println!("{peak} bytes resident at the peak");
    assert!(peak <= BUDGET + OVERHEAD, "{peak} bytes resident");
}

/// Story: four uploads shared 4 MB/s, no put was done within the total time that the client
/// allowed, and all twelve writers failed, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_connection_that_uploads_share_every_sink_finishes_at_the_first_try() {
    const SINKS: u32 = 12;
    const TIMEOUT: Duration = Duration::from_secs(2);
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let rate = Arc::new(AtomicUsize::new(1 << 30));
    let address = shared_proxy(gateway.port, Arc::clone(&rate)).await;
    let mut options = gateway.config("s3://bucket/pages").options;
    let mut set = |name: &str, value: String| drop(options.insert(name.into(), value.into()));
    set("endpoint", format!("http://{address}"));
    set("timeout", format!("{}s", TIMEOUT.as_secs()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--base-directory", "s3://bucket/pages"]);
    command.args(["--memory-budget", "256MiB"]);
    for (key, value) in &options {
        command.arg(format!("--set=base_directories.0.{key}={}", value.expose()));
    }
    let daemon = Process::spawn(command);
    let client = Client {
        page: 1_800_000,
        ..Client::of(&daemon)
    };
    client.announce("slow").await;
    rate.store(1 << 20, Ordering::Relaxed);
    let started = std::time::Instant::now();
    client.write_all("slow", SINKS).await;
    let elapsed = started.elapsed();
    rate.store(1 << 30, Ordering::Relaxed);
    // Four at a time, so that the smallest segment takes several times as long as the timeout.
    assert!(elapsed > 5 * TIMEOUT, "{elapsed:?} is no slow store");
    println!("{elapsed:?} for {SINKS} sinks");
    let failures = client.metric("stopover_storage_put_failures_total").await;
    assert!(
        !failures.is_empty() && failures.iter().all(|n| *n == 0),
        "{failures:?}"
    );
    client.expect_pages("slow", SINKS).await;
}
