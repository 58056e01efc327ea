//! The head and the body of a page request.
//!
//! Does: refuse a request by its head where possible, and read a body into one buffer of exactly
//! its size. Does not: reserve memory, or parse frames. Invariant: [`PageHead`] reads no byte of
//! the body, so that a client which sends `Expect: 100-continue` is refused before it sends it.

use std::fmt::Display;

use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::control_body::too_slow;
use super::headers::{content_length, is_foreign, media_type, unsupported};
use super::progress::Progress;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};
use crate::human::count;
use crate::memory::MemoryPool;

/// The content of a page request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageContent {
    /// Page frames, `application/vnd.stopover.pages`.
    Batch,
    /// One page without a frame header, `application/octet-stream`.
    RawPage,
}

/// The head of a page request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageHead {
    pub content: PageContent,
    /// Bytes of the body: at least one, within the limit.
    pub length: usize,
    /// Whether the sink is foreign: its client has a daemon of its own as a fallback.
    pub foreign: bool,
}

impl<S> FromRequestParts<S> for PageHead
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let limits = BodyLimits::from_ref(state);
        let content = match media_type(&parts.headers)?.as_deref() {
            Some("application/vnd.stopover.pages") => PageContent::Batch,
            Some("application/octet-stream") => PageContent::RawPage,
            other => {
                return Err(unsupported(
                    other,
                    "application/vnd.stopover.pages (a batch) or application/octet-stream (one \
                     raw page)",
                ));
            }
        };
        let length = content_length(&parts.headers)?.ok_or_else(|| {
            Problem::new(
                ProblemType::LengthRequired,
                "a page request needs Content-Length, so that memory can be reserved for it",
            )
        })?;
        within_limit(content, length, &limits)?;
        Ok(Self {
            content,
            length: usize::try_from(length).expect("the limits fit into usize"),
            foreign: is_foreign(&parts.headers)?,
        })
    }
}

fn within_limit(content: PageContent, length: u64, limits: &BodyLimits) -> Result<(), Problem> {
    let (what, too_large, setting, limit) = match content {
        PageContent::Batch => (
            "batch",
            ProblemType::BodyTooLarge,
            "limits.max_batch_size",
            limits.max_batch_size,
        ),
        PageContent::RawPage => (
            "page",
            ProblemType::PageTooLarge,
            "limits.max_page_size",
            limits.max_page_size,
        ),
    };
    if length > limit {
        return Err(Problem::new(
            too_large,
            format!(
                "the {what} has {}; {setting} is {limit}: send less, or raise it",
                count(length, "byte")
            ),
        ));
    }
    if length == 0 {
        return Err(Problem::new(
            ProblemType::InvalidFrame,
            format!("the {what} is empty: a page has at least one byte"),
        ));
    }
    Ok(())
}

/// Reads exactly `length` bytes within `limits.body_timeout`, into a buffer that starts with `room`
/// zero bytes. Calls `inspect` with the whole buffer so far whenever bytes have arrived. `pool`
/// holds the memory of the buffer.
pub(crate) async fn read_exactly(
    body: Body,
    (room, length): (usize, usize),
    limits: &BodyLimits,
    pool: &MemoryPool,
    inspect: impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<Vec<u8>, Problem> {
    let progress = Progress::new(&limits.clock, pool);
    let reading = fill(body, progress, (room, length), inspect);
    let read = limits.clock.within(limits.body_timeout, reading).await;
    read.ok_or_else(|| too_slow(limits))?
}

async fn fill(
    mut body: Body,
    mut progress: Progress<'_>,
    (room, length): (usize, usize),
    mut inspect: impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<Vec<u8>, Problem> {
    let mut buffer = Vec::with_capacity(room + length);
    buffer.resize(room, 0);
    while let Some(data) = progress.next(&mut body).await? {
        let received = buffer.len() - room;
        let data = data.map_err(|error| truncated(received, length, &error))?;
        if received + data.len() > length {
            return Err(Problem::invalid(format!(
                "the body exceeds its Content-Length of {}",
                count(length, "byte")
            )));
        }
        buffer.extend_from_slice(&data);
        inspect(&buffer)?;
    }
    if buffer.len() < room + length {
        return Err(truncated(buffer.len() - room, length, &"it ended"));
    }
    Ok(buffer)
}

fn truncated(received: usize, length: usize, reason: &dyn Display) -> Problem {
    Problem::invalid(format!(
        "body truncated: got {received} of {} ({reason}); resend it",
        count(length, "byte")
    ))
}
