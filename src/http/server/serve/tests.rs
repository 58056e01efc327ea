//! The life of a connection in every state in which its client can stop.

use std::io::ErrorKind;

use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::config::ServerConfig;
use crate::http::slots::Slots;
use crate::http::stall::Contention;

const HEADER: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(5);
/// As long as the socket lingers after a refusal.
const LINGER: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS of HTTP/2 with a window of 0: the server may send no byte of a response's body.
const NO_WINDOW: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const ACK_SETTINGS: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];

fn router() -> Router {
    let endless = || futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![7; 4096]));
    let refuse = async || (axum::http::StatusCode::PAYLOAD_TOO_LARGE, "too large");
    Router::new()
        .route("/", get(async || "hello"))
        .route("/never", get(async || std::future::pending::<()>().await))
        .route("/large", get(async || vec![7; 4 << 20]))
        .route("/tail", get(async || vec![7; 16 << 10]))
        .route("/endless", get(async move || Body::from_stream(endless())))
        .route("/body", post(async |body: Bytes| body.len().to_string()))
        .route("/refuse", post(refuse))
}

fn service(http2: bool, runtime: Runtime) -> Service {
    let clock = runtime.clock.clone();
    Service {
        limits: ServerLimits {
            max_connections: 4,
            header_timeout: HEADER,
            body_timeout: BODY,
            stop_grace: STOP,
            http2,
        },
        live: None,
        stall_policy: StallPolicy::new(STALL, clock.clone(), Contention::none()),
        credentials: Credentials::open(&ServerConfig::default(), &clock).unwrap(),
        runtime,
        stop: CancellationToken::new(),
        router: router(),
    }
}

/// Where a client stops, and what it sends after that.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// Sends this and no more; reads nothing.
    Unread(&'static [u8]),
    /// Sends this and no more; reads everything.
    Read(&'static [u8]),
    /// Sends the first, then the second every second; reads everything.
    Trickling(&'static [u8], &'static [u8]),
    /// Sends the first once and the second for ever; reads nothing.
    Flooding(&'static [u8], &'static [u8]),
    /// As `Flooding`, but every so many seconds it reads all there is.
    FloodingAndReading(&'static [u8], &'static [u8], u64),
}

/// Behaves so for ever.
async fn behave(stop: Stop, client: DuplexStream) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(client);
    let (first, then, pause) = match stop {
        Stop::Unread(first) | Stop::Read(first) => (first, &[][..], HEADER),
        Stop::Trickling(first, then) => (first, then, SECOND),
        Stop::Flooding(first, then) | Stop::FloodingAndReading(first, then, _) => {
            (first, then, Duration::ZERO)
        }
    };
    let writing = async {
        writer.write_all(first).await?;
        loop {
            tokio::time::sleep(pause).await;
            writer.write_all(then).await?;
        }
    };
    let reading = async {
        let mut sink = [0; 4096];
        match stop {
            Stop::Read(_) | Stop::Trickling(..) => while reader.read(&mut sink).await? > 0 {},
            Stop::Unread(_) | Stop::Flooding(..) => {}
            Stop::FloodingAndReading(.., seconds) => loop {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                while let Some(read) = reader.read(&mut sink).now_or_never() {
                    assert_ne!(read?, 0, "closed, as a write will say");
                }
            },
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    tokio::select! {
        biased;
        ended = writing => ended,
        ended = reading => ended,
    }
}

fn address() -> ClientAddress {
    ClientAddress(([127, 0, 0, 1], 9).into())
}

/// The duration of a connection with this client behaviour.
async fn life(service: Service, stop: Stop, act: impl AsyncFnOnce(&Connection)) -> Duration {
    let (client, server) = duplex(1024);
    let connection = Connection::new(&service.runtime.clock);
    let place = Slots::new(service.limits).enter(connection.clone());
    let behaving = async {
        let ended = behave(stop, client).await;
        let kind = ended
            .expect_err("goes on until the connection is closed")
            .kind();
        assert_eq!(kind, ErrorKind::BrokenPipe);
        std::future::pending().await
    };
    let acting = async {
        act(&connection).await;
        std::future::pending().await
    };
    let since = Instant::now();
    tokio::select! {
        biased;
        () = service.serve(server, place, address()) => {}
        () = behaving => {}
        () = acting => {}
        () = tokio::time::sleep(10 * STALL) => {}
    }
    since.elapsed()
}

fn assert_within(life: Duration, bound: Duration, what: impl std::fmt::Debug) {
    let slack = 2 * SECOND;
    assert!(
        life <= bound + slack && life + slack >= bound,
        "{life:?} of {bound:?}: {what:?}"
    );
}

/// A head of HTTP/2 for stream 1, with HPACK's static table: GET or POST, then the path.
fn head(method: u8, path: &str, flags: u8) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    let mut frame = vec![
        0,
        0,
        u8::try_from(block.len()).unwrap(),
        1,
        flags,
        0,
        0,
        0,
        1,
    ];
    frame.extend(block);
    frame
}

fn leaked(parts: &[&[u8]]) -> &'static [u8] {
    Box::leak(parts.concat().into_boxed_slice())
}

