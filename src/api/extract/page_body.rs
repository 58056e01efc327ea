//! The head and the body of a page request.
//!
//! Does: refuse by the head alone whatever the head tells, and read a body into one buffer of
//! exactly its size. Does not: reserve memory or look at frames. Invariant: no byte of the body is
//! read by [`PageHead`], so a client that waits for `100 Continue` learns of a refusal without
//! sending it.

use std::fmt::Display;

use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use http_body_util::BodyExt;

use super::control_body::{announced_length, too_slow};
use super::media_type;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};

/// What a page request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageContent {
    /// Page frames, `application/vnd.stopover.pages`.
    Batch,
    /// One page without a frame, `application/octet-stream`.
    RawPage,
}

/// What the head of a page request says.
#[derive(Debug, Clone, Copy)]
pub struct PageHead {
    /// What the body is.
    pub content: PageContent,
    /// Its bytes: at least one, and within the limit.
    pub length: usize,
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
            other => return Err(unsupported(other)),
        };
        let length = announced_length(&parts.headers)?.ok_or_else(|| {
            Problem::new(
                ProblemType::LengthRequired,
                "a page request needs Content-Length, so that memory can be set aside for it",
            )
        })?;
        within_limit(content, length, &limits)?;
        Ok(Self {
            content,
            length: usize::try_from(length).expect("the limits fit into memory"),
        })
    }
}

fn unsupported(given: Option<&str>) -> Problem {
    Problem::new(
        ProblemType::UnsupportedMediaType,
        format!(
            "the body is {}; this route takes application/vnd.stopover.pages (a batch) or \
             application/octet-stream (one raw page)",
            given.unwrap_or("of no content type")
        ),
    )
}

fn within_limit(content: PageContent, length: u64, limits: &BodyLimits) -> Result<(), Problem> {
    let (what, slug, setting, limit) = match content {
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
            slug,
            format!("the {what} has {length} bytes; {setting} is {limit}: send less or raise it"),
        ));
    }
    if length == 0 {
        return Err(Problem::new(
            ProblemType::InvalidFrame,
            format!("the {what} has no bytes: a page has at least one"),
        ));
    }
    Ok(())
}

/// Reads exactly `length` bytes behind `room` bytes of zeros, within `limits.body_timeout`.
/// Whenever more has come, `look` has a look at all that is there.
pub async fn read_exactly(
    body: Body,
    room: usize,
    length: usize,
    limits: &BodyLimits,
    look: impl FnMut(&[u8]),
) -> Result<Vec<u8>, Problem> {
    tokio::select! {
        biased;
        bytes = fill(body, room, length, look) => bytes,
        () = limits.clock.sleep(limits.body_timeout) => Err(too_slow(limits)),
    }
}

async fn fill(
    mut body: Body,
    room: usize,
    length: usize,
    mut look: impl FnMut(&[u8]),
) -> Result<Vec<u8>, Problem> {
    let mut buffer = Vec::with_capacity(room + length);
    buffer.resize(room, 0);
    while let Some(frame) = body.frame().await {
        let came = buffer.len() - room;
        let frame = frame.map_err(|error| cut_short(came, length, &error))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if came + data.len() > length {
            return Err(Problem::invalid(format!(
                "the body has more than the {length} bytes of its Content-Length"
            )));
        }
        buffer.extend_from_slice(data);
        look(&buffer);
    }
    if buffer.len() < room + length {
        return Err(cut_short(buffer.len() - room, length, &"it ended"));
    }
    Ok(buffer)
}

fn cut_short(came: usize, length: usize, why: &dyn Display) -> Problem {
    Problem::invalid(format!(
        "{came} of the {length} bytes of the body came ({why}): send the batch again"
    ))
}
