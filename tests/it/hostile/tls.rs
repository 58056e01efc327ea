//! Clients without a certificate that fill the slots of a daemon with TLS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::target::{PROBE_TIMEOUT, assert_no_panic};
use crate::support::process::Process;
use crate::support::tls::{Authority, CredentialFiles, TlsClient};

const ATTACKERS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends one request and returns the beginning of its answer.
async fn get(client: &TlsClient, address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = client.connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Story: over TLS, too, clients that stopped anywhere held all slots, without ever showing a
/// certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_certificate_that_stop_keep_no_other_from_being_served() {
    let authority = Authority::new();
    let files = CredentialFiles::new(&authority.server());
    files.write("clients.pem", &authority.certificate());
    let file = |key: &str, name: &str| format!("server.{key}={}", files.path(name).display());
    let settings = [
        file("tls_certificate_file", "certificate.pem"),
        file("tls_key_file", "key.pem"),
        file("tls_client_ca_file", "clients.pem"),
        "limits.max_connections=24".to_owned(),
        "limits.header_timeout=2s".to_owned(),
        "limits.response_stall_timeout=2s".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let base = tempfile::tempdir().unwrap();
    let log = base.path().join("log");
    let process = Process::start_with_log(&base.path().join("base"), &settings, &log);
    let address = process.url.strip_prefix("https://").unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let stranger = TlsClient::trusting(&authority.certificate());
    let mut open = Vec::new();
    for number in 0..ATTACKERS {
        let connected = TcpStream::connect(address);
        let connected = tokio::time::timeout(Duration::from_secs(1), connected).await;
        if let (Ok(Ok(mut stream)), true) = (connected, number % 2 == 0) {
            let _ = stream
                .write_all(&[22, 3, 1, 2, 0, 1, 0][..number % 7])
                .await;
            open.push(stream);
        }
    }
    let shaken = (0..ATTACKERS)
        .map(|_| tokio::time::timeout(Duration::from_secs(5), stranger.connect(address)));
    let shaken = futures::future::join_all(shaken).await;
    let (asked, mut probes) = (Instant::now(), 0);
    let authorized = TlsClient::trusting(&authority.certificate()).with(&authority.client());
    let serving = async {
        while asked.elapsed() < PATIENCE {
            let served = get(&authorized, address, "/v1/exchanges");
            let served = tokio::time::timeout(PATIENCE, served).await;
            if matches!(served, Ok(Ok(answer)) if answer == "HTTP/1.1 200") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no client was served for {PATIENCE:?}");
    };
    let probing = async {
        loop {
            let probe = tokio::time::timeout(PROBE_TIMEOUT, get(&stranger, address, "/healthz"));
            match probe.await {
                Ok(Ok(answer)) => assert_eq!(answer, "HTTP/1.1 200"),
                failed => panic!("probe {probes}: {failed:?}"),
            }
            probes += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = probing => {}
    }
    drop((open, shaken));
    assert_no_panic(&log);
}
