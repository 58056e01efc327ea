//! Serves one connection and bounds its duration, for any protocol and wherever the client stops.
//!
//! Does: the TLS handshake, HTTP/1.1 and, where configured, HTTP/2; end a connection that is idle,
//! stalled, evicted or no longer authorized. Does not: accept connections. Invariant: while a
//! connection is open, either a request of it waits for the daemon, or a timeout runs.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::ClientAddress;
use super::socket::GuardedIo;
use super::tracked::TrackedService;
use crate::config::{LimitsConfig, Live};
use crate::http::connection::{Activity, Connection};
use crate::http::credentials::{Credentials, Peer};
use crate::http::limits::{
    CONNECTION_WINDOW, MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, MAX_STREAMS, STREAM_WINDOW,
    ServerLimits,
};
use crate::http::slots::Place;
use crate::http::stall::StallPolicy;
use crate::runtime::{Runtime, TaskGroup};

/// How often a connection with requests is inspected.
const INSPECTION_INTERVAL: Duration = Duration::from_millis(500);
/// How long a connection that is being closed may take to send the rest, such as a refusal.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What serves each connection.
#[derive(Clone)]
pub(super) struct Service {
    pub limits: ServerLimits,
    /// Overrides the timeouts of `limits`, if they may change.
    pub live: Option<Live<LimitsConfig>>,
    pub stall_policy: StallPolicy,
    pub credentials: Credentials,
    pub runtime: Runtime,
    pub stop: CancellationToken,
    pub router: Router,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Idle,
    Stalled,
    Evicted,
    CertificateExpired,
    Stopped,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Idle => "no request within limits.header_timeout",
            Self::Stalled => "the client sent or read nothing for a timeout",
            Self::Evicted => "other connections need the slot",
            Self::CertificateExpired => "the client's certificate has expired",
            Self::Stopped => "the daemon stops",
        }
    }
}

impl Service {
    /// Serves a connection until it is closed.
    pub(super) async fn serve<S>(self, stream: S, place: Place, address: ClientAddress)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = GuardedIo::new(stream, place.connection().clone(), self.stop.clone());
        let Some(tls) = self.credentials.tls() else {
            return self.serve_http(io, &place, address, None).await;
        };
        place.connection().set_in_handshake(true);
        let acceptor = TlsAcceptor::from(tls.config.clone());
        let accepted = self.in_time(acceptor.accept(io), place.connection()).await;
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            failed => return self.report_handshake_failure(failed.and_then(Result::err)),
        };
        place.connection().set_in_handshake(false);
        let (_, session) = stream.get_ref();
        let peer = Peer::new(session.peer_certificates(), &tls);
        self.serve_http(stream, &place, address, Some(peer)).await;
    }

    fn header_timeout(&self) -> Duration {
        let live = self.live.as_ref();
        live.map_or(self.limits.header_timeout, |live| live.get().header_timeout)
    }

    fn body_timeout(&self) -> Duration {
        let live = self.live.as_ref();
        live.map_or(self.limits.body_timeout, |live| live.get().body_timeout)
    }

    /// The outcome of `work`; `None` if it exceeds `header_timeout`, the server stops, or the
    /// connection is evicted.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = T>,
        connection: &Connection,
    ) -> Option<T> {
        tokio::select! {
            biased;
            outcome = work => Some(outcome),
            () = self.stop.cancelled() => None,
            () = connection.evicted() => None,
            () = self.runtime.clock.sleep(self.header_timeout()) => None,
        }
    }

    /// Counts the failure, and logs it at debug level only: any client can cause one at will.
    fn report_handshake_failure(&self, error: Option<std::io::Error>) {
        self.credentials.metrics().handshake_failed();
        let reason = error.map_or_else(|| "timed out".to_owned(), |e| e.to_string());
        tracing::debug!(reason, "TLS handshake failed");
    }

    async fn serve_http<S>(
        &self,
        stream: S,
        place: &Place,
        address: ClientAddress,
        peer: Option<Peer>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let router = self.router.clone();
        let service = TrackedService::new(router, place, address, peer.clone());
        // The timeouts of hyper are off: `next` has those of both protocols.
        if self.limits.http2 {
            let mut builder = auto::Builder::new(Spawn(self.runtime.tasks.clone()));
            builder
                .http1()
                .header_read_timeout(None)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD);
            builder
                .http2()
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_LIST)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let connection = builder.serve_connection(io, service);
            self.drive(connection, place.connection(), peer).await;
        } else {
            let connection = hyper::server::conn::http1::Builder::new()
                .header_read_timeout(None)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD)
                .serve_connection(io, service);
            self.drive(connection, place.connection(), peer).await;
        }
    }

    /// Runs a connection until it is closed, or is to end.
    async fn drive<C>(&self, http: C, connection: &Connection, peer: Option<Peer>)
    where
        C: GracefulConnection,
        C::Error: std::fmt::Display,
    {
        tokio::pin!(http);
        let mut closes_after_request = false;
        let end = loop {
            if connection.is_last_request() && !closes_after_request {
                closes_after_request = true;
                http.as_mut().graceful_shutdown();
            }
            let wait = match self.next(connection, peer.as_ref()) {
                Ok(wait) => wait,
                Err(end) => break end,
            };
            tokio::select! {
                biased;
                ended = http.as_mut() => return log_end(ended.err()),
                () = self.stop.cancelled() => break End::Stopped,
                () = connection.evicted() => break End::Evicted,
                () = connection.changed() => {}
                () = self.runtime.clock.sleep(wait) => {}
            }
        };
        let reason = end.reason();
        tracing::debug!(reason, "ending a connection");
        let busy = connection.activity(self.runtime.clock.now()) == Activity::Busy;
        let grace = match end {
            End::Stopped => self.limits.stop_grace,
            End::CertificateExpired => CLOSE_GRACE,
            End::Evicted if busy => CLOSE_GRACE,
            End::Evicted | End::Idle | End::Stalled => return,
        };
        http.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            ended = http => log_end(ended.err()),
            () = self.runtime.clock.sleep(grace) => {
                tracing::info!(reason, "closed a connection while it was active");
            }
        }
    }

    /// How long until the connection is inspected again, or why it is to end.
    fn next(&self, connection: &Connection, peer: Option<&Peer>) -> Result<Duration, End> {
        let clock = &self.runtime.clock;
        if peer.is_some_and(|peer| peer.has_expired(clock.wall_millis())) {
            return Err(End::CertificateExpired);
        }
        let left = |time: Duration, limit: Duration, end| match limit.checked_sub(time) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(end),
        };
        match connection.activity(clock.now()) {
            Activity::Idle(time) => left(time, self.header_timeout(), End::Idle),
            Activity::Busy => Ok(INSPECTION_INTERVAL),
            Activity::BodyStalled(time) => left(time, self.body_timeout(), End::Stalled)
                .map(|left| left.min(INSPECTION_INTERVAL)),
            Activity::ResponseStalled(time) => {
                let wait = self.stall_policy.recheck_after(time);
                wait.ok_or(End::Stalled)
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
