//! A small S3 server with one oddity, for what no real server does on demand.
//!
//! Does: store objects in memory, honour conditions, refuse what it is told to. Does not: check
//! signatures. Invariant: without an oddity it is good enough for a
//! probe.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::BaseDirectoryConfig;
use crate::store::keys::Key;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    /// With `If-None-Match`.
    Create,
    /// With `If-Match`.
    Replace,
    Get,
    List,
    Delete,
}

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oddity {
    None,
    /// It answers requests of one kind with this status.
    Answers(Kind, u16),
    IgnoresConditions,
    /// It gives no entity tags.
    NoTags,
    /// It answers 200 to a bulk delete and refuses each key with this code.
    KeepsObjects(&'static str),
}

#[derive(Debug)]
struct Server {
    oddity: Oddity,
    /// Content and entity tag by path.
    objects: Mutex<BTreeMap<String, (Bytes, String)>>,
    requests: Mutex<Vec<Kind>>,
}

/// The server; it ends with the test's runtime.
pub(crate) struct FakeS3 {
    pub(crate) address: SocketAddr,
    server: Arc<Server>,
}

impl FakeS3 {
    pub(crate) async fn start(oddity: Oddity) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server {
            oddity,
            objects: Mutex::default(),
            requests: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, server }
    }

    /// How many requests of a kind there were.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        let requests = self.server.requests.lock();
        requests.iter().filter(|seen| **seen == kind).count()
    }

    /// The requests since the last call: lists, reads, puts of any kind, deletes.
    pub(crate) fn take_counts(&self) -> [usize; 4] {
        let requests = std::mem::take(&mut *self.server.requests.lock());
        let count = |kinds: &[Kind]| requests.iter().filter(|kind| kinds.contains(kind)).count();
        [
            count(&[Kind::List]),
            count(&[Kind::Get]),
            count(&[Kind::Put, Kind::Create, Kind::Replace]),
            count(&[Kind::Delete]),
        ]
    }

    /// Adds an object of the base directory.
    pub(crate) fn add(&self, key: &Key, content: Bytes) {
        let mut objects = self.server.objects.lock();
        objects.insert(format!("/bucket/p/{key}"), (content, "\"added\"".into()));
    }

    /// The keys of the objects of the base directory.
    pub(crate) fn keys(&self) -> Vec<String> {
        let objects = self.server.objects.lock();
        let keys = objects.keys().map(|path| path["/bucket/p/".len()..].into());
        keys.collect()
    }

    pub(crate) fn config(&self) -> BaseDirectoryConfig {
        config_of(self.address, &[])
    }
}

