//! Promises broken on purpose, to show that the checker detects it.
//!
//! A mutant sits between a daemon and its stores, or between the network and a daemon's router; the
//! daemon itself is unchanged. To add one: a variant, its line in `ALL`, and its effect in
//! `MutantStore` or `MutantRouter`. The test runs all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, Uri};
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::storage::{Digest, DigestEntry, DigestExchanges, Tail};
use stopover::store::keys::{self, Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};
use tower::ServiceExt as _;

use crate::meter::footer_of;
use crate::process::Process;
use crate::store::Site;
use crate::wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A store acknowledges a put before it has the bytes, and loses them if the daemon dies.
    StoreAcknowledgesEarly,
    /// Segments without commit records are acknowledged before they are stored, so that a commit
    /// record is written before an earlier segment of its attempt is durable.
    RecordBeforeItsSegments,
    /// A list omits the last object that was put.
    ListIsStale,
    /// Deletes do nothing in one base directory.
    DeletesSkipABase,
    /// A renewal does not change the version of a marker, so that an exchange expires by age.
    MarkerVersionNeverChanges,
    /// A digest says that every exchange was not renewed for an hour, and that nobody sweeps.
    DigestTellsTooMuch,
    /// A store retains the bytes of its puts in the daemon's memory.
    PutRetainsMemory,
    /// A store returns a slice of a larger buffer, which stays in memory.
    RangeRetainsItsPrefix,
    /// Request bodies are read before memory is reserved for them.
    BodyIsReadBeforeReservation,
    /// The daemon appends every batch, even a repeated one.
    RepeatedBatchIsAppendedTwice,
    /// A finish is answered at once.
    FinishAcknowledgesEarly,
    /// An abort is acknowledged but not executed.
    AbortIsIgnored,
    /// An abort after the finish is acknowledged.
    AbortWinsAfterFinish,
    /// A read omits a page, also from its counts.
    ReadSkipsAPage,
    /// A read returns two pages in the wrong order.
    ReadSwapsPages,
    /// A read omits its last page and ends as if it were complete.
    ReadEndsEarly,
    /// A daemon repeats earlier answers for a closed exchange.
    ClosedExchangeIsStillServed,
}

pub const ALL: &[Mutant] = &[
    Mutant::StoreAcknowledgesEarly,
    Mutant::RecordBeforeItsSegments,
    Mutant::ListIsStale,
    Mutant::DeletesSkipABase,
    Mutant::MarkerVersionNeverChanges,
    Mutant::DigestTellsTooMuch,
    Mutant::PutRetainsMemory,
    Mutant::RangeRetainsItsPrefix,
    Mutant::BodyIsReadBeforeReservation,
    Mutant::RepeatedBatchIsAppendedTwice,
    Mutant::FinishAcknowledgesEarly,
    Mutant::AbortIsIgnored,
    Mutant::AbortWinsAfterFinish,
    Mutant::ReadSkipsAPage,
    Mutant::ReadSwapsPages,
    Mutant::ReadEndsEarly,
    Mutant::ClosedExchangeIsStillServed,
];

impl Mutant {
    /// A store with this fault.
    pub fn wrap(
        self,
        store: Arc<dyn Store>,
        site: &Arc<Site>,
        process: &Arc<Process>,
    ) -> Arc<dyn Store> {
        Arc::new(MutantStore {
            mutant: self,
            inner: store,
            first: site.name.as_str() == "a",
            process: Arc::clone(process),
            last: Mutex::default(),
            retained: Mutex::default(),
        })
    }
}

#[derive(Debug)]
struct MutantStore {
    mutant: Mutant,
    inner: Arc<dyn Store>,
    /// The first base directory of the world.
    first: bool,
    process: Arc<Process>,
    last: Mutex<Option<Key>>,
    retained: Mutex<Vec<Bytes>>,
}

impl MutantStore {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    /// Puts the object after a while, unless the daemon dies before.
    fn put_later(&self, key: &Key, content: &[Bytes]) {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        let content = vec![Bytes::from(content.concat())];
        self.process.start(Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = inner.put(&key, content).await;
        }));
    }
}

