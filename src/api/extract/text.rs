//! A body of text: a source handle, exactly as it was given out.

use axum::extract::{FromRef, FromRequest, Request};

use super::control_body::{BodyReservation, read_control_body};
use super::media_type;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};

/// Text without the line end that a shell may have put behind it, and what was reserved for it.
pub struct TextBody(pub String, pub BodyReservation);

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
            return Err(Problem::new(
                ProblemType::UnsupportedMediaType,
                format!("the body is {other}; this route takes text/plain or no content type"),
            ));
        }
        let body = read_control_body(&parts.headers, body, &limits).await?;
        let mut text = String::from_utf8(body.bytes)
            .map_err(|_| Problem::new(ProblemType::InvalidHandle, "the handle is not text"))?;
        text.truncate(text.trim_ascii_end().len());
        Ok(Self(text, body.held))
    }
}
