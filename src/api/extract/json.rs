//! JSON bodies: `application/json`, one bounded object; the target types refuse unknown members.

use axum::extract::{FromRef, FromRequest, Request};
use serde::de::DeserializeOwned;

use super::control_body::{BodyKind, BodyReservation, SMALL, read_control_body};
use super::headers::{media_type, unsupported};
use crate::api::limits::{BodyLimits, JSON_EXPANSION};
use crate::api::problem::Problem;

/// The type of a JSON body. It must refuse unknown members.
pub(crate) trait JsonBody: DeserializeOwned {
    /// Limit of the body in bytes; `limits.max_control_body_size` applies too.
    const MAX_SIZE: u64;
}

/// A JSON body with its reservation.
pub(crate) struct StrictJson<T>(pub T, pub BodyReservation);

/// A JSON body with its reservation, unless the body is empty.
pub(crate) struct OptionalJson<T>(pub Option<(T, BodyReservation)>);

impl<S, T> FromRequest<S> for StrictJson<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: JsonBody,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let OptionalJson(value) = OptionalJson::from_request(request, state).await?;
        value
            .map(|(value, reservation)| Self(value, reservation))
            .ok_or_else(|| Problem::invalid("the JSON body is missing"))
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: JsonBody,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limits = BodyLimits::from_ref(state);
        let (parts, body) = request.into_parts();
        let media_type = media_type(&parts.headers)?;
        if http_body::Body::is_end_stream(&body) {
            return Ok(Self(None));
        }
        // Checked before the body is read, so that the client need not send it.
        if media_type.as_deref() != Some("application/json") {
            return Err(unsupported(media_type.as_deref(), "application/json"));
        }
        let kind = BodyKind {
            pool: &limits.control_bodies,
            expansion: JSON_EXPANSION,
            besides: 0,
            unreserved: SMALL,
            limit: T::MAX_SIZE.min(limits.max_control_body_size),
            limit_name: match T::MAX_SIZE < limits.max_control_body_size {
                true => "the limit of this route",
                false => "limits.max_control_body_size",
            },
        };
        let read = read_control_body(&parts.headers, body, &limits, kind);
        let (bytes, reservation) = read.await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        // serde would accept the members' values in an array, by position.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid("the JSON body must be an object"));
        }
        serde_json::from_slice(&bytes)
            .map(|value| Self(Some((value, reservation))))
            .map_err(|error| Problem::invalid(format!("invalid JSON body: {error}")))
    }
}
