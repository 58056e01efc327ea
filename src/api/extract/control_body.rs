//! Bodies that are not pages (JSON, handles), read whole under `limits.max_json_size`.
//!
//! Does: bound one body and, through a pool of its own, all of them together. Does not: interpret.
//! Invariant: a body above [`TINY`] is held only under a reservation of the request memory, which
//! waits for nothing but other such bodies, so that a coordinator is never stuck behind writers;
//! and what is sent most (a finish) waits for nothing at all.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};
use crate::memory::Reservation;

/// A body whose length is not announced may be this long.
const UNANNOUNCED: u64 = 1 << 20;
/// Announced bodies up to this size need no reservation: the number of connections bounds them.
const TINY: u64 = 16 << 10;

/// What was reserved for a body: kept by who keeps what was read from it.
pub struct BodyReservation(
    #[expect(dead_code, reason = "given back when dropped")] Option<Reservation>,
);

/// Bytes of a body together with what was reserved for them.
pub struct ControlBody {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What was reserved.
    pub held: BodyReservation,
}

/// The announced length of a body, if there is one.
pub fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    super::number::decimal("Content-Length", text, u64::MAX).map(Some)
}

/// Reads a body whole.
pub async fn read_control_body(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
) -> Result<ControlBody, Problem> {
    let announced = announced_length(headers)?;
    let limit = announced.unwrap_or_else(|| UNANNOUNCED.min(limits.max_json_size));
    if limit > limits.max_json_size {
        return Err(Problem::new(
            ProblemType::BodyTooLarge,
            format!(
                "the body has {limit} bytes; limits.max_json_size is {}",
                limits.max_json_size
            ),
        ));
    }
    let reservation = if limit <= TINY {
        None
    } else {
        // A pool refuses only what it could never grant, and this one holds the largest body.
        let reserved = limits.control_bodies.reserve("", limit).await;
        Some(reserved.map_err(|error| Problem::new(ProblemType::BodyTooLarge, error.to_string()))?)
    };
    let reading = collect(body, limit, announced.is_some());
    let bytes = tokio::select! {
        biased;
        bytes = reading => bytes?,
        () = limits.clock.sleep(limits.body_timeout) => return Err(too_slow(limits)),
    };
    Ok(ControlBody {
        bytes,
        held: BodyReservation(reservation),
    })
}

/// The problem of a body that did not come in time.
pub fn too_slow(limits: &BodyLimits) -> Problem {
    Problem::new(
        ProblemType::Timeout,
        format!(
            "the body was not complete after limits.body_timeout, {:?}: send it faster or in \
             smaller batches",
            limits.body_timeout
        ),
    )
}

async fn collect(mut body: Body, limit: u64, announced: bool) -> Result<Vec<u8>, Problem> {
    let room = if announced { limit } else { 0 };
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::invalid(format!(
                "the body ended early after {} bytes: {error}",
                bytes.len()
            ))
        })?;
        if let Some(data) = frame.data_ref() {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(Problem::new(
                    ProblemType::BodyTooLarge,
                    format!(
                        "a body of unannounced length may have {limit} bytes: send Content-Length"
                    ),
                ));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}
