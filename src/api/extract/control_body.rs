//! Control bodies: JSON and source handles, read completely into memory.
//!
//! Does: bound each body, and all of them together through a pool. Does not: parse. Invariant: a
//! body larger than [`UNRESERVED`] is held only under a reservation of the request pool. That pool
//! holds only such bodies, so that a coordinator never waits for writers, and a `finish` waits for
//! no memory at all.

use axum::body::Body;
use axum::http::HeaderMap;
use http_body_util::BodyExt;

use super::headers::content_length;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};
use crate::memory::Reservation;

/// Limit of a body without `Content-Length`, in bytes.
const MAX_WITHOUT_LENGTH: u64 = 1 << 20;
/// Bodies of up to this many bytes need no reservation: the connection limit bounds them.
const UNRESERVED: u64 = 16 << 10;

/// The reservation of a body. Hold it as long as anything that was parsed from the body.
pub struct BodyReservation(#[expect(dead_code, reason = "released on drop")] Option<Reservation>);

/// Reads a body of at most `route_limit` bytes; returns it with its reservation.
pub async fn read_control_body(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    route_limit: u64,
) -> Result<(Vec<u8>, BodyReservation), Problem> {
    let announced = content_length(headers)?;
    let limit = route_limit.min(limits.max_control_body_size);
    let size = announced.unwrap_or(MAX_WITHOUT_LENGTH.min(limit));
    if size > limit {
        let bound = match route_limit < limits.max_control_body_size {
            true => "the limit of this route",
            false => "limits.max_control_body_size",
        };
        return Err(Problem::new(
            ProblemType::BodyTooLarge,
            format!("the body has {size} bytes; {bound} is {limit}"),
        ));
    }
    let reservation = if size <= UNRESERVED {
        None
    } else {
        // Fails only for a body that exceeds the pool, and the pool holds two of the largest.
        let reserved = limits.control_bodies.reserve("", size).await;
        Some(reserved.map_err(|error| Problem::new(ProblemType::BodyTooLarge, error.to_string()))?)
    };
    let reading = collect(body, size, announced.is_some());
    let bytes = tokio::select! {
        biased;
        bytes = reading => bytes?,
        () = limits.clock.sleep(limits.body_timeout) => return Err(too_slow(limits)),
    };
    Ok((bytes, BodyReservation(reservation)))
}

/// The problem of a body that is incomplete after `limits.body_timeout`.
pub fn too_slow(limits: &BodyLimits) -> Problem {
    Problem::new(
        ProblemType::Timeout,
        format!(
            "the body was incomplete after limits.body_timeout ({:?}): send it faster, or send \
             smaller batches",
            limits.body_timeout
        ),
    )
}

async fn collect(mut body: Body, limit: u64, announced: bool) -> Result<Vec<u8>, Problem> {
    let capacity = if announced { limit } else { 0 };
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::invalid(format!(
                "body truncated after {} bytes ({error}); resend it",
                bytes.len()
            ))
        })?;
        if let Some(data) = frame.data_ref() {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(Problem::new(
                    ProblemType::BodyTooLarge,
                    format!(
                        "a body without Content-Length is limited to {limit} bytes here: send \
                         Content-Length, or less"
                    ),
                ));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}
