//! The HTTP server: accepts connections and serves a router on them.
//!
//! Does: bind, accept, and stop gracefully. Does not: know routes, or decide when to stop.
//! Invariant: every accepted connection has a [`Place`](super::slots::Place) until it is closed,
//! and all connections are closed when [`Server::run`] returns.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::credentials::Credentials;
use super::limits::{ServerLimits, TCP_PROBE_AFTER, TCP_PROBE_INTERVAL, TCP_PROBES};
use super::slots::Slots;
use super::stall::StallPolicy;
use crate::config::{LimitsConfig, Live};
use crate::runtime::Runtime;
use serve::Service;

mod coalesced_body;
mod serve;
mod socket;
mod tracked;

/// Delay after a failed accept: the process may have run out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Interval of rechecks for a free connection slot while there is none.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// The address of the client of a connection: an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub SocketAddr);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another address with server.listen")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A server that is bound to its address and does not accept connections yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: ServerLimits,
    live: Option<Live<LimitsConfig>>,
    stall_policy: StallPolicy,
    credentials: Credentials,
}

impl Server {
    /// Binds to `address`; port 0 selects a free port. Connections speak TLS if `credentials` hold
    /// a certificate, and requests over TLS carry their [`Peer`] as an extension.
    ///
    /// # Errors
    /// The address is in use or not available to this process.
    pub async fn bind(
        address: SocketAddr,
        limits: ServerLimits,
        stall_policy: StallPolicy,
        credentials: Credentials,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            limits,
            live: None,
            stall_policy,
            credentials,
        })
    }

    /// Uses these limits, which may change, for the timeouts of connections from now on.
    pub fn use_live_limits(&mut self, limits: Live<LimitsConfig>) {
        self.live = Some(limits);
    }

    /// The bound address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. Then it accepts no more connections, waits up to `stop_grace` for
    /// active requests to complete, and returns when all connections are closed.
    pub async fn run(self, router: Router, runtime: &Runtime, stop: CancellationToken) {
        let slots = Slots::new(self.limits);
        let open = TaskTracker::new();
        let service = Service {
            limits: self.limits,
            live: self.live,
            stall_policy: self.stall_policy,
            credentials: self.credentials,
            runtime: runtime.clone(),
            stop: stop.clone(),
            router,
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &slots, runtime) => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let connection = Connection::new(&runtime.clock);
                    let place = slots.enter(connection);
                    let served = service.clone().serve(stream, place, ClientAddress(address));
                    runtime.tasks.spawn(open.track_future(served));
                }
                // The client closed the connection while it was queued.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    runtime.clock.sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
        drop(self.listener);
        open.close();
        open.wait().await;
    }
}

/// Accepts a connection, and waits until one more unauthorized connection may be open.
async fn accept(
    listener: &TcpListener,
    slots: &Slots,
    runtime: &Runtime,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%error, "cannot set the options of a socket");
    }
    while !slots.admits_stranger(runtime.clock.now()) {
        tokio::select! {
            biased;
            () = slots.closed() => {}
            () = runtime.clock.sleep(ROOM_INTERVAL) => {}
        }
    }
    Ok((stream, address))
}

/// Sends small answers at once, and lets the kernel find out when a client has vanished.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    set_socket_keepalive(stream, true)?;
    set_tcp_keepidle(stream, TCP_PROBE_AFTER)?;
    set_tcp_keepintvl(stream, TCP_PROBE_INTERVAL)?;
    Ok(set_tcp_keepcnt(stream, TCP_PROBES)?)
}

#[cfg(test)]
mod tests;
