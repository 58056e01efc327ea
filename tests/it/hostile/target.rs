//! The daemon that is attacked, and what must hold for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::process::{OVERHEAD, Process};
use crate::support::raw::{RawAnswer, RawClient};

/// Within this a probe is answered, whatever others do.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

pub const BATCH: (&str, &str) = ("content-type", crate::support::BATCH);
pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const TEXT: (&str, &str) = ("content-type", "text/plain");

/// A page of the exchange `kept`, in its partition 0.
pub const PAGE: &[u8] = b"a page from before the attack";

pub struct Target {
    pub process: Process,
    pub address: SocketAddr,
    pub base: tempfile::TempDir,
    log: PathBuf,
    budget: u64,
    probes: Probes,
    /// The header that authorizes its own requests, if it needs one.
    authorization: Option<String>,
}

impl Target {
    /// Starts a daemon with this budget in MiB, and one finished exchange, `kept`.
    pub async fn start(budget: u64, more: &[&str]) -> Self {
        Self::with_authorization(budget, more, None).await
    }

    /// Likewise, with a token that has all scopes.
    pub async fn start_with_token(budget: u64, more: &[&str], token: &str) -> Self {
        let authorization = Some(format!("Bearer {token}"));
        Self::with_authorization(budget, more, authorization).await
    }

    async fn with_authorization(budget: u64, more: &[&str], authorization: Option<String>) -> Self {
        let base = tempfile::tempdir().unwrap();
        let log = base.path().join("log");
        let size = format!("{budget}MiB");
        let settings = [&["--memory-budget", &size], more].concat();
        let folder = base.path().join("base");
        let process = Process::start_with_log(&folder, &settings, &log);
        let address = process.url.strip_prefix("http://").unwrap();
        let address = address.parse().unwrap();
        let target = Self {
            probes: Probes::start(address),
            process,
            address,
            base,
            log,
            budget: budget << 20,
            authorization,
        };
        target.announce("kept", 2).await;
        target.write("kept", 0, PAGE).await;
        target
    }

    pub async fn connect(&self) -> RawClient {
        RawClient::connect(self.address).await
    }

    /// Sends a request with a body on a connection of its own.
    pub async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> RawAnswer {
        let mut headers = headers.to_vec();
        headers.extend(
            self.authorization
                .iter()
                .map(|a| ("authorization", a.as_str())),
        );
        self.send_with(line, &headers, body).await
    }

