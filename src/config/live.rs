//! Settings that may change while the daemon runs.
//!
//! Does: hold the newest value for all users. Does not: decide which settings change (`keys`).
//! Invariant: a reader gets a complete value, the old or the new one.

use std::sync::Arc;

use parking_lot::RwLock;

/// A value that can be replaced. Cheap to clone; all clones show the newest value.
///
/// ```
/// use stopover::config::Live;
///
/// let limit = Live::new(10);
/// let user = limit.clone();
/// limit.set(20);
/// assert_eq!(user.get(), 20);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Live<T>(Arc<RwLock<T>>);

impl<T: Clone> Live<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The newest value.
    pub fn get(&self) -> T {
        self.0.read().clone()
    }

    /// Replaces the value everywhere.
    pub fn set(&self, value: T) {
        *self.0.write() = value;
    }
}
