//! The HTTP server: accepts connections and serves a router on them.
//!
//! Does: bound the number of connections and the time for handshakes, request heads and stalled
//! writes; speak HTTP/1.1 and HTTP/2, with or without TLS; stop gracefully. Does not: know routes,
//! or decide when to stop. Invariant: a connection holds a permit until it is closed, and all
//! connections are closed when [`Server::run`] returns.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::util::{MapRequest, MapResponse};

use super::credentials::{Credentials, Peer};
use super::limits::{
    CONNECTION_WINDOW, MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, MAX_STREAMS, STREAM_WINDOW,
    ServerLimits,
};
use super::stall::StallPolicy;
use super::tls::H2;
use crate::runtime::{Runtime, TaskGroup};
use coalesced_body::CoalescedBody;
use socket::GuardedIo;

mod coalesced_body;
mod socket;

/// Delay after a failed accept: the process may have run out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often connections are evicted while the server is at capacity.
const EVICTION_INTERVAL: Duration = Duration::from_millis(200);
/// Younger connections are not evicted: they have had no time to send a request.
const MIN_CONNECTION_AGE: Duration = Duration::from_secs(1);
/// How often the first bytes of a connection are inspected again while they may still become the
/// HTTP/2 preface.
const PREFACE_POLL_INTERVAL: Duration = Duration::from_millis(5);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
            stall_policy,
            credentials,
        })
    }

    /// The bound address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. Then it accepts no more connections, gives active requests
    /// `stop_grace` to complete, and returns when all connections are closed.
    pub async fn run(self, router: Router, runtime: &Runtime, stop: CancellationToken) {
        let capacity = self.limits.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(capacity));
        let connection = Connection {
            limits: self.limits,
            stall_policy: self.stall_policy,
            at_capacity: Arc::default(),
            credentials: self.credentials,
            client: None,
            runtime: runtime.clone(),
            stop: stop.clone(),
        };
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = connection.accept(&self.listener, &permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let mut connection = connection.clone();
                    connection.client = stream.peer_addr().ok().map(ClientAddress);
                    let served = connection.serve(stream, router.clone());
                    runtime.tasks.spawn(async move {
                        served.await;
                        drop(permit);
                    });
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
        let all = u32::try_from(capacity).unwrap_or(u32::MAX);
        drop(permits.acquire_many(all).await);
    }
}

/// What serves one connection.
#[derive(Clone)]
struct Connection {
    limits: ServerLimits,
    stall_policy: StallPolicy,
    /// Notified every [`EVICTION_INTERVAL`] while all permits are in use.
    at_capacity: Arc<Notify>,
    credentials: Credentials,
    client: Option<ClientAddress>,
    runtime: Runtime,
    stop: CancellationToken,
}

impl Connection {
    /// Acquires a permit, then accepts: connections beyond the limit wait in the kernel's queue.
    async fn accept(
        &self,
        listener: &TcpListener,
        permits: &Arc<Semaphore>,
    ) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = loop {
            let permit = Arc::clone(permits).acquire_owned();
            tokio::select! {
                biased;
                permit = permit => break permit.expect("the semaphore is never closed"),
                () = self.runtime.clock.sleep(EVICTION_INTERVAL) => {
                    self.at_capacity.notify_waiters();
                }
            }
        };
        let (stream, _) = listener.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok((stream, permit))
    }

    async fn serve(self, stream: TcpStream, router: Router) {
        let Some(tls) = self.credentials.tls() else {
            let sniffed = self.in_time(speaks_http2(&stream, &self.runtime)).await;
            if let Some(http2) = sniffed.flatten() {
                let io = self.guard(stream);
                self.speak(io, router, http2).await;
            }
            return;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let accepted = self.in_time(acceptor.accept(self.guard(stream))).await;
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            failed => return self.report_handshake_failure(failed.and_then(Result::err)),
        };
        let (_, session) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(H2);
        let peer = Peer::new(session.peer_certificates(), &tls);
        let router = router.layer(axum::Extension(peer));
        self.speak(stream, router, http2).await;
    }

    /// The outcome of `work`; `None` if it exceeds `header_timeout`, the server stops, or the
    /// connection is evicted.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.runtime.clock.sleep(self.limits.header_timeout) => None,
            () = self.stop.cancelled() => None,
            () = self.evicted() => None,
        }
    }

    fn guard(&self, stream: TcpStream) -> GuardedIo {
        GuardedIo::new(stream, self.stall_policy.clone(), self.stop.clone())
    }

    /// Counts the failure, and logs it at debug level only: any client can cause one at will.
    fn report_handshake_failure(&self, error: Option<std::io::Error>) {
        self.credentials.metrics().handshake_failed();
        let reason = error.map_or_else(|| "timed out".to_owned(), |e| e.to_string());
        tracing::debug!(reason, "TLS handshake failed");
    }

    async fn speak<S>(&self, stream: S, router: Router, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let coalesced =
            MapResponse::new(router, |response: Response| response.map(CoalescedBody::of));
        let client = self.client;
        // Not as a layer of the router, which would copy all routes for each connection.
        let with_client = MapRequest::new(coalesced, move |mut request: Request<Incoming>| {
            if let Some(client) = client {
                request.extensions_mut().insert(client);
            }
            request
        });
        let service = TowerToHyperService::new(with_client);
        if http2 {
            let tasks = Spawn(self.runtime.tasks.clone());
            let connection = hyper::server::conn::http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_LIST)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(self.limits.header_timeout)
                .serve_connection(io, service);
            self.drive(connection).await;
        } else {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_timeout)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD)
                .serve_connection(io, service);
            self.drive(connection).await;
        }
    }

    /// Completes when this connection is old enough to be evicted and the server is at capacity.
    async fn evicted(&self) {
        self.runtime.clock.sleep(MIN_CONNECTION_AGE).await;
        self.at_capacity.notified().await;
    }

    async fn drive<C>(&self, connection: C)
    where
        C: GracefulConnection,
        C::Error: std::fmt::Display,
    {
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended.err()),
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
            () = self.evicted() => {
                // Closes an idle connection now, and another one after its current request.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => return log_end(ended.err()),
                    () = self.stop.cancelled() => {}
                }
            }
        }
        tokio::select! {
            ended = connection => log_end(ended.err()),
            () = self.runtime.clock.sleep(self.limits.stop_grace) => {
                tracing::info!("closed a connection that was still active when the daemon stopped");
            }
        }
    }
}

/// Logs at debug level only: a broken connection is not a failure of the daemon.
fn log_end(error: Option<impl std::fmt::Display>) {
    if let Some(error) = error {
        tracing::debug!(%error, "connection ended with an error");
    }
}

/// Whether the client starts with the HTTP/2 preface; `None` if it disconnected. Consumes nothing.
async fn speaks_http2(stream: &TcpStream, runtime: &Runtime) -> Option<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let received = stream.peek(&mut start).await.ok().filter(|n| *n > 0)?;
        if start[..received] == *PREFACE {
            return Some(true);
        }
        if !PREFACE.starts_with(&start[..received]) {
            return Some(false);
        }
        runtime.clock.sleep(PREFACE_POLL_INTERVAL).await;
    }
}

/// Lets hyper spawn its HTTP/2 tasks in the daemon's task group.
#[derive(Clone)]
struct Spawn(TaskGroup);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

#[cfg(test)]
mod tests;
