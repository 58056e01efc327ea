//! Promises broken on purpose, to show that the checker sees it.
//!
//! A mutant sits in a seam: between a daemon and one of its stores, or between a daemon's router
//! and the network. Nothing of it is in the daemon. To add one: a variant, what it does in `over`
//! or `serve`, and nothing else; the test goes through all of them.

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
use stopover::storage::Tail;
use stopover::store::keys::{Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};
use tower::ServiceExt as _;

use crate::meter::footer_of;
use crate::nest::Nest;
use crate::store::Site;
use crate::wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A store answers a put before it holds the bytes, and forgets them with the daemon.
    StoreAcknowledgesEarly,
    /// Segments without commit records are acknowledged before they are stored, so that a commit
    /// record is written before an earlier segment of its attempt is durable.
    RecordBeforeItsSegments,
    /// A list does not show what was put last.
    ListIsStale,
    /// Deletes do nothing in one base directory.
    CloseForgetsABase,
    /// A renewal does not change the version of a marker: the sweeper goes by age.
    SweeperGoesByAge,
    /// A base directory keeps what it was given in the daemon's own memory.
    MemoryIsKept,
    /// A store gives a part of something larger, which stays in memory with it.
    RangeKeepsWhatLiesBefore,
    /// Bodies are read before there is room for them.
    BodyIsReadBeforeItsTurn,
    /// The daemon takes every batch, repeated or not, as the next one.
    RepeatedBatchIsTakenTwice,
    /// A finish is answered at once.
    FinishAcknowledgesEarly,
    /// An abort is answered and not carried out.
    AbortIsForgotten,
    /// An abort that came after the finish says that it won.
    AbortWinsAfterFinish,
    /// A read skips a page and counts what it sent.
    ReadSkipsAPage,
    /// A read gives two pages in the wrong order.
    ReadSwapsPages,
    /// A read that fails in its midst ends as if it were whole.
    ReadEndsEarly,
    /// A daemon answers for a closed exchange what it remembers.
    ClosedIsStillListed,
}

pub const ALL: &[Mutant] = &[
    Mutant::StoreAcknowledgesEarly,
    Mutant::RecordBeforeItsSegments,
    Mutant::ListIsStale,
    Mutant::CloseForgetsABase,
    Mutant::SweeperGoesByAge,
    Mutant::MemoryIsKept,
    Mutant::RangeKeepsWhatLiesBefore,
    Mutant::BodyIsReadBeforeItsTurn,
    Mutant::RepeatedBatchIsTakenTwice,
    Mutant::FinishAcknowledgesEarly,
    Mutant::AbortIsForgotten,
    Mutant::AbortWinsAfterFinish,
    Mutant::ReadSkipsAPage,
    Mutant::ReadSwapsPages,
    Mutant::ReadEndsEarly,
    Mutant::ClosedIsStillListed,
];

impl Mutant {
    /// A daemon's store with this fault in it.
    pub fn over(self, store: Arc<dyn Store>, site: &Arc<Site>, nest: &Arc<Nest>) -> Arc<dyn Store> {
        Arc::new(MutantStore {
            mutant: self,
            inner: store,
            first: site.name.as_str() == "a",
            nest: Arc::clone(nest),
            last: Mutex::default(),
            kept: Mutex::default(),
        })
    }
}

#[derive(Debug)]
struct MutantStore {
    mutant: Mutant,
    inner: Arc<dyn Store>,
    /// The first base directory of the world.
    first: bool,
    nest: Arc<Nest>,
    last: Mutex<Option<Key>>,
    kept: Mutex<Vec<Bytes>>,
}

