//! What an operator is told about a failure, beside the text of the client.
//!
//! Does: hold it. Does not: decide what it is (`advice`, `issuer_advice`). Invariant: none of it
//! comes from a server.

use std::borrow::Cow;

/// Advice about one failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Advice {
    /// What happened, if the text of the client leads astray.
    pub cause: Option<Cow<'static, str>>,
    /// The way out.
    pub hint: Option<&'static str>,
}

impl Advice {
    pub(super) fn new(cause: impl Into<Cow<'static, str>>, hint: &'static str) -> Self {
        Self {
            cause: Some(cause.into()),
            hint: Some(hint),
        }
    }
}
