//! A gate in front of a store: a test decides which requests pass.
//!
//! Does: ask the test's check about each request, forward those that pass, with TLS where told to.
//! Does not: check signatures. Invariant: what is refused never reaches the store.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::fake_s3::{FakeS3, Oddity};

/// What a refusal is: a status, and the code of S3's error.
pub type Refusal = (u16, &'static str);

/// Decides which requests pass.
pub type Check = dyn Fn(&Parts) -> Result<(), Refusal> + Send + Sync;

struct Shared {
    store: FakeS3,
    http: reqwest::Client,
    guard: Guard,
}

pub struct Gate {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Gate {
    /// In front of a store in memory.
    pub async fn start(
        check: impl Fn(&Parts) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(None, FakeS3::start(Oddity::None).await, Box::new(check)).await
    }

    /// The same, with TLS.
    pub async fn start_tls(tls: ServerConfig) -> Self {
        let store = FakeS3::start(Oddity::None).await;
        Self::start_with(Some(tls), store, Box::new(|_| Ok(()))).await
    }

    pub async fn start_with(tls: Option<ServerConfig>, store: FakeS3, check: Box<Check>) -> Self {
        let shared = Arc::new(Shared {
            store,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            guard: Guard::new(check),
        });
        let app = Router::new().fallback(forward).with_state(shared.clone());
        let address = serve(app, tls).await;
        Self { address, shared }
    }

    /// The requests that were refused.
    pub fn refused(&self) -> Vec<String> {
        self.shared.guard.refused()
    }

    pub fn store(&self) -> &FakeS3 {
        &self.shared.store
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    if let Some(refusal) = shared.guard.refuses(&head) {
        return refusal;
    }
    let url = format!("http://{}{}", shared.store.address, head.uri);
    let request = shared.http.request(head.method, url).headers(head.headers);
    let found = request.body(body).send().await.unwrap();
    let (status, mut headers) = (found.status(), found.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    (status, headers, found.bytes().await.unwrap()).into_response()
}

/// A test's check, and the requests that did not pass it.
pub struct Guard {
    check: Box<Check>,
    refused: Mutex<Vec<String>>,
}

impl Guard {
    pub fn new(check: Box<Check>) -> Self {
        Self {
            check,
            refused: Mutex::default(),
        }
    }

    /// The answer to a request that does not pass.
    pub fn refuses(&self, head: &Parts) -> Option<Response> {
        let (status, code) = (self.check)(head).err()?;
        let line = format!("{} {}: {code}", head.method, head.uri);
        self.refused.lock().push(line);
        Some(refusal(status, code))
    }

    /// The requests that were refused.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().clone()
    }
}

/// The answer to what does not pass.
pub fn refusal(status: u16, code: &str) -> Response {
    let text = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

/// Serves on loopback until the test's runtime ends.
pub async fn serve(app: Router, tls: Option<ServerConfig>) -> SocketAddr {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), app, tls).await
}

/// The same at this address.
pub async fn serve_at(address: SocketAddr, app: Router, tls: Option<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    match tls {
        None => drop(tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        })),
        Some(tls) => {
            let listener = TlsListener {
                listener,
                acceptor: TlsAcceptor::from(Arc::new(tls)),
            };
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        }
    }
    address
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            // A client without the certificate that is wanted.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
