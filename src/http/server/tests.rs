//! The server with a small router: limits, stalls, refusals and the graceful stop.

use std::time::Duration;

use std::sync::Arc;

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{LimitsConfig, ServerConfig};
use crate::http::limits::{MAX_HEAD, MAX_HEADERS};
use crate::http::slots::Client;
use crate::http::stall::Contention;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    runtime: Runtime,
}

impl Running {
    async fn start(router: Router, change: impl FnOnce(&mut ServerLimits)) -> Self {
        Self::start_with(router, Duration::from_secs(5), change).await
    }

    async fn start_with(
        router: Router,
        stall_timeout: Duration,
        change: impl FnOnce(&mut ServerLimits),
    ) -> Self {
        let mut limits = ServerLimits {
            max_connections: 16,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(5),
            http2: false,
            stop_grace: Duration::from_secs(5),
        };
        change(&mut limits);
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = bind(any_port, limits, stall_timeout).await.unwrap();
        let running = Self {
            address: server.address(),
            stop: CancellationToken::new(),
            runtime: Runtime::seeded(1),
        };
        let (runtime, stop) = (running.runtime.clone(), running.stop.clone());
        running
            .runtime
            .tasks
            .spawn(async move { server.run(router, &runtime, stop).await });
        running
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn shut_down(self) {
        self.stop.cancel();
        self.runtime.tasks.shut_down().await;
    }
}

async fn bind(
    address: SocketAddr,
    limits: ServerLimits,
    stall_timeout: Duration,
) -> Result<Server, BindError> {
    let clock = Runtime::seeded(1).clock;
    let credentials = Credentials::open(&ServerConfig::default(), &clock).unwrap();
    let policy = StallPolicy::new(stall_timeout, clock, Contention::none());
    Server::bind(address, limits, policy, credentials).await
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

const CLOSING_GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_the_setting() {
    let running = Running::start(hello(), |_| ()).await;
    let limits = ServerLimits::new(&ServerConfig::default(), &LimitsConfig::default());
    let error = bind(running.address, limits, Duration::ZERO).await.err();
    let error = error.unwrap();
    let text = error.to_string();
    assert!(text.contains(&running.address.to_string()) && text.contains("server.listen"));
    running.shut_down().await;
}

/// A route that acquires a slot, as authorized requests do, and one that does not.
fn with_slots() -> Router {
    let takes =
        get(
            async |Extension(client): Extension<Client>| match client.acquire_slot().await {
                Ok(()) => "served".to_owned(),
                Err(error) => error.to_string(),
            },
        );
    hello().route("/slot", takes)
}

const TAKE: &[u8] = b"GET /slot HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_gives_its_slot_to_one_that_has_a_request() {
    let running = Running::start(with_slots(), |limits| limits.max_connections = 1).await;
    let mut first = running.connect().await;
    first.write_all(TAKE).await.unwrap();
    let mut some = [0; 16];
    first.read_exact(&mut some).await.unwrap();
    let mut second = running.connect().await;
    let closing = b"GET /slot HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(&mut second, closing).await;
    assert!(answer.contains("served"), "{answer}");
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest).await;
    assert!(rest.ends_with(b"served"), "the first was not closed");
    running.shut_down().await;
}

