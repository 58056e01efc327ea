//! Completes Google's XML interface in front of fake-gcs-server 1.56.
//!
//! Does: turn what that server lacks of the XML interface (uploads, conditions in headers, pages of
//! lists) into requests of its JSON interface. Does not: store or decide anything. Invariant: a
//! condition of a client reaches the server, which alone decides whether it holds.

#![allow(clippy::disallowed_methods)] // a server of its own, on its own thread

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// Objects in one answer to a list, as at Google.
const PAGE: &str = "1000";
const GENERATION: &str = "x-goog-generation";

/// A running translator; it ends when this is dropped.
pub struct Translator {
    _stop: tokio::sync::oneshot::Sender<()>,
}

struct Shared {
    /// The server, as a URL without a slash at its end.
    server: String,
    http: reqwest::Client,
}

impl Translator {
    /// Listens at `port` and asks the server at `inner`.
    pub fn start(port: u16, inner: u16) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            server: format!("http://127.0.0.1:{inner}"),
            http: reqwest::Client::builder().no_proxy().build()?,
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                let app = Router::new().fallback(answer).with_state(shared);
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { _stop: stop })
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/').to_owned();
    let (bucket, object) = path.split_once('/').unwrap_or((&path, ""));
    let answered = match (&head.method, object) {
        // The settings of a bucket, of the JSON interface as they are.
        (&Method::GET, settings) if bucket == "storage" && settings.starts_with("v1/b/") => {
            shared
                .pass(head.method, &format!("/{path}"), &head.headers)
                .await
        }
        (&Method::GET, "") => shared.list(bucket, &head.uri).await,
        (&Method::PUT, _) => shared.put(bucket, object, &head.headers, body).await,
        (&Method::GET | &Method::HEAD, _) => {
            let path = format!("/download/storage/v1/b/{bucket}/o/{}", escaped(object));
            shared.pass(head.method, &path, &head.headers).await
        }
        (&Method::DELETE, _) => {
            let path = format!("/storage/v1/b/{bucket}/o/{}", escaped(object));
            shared.pass(Method::DELETE, &path, &head.headers).await
        }
        _ => Ok(StatusCode::NOT_IMPLEMENTED.into_response()),
    };
    answered.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

/// The key of a path as one segment of another path.
fn escaped(object: &str) -> String {
    object.replace('/', "%2F")
}

impl Shared {
    async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> reqwest::Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.server));
        if let Some(range) = headers.get(header::RANGE) {
            request = request.header(header::RANGE, range);
        }
        let found = request.send().await?;
        let mut answer = Response::builder().status(found.status());
        for (name, value) in found.headers() {
            if name != header::CONNECTION && name != header::TRANSFER_ENCODING {
                answer = answer.header(name, value);
            }
        }
        Ok(answer
            .body(Body::from_stream(found.bytes_stream()))
            .expect("the headers of an answer"))
    }

    async fn put(
        &self,
        bucket: &str,
        object: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> reqwest::Result<Response> {
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return Ok(StatusCode::BAD_REQUEST.into_response());
        };
        let mut url = format!(
            "{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={}",
            self.server,
            escaped(object)
        );
        let expected = headers.get("x-goog-if-generation-match");
        if let Some(expected) = expected.and_then(|value| value.to_str().ok()) {
            let _ = write!(url, "&ifGenerationMatch={expected}");
        }
        let found = self.http.post(url).body(body).send().await?;
        let status = found.status();
        if !status.is_success() {
            return Ok((status, found.bytes().await?).into_response());
        }
        let text = found.text().await?;
        let stored: Value = serde_json::from_str(&text).unwrap_or_default();
        let headers = [
            (
                header::ETAG.as_str(),
                format!("\"{}\"", text_of(&stored, "etag")),
            ),
            (GENERATION, text_of(&stored, "generation")),
        ];
        Ok((StatusCode::OK, headers).into_response())
    }

    async fn list(&self, bucket: &str, uri: &Uri) -> reqwest::Result<Response> {
        let given = uri.query().unwrap_or_default();
        let given = url::form_urlencoded::parse(given.as_bytes());
        let mut query = vec![("maxResults".to_owned(), PAGE.to_owned())];
        for (name, value) in given {
            let name = match &*name {
                "prefix" | "delimiter" => name.into_owned(),
                "continuation-token" => "pageToken".to_owned(),
                _ => continue,
            };
            query.push((name, value.into_owned()));
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        let url = format!("{}/storage/v1/b/{bucket}/o?{query}", self.server);
        let found = self.http.get(url).send().await?;
        let status = found.status();
        let text = found.text().await?;
        if !status.is_success() {
            return Ok((status, text).into_response());
        }
        let listed: Value = serde_json::from_str(&text).unwrap_or_default();
        Ok(page(&listed).into_response())
    }
}

fn text_of(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A page of a list as XML. Keys of these tests contain nothing that XML would escape.
fn page(listed: &Value) -> String {
    let mut xml = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>".to_owned();
    let next = text_of(listed, "nextPageToken");
    let _ = write!(xml, "<IsTruncated>{}</IsTruncated>", !next.is_empty());
    if !next.is_empty() {
        let _ = write!(xml, "<NextContinuationToken>{next}</NextContinuationToken>");
    }
    for object in listed["items"].as_array().into_iter().flatten() {
        let _ = write!(
            xml,
            "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified>\
             <ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
            text_of(object, "name"),
            text_of(object, "generation"),
            text_of(object, "updated"),
            text_of(object, "etag"),
            text_of(object, "size"),
        );
    }
    for prefix in listed["prefixes"].as_array().into_iter().flatten() {
        let prefix = prefix.as_str().unwrap_or_default();
        let _ = write!(
            xml,
            "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
        );
    }
    xml + "</ListBucketResult>"
}
