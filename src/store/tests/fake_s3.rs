//! A small S3 server with one oddity, for what no real server does on demand.
//!
//! Does: store objects in memory, honour conditions, refuse what it is told to, keep versions.
//! Does not: check signatures. Invariant: without an oddity it is good enough for a probe.

#![allow(clippy::disallowed_methods)] // it runs as a spawned task

use std::collections::{BTreeMap, BTreeSet};
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
    /// Of several objects with one request.
    Delete,
    DeleteOne,
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
    /// It answers a bulk delete as if it were any other page.
    NoBulkDelete,
    /// It answers a range from the end of an object with all of it.
    NoSuffix,
    /// Its lists lack the object that was written last.
    ListsLate,
    /// Its lists show objects that were deleted.
    ListsDeleted,
    /// Its lists show the objects of all folders where the names of folders were asked for.
    IgnoresDelimiter,
    /// Its lists begin at the first object wherever they were told to begin.
    IgnoresStartAfter,
    /// It answers lists with this parameter with 501.
    RefusesInLists(&'static str),
    /// Its lists with this parameter show nothing.
    LosesInLists(&'static str),
    /// It keeps versions.
    Versions,
    /// It locks new objects.
    Locks,
    /// It refuses uploads without a checksum.
    WantsChecksum,
    /// It refuses headers with a checksum.
    RefusesChecksum,
    /// Its entity tags differ with each write, as those of encrypted objects do.
    TagsOfWrites,
    /// It answers the first requests of one kind with 503, and asks to wait for this many seconds.
    Throttles(Kind, u64),
}

#[derive(Debug)]
struct Server {
    oddity: Oddity,
    /// Content and entity tag by path.
    objects: Mutex<Objects>,
    requests: Mutex<Vec<Kind>>,
    /// Path and id of every version in the order of their writing; deletes are versions too.
    versions: Mutex<Vec<Version>>,
    /// Deleted objects that lists still show.
    ghosts: Mutex<Objects>,
    newest: Mutex<String>,
}

type Objects = BTreeMap<String, (Bytes, String)>;

#[derive(Debug)]
struct Version {
    path: String,
    id: String,
    hides: bool,
}

/// The server; it ends with the test's runtime.
pub(crate) struct FakeS3 {
    pub(crate) address: SocketAddr,
    server: Arc<Server>,
}

impl FakeS3 {
    pub(crate) async fn start(oddity: Oddity) -> Self {
        Self::start_at("127.0.0.1:0", oddity).await
    }

    pub(crate) async fn start_at(address: &str, oddity: Oddity) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server {
            oddity,
            objects: Mutex::default(),
            requests: Mutex::default(),
            versions: Mutex::default(),
            ghosts: Mutex::default(),
            newest: Mutex::default(),
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

    /// How many versions it holds, those that hide an object included.
    pub(crate) fn versions(&self) -> usize {
        self.server.versions.lock().len()
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
        Oddity::RefusesInLists(name) if kind == Kind::List && has(&head.uri, name) => {
            let error = "<Error><Code>NotImplemented</Code><Message>No.</Message></Error>";
            (StatusCode::NOT_IMPLEMENTED, error).into_response()
        }
        Oddity::Throttles(odd, seconds) if odd == kind && server.is_first(kind) => {
            let error = "<Error><Code>SlowDown</Code><Message>No.</Message></Error>";
            let headers = [("retry-after", seconds.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, headers, error).into_response()
        }
        _ => match server.checksum_fault(kind, &head.headers) {
            Some(fault) => (StatusCode::BAD_REQUEST, fault).into_response(),
            None => server.serve(kind, &head.uri, &head.headers, body),
        },
    }
}

fn kind(method: &Method, uri: &Uri, headers: &HeaderMap) -> Kind {
    let query = uri.query().unwrap_or_default();
    let lists = query.contains("list-type") || query.contains("versions");
    match *method {
        Method::PUT if headers.contains_key("if-none-match") => Kind::Create,
        Method::PUT if headers.contains_key("if-match") => Kind::Replace,
        Method::PUT => Kind::Put,
        Method::POST => Kind::Delete,
        Method::DELETE => Kind::DeleteOne,
        _ if lists => Kind::List,
        _ => Kind::Get,
    }
}

impl Server {
    fn is_first(&self, kind: Kind) -> bool {
        let requests = self.requests.lock();
        requests.iter().filter(|seen| **seen == kind).count() == 1
    }

    fn checksum_fault(&self, kind: Kind, headers: &HeaderMap) -> Option<&'static str> {
        let is_put = matches!(kind, Kind::Put | Kind::Create | Kind::Replace);
        let mut names = headers.keys();
        let has = names.any(|name| name.as_str().starts_with("x-amz-checksum-"));
        match self.oddity {
            Oddity::WantsChecksum if is_put && !has => Some(
                "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP \
                 header is required for Put Object requests with Object Lock parameters</Message>\
                 </Error>",
            ),
            Oddity::RefusesChecksum if has => Some(
                "<Error><Code>InvalidArgument</Code><Message>Unsupported header \
                 'x-amz-checksum-crc64nvme'</Message></Error>",
            ),
            _ => None,
        }
    }

    /// Notes a version of an object, and returns the id for the answer.
    fn version(&self, path: &str, hides: bool) -> Option<String> {
        let mut versions = self.versions.lock();
        let id = format!("v{}", self.requests.lock().len());
        let path = path.to_owned();
        let version = Version {
            path,
            id: id.clone(),
            hides,
        };
        (self.oddity == Oddity::Versions).then(|| versions.push(version))?;
        Some(id)
    }

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
                let write = match self.oddity {
                    Oddity::TagsOfWrites => self.requests.lock().len(),
                    _ => 0,
                };
                let hash = crate::store::stable_hash(&[&body, &write.to_le_bytes()]);
                let tag = format!("\"{hash:016x}\"");
                objects.insert(uri.path().into(), (body, tag.clone()));
                uri.path().clone_into(&mut self.newest.lock());
                let answer = Response::builder();
                let answer = match self.version(uri.path(), false) {
                    Some(id) => answer.header("x-amz-version-id", id),
                    None => answer,
                };
                self.with_tag(answer, &tag, Body::empty())
            }
            Kind::Get => match found {
                None => StatusCode::NOT_FOUND.into_response(),
                Some((object, tag)) => self.part(&object, &tag, headers),
            },
            Kind::List if uri.query().unwrap_or_default().contains("versions") => {
                self.list_versions(uri).into_response()
            }
            Kind::List => self.list(&objects, uri).into_response(),
            Kind::Delete if self.oddity == Oddity::NoBulkDelete => {
                "<html>Hi.</html>".into_response()
            }
            Kind::Delete => self.delete(&mut objects, uri, &body).into_response(),
            Kind::DeleteOne => {
                match query(uri, "versionId") {
                    Some(id) => self.versions.lock().retain(|version| version.id != id),
                    None => self.remove(&mut objects, uri.path()),
                }
                StatusCode::NO_CONTENT.into_response()
            }
        }
    }

    fn with_tag(&self, answer: axum::http::response::Builder, tag: &str, body: Body) -> Response {
        let answer = match self.oddity {
            Oddity::NoTags => answer,
            Oddity::Locks => answer
                .header("etag", tag)
                .header("x-amz-object-lock-mode", "COMPLIANCE"),
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
        if self.oddity == Oddity::NoSuffix && range.starts_with("bytes=-") {
            return self.with_tag(Response::builder(), tag, Body::from(object.clone()));
        }
        let (from, to) = range["bytes=".len()..].split_once('-').unwrap();
        let to: usize = to.parse().unwrap();
        let range = match from.parse::<usize>() {
            Ok(from) => from..size.min(to + 1),
            Err(_) => size.saturating_sub(to)..size,
        };
        // Of an empty object it is `bytes 0--1/0`, as MinIO says.
        let last = i64::try_from(range.end).unwrap() - 1;
        let content_range = format!("bytes {}-{last}/{size}", range.start);
        let answer = Response::builder().status(StatusCode::PARTIAL_CONTENT);
        let answer = answer.header("content-range", content_range);
        self.with_tag(answer, tag, Body::from(object.slice(range)))
    }

    fn delete(&self, objects: &mut Objects, uri: &Uri, body: &Bytes) -> String {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let keys = text.split("<Key>").skip(1);
        let keys = keys.map(|rest| rest.split_once("</Key>").unwrap().0);
        let answers = keys.map(|key| match self.oddity {
            Oddity::KeepsObjects(code) => {
                format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>No.</Message></Error>")
            }
            _ => {
                let path = format!("{}/{key}", uri.path().trim_end_matches('/'));
                self.remove(objects, &path);
                format!("<Deleted><Key>{key}</Key></Deleted>")
            }
        });
        format!(
            "<DeleteResult>{}</DeleteResult>",
            answers.collect::<String>()
        )
    }

    fn remove(&self, objects: &mut Objects, path: &str) {
        let removed = objects.remove(path);
        if let (Some(removed), Oddity::ListsDeleted) = (removed, self.oddity) {
            self.ghosts.lock().insert(path.to_owned(), removed);
        }
        self.version(path, true);
    }

    fn list(&self, objects: &Objects, uri: &Uri) -> String {
        let (ghosts, newest) = (self.ghosts.lock(), self.newest.lock());
        let late = |path: &str| self.oddity == Oddity::ListsLate && *path == **newest;
        let loses = matches!(self.oddity, Oddity::LosesInLists(name) if has(uri, name));
        let prefix = query(uri, "prefix").unwrap_or_default();
        let bucket = format!("{}/", uri.path().trim_end_matches('/'));
        let keys = objects.iter().chain(ghosts.iter());
        let keys = keys
            .filter(|(path, _)| !late(path) && !loses)
            .filter_map(|(path, stored)| Some((path.strip_prefix(&bucket)?, stored)))
            .filter(|(key, _)| key.starts_with(&prefix));
        let start = match self.oddity {
            Oddity::IgnoresStartAfter => None,
            _ => query(uri, "start-after"),
        };
        let after = query(uri, "continuation-token").or(start);
        let after = after.unwrap_or_default();
        let mut keys: Vec<_> = keys.filter(|(key, _)| **key > *after).collect();
        keys.sort_by_key(|(key, _)| *key);
        let is_truncated = keys.len() > PAGE;
        keys.truncate(PAGE);
        let next = match keys.last() {
            Some((key, _)) if is_truncated => {
                format!("<NextContinuationToken>{key}</NextContinuationToken>")
            }
            _ => String::new(),
        };
        let delimited = query(uri, "delimiter").is_some();
        let has_folders = delimited && self.oddity != Oddity::IgnoresDelimiter;
        let folder = |key: &str| {
            let (name, _) = key[prefix.len()..].split_once('/')?;
            has_folders.then(|| format!("{prefix}{name}/"))
        };
        let folders: BTreeSet<String> = keys.iter().filter_map(|(key, _)| folder(key)).collect();
        keys.retain(|(key, _)| folder(key).is_none());
        let folders = folders
            .iter()
            .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
        let folders = folders.collect::<String>();
        let found = keys.into_iter().map(|(key, (object, tag))| {
            let size = object.len();
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
                 <ETag>{tag}</ETag><Size>{size}</Size></Contents>"
            )
        });
        let found = found.collect::<String>();
        format!(
            "<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{next}{found}{folders}\
             </ListBucketResult>"
        )
    }

    fn list_versions(&self, uri: &Uri) -> String {
        let prefix = query(uri, "prefix").unwrap_or_default();
        let prefix = format!("{}/{prefix}", uri.path().trim_end_matches('/'));
        let versions = self.versions.lock();
        let found = versions
            .iter()
            .filter(|version| version.path.starts_with(&prefix));
        let found = found.map(|Version { path, id, hides }| {
            let element = if *hides { "DeleteMarker" } else { "Version" };
            let key = path.split_once("bucket/").unwrap().1;
            format!("<{element}><Key>{key}</Key><VersionId>{id}</VersionId></{element}>")
        });
        format!(
            "<ListVersionsResult><IsTruncated>false</IsTruncated>{}</ListVersionsResult>",
            found.collect::<String>()
        )
    }
}

/// Objects in an answer to a list, and keys in a request that deletes many.
const PAGE: usize = 1000;

fn has(uri: &Uri, name: &str) -> bool {
    query(uri, name).is_some()
}

fn query(uri: &Uri, name: &str) -> Option<String> {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut found = query.into_iter().filter(|(given, _)| given == name);
    found.next().map(|(_, value)| value.into_owned())
}
