//! A proxy of an S3 server that records the requests it receives.
//!
//! Does: forward requests unchanged. Does not: answer any itself. Invariant: the record holds what
//! was received, in the order of the answers.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::config::BaseDirectoryConfig;

use crate::fake_s3::{FakeS3, Oddity, config_of};

#[derive(Debug, Clone)]
pub struct RecordedRequest {
    pub method: Method,
    pub path: String,
    /// `x-amz-content-sha256`: the hash of the body, if it is signed.
    pub signed: String,
    /// `x-amz-checksum-crc64nvme`
    pub crc: Option<String>,
}

impl RecordedRequest {
    pub fn is_put_of(&self, part: &str) -> bool {
        self.method == Method::PUT && self.path.contains(part)
    }

    /// Whether the signature includes a hash of the body.
    pub fn is_hashed(&self) -> bool {
        self.signed.len() == 64 && self.signed.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

struct Shared {
    /// Of the server that answers the requests.
    port: u16,
    client: reqwest::Client,
    recorded: Mutex<Vec<RecordedRequest>>,
}

pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Recorder {
    /// Forwards all requests to the server at this port.
    pub async fn of_server(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            port,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            recorded: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    /// Of a server in memory, which checks neither signatures nor checksums.
    pub async fn of_fake() -> Self {
        Self::of_server(FakeS3::start(Oddity::None).await.address.port()).await
    }

    /// A base directory at this server, with additional options.
    pub fn config(&self, uri: &str, more: &[(&str, &str)]) -> BaseDirectoryConfig {
        BaseDirectoryConfig {
            uri: uri.into(),
            name: String::new(),
            ..config_of(self.address, more)
        }
    }

    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.recorded.lock().clone()
    }

    /// The recorded puts of objects whose path contains `part`.
    pub fn puts(&self, part: &str) -> Vec<RecordedRequest> {
        let mut recorded = self.requests();
        recorded.retain(|request| request.is_put_of(part));
        recorded
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let header = |name: &str| Some(head.headers.get(name)?.to_str().unwrap().to_owned());
    let (signed, crc) = (
        header("x-amz-content-sha256").unwrap_or_default(),
        header("x-amz-checksum-crc64nvme"),
    );
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let answer = shared.forward(head, body).await;
    shared.recorded.lock().push(RecordedRequest {
        method,
        path,
        signed,
        crc,
    });
    answer
}

impl Shared {
    async fn forward(&self, head: axum::http::request::Parts, body: Bytes) -> Response {
        let url = format!("http://127.0.0.1:{}{}", self.port, head.uri);
        let request = self.client.request(head.method, url).headers(head.headers);
        let Ok(found) = request.body(body).send().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let (status, headers) = (found.status(), found.headers().clone());
        let body = found.bytes().await.unwrap();
        (status, headers, body).into_response()
    }
}
