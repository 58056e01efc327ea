//! Proxies in front of the DataNodes that change bytes on their way, or let only few pass.
//!
//! Does: listen at another address of loopback, at the port of each DataNode, and forward. Does
//! not: understand what is sent. Invariant: damage does not change the number of bytes.
//!
//! The NameNode tells clients a name and an address of each DataNode. With
//! `dfs.client.use.datanode.hostname` clients use the name, which is [`HOST`] here.

#![allow(clippy::disallowed_methods)] // it runs as spawned tasks

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where clients believe the DataNodes to be.
pub const HOST: &str = "127.0.0.2";

/// The direction of bytes, seen from the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// Which bytes to change from now on.
#[derive(Debug, Clone, Copy)]
pub struct Damage {
    pub direction: Direction,
    /// The first, counted from now on over all connections.
    pub at: u64,
    /// The distance to the next, if one is not all.
    pub every: Option<u64>,
    /// The bits to be changed.
    pub bits: u8,
}

#[derive(Debug, Default)]
struct State {
    damage: Option<Damage>,
    /// Bytes of its direction since it began.
    passed: u64,
    damaged: u64,
}

pub struct Wire {
    state: Arc<Mutex<State>>,
    /// Bytes per second on each connection in each direction; 0 for as many as there are.
    rate: Arc<AtomicU64>,
}

impl Wire {
    /// In front of DataNodes at these ports.
    pub async fn start(ports: &[u16]) -> Self {
        let (state, rate) = (Arc::<Mutex<State>>::default(), Arc::<AtomicU64>::default());
        for &port in ports {
            let listener = TcpListener::bind((HOST, port)).await.unwrap();
            tokio::spawn(serve(listener, port, Arc::clone(&state), Arc::clone(&rate)));
        }
        Self { state, rate }
    }

    /// Lets no more bytes per second pass from now on.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Damages what is sent from now on.
    pub fn damage(&self, damage: Damage) {
        *self.state.lock() = State {
            damage: Some(damage),
            ..State::default()
        };
    }

    /// The bytes that have passed in the direction of the damage since it began.
    pub fn passed(&self) -> u64 {
        self.state.lock().passed
    }

    /// Damages nothing any more; how many bytes were.
    pub fn heal(&self) -> u64 {
        std::mem::take(&mut *self.state.lock()).damaged
    }
}

async fn serve(listener: TcpListener, port: u16, state: Arc<Mutex<State>>, rate: Arc<AtomicU64>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
            continue;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let shared = || (Arc::clone(&state), Arc::clone(&rate));
        tokio::spawn(pump(from_client, to_server, Direction::Sent, shared()));
        let received = Direction::Received;
        tokio::spawn(pump(from_server, to_client, received, shared()));
    }
}

/// Forwards until one side closes; dropping the other half closes it too.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    (state, rate): (Arc<Mutex<State>>, Arc<AtomicU64>),
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        state.lock().pass(direction, &mut buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        let rate = rate.load(Ordering::Relaxed);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
        }
    }
}

impl State {
    fn pass(&mut self, direction: Direction, bytes: &mut [u8]) {
        let Some(damage) = self.damage else { return };
        if damage.direction != direction {
            return;
        }
        for byte in bytes {
            let beyond = self.passed.checked_sub(damage.at);
            let hits = match damage.every {
                None => beyond == Some(0),
                Some(every) => beyond.is_some_and(|beyond| beyond % every == 0),
            };
            if hits {
                *byte ^= damage.bits;
                self.damaged += 1;
            }
            self.passed += 1;
        }
    }
}
