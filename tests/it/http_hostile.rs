//! Malicious clients: names that escape their folder, requests that smuggle a second one, and
//! oversized requests, byte by byte against a real socket.
//!
//! Invariant of every test: afterwards the base directory holds what it held before, and the daemon
//! still serves requests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::frames::batch;
use crate::support::raw::{Http2Client, RawClient};
use crate::support::{BaseFolder, TestServer, sink};

/// Starts a daemon with one finished exchange, `kept`.
async fn start_server(base_folder: &BaseFolder) -> TestServer {
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("kept", 1).await;
    let sink = sink("kept", 0, 0);
    server.add(&sink, 0, batch(&[(0, b"page")])).await;
    let finished = server.post_empty(&format!("{sink}/finish")).await;
    assert!(finished.status().is_success());
    server
}

/// Every file and folder around the base directory.
fn all_files(base_folder: &BaseFolder) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![base_folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

async fn assert_unharmed(server: TestServer, base_folder: &BaseFolder, before: &BTreeSet<PathBuf>) {
    let page = server.get("/v1/exchanges/kept/partitions/0").await;
    assert_eq!(page.bytes().await.unwrap(), "page");
    assert_eq!(all_files(base_folder), *before);
    assert!(!Path::new("/etc/stopover-escaped").exists());
    server.shut_down().await;
}

/// Names that no exchange may have.
const NAMES: [&str; 27] = [
    "..",
    ".",
    "%2e%2e",
    "%2e",
    "../../etc/stopover-escaped",
    "..%2f..%2fetc%2fstopover-escaped",
    "%2e%2e%2fkept",
    "..%5c..%5ckept",
    "%252e%252e%252fkept",
    "%c0%ae%c0%ae%c0%afkept",
    "kept%2fsegments",
    "kept%00",
    "kept%00.json",
    "%00",
    "kept%0d%0ax-injected:%201",
    "kept%20",
    "caf%c3%a9",
    "%e2%80%ae",
    "%ef%bc%8e%ef%bc%8e",
    "%ff%fe",
    "%",
    "%zz",
    "kept.json",
    ".keep",
    "-kept",
    "kept;x",
    "~kept",
];

#[tokio::test]
async fn no_name_escapes_its_folder() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    let long = "x".repeat(161);
    let names = NAMES.into_iter().chain([long.as_str()]);
    let json = r#"{"partitions":1,"ordered":false}"#;
    let length = json.len().to_string();
    for name in names {
        let exchange = format!("/v1/exchanges/{name}");
        for (line, headers, body) in [
            (format!("GET {exchange}"), vec![], ""),
            (
                format!("PUT {exchange}"),
                vec![
                    ("content-type", "application/json"),
                    ("content-length", &length),
                ],
                json,
            ),
            (
                format!("POST {exchange}/sinks/0/0/pages?partition=0"),
                vec![
                    ("content-type", "application/octet-stream"),
                    ("content-length", "1"),
                ],
                "x",
            ),
            (
                format!("POST {exchange}/sinks/0/0/abort"),
                vec![("content-length", "0")],
                "",
            ),
            (format!("GET {exchange}/partitions/0"), vec![], ""),
            (format!("DELETE {exchange}"), vec![], ""),
        ] {
            let mut client = RawClient::connect(server.address).await;
            client.send_head(&line, &headers).await;
            client.send(body).await;
            let answer = client.answer().await;
            assert!(
                matches!(answer.status, 400 | 404 | 405),
                "{line}: {answer:?}"
            );
            assert_eq!(answer.header("x-injected"), None, "{line}");
        }
    }
    assert_unharmed(server, &base_folder, &before).await;
}

