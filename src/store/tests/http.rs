//! Tests of the clients of object stores against servers that answer oddly, slowly or never.

#![allow(clippy::disallowed_methods)] // servers run as spawned tasks

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::fake_s3::{FakeS3, Kind, Oddity, config_of};
use crate::config::{BaseDirectoryConfig, BaseUri};
use crate::runtime::Runtime;
use crate::store::deadline::DeadlinePolicy;
use crate::store::object::issued::IssuedSecrets;
use crate::store::object::progress::Connector;
use crate::store::object::s3;
use crate::store::open::open_all;
use crate::store::options::Options;
use crate::store::{Precondition, Store, StoreError, StoreErrorKind, keys};

/// The store without wrappers.
pub(super) fn opened(config: BaseDirectoryConfig) -> std::sync::Arc<dyn Store> {
    let runtime = Runtime::seeded(1);
    let mut opened = open_all(&[config], &runtime).unwrap();
    opened.remove(0).opened.store
}

#[tokio::test]
async fn a_bulk_delete_whose_keys_are_refused_is_refused() {
    let server = FakeS3::start(Oddity::KeepsObjects("AccessDenied")).await;
    let store = opened(server.config());
    store
        .put(&keys::probe(1), vec![Bytes::from_static(b"x")])
        .await
        .unwrap();
    let error = store.delete(vec![keys::probe(1)]).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    let text = error.to_string();
    assert!(
        text.contains("AccessDenied") && text.contains("permission"),
        "{text}"
    );
    let server = FakeS3::start(Oddity::KeepsObjects("SlowDown")).await;
    let store = opened(server.config());
    let error = store.delete(vec![keys::probe(1)]).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
}

/// Story: versitygw answered `NoSuchKey` for a key that another daemon had just deleted. That
/// counted as refused, and the close of the exchange failed.
#[tokio::test]
async fn a_key_that_a_bulk_delete_does_not_find_is_gone() {
    let server = FakeS3::start(Oddity::KeepsObjects("NoSuchKey")).await;
    let store = opened(server.config());
    let keys = vec![keys::probe(1), keys::probe(2)];
    assert_eq!(store.delete(keys).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_without_entity_tags_stores_objects_and_refuses_to_replace_on_a_condition() {
    let server = FakeS3::start(Oddity::NoTags).await;
    let store = opened(server.config());
    let (key, content) = (keys::probe(1), Bytes::from_static(b"one"));
    store.put(&key, vec![content.clone()]).await.unwrap();
    let version = store.get_versioned(&key).await.unwrap().version;
    let unchanged = Precondition::Version(version);
    let error = store.put_if(&key, content, &unchanged).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(error.to_string().contains("no entity tags"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_implement_conditions_is_known_as_such() {
    let server = FakeS3::start(Oddity::Answers(Kind::Create, 501)).await;
    let store = opened(server.config());
    assert!(!store.observed().checks_then_writes);
    for (content, written) in [("first", true), ("second", false)] {
        let key = keys::probe(1);
        let put = store.put_if(&key, content.into(), &Precondition::Absent);
        assert_eq!(put.await.unwrap(), written);
    }
    assert!(store.observed().checks_then_writes);
    assert_eq!(server.count(Kind::Create), 1, "it is not asked again");
}

/// A server that gives each connection to `serve`.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    // A small window, so that a request is sent at the rate at which it is read.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> usize {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1);
    length.map_or(0, |rest| {
        rest.lines().next().unwrap().trim().parse().unwrap()
    })
}

fn config(address: SocketAddr, timeout: &str) -> BaseDirectoryConfig {
    config_of(
        address,
        &[("timeout", timeout), ("upload_checksum", "crc64nvme")],
    )
}

fn timed_out<T: std::fmt::Debug>(result: Result<T, StoreError>, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    assert!(
        error.timed_out && error.to_string().contains(words),
        "{error}"
    );
}

/// Story: a request had sixty seconds whatever it did meanwhile. Four uploads that shared 4 MB/s
/// needed longer, and none was ever stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_goes_on_slowly_is_stored_however_long_it_takes() {
    let address = server(|mut stream| async move {
        let mut left = read_head(&mut stream).await;
        let mut buffer = vec![0; 128 << 10];
        while left > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            left -= stream.read(&mut buffer).await.unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    // Nothing is added for what the kernel still holds of the request.
    let policy = DeadlinePolicy {
        timeout: Duration::from_secs(2),
        bytes_per_second: u64::MAX,
    };
    let Runtime { clock, tasks, .. } = Runtime::seeded(1);
    let config = config(address, "2s");
    let uri = BaseUri::parse(&config.uri).unwrap();
    let mut options = Options::new(&config.name, &uri, &config.options, &[]);
    let store = s3::open(
        &uri,
        &mut options,
        Connector {
            policy,
            clock,
            tasks,
            seen: std::sync::Arc::default(),
            issued: IssuedSecrets::default(),
            tls: None,
            direct: Vec::new(),
        },
    );
    let content = vec![Bytes::from(vec![7; 1 << 20]); 64];
    let start = std::time::Instant::now();
    let put = store.unwrap().store.put(&keys::probe(1), content).await;
    put.unwrap();
    assert!(start.elapsed() > policy.timeout, "longer than the timeout");
}

/// This is the kernel's doing (`TCP_USER_TIMEOUT`), at the request of the client's library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as the kernel's timeout, 30 s and more"]
async fn a_put_that_the_server_stops_reading_fails() {
    let address = server(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let store = opened(config(address, "2s"));
    let content = vec![Bytes::from(vec![7; 1 << 20]); 64];
    timed_out(store.put(&keys::probe(1), content).await, "");
}

#[tokio::test]
async fn a_put_that_could_not_be_sent_will_not_be_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let put = opened(config(address, "10s"))
        .put(&keys::probe(1), vec!["x".into()])
        .await;
    let refused = put.unwrap_err();
    assert!(refused.settled, "{refused}");
    let address = server(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let put = opened(config(address, "10s"))
        .put(&keys::probe(1), vec!["x".into()])
        .await;
    let cut_off = put.unwrap_err();
    assert!(!cut_off.settled, "{cut_off}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_never_answered_fails_after_the_timeout() {
    let address = server(|mut stream| async move {
        let mut left = read_head(&mut stream).await;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            left -= stream.read(&mut buffer).await.unwrap();
        }
        std::future::pending::<()>().await;
    })
    .await;
    let store = opened(config(address, "300ms"));
    let key = keys::probe(1);
    let put = store.put(&key, vec![Bytes::from_static(b"x")]);
    timed_out(put.await, "did not answer");
    timed_out(store.get_range(&key, 0..4).await, "did not answer");
    timed_out(store.delete(vec![key]).await, "did not answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_may_take_long_and_may_not_stop() {
    let address = server(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 206 Partial Content\r\netag: \"x\"\r\ncontent-length: 8\r\n\
                    last-modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
                    content-range: bytes 0-7/100\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for byte in b"slow and " {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let store = opened(config(address, "1s"));
    let read = store.get_range(&keys::probe(1), 0..8).await;
    assert_eq!(read.unwrap(), "slow and".as_bytes());
    let store = opened(config(address, "100ms"));
    timed_out(store.get_range(&keys::probe(1), 0..8).await, "sent nothing");
}
