//! The HTTP server: sockets in, requests to the router.
//!
//! Does: bound connections, handshakes, heads and silences, speak HTTP/1.1 and HTTP/2, in clear or
//! within TLS, and stop gracefully. Does not: know routes, or when to stop. Invariant: a connection
//! holds its permit as long as it lives, and all connections have ended when [`Server::run`]
//! returns.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::util::MapResponse;

use super::credentials::{Credentials, Peer};
use super::limits::{
    CONNECTION_WINDOW, MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, MAX_STREAMS, STREAM_WINDOW,
    ServerLimits,
};
use super::stall::{Contention, StallPolicy};
use super::tls::H2;
use crate::runtime::{Runtime, TaskGroup};
use coalesced_body::CoalescedBody;
use socket::GuardedIo;

mod coalesced_body;
mod socket;

/// Pause after a failed accept (the process may be out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle connections are asked to go while all that there may be are open.
const EVICTION_INTERVAL: Duration = Duration::from_millis(200);
/// A connection is not asked to go before it had this time to send a request.
const MIN_CONNECTION_AGE: Duration = Duration::from_secs(1);
/// Pause between two looks at the first bytes of a connection that may become HTTP/2.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another address with server.listen")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A server that has its address and does not accept yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: ServerLimits,
    contention: Contention,
    /// Told while there are as many connections as there may be.
    at_capacity: Arc<Notify>,
    credentials: Option<Credentials>,
}

impl Server {
    /// Has less patience with clients that take nothing under this contention.
    pub fn with_contention(mut self, contention: Contention) -> Self {
        self.contention = contention;
        self
    }

    /// Speaks TLS where the doors have certificates, and tells them who is there.
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Takes the address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, limits: ServerLimits) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            limits,
            contention: Contention::none(),
            at_capacity: Arc::default(),
            credentials: None,
        })
    }

    /// The address that it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then accepts no more, lets requests under way end within the grace, and
    /// returns when all connections are closed.
    pub async fn run(self, router: Router, runtime: &Runtime, stop: CancellationToken) {
        let most = self.limits.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        loop {
            // The permit comes first: connections beyond the limit wait in the kernel's queue.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&permits, runtime) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = Connection {
                        limits: self.limits,
                        contention: self.contention.clone(),
                        at_capacity: Arc::clone(&self.at_capacity),
                        credentials: self.credentials.clone(),
                        runtime: runtime.clone(),
                        stop: stop.clone(),
                    };
                    let served = connection.serve(stream, router.clone());
                    runtime.tasks.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                // Gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    runtime.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let all = u32::try_from(most).unwrap_or(u32::MAX);
        drop(permits.acquire_many(all).await);
    }

    async fn accept(
        &self,
        permits: &Arc<Semaphore>,
        runtime: &Runtime,
    ) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = loop {
            let free = Arc::clone(permits).acquire_owned();
            tokio::select! {
                biased;
                permit = free => break permit.expect("the semaphore is never closed"),
                () = runtime.clock.sleep(EVICTION_INTERVAL) => self.at_capacity.notify_waiters(),
            }
        };
        let (stream, _) = self.listener.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection goes on without TCP_NODELAY");
        }
        Ok((stream, permit))
    }
}

struct Connection {
    limits: ServerLimits,
    contention: Contention,
    at_capacity: Arc<Notify>,
    credentials: Option<Credentials>,
    runtime: Runtime,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, router: Router) {
        let tls = self.credentials.as_ref().and_then(Credentials::tls);
        let Some(tls) = tls else {
            let spoken = self.in_time(speaks_http2(&stream, &self.runtime)).await;
            if let Some(http2) = spoken.flatten() {
                let io = self.guard(stream);
                self.speak(io, router, http2).await;
            }
            return;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let accepted = self.in_time(acceptor.accept(self.guard(stream))).await;
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            failed => return self.log_handshake(failed.and_then(Result::err)),
        };
        let (_, session) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(H2);
        let peer = Peer::new(session.peer_certificates(), &tls);
        let router = router.layer(axum::Extension(peer));
        self.speak(stream, router, http2).await;
    }

    /// The outcome, unless it takes longer than a request head may, the server stops, or others
    /// wait for the connection.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.runtime.clock.sleep(self.limits.header_timeout) => None,
            () = self.stop.cancelled() => None,
            () = self.evicted() => None,
        }
    }

    fn guard(&self, stream: TcpStream) -> GuardedIo {
        let clock = self.runtime.clock.clone();
        let stall = self.limits.response_stall_timeout;
        let patience = StallPolicy::new(stall, clock.clone(), self.contention.clone());
        GuardedIo::new(stream, patience, clock, self.stop.clone())
    }

    /// What anybody can bring about as often as they like is no failure of the daemon, and fills no
    /// log.
    fn log_handshake(&self, error: Option<std::io::Error>) {
        if let Some(credentials) = &self.credentials {
            credentials.metrics().handshake_failed();
        }
        let reason = error.map_or_else(|| "it took too long".to_owned(), |e| e.to_string());
        tracing::debug!(reason, "a TLS handshake failed");
    }

    async fn speak<S>(&self, stream: S, router: Router, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let in_portions =
            MapResponse::new(router, |response: Response| response.map(CoalescedBody::of));
        let service = TowerToHyperService::new(in_portions);
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

    /// Ends when others wait for a connection and this one has had time to be of use.
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
                // One that is idle ends now, another one after the request that it is at.
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
                tracing::info!("cut off a connection that was still busy when the daemon stopped");
            }
        }
    }
}

/// Clients come and go: nothing that happens to one connection is the daemon's failure.
fn log_end(error: Option<impl std::fmt::Display>) {
    if let Some(error) = error {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Whether the client begins with HTTP/2's preface; `None` if it is gone. Nothing is consumed.
async fn speaks_http2(stream: &TcpStream, runtime: &Runtime) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let came = stream.peek(&mut first).await.ok().filter(|n| *n > 0)?;
        if first[..came] == *PREFACE {
            return Some(true);
        }
        if !PREFACE.starts_with(&first[..came]) {
            return Some(false);
        }
        runtime.clock.sleep(PREFACE_PAUSE).await;
    }
}

/// Lets hyper's HTTP/2 spawn through the daemon's task group.
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
