//! A proxy of an S3 server, or a minimal S3 server itself, that records the requests it receives.
//!
//! Does: forward requests unchanged, or store objects in memory without checking signatures and
//! checksums. Does not: support versions or more than one page of a list. Invariant:
//! the record holds what was received, in the order of the answers.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::config::BaseDirectoryConfig;

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

/// What answers the requests.
enum Backend {
    /// The S3 server at this port.
    Server(u16),
    /// The recorder itself, which stores objects in memory.
    Memory,
}

struct Shared {
    backend: Backend,
    client: reqwest::Client,
    recorded: Mutex<Vec<RecordedRequest>>,
    objects: Mutex<BTreeMap<String, Bytes>>,
}

pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Recorder {
    /// Forwards all requests to the server at this port.
    pub async fn of_server(port: u16) -> Self {
        Self::start(Backend::Server(port)).await
    }

    /// Accepts all requests and stores the objects in memory.
    pub async fn in_memory() -> Self {
        Self::start(Backend::Memory).await
    }

    async fn start(backend: Backend) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            backend,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            recorded: Mutex::default(),
            objects: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    /// A base directory at this server, with additional options.
    pub fn config(&self, uri: &str, more: &[(&str, &str)]) -> BaseDirectoryConfig {
        let endpoint = format!("http://{}", self.address);
        let options = [
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("region", "us-east-1"),
            ("access_key_id", "key"),
            ("secret_access_key", "secret-of-key"),
        ];
        let options = options.iter().chain(more);
        BaseDirectoryConfig {
            uri: uri.into(),
            name: String::new(),
            options: options.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
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
    let answer = match shared.backend {
        Backend::Server(port) => shared.forward(port, head, body).await,
        Backend::Memory => shared.serve(&head.method, &head.uri, &head.headers, body),
    };
    shared.recorded.lock().push(RecordedRequest {
        method,
        path,
        signed,
        crc,
    });
    answer
}

impl Shared {
    async fn forward(&self, port: u16, head: axum::http::request::Parts, body: Bytes) -> Response {
        let url = format!("http://127.0.0.1:{port}{}", head.uri);
        let request = self.client.request(head.method, url).headers(head.headers);
        let Ok(found) = request.body(body).send().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let (status, headers) = (found.status(), found.headers().clone());
        let body = found.bytes().await.unwrap();
        (status, headers, body).into_response()
    }

    fn serve(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let mut objects = self.objects.lock();
        let query = uri.query().unwrap_or_default();
        match *method {
            Method::PUT => {
                let stored = objects.get(uri.path()).map(tag);
                let expected = headers.get("if-match").map(|tag| tag.to_str().unwrap());
                if (headers.contains_key("if-none-match") && stored.is_some())
                    || (expected.is_some() && expected != stored.as_deref())
                {
                    return StatusCode::PRECONDITION_FAILED.into_response();
                }
                let etag = tag(&body);
                objects.insert(uri.path().into(), body);
                [("etag", etag)].into_response()
            }
            Method::GET if query.contains("list-type") => list(&objects, uri).into_response(),
            Method::GET => match objects.get(uri.path()) {
                None => StatusCode::NOT_FOUND.into_response(),
                Some(object) => part(object, headers),
            },
            Method::POST => {
                let keys = deleted(&body);
                for key in &keys {
                    objects.remove(&format!("{}/{key}", uri.path()));
                }
                let keys = keys
                    .iter()
                    .map(|key| format!("<Deleted><Key>{key}</Key></Deleted>"));
                format!("<DeleteResult>{}</DeleteResult>", keys.collect::<String>()).into_response()
            }
            _ => StatusCode::NOT_IMPLEMENTED.into_response(),
        }
    }
}

/// The entity tag of some content.
fn tag(content: &Bytes) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn list(objects: &BTreeMap<String, Bytes>, uri: &Uri) -> String {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let prefix = query.into_iter().find(|(name, _)| name == "prefix");
    let prefix = prefix.map_or_else(String::new, |(_, prefix)| prefix.into_owned());
    let bucket = format!("{}/", uri.path());
    let keys = objects
        .iter()
        .filter_map(|(path, object)| Some((path.strip_prefix(&bucket)?, object)))
        .filter(|(key, _)| key.starts_with(&prefix));
    let found = keys.map(|(key, object)| {
        let (etag, size) = (tag(object), object.len());
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
             <ETag>{etag}</ETag><Size>{size}</Size></Contents>"
        )
    });
    format!(
        "<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        found.collect::<String>()
    )
}

/// The part of an object that `Range: bytes=1-3` or `bytes=-4` selects.
fn part(object: &Bytes, headers: &HeaderMap) -> Response {
    let size = object.len();
    let Some(range) = headers.get("range") else {
        return Response::builder()
            .header("etag", tag(object))
            .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
            .body(Body::from(object.clone()))
            .unwrap();
    };
    let range = range.to_str().unwrap();
    let (from, to) = range["bytes=".len()..].split_once('-').unwrap();
    let to: usize = to.parse().unwrap();
    let range = match from.parse::<usize>() {
        Ok(from) => from..size.min(to + 1),
        Err(_) => size.saturating_sub(to)..size,
    };
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("content-range", content_range)
        .header("etag", tag(object))
        .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        .body(Body::from(object.slice(range)))
        .unwrap()
}

/// The keys in the body of a bulk delete.
fn deleted(body: &Bytes) -> Vec<String> {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let keys = text.split("<Key>").skip(1);
    keys.map(|rest| rest.split_once("</Key>").unwrap().0.to_owned())
        .collect()
}