    /// Likewise, with these headers only.
    pub async fn send_with(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> RawAnswer {
        let mut client = self.connect().await;
        let length = body.len().to_string();
        let host = self.address.to_string();
        let mut head = format!("{line} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        client.try_send(head + "\r\n").await;
        // The daemon may refuse it by its head and close the connection.
        client.try_send(body).await;
        let answer = client.answer().await;
        assert_ne!(answer.status, 500, "{line}: {answer:?}");
        answer
    }

    pub async fn announce(&self, exchange: &str, partitions: u32) {
        let body = serde_json::json!({"partitions": partitions, "ordered": false}).to_string();
        let line = format!("PUT /v1/exchanges/{exchange}");
        let answer = self.send(&line, &[JSON], body.as_bytes()).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    /// Writes and finishes an attempt of one page in partition 0.
    pub async fn write(&self, exchange: &str, task: u32, page: &[u8]) {
        let sink = crate::support::sink(exchange, task, 0);
        let octets = ("content-type", crate::support::RAW);
        let line = format!("POST {sink}/pages?partition=0");
        let sent = self.send(&line, &[octets], page).await;
        assert_eq!(sent.status, 200, "{sent:?}");
        let finished = self.send(&format!("POST {sink}/finish"), &[], b"").await;
        assert_eq!(finished.status, 200, "{finished:?}");
    }

    /// Plans the handles of an attempt and returns them.
    pub async fn handles(&self, exchange: &str, task: u32) -> Vec<String> {
        let body = serde_json::json!({"attempts": [[task, 0]], "target_size": 1 << 20});
        let line = format!("POST /v1/exchanges/{exchange}/handles");
        let mut client = self.connect().await;
        let length = body.to_string().len().to_string();
        let headers = [JSON, ("content-length", &length), ("connection", "close")];
        client.send_head(&line, &headers).await;
        client.send(body.to_string()).await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        let lines = answer.lines().filter(|line| line.contains("\"handle\""));
        let handle = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["handle"].as_str().unwrap().to_owned()
        };
        lines.map(handle).collect()
    }

    /// The log so far, in bytes.
    pub fn log(&self) -> Vec<u8> {
        std::fs::read(&self.log).unwrap()
    }

    /// The samples of a metric.
    pub async fn metric(&self, name: &str) -> Vec<f64> {
        let answer = self.send("GET /metrics", &[], b"").await;
        let text = String::from_utf8(answer.body).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect()
    }

    /// Ends the probes.
    pub fn into_process(self) -> Process {
        self.probes.stop();
        self.process
    }

    /// Checks what must hold after every attack.
    pub async fn assert_unharmed(self) {
        self.assert_unharmed_with(&[PAGE]).await;
    }

    /// Likewise, if these pages are in the exchange by now.
    pub async fn assert_unharmed_with(self, pages: &[&[u8]]) {
        let kept = self
            .send("GET /v1/exchanges/kept/partitions/0", &[], b"")
            .await;
        assert_eq!((kept.status, kept.body), (200, pages.concat()));
        assert_no_panic(&self.log);
        let (probes, slowest, failures) = self.probes.stop();
        let (peak, most) = (self.process.peak_resident(), self.budget + OVERHEAD);
        println!("{probes} probes, the slowest {slowest:?}; {peak} bytes resident of {most}");
        assert!(probes > 0 && failures.is_empty(), "{failures:#?}");
        assert!(peak <= most, "{peak} bytes resident, {most} are allowed");
    }
}

/// No task of the daemon has panicked so far.
pub fn assert_no_panic(log: &Path) {
    let log = std::fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log);
    let panicked = log.lines().find(|line| line.contains("panicked"));
    assert_eq!(panicked, None);
}

/// Calls `/healthz` from a thread of its own, so that a busy test does not delay it.
struct Probes {
    state: Arc<ProbeState>,
    thread: JoinHandle<(Duration, Vec<String>)>,
}

#[derive(Default)]
struct ProbeState {
    stopped: AtomicBool,
    count: AtomicUsize,
}

impl Probes {
    fn start(address: SocketAddr) -> Self {
        let state = Arc::new(ProbeState::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let (start, mut slowest, mut failures) = (Instant::now(), Duration::ZERO, Vec::new());
            // At least once, however short the attack was.
            loop {
                let asked = Instant::now();
                if let Err(error) = probe(address) {
                    let at = start.elapsed();
                    failures.push(format!("{at:?} after the start: {error}"));
                }
                slowest = slowest.max(asked.elapsed());
                shared.count.fetch_add(1, Ordering::AcqRel);
                if shared.stopped.load(Ordering::Acquire) {
                    return (slowest, failures);
                }
                std::thread::sleep(PROBE_INTERVAL);
            }
        });
        Self { state, thread }
    }

    /// The number of probes, the longest that one took, and why some failed.
    fn stop(self) -> (usize, Duration, Vec<String>) {
        self.state.stopped.store(true, Ordering::Release);
        let (slowest, failures) = self.thread.join().unwrap();
        (self.state.count.load(Ordering::Acquire), slowest, failures)
    }
}

/// One call on a connection of its own; the time limit covers all of it.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        Some(left.max(Duration::from_millis(1)))
    };
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_write_timeout(left())?;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.set_read_timeout(left())?;
        let mut part = [0; 1024];
        match stream.read(&mut part)? {
            0 => break,
            n => answer.extend_from_slice(&part[..n]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    if text.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err(std::io::Error::other(format!("answered {text:?}")))
}
