//! JSON bodies: `application/json`, bounded, unknown members refused (by the types themselves).

use axum::extract::{FromRef, FromRequest, Request};
use serde::de::DeserializeOwned;

use super::control_body::{BodyReservation, read_control_body};
use super::media_type;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};

/// A JSON body and what was reserved for it. `T` must refuse unknown fields.
pub struct StrictJson<T>(pub T, pub BodyReservation);

/// A JSON body that may be left out.
pub struct OptionalJson<T>(pub Option<(T, BodyReservation)>);

impl<S, T> FromRequest<S> for StrictJson<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let OptionalJson(value) = OptionalJson::from_request(request, state).await?;
        value
            .map(|(value, held)| Self(value, held))
            .ok_or_else(|| Problem::invalid("a JSON body is needed, and none came"))
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limits = BodyLimits::from_ref(state);
        let (parts, body) = request.into_parts();
        let media_type = media_type(&parts.headers)?;
        if http_body::Body::is_end_stream(&body) {
            return Ok(Self(None));
        }
        // Refused before a byte is read, so that the client need not send them.
        if media_type.as_deref() != Some("application/json") {
            return Err(Problem::new(
                ProblemType::UnsupportedMediaType,
                format!(
                    "the body is {}; this route takes application/json",
                    media_type.as_deref().unwrap_or("of no content type")
                ),
            ));
        }
        let body = read_control_body(&parts.headers, body, &limits).await?;
        if body.bytes.is_empty() {
            return Ok(Self(None));
        }
        serde_json::from_slice(&body.bytes)
            .map(|value| Self(Some((value, body.held))))
            .map_err(|error| Problem::invalid(format!("the JSON body is not valid: {error}")))
    }
}