#[tokio::test]
async fn numbers_in_paths_are_plain_decimals_within_their_bounds() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    for number in [
        "-1",
        "+1",
        "0x1",
        "1e3",
        "01",
        "1.0",
        "%31%00",
        "..",
        "%2e%2e",
        "4294967296",
        "1_0",
        "99999999999999999999999999",
        "%d9%a1",
        "",
        "%20",
    ] {
        for line in [
            format!("GET /v1/exchanges/kept/partitions/{number}"),
            format!("POST /v1/exchanges/kept/sinks/{number}/0/abort"),
            format!("POST /v1/exchanges/kept/sinks/0/{number}/abort"),
        ] {
            let mut client = RawClient::connect(server.address).await;
            client.send_head(&line, &[("content-length", "0")]).await;
            let answer = client.answer().await;
            assert!(matches!(answer.status, 400 | 404), "{line}: {answer:?}");
        }
    }
    assert_unharmed(server, &base_folder, &before).await;
}

#[tokio::test]
async fn a_forged_handle_names_nothing_outside_its_exchange() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    let handles = server.handles("kept", &json!([[0, 0]]), 1 << 20).await;
    let genuine = handles[0]["handle"].as_str().unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(genuine).unwrap();
    let at = bytes.windows(4).position(|w| w == b"kept").unwrap();
    for name in [b"../x", b"a/.b", b"\0abc", "é..".as_bytes(), b"-abc"] {
        bytes[at..at + 4].copy_from_slice(name);
        let end = bytes.len() - 4;
        let crc = stopover::crc::checksum(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        let forged = URL_SAFE_NO_PAD.encode(&bytes);
        let answer = server.read(&forged, 0).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(
            status == 400 && text.contains("invalid-handle"),
            "{name:?}: {text}"
        );
    }
    assert_unharmed(server, &base_folder, &before).await;
}

/// A request that would remove the exchange if it were ever parsed as one.
const SMUGGLED: &str = "DELETE /v1/exchanges/kept HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn no_request_head_smuggles_a_second_request() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    let put =
        "PUT /v1/exchanges/kept HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let length = SMUGGLED.len();
    let heads = [
        // Two lengths, in two headers and in one.
        format!("{put}content-length: 0\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}content-length: {length}\r\ncontent-length: 0\r\n\r\n"),
        format!("{put}content-length: 0, {length}\r\n\r\n"),
        // Lengths that other implementations parse differently.
        format!("{put}content-length: +{length}\r\n\r\n"),
        format!("{put}content-length: -1\r\n\r\n"),
        format!("{put}content-length: 0x{length:x}\r\n\r\n"),
        format!("{put}content-length: {length}abc\r\n\r\n"),
        format!("{put}content-length: 99999999999999999999\r\n\r\n"),
        // A length beside chunked encoding, and encodings that other implementations ignore.
        format!("{put}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{put}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
        format!("{put}transfer-encoding: xchunked\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}transfer-encoding: chunked, identity\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}transfer-encoding: identity\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}transfer-encoding : chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n"),
        format!("{put}transfer-encoding\r\n : chunked\r\ncontent-length: {length}\r\n\r\n"),
        // Folded lines, a bare CR, a NUL.
        format!("{put}x-folded: a\r\n content-length: 0\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}x-bare: a\rcontent-length: 0\r\ncontent-length: {length}\r\n\r\n"),
        format!("{put}x-nul: a\0b\r\ncontent-length: {length}\r\n\r\n"),
        // Chunk sizes that other implementations parse differently.
        format!("{put}transfer-encoding: chunked\r\n\r\n+0\r\n\r\n"),
        format!("{put}transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n"),
        format!("{put}transfer-encoding: chunked\r\n\r\n-1\r\n\r\n"),
        format!("{put}transfer-encoding: chunked\r\n\r\n1ffffffffffffffff\r\n"),
        format!("{put}transfer-encoding: chunked\r\n\r\n2\r\n{{}}X0\r\n\r\n"),
        "PUT /v1/exchanges/kept HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
    ];
    for head in heads {
        let mut client = RawClient::connect(server.address).await;
        client.send(&head).await;
        client.send(SMUGGLED).await;
        client.close_sending().await;
        let answers = client.rest().await;
        let answers = String::from_utf8_lossy(&answers).into_owned();
        assert!(!answers.contains(" 204 "), "{head}: {answers}");
        // The request is refused and the connection closed: nothing that follows is parsed.
        let lines = answers.matches("HTTP/1.").count();
        assert!(
            answers.is_empty() || answers.contains(" 40") && lines == 1,
            "{head}: {answers}"
        );
        let there = server.get("/v1/exchanges/kept").await;
        assert_eq!(there.status(), 200, "{head}");
    }
    assert_unharmed(server, &base_folder, &before).await;
}

