//! What a service has given out, and what of it is still valid.
//!
//! Does: number credentials or tokens, revoke them, tell which are valid. Does not: write or read
//! them. Invariant: valid is only what is younger than the lifetime and was not revoked.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub struct Ledger {
    lifetime: Duration,
    /// What the service says that the lifetime is.
    pub claimed: Duration,
    /// When each was given out, and whether it was revoked.
    issued: Mutex<Vec<(Instant, bool)>>,
}

impl Ledger {
    pub fn new(lifetime: Duration, claimed: Duration) -> Self {
        Self {
            lifetime,
            claimed,
            issued: Mutex::default(),
        }
    }

    pub fn issued(&self) -> usize {
        self.issued.lock().len()
    }

    /// Gives out another one: its number, and when it ends as the service says.
    pub fn issue(&self) -> (usize, SystemTime) {
        let mut issued = self.issued.lock();
        issued.push((Instant::now(), false));
        (issued.len() - 1, SystemTime::now() + self.claimed)
    }

    /// Ends all that were given out.
    pub fn revoke(&self) {
        for (_, revoked) in &mut *self.issued.lock() {
            *revoked = true;
        }
    }

    /// Whether the one of this number is valid; `None` if it was never given out.
    pub fn is_valid(&self, number: usize) -> Option<bool> {
        let issued = self.issued.lock();
        let (at, revoked) = issued.get(number)?;
        Some(at.elapsed() < self.lifetime && !revoked)
    }
}
