//! Connections that are opened and not used as meant: they hold no slot for ever, and leave room
//! for probes and for other clients.
//!
//! Each attack fills all slots with connections that stop in one state. The daemon's time limits
//! are short here, so that what is bounded by one of them ends within the test.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::target::{PAGE, Target};

/// Slots of the daemon, and attackers beyond them.
const SLOTS: usize = 48;
const ATTACKERS: usize = 64;

/// Time limits of a second or two for everything that a client can delay.
const SHORT: [&str; 8] = [
    "--set",
    "limits.max_connections=48",
    "--set",
    "limits.header_timeout=2s",
    "--set",
    "limits.body_timeout=2s",
    "--set",
    "limits.response_stall_timeout=2s",
];

/// How long an honest client may have to wait for a slot: a few of these limits, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Opens the connections of an attack; each sends its bytes and stays open. One that the daemon
/// refuses is left out.
async fn attack(address: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..ATTACKERS {
        let connected = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address));
        let Ok(Ok(mut stream)) = connected.await else {
            continue;
        };
        if stream.write_all(bytes).await.is_ok() {
            open.push(stream);
        }
    }
    assert!(open.len() >= SLOTS, "{} connections", open.len());
    open
}

/// An honest client, which connects again if it is turned away, is served soon although the
/// attackers stay.
async fn assert_serves(target: &Target) {
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        let read = tokio::time::timeout(PATIENCE, read_kept(target.address)).await;
        if let Ok(Ok(answer)) = read
            && answer.starts_with(b"HTTP/1.1 200")
            && answer.ends_with(PAGE)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no client was served for {PATIENCE:?}");
}

async fn read_kept(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let line = "GET /v1/exchanges/kept/partitions/0 HTTP/1.1";
    let head = format!("{line}\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn assert_withstands(settings: &[&str], bytes: &[u8]) {
    let target = Target::start(64, settings).await;
    let open = attack(target.address, bytes).await;
    assert_serves(&target).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(open);
    target.assert_unharmed().await;
}

macro_rules! withstands {
    ($(#[$attribute:meta])* $name:ident, $bytes:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $name() {
            let bytes: Vec<u8> = $bytes;
            assert_withstands(&SHORT, &bytes).await;
        }
    };
}

withstands!(connections_that_send_nothing, Vec::new());
withstands!(
    connections_that_send_the_first_letter_of_the_preface,
    b"P".to_vec()
);
withstands!(
    connections_that_send_half_a_head,
    b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n".to_vec()
);
withstands!(
    connections_that_send_the_first_bytes_of_a_tls_handshake,
    vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]
);
withstands!(
    connections_that_stay_open_after_an_answer,
    b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_vec()
);
withstands!(
    connections_that_pipeline_and_read_nothing,
    b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".repeat(500)
);
withstands!(
    connections_that_stop_within_a_body,
    b"POST /v1/read HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: text/plain\r\n\
      content-length: 100\r\n\r\nabc"
        .to_vec()
);
withstands!(
    connections_that_send_the_preface_of_http2_and_nothing_else,
    PREFACE.to_vec()
);

/// An HTTP/2 client whose window is 0, so that no answer can be sent to it, and that acknowledges
/// every ping: to HTTP/2 it is alive.
async fn acknowledge_pings(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(PREFACE).await.ok()?;
    // SETTINGS with SETTINGS_INITIAL_WINDOW_SIZE = 0, and the acknowledgement of the daemon's.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    stream.write_all(&settings).await.ok()?;
    stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.ok()?;
    // HEADERS that end stream 1: GET (2), http (6), and the path and authority as literals.
    let mut block = vec![0x82, 0x86];
    for (index, text) in [(4, "/openapi.json"), (1, "127.0.0.1")] {
        block.push(index);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend_from_slice(text.as_bytes());
    }
    let mut head = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1];
    head.append(&mut block);
    stream.write_all(&head).await.ok()?;
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.ok()?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if (frame[3], frame[4] & 1) == (6, 0) {
            stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.ok()?;
            stream.write_all(&payload).await.ok()?;
        }
    }
}

async fn assert_withstands_http2(settings: &[&str]) {
    let target = Target::start(64, settings).await;
    let address = target.address;
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|_| {
            tokio::spawn(async move {
                // Whenever the daemon ends the connection it opens another.
                for _ in 0..1000 {
                    acknowledge_pings(address).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_serves(&target).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    attackers.iter().for_each(tokio::task::JoinHandle::abort);
    target.assert_unharmed().await;
}

/// Story: such a client held its slot for ever, before anybody had asked it for a token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_clients_with_a_window_of_zero_that_acknowledge_pings() {
    assert_withstands_http2(&SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_clients_with_a_window_of_zero_where_http2_is_configured() {
    let settings = [&SHORT[..], &["--set", "server.http2=true"]].concat();
    assert_withstands_http2(&settings).await;
}

/// Over some seconds.
async fn share_of_a_core(target: &Target) -> f64 {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, start) = (target.process.cpu_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let used = target.process.cpu_time() - before;
    used.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Story: a daemon peeked every 5 ms at connections that had sent the first letter of the HTTP/2
/// preface: 500 of them took a sixth of a core, also after they had left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_cost_no_processor_time() {
    let target = Target::start(64, &["--set", "limits.header_timeout=1m"]).await;
    // What the probes of this test take, on whatever machine.
    let before = share_of_a_core(&target).await;
    let mut open = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(target.address).await.unwrap();
        stream.write_all(b"P").await.unwrap();
        open.push(stream);
    }
    for phase in ["while they wait", "after they have left"] {
        let share = share_of_a_core(&target).await;
        let shown = format!(
            "{:.1} % of a core, {:.1} before",
            share * 100.0,
            before * 100.0
        );
        assert!(share < before + 0.05, "{phase}: {shown}");
        open.clear();
    }
    target.assert_unharmed().await;
}

/// The end of a daemon is bounded, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stop_anywhere_do_not_keep_a_daemon_from_ending() {
    let settings = [&SHORT[..], &["--set", "server.drain_timeout=1s"]].concat();
    let target = Target::start(64, &settings).await;
    let mut open = attack(target.address, b"P").await;
    for bytes in [&b""[..], b"GET / HT", PREFACE] {
        let Ok(mut stream) = TcpStream::connect(target.address).await else {
            continue;
        };
        let _ = stream.write_all(bytes).await;
        open.push(stream);
    }
    let asked = Instant::now();
    target.process.terminate();
    assert!(target.into_process().wait().success());
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
}
