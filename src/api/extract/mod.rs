//! Extractors: one file for each part of a request.
//!
//! Does: turn untrusted text and bytes into checked values, or refuse them with a problem that
//! states the reason. Does not: know routes, or what a value is for. Invariant: an extracted value
//! has been checked completely.

mod control_body;
mod headers;
mod json;
mod list;
mod number;
mod page_body;
mod path;
mod progress;
mod query;
mod text;

pub(super) use json::{JsonBody, OptionalJson, StrictJson};
pub(super) use list::list;
pub(super) use page_body::{PageContent, PageHead, read_exactly};
pub(super) use path::{
    BaseParams, BasePath, ExchangeParams, ExchangePath, PartitionParams, PartitionPath, SinkParams,
    SinkPath,
};
pub(super) use query::{NoQuery, QueryParameters, StrictQuery, Values};
pub(super) use text::TextBody;

#[cfg(test)]
mod tests;