/// A digest after which every exchange has expired.
fn exaggerated(stored: Bytes) -> Bytes {
    let Ok(mut digest) = Digest::decode(&stored) else {
        return stored;
    };
    let unrenewed = Duration::from_secs(3600);
    let listed = digest.exchanges.iter();
    let listed = listed.map(|(hash, entry)| (hash, DigestEntry { unrenewed, ..entry }));
    digest.exchanges = DigestExchanges::complete(listed.collect());
    digest.holder = None;
    digest.encode()
}

/// Whether a segment's footer holds commit records.
fn commits(content: &[Bytes]) -> bool {
    footer_of(content).is_none_or(|footer| !footer.commits.is_empty())
}

#[async_trait]
impl Store for MutantStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        let segment = key.as_str().ends_with(".seg");
        let early = self.is(Mutant::StoreAcknowledgesEarly)
            || (self.is(Mutant::RecordBeforeItsSegments) && !commits(&content));
        if segment && early {
            self.put_later(key, &content);
            return Ok(());
        }
        if segment && self.is(Mutant::PutRetainsMemory) {
            self.retained.lock().extend(content.iter().cloned());
        }
        let put = self.inner.put(key, content).await;
        if segment && put.is_ok() {
            *self.last.lock() = Some(key.clone());
        }
        put
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        if self.is(Mutant::MarkerVersionNeverChanges)
            && matches!(expected, Precondition::Version(_))
        {
            // All versions are reported as equal, so the precondition cannot be checked.
            return self.inner.put(key, vec![content]).await.map(|()| true);
        }
        self.inner.put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let mut versioned = self.inner.get_versioned(key).await?;
        if self.is(Mutant::MarkerVersionNeverChanges) {
            versioned.version = "1".into();
            versioned.entity_tag = "1".into();
        }
        if self.is(Mutant::DigestTellsTooMuch) && *key == keys::sweeper() {
            versioned.bytes = exaggerated(versioned.bytes);
        }
        Ok(versioned)
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.inner.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if self.is(Mutant::RangeRetainsItsPrefix) {
            let more = self.inner.get_range(key, 0..range.end).await?;
            return Ok(more.slice(range.start as usize..));
        }
        self.inner.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut found = self.inner.list(folder).await?;
        if self.is(Mutant::ListIsStale) {
            let last = self.last.lock().clone();
            found.retain(|one| Some(&one.key) != last.as_ref());
        }
        if self.is(Mutant::MarkerVersionNeverChanges) {
            found
                .iter_mut()
                .for_each(|one| one.entity_tag = Some("1".into()));
        }
        Ok(found)
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.inner.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let probe = keys.iter().any(|key| key.as_str().starts_with("v2/probes"));
        if self.is(Mutant::DeletesSkipABase) && self.first && !probe {
            return Ok(keys.len() as u64);
        }
        self.inner.delete(keys).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        if self.is(Mutant::DeletesSkipABase) && self.first {
            return Ok(DeleteOutcome::Removed);
        }
        let version = version.filter(|_| !self.is(Mutant::MarkerVersionNeverChanges));
        self.inner.delete_if(key, version).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.inner.remove_stale_temporaries(folder).await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}

/// Passes requests to a daemon's router, with the fault of the mutant.
pub struct MutantRouter {
    mutant: Option<Mutant>,
    next_batch: Mutex<BTreeMap<String, u32>>,
    finished: Mutex<BTreeSet<String>>,
    last_answers: Mutex<BTreeMap<String, Bytes>>,
}

