//! Control bodies: JSON and source handles, read completely into memory.
//!
//! Does: bound each body, and all of a kind together through a pool. Does not: parse. Invariant: a
//! body larger than [`BodyKind::unreserved`], and what is parsed from it, is held only under a
//! reservation of the pool of its kind. JSON and handles have a pool each, so that a coordinator
//! waits neither for writers nor for readers, and a `finish` waits for no memory at all.

use axum::body::Body;
use axum::http::HeaderMap;

use super::headers::content_length;
use super::progress::Progress;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};
use crate::human::count;
use crate::memory::{MemoryPool, Reservation};

/// Limit of a body without `Content-Length`, in bytes.
const MAX_WITHOUT_LENGTH: u64 = 1 << 20;
/// JSON bodies of up to this many bytes need no reservation: the connection limit bounds them.
pub(super) const SMALL: u64 = 4 << 10;

/// The reservation of a body. Hold it as long as anything that was parsed from the body.
pub(crate) struct BodyReservation(Option<Reservation>);

impl BodyReservation {
    /// Releases what exceeds `bytes`: what is left of the body needs no more.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        if let Some(reservation) = &mut self.0 {
            reservation.shrink_to(bytes);
        }
    }
}

/// A kind of control body.
pub(super) struct BodyKind<'a> {
    /// The pool that holds such bodies.
    pub pool: &'a MemoryPool,
    /// The most memory that a body and what is parsed from it need, as a multiple of its size.
    pub expansion: u64,
    /// What the request needs besides, in bytes.
    pub besides: u64,
    /// The largest body that needs no reservation, in bytes.
    pub unreserved: u64,
    /// Limit of the body in bytes.
    pub limit: u64,
    /// What the limit is, for a problem.
    pub limit_name: &'static str,
}

/// Reads a body; returns it with its reservation.
pub(super) async fn read_control_body(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    kind: BodyKind<'_>,
) -> Result<(Vec<u8>, BodyReservation), Problem> {
    let announced = content_length(headers)?;
    let (limit, name) = (kind.limit, kind.limit_name);
    let size = announced.unwrap_or(MAX_WITHOUT_LENGTH.min(limit));
    if size > limit {
        return Err(Problem::new(
            ProblemType::BodyTooLarge,
            format!("the body has {}; {name} is {limit}", count(size, "byte")),
        ));
    }
    let reservation = if size <= kind.unreserved {
        None
    } else {
        // Fails only for a body that exceeds the pool, and the pool holds two of the largest.
        let needed = size * kind.expansion + kind.besides;
        let reserved = kind.pool.reserve("", needed).await;
        Some(reserved.map_err(|error| Problem::new(ProblemType::BodyTooLarge, error.to_string()))?)
    };
    let progress = Progress::new(&limits.clock, kind.pool);
    let reading = collect(body, progress, size, announced.is_some());
    let read = limits.clock.within(limits.body_timeout, reading).await;
    let bytes = read.ok_or_else(|| too_slow(limits))??;
    Ok((bytes, BodyReservation(reservation)))
}

/// The problem of a body that is incomplete after `limits.body_timeout`.
pub(super) fn too_slow(limits: &BodyLimits) -> Problem {
    Problem::new(
        ProblemType::Timeout,
        format!(
            "the body was incomplete after limits.body_timeout ({:?}): send it faster, or send \
             smaller batches",
            limits.body_timeout
        ),
    )
}

async fn collect(
    mut body: Body,
    mut progress: Progress<'_>,
    limit: u64,
    announced: bool,
) -> Result<Vec<u8>, Problem> {
    let capacity = if announced { limit } else { 0 };
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    while let Some(data) = progress.next(&mut body).await? {
        let data = data.map_err(|error| {
            Problem::invalid(format!(
                "body truncated after {} ({error}); resend it",
                count(bytes.len(), "byte")
            ))
        })?;
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(Problem::new(
                ProblemType::BodyTooLarge,
                format!(
                    "a body without Content-Length is limited to {limit} bytes here: send \
                     Content-Length, or less"
                ),
            ));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
