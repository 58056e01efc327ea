//! The service of one connection: the router, with each request tracked.
//!
//! Does: record what a request waits for (its body, the daemon, or the client that reads), and add
//! the client to its extensions. Does not: change what passes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::ClientAddress;
use super::coalesced_body::CoalescedBody;
use crate::http::connection::{Connection, TrackedRequest, WaitsFor};
use crate::http::credentials::Peer;
use crate::http::slots::{Client, Place};

/// Serves the requests of one connection.
pub(super) struct TrackedService {
    router: Router,
    connection: Connection,
    client: Client,
    address: ClientAddress,
    peer: Option<Peer>,
}

impl TrackedService {
    /// The service of the connection at `place`.
    pub(super) fn new(
        router: Router,
        place: &Place,
        address: ClientAddress,
        peer: Option<Peer>,
    ) -> Self {
        Self {
            router,
            connection: place.connection().clone(),
            client: place.client().clone(),
            address,
            peer,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for TrackedService {
    type Response = Response<TrackedBody<CoalescedBody<Body>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let tracked = TrackedRequest::begin(&self.connection);
        let of_body = Arc::clone(&tracked);
        let mut request = request.map(|body| {
            Body::new(TrackedBody {
                body,
                tracked: of_body,
                waits_for: WaitsFor::Body,
            })
        });
        let extensions = request.extensions_mut();
        extensions.insert(self.client.clone());
        extensions.insert(self.address);
        if let Some(peer) = &self.peer {
            extensions.insert(peer.clone());
        }
        let answer = self.router.clone().oneshot(request);
        async move {
            let response = answer.await?;
            tracked.record(WaitsFor::Reader);
            Ok(response.map(|body| TrackedBody {
                body: CoalescedBody::of(body),
                tracked,
                waits_for: WaitsFor::Reader,
            }))
        }
        .boxed()
    }
}

/// A body that records when it waits for the client.
pub(super) struct TrackedBody<B> {
    body: B,
    tracked: Arc<TrackedRequest>,
    /// [`WaitsFor::Body`] for the body of a request, [`WaitsFor::Reader`] for that of a response.
    waits_for: WaitsFor,
}

impl<B> http_body::Body for TrackedBody<B>
where
    B: http_body::Body + Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match (self.waits_for, polled.is_ready()) {
            (WaitsFor::Body, false) => self.tracked.replace(WaitsFor::Daemon, WaitsFor::Body),
            (WaitsFor::Body, true) => self.tracked.replace(WaitsFor::Body, WaitsFor::Daemon),
            (_, false) => self.tracked.record(WaitsFor::Daemon),
            (_, true) => self.tracked.record(WaitsFor::Reader),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        if self.waits_for == WaitsFor::Body {
            self.tracked.replace(WaitsFor::Body, WaitsFor::Daemon);
        }
    }
}
