//! A proxy in front of a server: it counts requests and damages uploads.
//!
//! Does: forward requests with all of their headers. Does not: answer any itself. Invariant: damage
//! does not change the length of a body.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;

/// A request that was forwarded.
pub struct Sent {
    method: Method,
    query: String,
}

impl Sent {
    /// Whether it deletes one object or several.
    pub fn deletes(&self) -> bool {
        let several = ["delete", "comp=batch"];
        self.method == Method::DELETE
            || self.method == Method::POST && several.iter().any(|word| self.query.contains(word))
    }
}

struct Shared {
    server: u16,
    http: reqwest::Client,
    sent: Mutex<Vec<Sent>>,
    damages: AtomicBool,
    damaged: AtomicU64,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Forwards to the server at this port.
    pub async fn start(server: u16) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            server,
            http: reqwest::Client::builder().no_proxy().build()?,
            sent: Mutex::default(),
            damages: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
        });
        let app = Router::new().fallback(forward).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { port, shared })
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.shared.sent.lock())
    }

    /// Changes a byte of each upload from now on.
    pub fn damage_uploads(&self) {
        self.shared.damages.store(true, Ordering::Relaxed);
    }

    /// Damages nothing any more; how many bytes were.
    pub fn heal(&self) -> u64 {
        self.shared.damages.store(false, Ordering::Relaxed);
        self.shared.damaged.swap(0, Ordering::Relaxed)
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let damages = shared.damages.load(Ordering::Relaxed) && head.method == Method::PUT;
    let body = match damages {
        true => {
            shared.damaged.fetch_add(1, Ordering::Relaxed);
            damaged(&body)
        }
        false => body,
    };
    shared.sent.lock().push(Sent {
        method: head.method.clone(),
        query: head.uri.query().unwrap_or_default().to_owned(),
    });
    let url = format!("http://127.0.0.1:{}{}", shared.server, head.uri);
    let request = shared.http.request(head.method, url).headers(head.headers);
    let Ok(found) = request.body(body).send().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (status, headers) = (found.status(), passed_on(found.headers()));
    match found.bytes().await {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// The headers of an answer without those of its connection.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers
}

/// The same bytes but for one.
fn damaged(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}
