//! A faulty TCP proxy: it cuts connections after some bytes, cuts all of them on demand, or accepts
//! them and forwards nothing.
//!
//! Its port stays the same, and its target need not listen.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use stopover::runtime::Random;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One of this many connections is cut after some bytes.
const CUT_ONE_IN: u64 = 12;
/// Limit of the bytes that a connection forwards before it is cut.
const MAX_BYTES_BEFORE_CUT: u64 = 300_000;

/// A running proxy. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    shared: Rc<Shared>,
}

struct Shared {
    target: u16,
    rng: Random,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    silent: watch::Sender<bool>,
    /// Whether connections are closed at once, as if nothing listened.
    refuses: Cell<bool>,
    faulty: Cell<bool>,
    counted: RefCell<Counted>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub connections: u64,
    pub cut: u64,
}

impl Proxy {
    pub async fn start(target: u16, rng: Random) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Rc::new(Shared {
            target,
            rng,
            cuts: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            refuses: Cell::new(false),
            faulty: Cell::new(true),
            counted: RefCell::default(),
        });
        let proxy = Self {
            port: listener.local_addr()?.port(),
            shared,
        };
        tokio::task::spawn_local(proxy.clone().accept(listener));
        Ok(proxy)
    }

    /// Cuts every connection that is open now.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forwards nothing while `silent`, without closing connections.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// Closes new connections at once while `refuses`, as if the target had ended.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.set(refuses);
    }

    /// Stops all faults.
    pub fn stop_faults(&self) {
        self.shared.faulty.set(false);
        self.refuse(false);
        self.silence(false);
    }

    pub fn counted(&self) -> Counted {
        *self.shared.counted.borrow()
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(self.clone().forward(stream));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn forward(self, mut client: TcpStream) {
        let mut cuts = self.shared.cuts.subscribe();
        self.shared.counted.borrow_mut().connections += 1;
        if self.shared.refuses.get() {
            return;
        }
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.shared.target)).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let will_be_cut =
            self.shared.faulty.get() && self.shared.rng.next_u64().is_multiple_of(CUT_ONE_IN);
        let budget = if will_be_cut {
            self.shared.rng.next_u64() % MAX_BYTES_BEFORE_CUT
        } else {
            u64::MAX
        };
        let budget = Cell::new(budget);
        let both = async {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::try_join!(
                self.copy(from_client, to_server, &budget),
                self.copy(from_server, to_client, &budget),
            )
        };
        let cut = tokio::select! {
            both = both => both.is_err(),
            _ = cuts.changed() => true,
        };
        if cut {
            self.shared.counted.borrow_mut().cut += 1;
        }
    }

    /// Forwards one direction to its end; fails once the budget is spent, which cuts both.
    async fn copy(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        budget: &Cell<u64>,
    ) -> Result<(), Cut> {
        let mut silent = self.shared.silent.subscribe();
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let _ = silent.wait_for(|silent| !silent).await;
            let forwarded = budget.get().min(read as u64);
            budget.set(budget.get() - forwarded);
            if to.write_all(&buffer[..forwarded as usize]).await.is_err() {
                break;
            }
            if budget.get() == 0 {
                return Err(Cut);
            }
        }
        let _ = to.shutdown().await;
        Ok(())
    }
}

/// The budget of the connection is spent.
struct Cut;
