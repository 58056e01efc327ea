//! The client of a request, for the log.
//!
//! Does: name the address and the credential of a client. Does not: decide what it may do.
//! Invariant: it holds no token.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;

use crate::http::server::ClientAddress;

/// What a client presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// No token is required.
    None,
    /// A token, named by its line in `server.token_file`.
    Token { line: usize },
    /// Nothing that permits the request.
    Refused,
}

/// The sender of a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    address: Option<SocketAddr>,
    credential: Credential,
}

impl Caller {
    /// A client at this address.
    pub fn new(address: Option<ClientAddress>, credential: Credential) -> Self {
        Self {
            address: address.map(|ClientAddress(address)| address),
            credential,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown address")?,
        }
        match self.credential {
            Credential::Token { line } => write!(f, " with the token of line {line}"),
            Credential::None | Credential::Refused => Ok(()),
        }
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get().copied())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get().copied();
        Ok(caller.unwrap_or_else(|| Self::new(None, Credential::None)))
    }
}