#[tokio::test]
async fn probes_are_served_while_every_slot_is_taken_and_strangers_fill_the_rest() {
    let never = get(async |Extension(client): Extension<Client>| {
        client.acquire_slot().await.unwrap();
        std::future::pending::<()>().await;
    });
    let router = with_slots().route("/never", never);
    let running = Running::start(router, |limits| limits.max_connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut busy = running.connect().await;
        let never = b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n";
        busy.write_all(never).await.unwrap();
        held.push(busy);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for number in 0..100 {
        let mut stranger = running.connect().await;
        let start: &[u8] = if number % 2 == 0 { b"GET / HT" } else { TAKE };
        // The daemon may have closed it already.
        let _ = stranger.write_all(start).await;
        held.push(stranger);
    }
    let mut probe = running.connect().await;
    let answer = exchange(&mut probe, CLOSING_GET).await;
    assert!(answer.contains("hello"), "{answer}");
    drop(held);
    running.shut_down().await;
}

#[tokio::test]
async fn a_request_that_gets_no_slot_in_time_is_refused_with_the_setting() {
    let never = get(async |Extension(client): Extension<Client>| {
        client.acquire_slot().await.unwrap();
        std::future::pending::<()>().await;
    });
    let running = Running::start(with_slots().route("/never", never), |limits| {
        limits.max_connections = 1;
        limits.header_timeout = Duration::from_millis(300);
    })
    .await;
    let mut busy = running.connect().await;
    let request = b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n";
    busy.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut late = running.connect().await;
    let answer = exchange(&mut late, TAKE).await;
    assert!(answer.contains("limits.max_connections (1)"), "{answer}");
    running.shut_down().await;
}

#[tokio::test]
async fn a_client_without_a_complete_head_in_time_is_disconnected() {
    let running = Running::start(hello(), |limits| {
        limits.header_timeout = Duration::from_millis(100);
    })
    .await;
    for start in [&b""[..], b"P", b"PRI * HTTP", b"GET / HTTP/1.1\r\nhost:"] {
        let mut stream = running.connect().await;
        let answered = exchange(&mut stream, start);
        let answered = tokio::time::timeout(Duration::from_secs(4), answered).await;
        assert!(!answered.expect("still connected").contains("200"));
    }
    running.shut_down().await;
}

#[tokio::test]
async fn heads_over_the_limits_are_431() {
    let running = Running::start(hello(), |_| ()).await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(4 * MAX_HEAD));
    let lines: String = (0..=MAX_HEADERS).map(|i| format!("x-{i}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\n{lines}\r\n");
    for head in [long, many] {
        let mut stream = running.connect().await;
        let (mut reader, mut writer) = stream.split();
        let sending = async {
            let _ = writer.write_all(head.as_bytes()).await;
        };
        let mut answer = vec![0; 12];
        let (_, read) = tokio::join!(sending, reader.read_exact(&mut answer));
        read.unwrap();
        assert_eq!(answer, b"HTTP/1.1 431");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending_its_body() {
    let refuse = post(async || (axum::http::StatusCode::PAYLOAD_TOO_LARGE, "too large"));
    let running = Running::start(Router::new().route("/", refuse), |_| ()).await;
    let mut stream = running.connect().await;
    const LENGTH: usize = 16 << 20;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Like clients that read the response only after they have sent everything.
    stream.write_all(&vec![7; LENGTH]).await.unwrap();
    let answer = exchange(&mut stream, b"").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.ends_with("too large"), "{answer}");
    running.shut_down().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected_and_its_response_dropped() {
    let (gone, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
    let gone = Arc::new(parking_lot::Mutex::new(Some(gone)));
    let endless = get(async move || {
        let gone = gone.lock().take().expect("one request only");
        let chunk = bytes::Bytes::from(vec![7; 1 << 20]);
        let stream = futures::stream::repeat_with(move || {
            let _held = &gone;
            Ok::<_, std::io::Error>(chunk.clone())
        });
        Body::from_stream(stream)
    });
    let router = Router::new().route("/", endless);
    let running = Running::start_with(router, Duration::from_millis(200), |_| ()).await;
    let mut stream = running.connect().await;
    stream.write_all(CLOSING_GET).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(4), dropped.recv()).await;
    assert_eq!(end.expect("the response is still held"), None);
    running.shut_down().await;
}

#[tokio::test]
async fn a_stop_lets_requests_complete_and_ends_those_that_outlast_the_grace() {
    let slow = get(async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "late"
    });
    let never = get(async || std::future::pending::<()>().await);
    let router = Router::new().route("/slow", slow).route("/never", never);
    let running = Running::start(router, |limits| {
        limits.stop_grace = Duration::from_secs(1);
    })
    .await;
    let mut slow = running.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut never = running.connect().await;
    never
        .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = running.address;
    let stopped = tokio::time::timeout(Duration::from_secs(8), running.shut_down());
    let (answer, stopped) = tokio::join!(exchange(&mut slow, b""), stopped);
    assert!(answer.ends_with("late"), "{answer}");
    stopped.expect("the server did not stop");
    assert_eq!(exchange(&mut never, b"").await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn http2_is_spoken_only_where_it_is_configured() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for http2 in [false, true] {
        let running = Running::start(hello(), |limits| limits.http2 = http2).await;
        let mut stream = running.connect().await;
        // The preface in two halves, then an empty SETTINGS frame.
        stream.write_all(&PREFACE[..7]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = stream.write_all(&PREFACE[7..]).await;
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        let mut frame = [0; 9];
        let answered = stream.read_exact(&mut frame).await.is_ok() && frame[3] == 4;
        assert_eq!(
            answered, http2,
            "the server's first frame is SETTINGS: {frame:?}"
        );
        drop(stream);
        running.shut_down().await;
    }
}
