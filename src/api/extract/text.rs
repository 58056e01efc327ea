//! A text body: a source handle, exactly as the daemon returned it.

use axum::extract::{FromRef, FromRequest, Request};

use super::control_body::{BodyKind, BodyReservation, read_control_body};
use super::headers::{media_type, unsupported};
use crate::api::limits::{BodyLimits, HANDLE_EXPANSION};
use crate::api::problem::{Problem, ProblemType};
use crate::catalog::handle::MAX_ENCODED;
use crate::read::MAX_SLICES_SIZE;

/// Text without trailing whitespace (a shell may append a line end), with its reservation.
pub(crate) struct TextBody(pub String, pub BodyReservation);

impl<S> FromRequest<S> for TextBody
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limits = BodyLimits::from_ref(state);
        let (parts, body) = request.into_parts();
        if let Some(other) = media_type(&parts.headers)?.filter(|t| t != "text/plain") {
            return Err(unsupported(Some(&other), "text/plain or no Content-Type"));
        }
        let kind = BodyKind {
            pool: &limits.handles,
            expansion: HANDLE_EXPANSION,
            besides: MAX_SLICES_SIZE,
            unreserved: 0,
            limit: MAX_ENCODED,
            limit_name: "the limit of a source handle",
        };
        let read = read_control_body(&parts.headers, body, &limits, kind);
        let (bytes, reservation) = read.await?;
        let mut text = String::from_utf8(bytes)
            .map_err(|_| Problem::new(ProblemType::InvalidHandle, "the handle is not UTF-8"))?;
        text.truncate(text.trim_ascii_end().len());
        Ok(Self(text, reservation))
    }
}
