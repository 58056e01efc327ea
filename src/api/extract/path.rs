//! Path parameters.
//!
//! Does: check ids and numbers, and describe the parameters for OpenAPI. Does not: check whether
//! the exchange exists, or how many partitions it has.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::number::decimal;
use crate::api::problem::Problem;
use crate::id::{
    BaseName, ExchangeId, InvalidId, MAX_ATTEMPT, MAX_PARTITIONS, MAX_TASKS, SinkId, TaskAttempt,
};
use crate::telemetry::traces::SpanRef;

/// `{exchange}`, unchecked.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ExchangeParams {
    /// 1 to 160 characters of A-Z a-z 0-9 _ -
    exchange: String,
}

/// `{exchange}`, `{task}` and `{attempt}`, unchecked.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SinkParams {
    /// 1 to 160 characters of A-Z a-z 0-9 _ -
    exchange: String,
    /// Task partition, below 1048576
    #[param(value_type = u32)]
    task: String,
    /// Attempt, at most 127
    #[param(value_type = u32)]
    attempt: String,
}

/// `{exchange}` and `{partition}`, unchecked.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct PartitionParams {
    /// 1 to 160 characters of A-Z a-z 0-9 _ -
    exchange: String,
    /// Output partition
    #[param(value_type = u32)]
    partition: String,
}

/// `{base}`, unchecked.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct BaseParams {
    /// Name of a base directory
    base: String,
}

/// A valid exchange id.
pub(crate) struct ExchangePath(pub ExchangeId);

/// What could be the name of a base directory.
pub(crate) struct BasePath(pub BaseName);

/// A valid sink id.
pub(crate) struct SinkPath(pub SinkId);

/// A valid exchange id, and an output partition that some exchange could have.
pub(crate) struct PartitionPath {
    pub exchange: ExchangeId,
    pub partition: u32,
}

async fn unchecked<T: DeserializeOwned + Send>(parts: &mut Parts) -> Result<T, Problem> {
    Path::from_request_parts(parts, &())
        .await
        .map(|Path(unchecked)| unchecked)
        .map_err(|rejection: PathRejection| Problem::invalid(rejection.body_text()))
}

/// Checks the id, and names the exchange in the span of the request.
fn exchange_id(text: &str) -> Result<ExchangeId, InvalidId> {
    let exchange = text.parse()?;
    SpanRef::current().set("stopover.exchange", &exchange);
    Ok(exchange)
}

impl<S: Send + Sync> FromRequestParts<S> for ExchangePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let path: ExchangeParams = unchecked(parts).await?;
        Ok(Self(exchange_id(&path.exchange)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BasePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let path: BaseParams = unchecked(parts).await?;
        Ok(Self(path.base.parse()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SinkPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let path: SinkParams = unchecked(parts).await?;
        let task = decimal("task", &path.task, MAX_TASKS - 1)?;
        let attempt = decimal("attempt", &path.attempt, MAX_ATTEMPT)?;
        let span = SpanRef::current();
        span.set_number("stopover.task", task.into());
        span.set_number("stopover.attempt", attempt.into());
        Ok(Self(SinkId {
            exchange: exchange_id(&path.exchange)?,
            task_attempt: TaskAttempt::new(task, attempt)?,
        }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PartitionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let path: PartitionParams = unchecked(parts).await?;
        let partition = decimal("partition", &path.partition, MAX_PARTITIONS - 1)?;
        SpanRef::current().set_number("stopover.partition", partition.into());
        Ok(Self {
            exchange: exchange_id(&path.exchange)?,
            partition,
        })
    }
}
