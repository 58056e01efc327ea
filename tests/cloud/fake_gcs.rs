//! A small server of Google Cloud Storage: enough of its XML interface for a probe, and the
//! settings of its one bucket, `bucket`, in its JSON interface.
//!
//! Does: store objects in memory, honour conditions on generations. Does not: check tokens: a
//! test's check does.
//! Invariant: what the settings say changes nothing else.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use crate::gate::{Check, Guard, Refusal, serve};

const GENERATION: &str = "x-goog-generation";

struct Shared {
    /// What is answered about the bucket, and after which time.
    settings: (StatusCode, String),
    delay: Duration,
    guard: Guard,
    /// How often that was asked for, and with which token.
    asked: Mutex<Vec<String>>,
    /// Content and generation by key.
    objects: Mutex<BTreeMap<String, (Bytes, usize)>>,
    writes: Mutex<usize>,
}

pub struct FakeGcs {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeGcs {
    /// With this answer to a request for the settings of the bucket, which takes this long.
    pub async fn start(status: u16, settings: &str, delay: Duration) -> Self {
        Self::start_with(status, settings, delay, Box::new(|_| Ok(()))).await
    }

    /// With a bucket without settings, for requests that pass a check.
    pub async fn start_checking(
        check: impl Fn(&Parts) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(200, "{}", Duration::ZERO, Box::new(check)).await
    }

    async fn start_with(status: u16, settings: &str, delay: Duration, check: Box<Check>) -> Self {
        let shared = Arc::new(Shared {
            settings: (StatusCode::from_u16(status).unwrap(), settings.to_owned()),
            delay,
            guard: Guard::new(check),
            asked: Mutex::default(),
            objects: Mutex::default(),
            writes: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let address = serve(app, None).await;
        Self { address, shared }
    }

    /// The requests that were refused.
    pub fn refused(&self) -> Vec<String> {
        self.shared.guard.refused()
    }

    /// The tokens with which the settings were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    if let Some(refusal) = shared.guard.refuses(&head) {
        return refusal;
    }
    let path = head.uri.path();
    if path == "/storage/v1/b/bucket" {
        let query = head.uri.query().unwrap_or_default();
        assert_eq!(query, "fields=softDeletePolicy,versioning");
        let token = head.headers.get("authorization");
        let token = token.map_or("", |value| value.to_str().unwrap());
        shared.asked.lock().push(token.to_owned());
        tokio::time::sleep(shared.delay).await;
        return shared.settings.clone().into_response();
    }
    let Some(key) = path.strip_prefix("/bucket") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let key = percent_decode_str(key.trim_start_matches('/')).decode_utf8();
    let key = key.unwrap().into_owned();
    match head.method {
        Method::PUT => shared.put(key, &head.headers, body),
        Method::DELETE => match shared.objects.lock().remove(&key) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ if key.is_empty() => shared.list(head.uri.query().unwrap_or_default()),
        _ => shared.get(&key, &head.headers),
    }
}

fn with_generation(
    answer: axum::http::response::Builder,
    generation: usize,
) -> axum::http::response::Builder {
    answer
        .header(GENERATION, generation)
        .header("etag", format!("\"tag-{generation}\""))
        .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
}

impl Shared {
    fn put(&self, key: String, headers: &HeaderMap, body: Bytes) -> Response {
        let (mut objects, mut writes) = (self.objects.lock(), self.writes.lock());
        let current = objects.get(&key).map_or(0, |(_, generation)| *generation);
        let expected = headers.get("x-goog-if-generation-match");
        if expected.is_some_and(|expected| *expected != *current.to_string()) {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        *writes += 1;
        objects.insert(key, (body, *writes));
        let answer = with_generation(Response::builder(), *writes);
        answer.body(Body::empty()).unwrap()
    }

    /// An object, or the part that `Range: bytes=1-3` or `bytes=-4` selects.
    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let objects = self.objects.lock();
        let Some((object, generation)) = objects.get(key) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let answer = with_generation(Response::builder(), *generation);
        let size = object.len();
        let Some(range) = headers
            .get(header::RANGE)
            .map(|range| range.to_str().unwrap())
        else {
            return answer.body(Body::from(object.clone())).unwrap();
        };
        let (from, to) = range["bytes=".len()..].split_once('-').unwrap();
        let to: usize = to.parse().unwrap();
        let part = match from.parse::<usize>() {
            Ok(from) => from..size.min(to + 1),
            Err(_) => size.saturating_sub(to)..size,
        };
        let content_range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        let answer = answer.status(StatusCode::PARTIAL_CONTENT);
        let answer = answer.header("content-range", content_range);
        answer.body(Body::from(object.slice(part))).unwrap()
    }

    /// All in one page.
    fn list(&self, query: &str) -> Response {
        let given: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let prefix = given.get("prefix").map_or("", |prefix| prefix);
        let after = given.get("start-after").map_or("", |after| after);
        let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        let mut folders = Vec::new();
        for (key, (object, generation)) in &*self.objects.lock() {
            if !key.starts_with(prefix) || **key <= *after {
                continue;
            }
            let rest = &key[prefix.len()..];
            if let (Some(slash), true) = (rest.find('/'), given.contains_key("delimiter")) {
                folders.push(key[..=prefix.len() + slash].to_owned());
                continue;
            }
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><Generation>{generation}</Generation>\
                 <LastModified>2026-01-02T03:04:05Z</LastModified>\
                 <ETag>\"tag-{generation}\"</ETag><Size>{}</Size></Contents>",
                object.len()
            );
        }
        folders.dedup();
        for folder in folders {
            let _ = write!(
                xml,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            );
        }
        (xml + "</ListBucketResult>").into_response()
    }
}