impl MutantStore {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    /// Puts it some time, if the daemon lives so long.
    fn put_later(&self, key: &Key, content: &[Bytes]) {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        let content = vec![Bytes::from(content.concat())];
        self.nest.start(Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = inner.put(&key, content).await;
        }));
    }
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
        if segment && self.is(Mutant::MemoryIsKept) {
            self.kept.lock().extend(content.iter().cloned());
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
        if self.is(Mutant::SweeperGoesByAge) && *expected != Precondition::Absent {
            // It must not matter what lies there, as it always looks the same.
            return self.inner.put(key, vec![content]).await.map(|()| true);
        }
        self.inner.put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let mut versioned = self.inner.get_versioned(key).await?;
        if self.is(Mutant::SweeperGoesByAge) {
            versioned.version = "1".into();
        }
        Ok(versioned)
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.inner.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if self.is(Mutant::RangeKeepsWhatLiesBefore) {
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
        Ok(found)
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.inner.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let probe = keys.iter().any(|key| key.as_str().starts_with(".probe"));
        if self.is(Mutant::CloseForgetsABase) && self.first && !probe {
            return Ok(keys.len() as u64);
        }
        self.inner.delete(keys).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        if self.is(Mutant::CloseForgetsABase) && self.first {
            return Ok(DeleteOutcome::Removed);
        }
        let version = version.filter(|_| !self.is(Mutant::SweeperGoesByAge));
        self.inner.delete_if(key, version).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.inner.remove_stale_temporaries(folder).await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}

/// Where requests enter a daemon.
pub struct Door {
    mutant: Option<Mutant>,
    taken: Mutex<BTreeMap<String, u32>>,
    finished: Mutex<BTreeSet<String>>,
    shown: Mutex<BTreeMap<String, Bytes>>,
}

impl Door {
    pub fn new(mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Self {
            mutant,
            taken: Mutex::default(),
            finished: Mutex::default(),
            shown: Mutex::default(),
        })
    }

    pub async fn serve(&self, router: Router, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let answer = |request| async { router.clone().oneshot(request).await.expect("infallible") };
        match self.mutant {
            Some(Mutant::BodyIsReadBeforeItsTurn) if path.ends_with("/pages") => {
                let (parts, body) = request.into_parts();
                match to_bytes(body, 1 << 20).await {
                    Ok(body) => answer(Request::from_parts(parts, Body::from(body))).await,
                    Err(_) => Response::new(Body::empty()),
                }
            }
            Some(Mutant::RepeatedBatchIsTakenTwice) if path.ends_with("/pages") => {
                self.take_as_next(&path, request, answer).await
            }
            Some(Mutant::RepeatedBatchIsTakenTwice) if path.ends_with("/finish") => {
                let (mut parts, _) = request.into_parts();
                parts.headers.remove("content-length");
                parts.headers.remove("content-type");
                answer(Request::from_parts(parts, Body::empty())).await
            }
            Some(Mutant::FinishAcknowledgesEarly) if path.ends_with("/finish") => {
                let (parts, body) = request.into_parts();
                let claim = to_bytes(body, 1 << 20).await.unwrap_or_default();
                let copy = Request::from_parts(parts, Body::from(claim.clone()));
                let at_once = tokio::time::timeout(Duration::from_millis(5), answer(copy)).await;
                at_once.unwrap_or_else(|_| Response::new(Body::from(claim)))
            }
            Some(Mutant::AbortIsForgotten) if path.ends_with("/abort") => aborted(),
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
            Some(Mutant::ClosedIsStillListed) if request.method() == "GET" => {
                self.remember(&path, answer(request).await).await
            }
            Some(mutant) if path == "/v1/read" => spoil(mutant, answer(request).await).await,
            _ => answer(request).await,
        }
    }

    /// Numbers batches by itself, and so never sees that one is repeated.
    async fn take_as_next<F: Future<Output = Response<Body>>>(
        &self,
        path: &str,
        mut request: Request<Body>,
        answer: impl Fn(Request<Body>) -> F,
    ) -> Response<Body> {
        let number = *self.taken.lock().entry(path.to_owned()).or_default();
        let uri = format!("{path}?batch={number}");
        *request.uri_mut() = uri.parse::<Uri>().expect("a path");
        let answered = answer(request).await;
        if answered.status().is_success() {
            *self.taken.lock().entry(path.to_owned()).or_default() = number + 1;
        }
        answered
    }

    async fn remember(&self, path: &str, answered: Response<Body>) -> Response<Body> {
        let gone = answered.status() == 404 || answered.status() == 410;
        let before = self.shown.lock().get(path).cloned();
        if let (true, Some(before)) = (gone, before) {
            return Response::new(Body::from(before));
        }
        let (parts, body) = answered.into_parts();
        let Ok(body) = to_bytes(body, 1 << 20).await else {
            return Response::new(Body::empty());
        };
        if parts.status.is_success() {
            self.shown.lock().insert(path.to_owned(), body.clone());
        }
        Response::from_parts(parts, Body::from(body))
    }
}

fn aborted() -> Response<Body> {
    Response::new(Body::from(r#"{"state":"aborted"}"#))
}

/// A read stream with a fault in it that its own records do not tell.
async fn spoil(mutant: Mutant, answered: Response<Body>) -> Response<Body> {
    let (parts, body) = answered.into_parts();
    let Ok(bytes) = to_bytes(body, 1 << 20).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let spoiled = match wire::decode(&bytes) {
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
    Response::from_parts(parts, Body::from(spoiled))
}
