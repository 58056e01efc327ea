//! Seals the open segment of an exchange when the policy says so, and sends it on its way.
//!
//! Does: ask the policy, number segments, come back when it is time. Does not: decide
//! (`seal_policy`) or store (`uploader`). Invariant: whoever changes what the policy looks at asks
//! it again, so that no finish waits for an event that has passed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::exchange::{ExchangeState, Sealed};
use super::seal_policy::Decision;
use super::{Ingest, uploader};
use crate::id::ExchangeId;

impl Ingest {
    pub(super) fn seal_if_due(&self, state: &mut ExchangeState) -> Option<Sealed> {
        let view = state.view(self.shared.parts.runtime.clock.now());
        match self.shared.policy.decide(&view) {
            Decision::Seal => self.seal(state),
            Decision::LookAgain(_) | Decision::Rest => None,
        }
    }

    fn next_sequence(&self) -> u64 {
        self.shared.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn seal(&self, state: &mut ExchangeState) -> Option<Sealed> {
        let sealed = state.seal(self.next_sequence(), self.shared.policy.worth_a_follower());
        if let Some(sealed) = &sealed {
            self.shared
                .in_flight_bytes
                .fetch_add(sealed.pages.bytes, Ordering::AcqRel);
        }
        sealed
    }

    pub(super) fn upload(
        &self,
        state: &Arc<Mutex<ExchangeState>>,
        exchange: &ExchangeId,
        sealed: Option<Sealed>,
    ) {
        if let Some(sealed) = sealed {
            let (ingest, state) = (self.clone(), Arc::clone(state));
            let work = uploader::upload(ingest, state, exchange.clone(), sealed);
            self.shared.parts.runtime.tasks.spawn(work);
        }
    }

    /// Commits those whose last segment has landed; whoever ends an upload calls it.
    pub(super) fn follow_up(&self, state: &Arc<Mutex<ExchangeState>>, exchange: &ExchangeId) {
        let sealed = state.lock().seal_follower(self.next_sequence());
        self.upload(state, exchange, sealed);
    }

    /// Seals when due, and comes back when the policy says so.
    pub(super) fn look_again(&self, state: &Arc<Mutex<ExchangeState>>, exchange: &ExchangeId) {
        let (sealed, wait) = {
            let mut state = state.lock();
            let view = state.view(self.shared.parts.runtime.clock.now());
            match self.shared.policy.decide(&view) {
                Decision::Seal => (self.seal(&mut state), None),
                Decision::LookAgain(wait) => (None, Some(wait)),
                Decision::Rest => (None, None),
            }
        };
        self.upload(state, exchange, sealed);
        let Some(wait) = wait else { return };
        let (ingest, state, exchange) = (self.clone(), Arc::clone(state), exchange.clone());
        self.shared.parts.runtime.tasks.spawn(async move {
            ingest.shared.parts.runtime.clock.sleep(wait).await;
            ingest.look_again(&state, &exchange);
        });
    }
}
