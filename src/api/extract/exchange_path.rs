//! `{exchange}` of a path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::{parameter, path_parameters};
use crate::api::problem::Problem;
use crate::id::ExchangeId;

/// A checked exchange id.
pub struct ExchangePath(pub ExchangeId);

impl<S: Send + Sync> FromRequestParts<S> for ExchangePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let parameters = path_parameters(parts).await?;
        Ok(Self(parameter(&parameters, "exchange")?.parse()?))
    }
}
