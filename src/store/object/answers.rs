//! What the answers of a server show besides what was asked for.
//!
//! Does: note that deleted objects are kept, recognise that the server asks to wait. Does not: wait
//! (`retry`), warn (`storage`) or ask the server for more (`bucket_settings`). Invariant: what was
//! shown once stays known.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};

use super::causes::cause;
use crate::store::Retention;

/// Most of an error's body that is kept, in bytes.
const MAX_BODY: usize = 4 << 10;

/// What the answers to the requests of one base directory have shown.
#[derive(Debug, Default)]
pub struct Seen {
    versions: AtomicBool,
    locks: AtomicBool,
    soft_deletes: AtomicBool,
    bucket_soft_deletes: AtomicBool,
    expirations: AtomicU64,
    /// How many providers of credentials could not renew them last.
    stale: AtomicUsize,
    renews_tokens: AtomicBool,
}

impl Seen {
    /// Notes what an answer shows. Which request it answers does not matter: a store without
    /// versions sends no version id, or `null`.
    pub(super) fn note(&self, answer: &HttpResponse) {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let version = header("x-amz-version-id").or(header("x-ms-version-id"));
        if version.is_some_and(|version| version != "null") {
            self.versions.store(true, Ordering::Relaxed);
        }
        if header("x-amz-object-lock-mode").is_some() {
            self.locks.store(true, Ordering::Relaxed);
        }
    }

    /// Notes what an answer to a delete of several objects shows, which Azure gives as one answer
    /// for each of them in the body. That of one object is in its headers.
    pub(super) async fn note_batch(&self, answer: HttpResponse) -> Result<HttpResponse, HttpError> {
        let content_type = answer.headers().get("content-type");
        if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"multipart/mixed")) {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await?;
        let shown = body.to_ascii_lowercase();
        if has(&shown, b"x-ms-delete-type-permanent: false") {
            self.soft_deletes.store(true, Ordering::Relaxed);
        }
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)))
    }

    /// Notes what the settings of the bucket show: that it keeps versions, or what is deleted.
    pub(super) fn note_settings(&self, versions: bool, soft_deletes: bool) {
        self.versions.fetch_or(versions, Ordering::Relaxed);
        self.bucket_soft_deletes
            .fetch_or(soft_deletes, Ordering::Relaxed);
    }

    /// Notes that the credentials of a request were expired.
    pub(super) fn note_expired(&self) {
        self.expirations.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was noted. Each provider of credentials compares it with what it knew.
    pub(super) fn expirations(&self) -> u64 {
        self.expirations.load(Ordering::Relaxed)
    }

    /// Notes that a provider of credentials can no longer renew them, or can again.
    pub(super) fn note_stale(&self, stale: bool) {
        match stale {
            true => self.stale.fetch_add(1, Ordering::Relaxed),
            false => self.stale.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether a provider could not renew its credentials last.
    pub(super) fn has_stale_credentials(&self) -> bool {
        self.stale.load(Ordering::Relaxed) > 0
    }

    /// Notes that requests carry tokens that are requested anew where one is not accepted.
    pub(super) fn note_renewed_tokens(&self) {
        self.renews_tokens.store(true, Ordering::Relaxed);
    }

    /// Whether that was noted.
    pub(super) fn renews_tokens(&self) -> bool {
        self.renews_tokens.load(Ordering::Relaxed)
    }

    /// Why the store keeps what is deleted, if it showed that.
    pub(super) fn retention(&self) -> Option<Retention> {
        if self.locks.load(Ordering::Relaxed) {
            return Some(Retention::ObjectLock);
        }
        if self.versions.load(Ordering::Relaxed) {
            return Some(Retention::Versions);
        }
        if self.bucket_soft_deletes.load(Ordering::Relaxed) {
            return Some(Retention::BucketSoftDelete);
        }
        let soft_deletes = self.soft_deletes.load(Ordering::Relaxed);
        soft_deletes.then_some(Retention::SoftDelete)
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The server refused for the moment and said when to come back. Its text is that of the client for
/// any other answer of this status.
#[derive(Debug, thiserror::Error)]
#[error("Server returned non-2xx status code: {status}: {body}")]
struct AsksToWait {
    status: u16,
    body: String,
    wait: Duration,
}

/// How long a throttled answer asks to wait. A date is not understood: clocks differ.
fn asked_wait(answer: &HttpResponse) -> Option<Duration> {
    if !matches!(answer.status().as_u16(), 429 | 503) {
        return None;
    }
    let value = answer.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The answer, or the error of one that asks to wait: the client of the store drops the header.
pub(super) async fn unless_throttled(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let Some(wait) = asked_wait(&answer) else {
        return Ok(answer);
    };
    let status = answer.status().as_u16();
    let body = answer.into_body().bytes().await.unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_BODY)]).into_owned();
    let asks = AsksToWait { status, body, wait };
    Err(HttpError::new(HttpErrorKind::Unknown, asks))
}

/// How long the server asked to wait, if that is why an operation failed.
pub(super) fn retry_after(error: &object_store::Error) -> Option<Duration> {
    cause::<AsksToWait>(error).map(|asks| asks.wait)
}