/// A base directory at a server at this address.
pub(crate) fn config_of(address: SocketAddr, more: &[(&str, &str)]) -> BaseDirectoryConfig {
    let endpoint = format!("http://{address}");
    let options = [
        ("endpoint", endpoint.as_str()),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret-of-key"),
    ];
    let options = options.iter().chain(more);
    BaseDirectoryConfig {
        uri: "s3://bucket/p".into(),
        name: "fake".into(),
        options: options.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let kind = kind(&head.method, &head.uri, &head.headers);
    server.requests.lock().push(kind);
    match server.oddity {
        Oddity::Answers(odd, status) if odd == kind => {
            let status = StatusCode::from_u16(status).unwrap();
            let error = "<Error><Code>Odd</Code><Message>No.</Message></Error>";
            (status, error).into_response()
        }
        _ => server.serve(kind, &head.uri, &head.headers, body),
    }
}

fn kind(method: &Method, uri: &Uri, headers: &HeaderMap) -> Kind {
    let lists = uri.query().unwrap_or_default().contains("list-type");
    match *method {
        Method::PUT if headers.contains_key("if-none-match") => Kind::Create,
        Method::PUT if headers.contains_key("if-match") => Kind::Replace,
        Method::PUT => Kind::Put,
        Method::POST => Kind::Delete,
        _ if lists => Kind::List,
        _ => Kind::Get,
    }
}

impl Server {
    fn serve(&self, kind: Kind, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let mut objects = self.objects.lock();
        let found = objects.get(uri.path()).cloned();
        let expected = headers.get("if-match").map(|tag| tag.to_str().unwrap());
        let tag = found.as_ref().map(|(_, tag)| tag.as_str());
        let holds = self.oddity == Oddity::IgnoresConditions
            || match kind {
                Kind::Create => found.is_none(),
                Kind::Replace => tag == expected,
                _ => true,
            };
        match kind {
            _ if !holds => StatusCode::PRECONDITION_FAILED.into_response(),
            Kind::Put | Kind::Create | Kind::Replace => {
                let tag = format!("\"{:016x}\"", crate::store::stable_hash(&[&body]));
                objects.insert(uri.path().into(), (body, tag.clone()));
                self.with_tag(Response::builder(), &tag, Body::empty())
            }
            Kind::Get => match found {
                None => StatusCode::NOT_FOUND.into_response(),
                Some((object, tag)) => self.part(&object, &tag, headers),
            },
            Kind::List => list(&objects, uri).into_response(),
            Kind::Delete => self.delete(&mut objects, uri, &body).into_response(),
        }
    }

    fn with_tag(&self, answer: axum::http::response::Builder, tag: &str, body: Body) -> Response {
        let answer = match self.oddity {
            Oddity::NoTags => answer,
            _ => answer.header("etag", tag),
        };
        let answer = answer.header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT");
        answer.body(body).unwrap()
    }

    /// The part of an object that `Range: bytes=1-3` or `bytes=-4` selects, or all of it.
    fn part(&self, object: &Bytes, tag: &str, headers: &HeaderMap) -> Response {
        let size = object.len();
        let Some(range) = headers.get("range") else {
            return self.with_tag(Response::builder(), tag, Body::from(object.clone()));
        };
        let range = range.to_str().unwrap();
        let (from, to) = range["bytes=".len()..].split_once('-').unwrap();
        let to: usize = to.parse().unwrap();
        let range = match from.parse::<usize>() {
            Ok(from) => from..size.min(to + 1),
            Err(_) => size.saturating_sub(to)..size,
        };
        let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        let answer = Response::builder().status(StatusCode::PARTIAL_CONTENT);
        let answer = answer.header("content-range", content_range);
        self.with_tag(answer, tag, Body::from(object.slice(range)))
    }

    fn delete(
        &self,
        objects: &mut BTreeMap<String, (Bytes, String)>,
        uri: &Uri,
        body: &Bytes,
    ) -> String {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let keys = text.split("<Key>").skip(1);
        let keys = keys.map(|rest| rest.split_once("</Key>").unwrap().0);
        let answers = keys.map(|key| match self.oddity {
            Oddity::KeepsObjects(code) => {
                format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>No.</Message></Error>")
            }
            _ => {
                objects.remove(&format!("{}/{key}", uri.path().trim_end_matches('/')));
                format!("<Deleted><Key>{key}</Key></Deleted>")
            }
        });
        format!(
            "<DeleteResult>{}</DeleteResult>",
            answers.collect::<String>()
        )
    }
}

/// Objects in an answer to a list, and keys in a request that deletes many.
const PAGE: usize = 1000;

fn list(objects: &BTreeMap<String, (Bytes, String)>, uri: &Uri) -> String {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let parameter = |wanted: &str| {
        let found = query.clone().find(|(name, _)| name == wanted);
        found.map_or_else(String::new, |(_, value)| value.into_owned())
    };
    let (prefix, after) = (parameter("prefix"), parameter("continuation-token"));
    let bucket = format!("{}/", uri.path().trim_end_matches('/'));
    let keys = objects
        .iter()
        .filter_map(|(path, stored)| Some((path.strip_prefix(&bucket)?, stored)))
        .filter(|(key, _)| key.starts_with(&prefix) && **key > *after);
    let mut keys: Vec<_> = keys.take(PAGE + 1).collect();
    let is_truncated = keys.len() > PAGE;
    keys.truncate(PAGE);
    let next = match keys.last() {
        Some((key, _)) if is_truncated => {
            format!("<NextContinuationToken>{key}</NextContinuationToken>")
        }
        _ => String::new(),
    };
    let found = keys.into_iter().map(|(key, (object, tag))| {
        let size = object.len();
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
             <ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        )
    });
    format!(
        "<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{next}{}</ListBucketResult>",
        found.collect::<String>()
    )
}