#[tokio::test]
async fn a_bare_line_feed_smuggles_no_second_request() {
    // RFC 9112 permits a bare LF as a line terminator; then it must be one everywhere.
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    let mut client = RawClient::connect(server.address).await;
    client
        .send("GET /healthz HTTP/1.1\nhost: localhost\ncontent-length: 0\n\n")
        .await;
    let status = client.answer().await.status;
    assert!(matches!(status, 200 | 400), "{status}");
    let length = SMUGGLED.len();
    let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
    for smuggling in [
        // A proxy that treats the LF as part of a value forwards all of this as one request.
        format!("{head}x: a\ncontent-length: {length}\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n{length:x};\n{SMUGGLED}\r\n0\r\n\r\n"),
    ] {
        let mut client = RawClient::connect(server.address).await;
        client.send(smuggling).await;
        client.send(SMUGGLED).await;
        client.close_sending().await;
        let answers = client.rest().await;
        assert!(!String::from_utf8_lossy(&answers).contains(" 204 "));
    }
    assert_unharmed(server, &base_folder, &before).await;
}

#[tokio::test]
async fn oversized_requests_are_refused_and_leave_nothing_behind() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let before = all_files(&base_folder);
    let brackets = "[".repeat(500_000);
    let deep = format!("{{\"attempts\":{brackets}");
    let wide = format!("{{\"attempts\":[{}", "[0,0],".repeat(200_000));
    let parameters = format!("?{}", "skip=1&".repeat(500));
    let handles = "POST /v1/exchanges/kept/handles";
    let json = ("content-type", "application/json");
    for (line, body, wanted) in [
        (handles.to_owned(), deep.as_str(), 400),
        (handles.to_owned(), &wide, 400),
        (format!("POST /v1/read{parameters}"), "AAAA", 400),
        (format!("GET /{}", "x".repeat(100_000)), "", 400),
        (format!("GET /{}", "x".repeat(1 << 20)), "", 431),
    ] {
        let mut client = RawClient::connect(server.address).await;
        let length = body.len().to_string();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\n{}: {}\r\n\
             content-length: {length}\r\n\r\n{body}",
            json.0, json.1
        );
        client.try_send(&head).await;
        let answer = client.answer_head().await;
        let shown: String = line.chars().take(60).collect();
        assert!(
            answer.status == wanted || answer.status == 414,
            "{shown}: {answer:?}"
        );
    }
    // A length beyond all memory is refused before a byte of the body is sent.
    for length in [
        "18446744073709551615",
        "9223372036854775807",
        "1099511627776",
    ] {
        let mut client = RawClient::connect(server.address).await;
        let line = "POST /v1/exchanges/kept/sinks/1/0/pages?batch=0";
        let pages = ("content-type", "application/vnd.stopover.pages");
        client
            .send_head(line, &[pages, ("content-length", length)])
            .await;
        let status = client.answer_head().await.status;
        // hyper itself answers 431 to the largest possible number.
        assert!(matches!(status, 400 | 413 | 431), "{length}: {status}");
    }
    server.expect_no_request_in_progress().await;
    assert_unharmed(server, &base_folder, &before).await;
}

#[tokio::test]
async fn an_http2_client_that_sends_its_body_late_receives_the_refusal() {
    // Story: a stream whose body was not read was reset right after the answer, and curl reported a
    // framing error instead of the refusal.
    const RST_STREAM: u8 = 3;
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.server.http2 = true;
    let server = TestServer::open(&config).await;
    let mut client = Http2Client::connect(server.address).await;
    let path = "/v1/exchanges/a.b/sinks/0/0/pages?partition=0";
    let octets = "application/octet-stream";
    let kinds = client.post_late(path, octets, &[7; 10_000]).await;
    assert!(!kinds.contains(&RST_STREAM), "{kinds:?}");
    drop(client);
    server.shut_down().await;
}
