//! A small server of Azure Blob Storage: enough for a probe and for a daemon.
//!
//! Does: store the blobs of one container in memory, honour conditions on entity tags. Does not:
//! check signatures or tokens: a test's check does. Invariant: what is refused changes nothing.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::gate::{Guard, Refusal, refusal, serve};

const CONTAINER: &str = "/account/container";

struct Shared {
    guard: Guard,
    /// Content and number of the write by key.
    blobs: Mutex<BTreeMap<String, (Bytes, usize)>>,
    writes: Mutex<usize>,
}

pub struct FakeAzure {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeAzure {
    pub async fn start(
        check: impl Fn(&Parts) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            guard: Guard::new(Box::new(check)),
            blobs: Mutex::default(),
            writes: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let address = serve(app, None).await;
        Self { address, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}/account", self.address)
    }

    /// The requests that were refused.
    pub fn refused(&self) -> Vec<String> {
        self.shared.guard.refused()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    if let Some(refusal) = shared.guard.refuses(&head) {
        return refusal;
    }
    let query = head.uri.query().unwrap_or_default();
    let Some(key) = head.uri.path().strip_prefix(CONTAINER) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let key = key.trim_start_matches('/').replace("%2F", "/");
    match head.method {
        Method::POST if query.contains("comp=batch") => shared.delete_all(&body),
        Method::PUT => shared.put(key, &head.headers, body),
        Method::DELETE => match shared.blobs.lock().remove(&key) {
            Some(_) => StatusCode::ACCEPTED.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ if query.contains("comp=list") => shared.list(query),
        _ => shared.get(&key, &head.headers),
    }
}

fn with_tag(answer: axum::http::response::Builder, write: usize) -> axum::http::response::Builder {
    answer
        .header("etag", format!("\"tag-{write}\""))
        .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
}

impl Shared {
    fn put(&self, key: String, headers: &HeaderMap, body: Bytes) -> Response {
        let (mut blobs, mut writes) = (self.blobs.lock(), self.writes.lock());
        let tag = blobs.get(&key).map(|(_, write)| format!("\"tag-{write}\""));
        if headers.contains_key(header::IF_NONE_MATCH) && tag.is_some() {
            return refusal(409, "BlobAlreadyExists");
        }
        let expected = headers.get(header::IF_MATCH);
        if expected.is_some_and(|expected| Some(expected.to_str().unwrap()) != tag.as_deref()) {
            return refusal(412, "ConditionNotMet");
        }
        *writes += 1;
        blobs.insert(key, (body, *writes));
        let answer = Response::builder().status(StatusCode::CREATED);
        with_tag(answer, *writes).body(Body::empty()).unwrap()
    }

    /// A blob, or the part that `Range: bytes=1-3` selects.
    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let blobs = self.blobs.lock();
        let Some((blob, write)) = blobs.get(key) else {
            return refusal(404, "BlobNotFound");
        };
        let answer = with_tag(Response::builder(), *write);
        let Some(range) = headers.get(header::RANGE) else {
            return answer.body(Body::from(blob.clone())).unwrap();
        };
        let range = range.to_str().unwrap();
        let (from, to) = range["bytes=".len()..].split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let part = from..blob.len().min(to + 1);
        let content_range = format!("bytes {}-{}/{}", part.start, part.end - 1, blob.len());
        let answer = answer.status(StatusCode::PARTIAL_CONTENT);
        let answer = answer.header(header::CONTENT_RANGE, content_range);
        answer.body(Body::from(blob.slice(part))).unwrap()
    }

    /// Deletes each blob of a batch.
    fn delete_all(&self, body: &Bytes) -> Response {
        let text = String::from_utf8_lossy(body);
        let lines = text.lines().filter_map(|line| line.strip_prefix("DELETE "));
        let mut answers = String::new();
        for (number, line) in lines.enumerate() {
            let path = line.split(' ').next().unwrap().replace("%2F", "/");
            let (_, key) = path.split_once("container/").unwrap();
            let status = match self.blobs.lock().remove(key) {
                Some(_) => "202 Accepted",
                None => "404 The specified blob does not exist.",
            };
            let _ = write!(
                answers,
                "--answers\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n\
                 HTTP/1.1 {status}\r\nx-ms-delete-type-permanent: true\r\n\r\n\r\n"
            );
        }
        answers += "--answers--\r\n";
        let content_type = [("content-type", "multipart/mixed; boundary=answers")];
        (StatusCode::ACCEPTED, content_type, answers).into_response()
    }

    /// All in one page.
    fn list(&self, query: &str) -> Response {
        let given: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let prefix = given.get("prefix").map_or("", |prefix| prefix);
        let from = given.get("startFrom").map_or("", |from| from);
        let (mut xml, mut folders) = ("<EnumerationResults><Blobs>".to_owned(), BTreeSet::new());
        for (key, (blob, write)) in &*self.blobs.lock() {
            if !key.starts_with(prefix) || **key < *from {
                continue;
            }
            let rest = &key[prefix.len()..];
            if let (Some(slash), true) = (rest.find('/'), given.contains_key("delimiter")) {
                folders.insert(key[..=prefix.len() + slash].to_owned());
                continue;
            }
            let _ = write!(
                xml,
                "<Blob><Name>{key}</Name><Properties>\
                 <Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>\
                 <Content-Length>{}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type>\
                 <Etag>\"tag-{write}\"</Etag></Properties></Blob>",
                blob.len()
            );
        }
        for folder in folders {
            let _ = write!(xml, "<BlobPrefix><Name>{folder}</Name></BlobPrefix>");
        }
        (xml + "</Blobs><NextMarker/></EnumerationResults>").into_response()
    }
}
