//! A store that was built from the configuration.
//!
//! Does: hold it with its location and limits. Does not: build it (`open`, `object`). Invariant:
//! two base directories with the same location hold the same objects.

use std::sync::Arc;

use super::{Store, StoreLimits};
use crate::certificate::Validity;

/// A store without wrappers.
#[derive(Debug)]
pub struct OpenedStore {
    /// Identifies where the objects are, including the endpoint; names are derived from it.
    pub location: String,
    /// The backend.
    pub store: Arc<dyn Store>,
    /// Its defaults, unless options change them.
    pub limits: StoreLimits,
    /// When the credentials that its options contain are valid: a certificate that is shown to the
    /// store, a shared access signature. `None` if there is no end, or it is renewed by itself.
    pub validity: Option<Validity>,
}
