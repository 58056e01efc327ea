//! `{exchange}`, `{task}` and `{attempt}` of a path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::number::decimal_u32;
use super::{parameter, path_parameters};
use crate::api::problem::Problem;
use crate::id::{MAX_ATTEMPT, MAX_TASKS, SinkId, TaskAttempt};

/// A checked sink id.
pub struct SinkPath(pub SinkId);

impl<S: Send + Sync> FromRequestParts<S> for SinkPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let parameters = path_parameters(parts).await?;
        let exchange = parameter(&parameters, "exchange")?.parse()?;
        let task = decimal_u32("task", parameter(&parameters, "task")?, MAX_TASKS - 1)?;
        let attempt = decimal_u32("attempt", parameter(&parameters, "attempt")?, MAX_ATTEMPT)?;
        Ok(Self(SinkId {
            exchange,
            task_attempt: TaskAttempt::new(task, attempt)?,
        }))
    }
}