#[tokio::test(start_paused = true)]
async fn wherever_a_client_of_http1_stops_its_connection_ends() {
    // Stories: a client that sent the first letter of the preface of HTTP/2 was polled every 5 ms,
    // also after it had left; pipelining without reading held a connection.
    for (stop, bound) in [
        (Stop::Read(b""), HEADER),
        (Stop::Unread(b"P"), HEADER),
        (
            Stop::Read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Duration::ZERO,
        ),
        (Stop::Read(b"GET / HTTP/1.1\r\nhost: x\r\n"), HEADER),
        (Stop::Trickling(b"GET / HTTP/1.1\r\nx: ", b"y"), HEADER),
        (Stop::Read(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"), HEADER),
        (
            Stop::Read(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT"),
            HEADER,
        ),
        (
            Stop::Read(b"POST /body HTTP/1.1\r\ncontent-length: 9\r\n\r\n"),
            BODY,
        ),
        (
            Stop::Read(b"POST /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
            BODY,
        ),
        (Stop::Unread(b"GET /large HTTP/1.1\r\n\r\n"), STALL),
        (Stop::Unread(b"GET /endless HTTP/1.1\r\n\r\n"), STALL),
        (Stop::Unread(b"GET /tail HTTP/1.1\r\n\r\n"), STALL),
        (Stop::Flooding(b"", b"GET /tail HTTP/1.1\r\n\r\n"), STALL),
        (Stop::Flooding(b"", b"GET / HTTP/1.1\r\n\r\n"), STALL),
        (
            Stop::Trickling(b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n", b"x"),
            LINGER,
        ),
        (
            Stop::Trickling(
                b"POST /refuse HTTP/1.1\r\ncontent-length: 9999\r\nconnection: close\r\n\r\n",
                b"x",
            ),
            LINGER,
        ),
    ] {
        for http2 in [false, true] {
            if http2 && matches!(stop, Stop::Read(PREFACE)) {
                continue;
            }
            let life = life(service(http2, Runtime::seeded(1)), stop, async |_| ()).await;
            assert_within(life, bound, (stop, http2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_client_of_http2_stops_its_connection_ends() {
    // Story: a client with a window of 0 that acknowledged the server's pings held its connection
    // for ever, before any authentication.
    const GET: u8 = 0x82;
    const POST: u8 = 0x83;
    const END_HEADERS: u8 = 4;
    const END_BOTH: u8 = 5;
    let start: &[&[u8]] = &[PREFACE, NO_WINDOW, ACK_SETTINGS];
    let with = |request: Vec<u8>| leaked(&[&start.concat(), &request]);
    for (begin, bound) in [
        (PREFACE, HEADER),
        (leaked(start), HEADER),
        (with(head(GET, "/", 1)), HEADER),
        (with(head(GET, "/", END_BOTH)), STALL),
        (with(head(GET, "/large", END_BOTH)), STALL),
        (with(head(GET, "/endless", END_BOTH)), STALL),
        (with(head(POST, "/body", END_HEADERS)), BODY),
    ] {
        let quiet = life(
            service(true, Runtime::seeded(1)),
            Stop::Read(begin),
            async |_| (),
        )
        .await;
        assert_within(quiet, bound, begin);
        if begin != PREFACE && begin[begin.len() - 2..] != *b"/\x01" {
            let pinging = Stop::Trickling(begin, PING);
            let pinging = life(service(true, Runtime::seeded(1)), pinging, async |_| ()).await;
            assert!(
                pinging <= bound + 2 * SECOND,
                "{pinging:?} of {bound:?}: {begin:?}"
            );
        }
        let begun = Stop::Read(begin);
        let closing = life(
            service(true, Runtime::seeded(1)),
            begun,
            async |connection| {
                tokio::time::sleep(SECOND).await;
                connection.close_after_request();
            },
        );
        let closing = closing.await;
        assert!(
            closing <= bound + 2 * SECOND,
            "{closing:?} after a graceful shutdown: {begin:?}"
        );
    }
}

/// Story: a client that sent pings until the socket was blocked, read, and began again, held its
/// connection for ever without a request: whenever it read, the time without one began again.
#[tokio::test(start_paused = true)]
async fn a_client_of_http2_that_pings_and_reads_by_turns_does_not_keep_its_connection() {
    const POST: u8 = 0x83;
    let uploading = leaked(&[PREFACE, NO_WINDOW, ACK_SETTINGS, &head(POST, "/body", 4)]);
    for begin in [PREFACE, uploading] {
        for seconds in [1, 20] {
            let stop = Stop::FloodingAndReading(begin, PING, seconds);
            let life = life(service(true, Runtime::seeded(1)), stop, async |_| ()).await;
            assert!(life <= 4 * STALL, "{life:?}: {seconds} s, {begin:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_must_end_does_so_in_every_state() {
    for begin in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /never HTTP/1.1\r\n\r\n",
        b"GET /large HTTP/1.1\r\n\r\n",
        b"POST /body HTTP/1.1\r\ncontent-length: 9\r\n\r\n",
    ] {
        let evicted = life(
            service(false, Runtime::seeded(1)),
            Stop::Unread(begin),
            async |connection| {
                tokio::time::sleep(SECOND).await;
                connection.evict();
            },
        );
        assert!(evicted.await <= SECOND + CLOSE_GRACE, "{begin:?}");
        let service = service(false, Runtime::seeded(1));
        let stop = service.stop.clone();
        let stopped = life(service, Stop::Unread(begin), async |_| {
            tokio::time::sleep(SECOND).await;
            stop.cancel();
        });
        assert!(stopped.await <= SECOND + STOP, "{begin:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_daemon_is_not_ended() {
    let begin = b"GET /never HTTP/1.1\r\n\r\n";
    let life = life(
        service(false, Runtime::seeded(1)),
        Stop::Read(begin),
        async |_| (),
    )
    .await;
    assert!(life >= 10 * STALL, "{life:?}");
}

#[tokio::test(start_paused = true)]
async fn uploads_over_http2_that_wait_for_memory_keep_no_other_one_from_sending() {
    // Story: the bodies of requests that waited for memory filled the window of the connection, and
    // the one that had memory could not send: there was no progress for 60 s.
    const LENGTH: usize = 1 << 20;
    let mut service = service(true, Runtime::seeded(1));
    let wait = post(async |body: Body| {
        std::future::pending::<()>().await;
        drop(body);
    });
    service.router = service.router.route("/wait", wait);
    let (client, server) = duplex(1 << 16);
    let connection = Connection::new(&service.runtime.clock);
    let place = Slots::new(service.limits).enter(connection);
    let tasks = service.runtime.tasks.clone();
    tasks.spawn(service.serve(server, place, address()));
    let (sender, http) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
            .await
            .unwrap();
    tasks.spawn(async move { drop(http.await) });
    let upload = |path: &str| {
        let mut sender = sender.clone();
        let request = axum::http::Request::post(format!("http://localhost{path}"))
            .body(Full::new(Bytes::from(vec![7; LENGTH])))
            .unwrap();
        async move {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    };
    let waiting = (1..MAX_STREAMS).map(|_| upload("/wait"));
    let mut waiting = Box::pin(futures::future::join_all(waiting));
    tokio::select! {
        biased;
        _ = &mut waiting => unreachable!("waits for ever"),
        () = tokio::time::sleep(SECOND) => {}
    }
    tokio::select! {
        biased;
        _ = &mut waiting => unreachable!("waits for ever"),
        taken = upload("/body") => assert_eq!(taken, LENGTH.to_string()),
        () = tokio::time::sleep(HEADER) => panic!("the upload makes no progress"),
    }
}

/// The beginning of the year 2090, in seconds since 1970.
const EXPIRY: u64 = 3_786_912_000;
/// In seconds.
const YEAR: i64 = 31_556_952;

/// A certificate and its key in PEM, valid until [`EXPIRY`].
fn certificate(usage: rcgen::ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The duration of a TLS connection whose client stops after `request`, and which begins when this
/// is left until the client's certificate expires, in seconds; less than nothing if it has expired.
async fn tls_life(left: i64, request: Option<&[u8]>) -> Duration {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

    let (server, client) = (certificate(ServerAuth), certificate(ClientAuth));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        Some(folder.path().join(name))
    };
    let config = ServerConfig {
        tls_certificate_file: file("certificate", &server.0),
        tls_key_file: file("key", &server.1),
        tls_client_ca_file: file("clients", &client.0),
        ..ServerConfig::default()
    };
    let wall = Duration::from_secs(EXPIRY.checked_add_signed(-left).unwrap());
    let mut runtime = Runtime::seeded(1);
    runtime.clock = crate::runtime::Clock::with_wall_from(std::time::UNIX_EPOCH + wall);
    let mut service = service(false, runtime);
    service.credentials = Credentials::open(&config, &service.runtime.clock).unwrap();

    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.0.as_bytes()).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(client.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(client.1.as_bytes()).unwrap();
    let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let (client, io) = duplex(1 << 16);
    let connection = Connection::new(&service.runtime.clock);
    let place = Slots::new(service.limits).enter(connection);
    let behaving = async {
        let Some(request) = request else {
            let mut half = client;
            half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).await.unwrap();
            return std::future::pending().await;
        };
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, client).await.unwrap();
        stream.write_all(request).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        std::future::pending::<()>().await
    };
    let since = Instant::now();
    tokio::select! {
        biased;
        () = service.serve(io, place, address()) => {}
        () = behaving => {}
        () = tokio::time::sleep(10 * STALL) => {}
    }
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn wherever_a_client_of_tls_stops_its_connection_ends() {
    assert_within(tls_life(YEAR, None).await, HEADER, "half a handshake");
    assert_within(
        tls_life(YEAR, Some(b"")).await,
        HEADER,
        "nothing after the handshake",
    );
    let busy = tls_life(YEAR, Some(b"GET /never HTTP/1.1\r\n\r\n")).await;
    assert!(busy >= 10 * STALL, "{busy:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_that_expires_ends_its_open_connection() {
    for request in [
        &b""[..],
        b"GET /never HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let life = tls_life(-YEAR, Some(request)).await;
        assert!(life <= CLOSE_GRACE + SECOND, "{life:?}: {request:?}");
    }
}

/// Story: only a certificate that had expired before its connection was tested, so a check at the
/// handshake alone would have passed.
#[tokio::test(start_paused = true)]
async fn a_client_certificate_that_expires_during_a_connection_ends_it() {
    let request = b"GET /never HTTP/1.1\r\n\r\n";
    for left in [60, 600] {
        let life = tls_life(left, Some(request)).await;
        let expiry = Duration::from_secs(left.cast_unsigned());
        let latest = expiry + INSPECTION_INTERVAL + CLOSE_GRACE + SECOND;
        assert!(life >= expiry && life <= latest, "{life:?}, {left} s left");
    }
}