impl MutantRouter {
    pub fn new(mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Self {
            mutant,
            next_batch: Mutex::default(),
            finished: Mutex::default(),
            last_answers: Mutex::default(),
        })
    }

    pub async fn serve(&self, router: Router, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let answer = |request| async { router.clone().oneshot(request).await.expect("infallible") };
        match self.mutant {
            Some(Mutant::BodyIsReadBeforeReservation) if path.ends_with("/pages") => {
                let (parts, body) = request.into_parts();
                match to_bytes(body, 1 << 20).await {
                    Ok(body) => answer(Request::from_parts(parts, Body::from(body))).await,
                    Err(_) => Response::new(Body::empty()),
                }
            }
            Some(Mutant::RepeatedBatchIsAppendedTwice) if path.ends_with("/pages") => {
                self.number_batches(&path, request, answer).await
            }
            Some(Mutant::RepeatedBatchIsAppendedTwice) if path.ends_with("/finish") => {
                let (mut parts, _) = request.into_parts();
                parts.headers.remove("content-length");
                parts.headers.remove("content-type");
                answer(Request::from_parts(parts, Body::empty())).await
            }
            Some(Mutant::FinishAcknowledgesEarly) if path.ends_with("/finish") => {
                let (parts, body) = request.into_parts();
                let claim = to_bytes(body, 1 << 20).await.unwrap_or_default();
                let copy = Request::from_parts(parts, Body::from(claim.clone()));
                let early = tokio::time::timeout(Duration::from_millis(5), answer(copy)).await;
                early.unwrap_or_else(|_| Response::new(Body::from(claim)))
            }
            Some(Mutant::AbortIsIgnored) if path.ends_with("/abort") => aborted(),
            Some(Mutant::AbortWinsAfterFinish) if path.ends_with("/abort") => {
                let sink = path.trim_end_matches("/abort").to_owned();
                let finished = self.finished.lock().contains(&sink);
                if finished {
                    return aborted();
                }
                answer(request).await
            }
            Some(Mutant::AbortWinsAfterFinish) if path.ends_with("/finish") => {
                let answered = answer(request).await;
                if answered.status().is_success() {
                    let sink = path.trim_end_matches("/finish").to_owned();
                    self.finished.lock().insert(sink);
                }
                answered
            }
            Some(Mutant::ClosedExchangeIsStillServed) if request.method() == "GET" => {
                self.answer_as_before(&path, answer(request).await).await
            }
            Some(mutant) if path == "/v1/read" => tamper(mutant, answer(request).await).await,
            _ => answer(request).await,
        }
    }

    /// Replaces the numbers of batches, so that a repeated one looks new.
    async fn number_batches<F: Future<Output = Response<Body>>>(
        &self,
        path: &str,
        mut request: Request<Body>,
        answer: impl Fn(Request<Body>) -> F,
    ) -> Response<Body> {
        let number = *self.next_batch.lock().entry(path.to_owned()).or_default();
        let uri = format!("{path}?batch={number}");
        *request.uri_mut() = uri.parse::<Uri>().expect("a path");
        let answered = answer(request).await;
        if answered.status().is_success() {
            *self.next_batch.lock().entry(path.to_owned()).or_default() = number + 1;
        }
        answered
    }

    async fn answer_as_before(&self, path: &str, answered: Response<Body>) -> Response<Body> {
        let missing = answered.status() == 404 || answered.status() == 410;
        let before = self.last_answers.lock().get(path).cloned();
        if let (true, Some(before)) = (missing, before) {
            return Response::new(Body::from(before));
        }
        let (parts, body) = answered.into_parts();
        let Ok(body) = to_bytes(body, 1 << 20).await else {
            return Response::new(Body::empty());
        };
        if parts.status.is_success() {
            self.last_answers
                .lock()
                .insert(path.to_owned(), body.clone());
        }
        Response::from_parts(parts, Body::from(body))
    }
}

fn aborted() -> Response<Body> {
    Response::new(Body::from(r#"{"state":"aborted"}"#))
}

/// Changes a read stream without making its records inconsistent.
async fn tamper(mutant: Mutant, answered: Response<Body>) -> Response<Body> {
    let (parts, body) = answered.into_parts();
    let Ok(bytes) = to_bytes(body, 1 << 20).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let tampered = match wire::decode(&bytes) {
        Ok((mut pages, wire::End::Complete)) => {
            match mutant {
                Mutant::ReadSkipsAPage if pages.len() > 2 => drop(pages.remove(1)),
                Mutant::ReadSwapsPages if pages.len() > 2 => pages.swap(0, 1),
                Mutant::ReadEndsEarly => drop(pages.pop()),
                _ => return Response::from_parts(parts, Body::from(bytes)),
            }
            wire::encode(&pages)
        }
        _ => return Response::from_parts(parts, Body::from(bytes)),
    };
    Response::from_parts(parts, Body::from(tampered))
}
