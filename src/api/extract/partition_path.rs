//! `{exchange}` and `{partition}` of a path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::number::decimal_u32;
use super::{parameter, path_parameters};
use crate::api::problem::Problem;
use crate::id::{ExchangeId, MAX_PARTITIONS};

/// A checked exchange id, and a number that may be a partition of it.
pub struct PartitionPath {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Output partition; whether the exchange has it is not known yet.
    pub partition: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for PartitionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let parameters = path_parameters(parts).await?;
        let partition = parameter(&parameters, "partition")?;
        Ok(Self {
            exchange: parameter(&parameters, "exchange")?.parse()?,
            partition: decimal_u32("partition", partition, MAX_PARTITIONS - 1)?,
        })
    }
}
