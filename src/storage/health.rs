//! The health of one base directory, as a value.
//!
//! Does: hold the last failure and whether a background probe runs. Does not: probe (`base`).
//! Invariant: an unhealthy base directory has exactly one background probe.

use parking_lot::Mutex;

/// Shared by all operations on one base directory.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<String>,
    probing: bool,
}

/// What changed with a failure.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// It was healthy before.
    pub was_healthy: bool,
    /// The caller must start the background probe.
    pub start_probing: bool,
}

impl Health {
    /// The last failure; `None` if healthy.
    pub fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }

    pub fn is_healthy(&self) -> bool {
        self.0.lock().failure.is_none()
    }

    /// Records a success; returns whether the base directory was unhealthy.
    pub fn succeed(&self) -> bool {
        self.0.lock().failure.take().is_some()
    }

    /// Records a failure.
    pub fn fail(&self, reason: String) -> Failed {
        let mut state = self.0.lock();
        Failed {
            was_healthy: state.failure.replace(reason).is_none(),
            start_probing: !std::mem::replace(&mut state.probing, true),
        }
    }

    /// Ends the background probe if the base directory is healthy; returns whether it did. Under
    /// the lock, so that a failure at the same moment starts another.
    pub fn stop_probing_if_healthy(&self) -> bool {
        let mut state = self.0.lock();
        state.probing = state.failure.is_some();
        !state.probing
    }
}
