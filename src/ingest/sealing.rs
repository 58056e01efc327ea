//! Seals the open segment of an exchange when the policy decides to, and starts its upload.
//!
//! Does: evaluate the policy, number segments, recheck later. Does not: decide (`seal_policy`) or
//! store (`uploader`). Invariant: every change of a policy input is followed by an evaluation, so
//! that no finish waits for an event that has passed.

use std::sync::atomic::Ordering;

use super::error::IngestError;
use super::exchange::{ExchangeState, Sealed, SharedExchange};
use super::seal_policy::Decision;
use super::service::Ingest;
use super::uploader;
use crate::segment::frame::VerifiedBatch;

impl Ingest {
    fn decide(&self, state: &ExchangeState) -> Decision {
        let now = self.shared.deps.runtime.clock.now();
        self.shared.policy.decide(&state.seal_inputs(now))
    }

    /// Seals the open segment if the policy decides to now; the caller starts the upload.
    pub(super) fn seal_if_due(&self, state: &mut ExchangeState) -> Option<Sealed> {
        match self.decide(state) {
            Decision::Seal => self.seal(state),
            Decision::RecheckAfter(_) | Decision::Idle => None,
        }
    }

    /// Seals the open segment if the index of another batch would make its footer too large; the
    /// caller starts the upload.
    pub(super) fn seal_before(
        &self,
        state: &mut ExchangeState,
        batch: &VerifiedBatch,
    ) -> Result<Option<Sealed>, IngestError> {
        let fits = state.has_room_for(batch, self.max_footer_size())?;
        Ok(if fits { None } else { self.seal(state) })
    }

    /// Seals the open segment regardless of the policy; the caller starts the upload.
    pub(super) fn seal(&self, state: &mut ExchangeState) -> Option<Sealed> {
        let threshold = self.shared.policy.deferred_commit_threshold();
        let sealed = state.seal(self.next_sequence(), threshold, self.max_footer_size())?;
        let in_flight = &self.shared.in_flight_bytes;
        in_flight.fetch_add(sealed.pages.bytes, Ordering::AcqRel);
        Some(sealed)
    }

    fn next_sequence(&self) -> u64 {
        self.shared.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the upload of a sealed segment, if there is one. It continues even if the caller is
    /// dropped.
    pub(super) fn start_upload(&self, exchange: &SharedExchange, sealed: Option<Sealed>) {
        if let Some(sealed) = sealed {
            let upload = uploader::upload(self.clone(), exchange.clone(), sealed);
            self.shared.deps.runtime.tasks.spawn(upload);
        }
    }

    /// Starts the upload of deferred commits whose segments are complete; called after each upload.
    pub(super) fn start_deferred_commits(&self, exchange: &SharedExchange) {
        let max_footer_size = self.max_footer_size();
        let sealed = exchange
            .lock()
            .seal_deferred(self.next_sequence(), max_footer_size);
        self.start_upload(exchange, sealed);
    }

    /// Seals if due, and otherwise rechecks after the time that the policy names.
    pub(super) fn reevaluate_seal(&self, exchange: &SharedExchange) {
        let (sealed, recheck_after) = {
            let mut state = exchange.lock();
            match self.decide(&state) {
                Decision::Seal => (self.seal(&mut state), None),
                Decision::RecheckAfter(delay) => (None, Some(delay)),
                Decision::Idle => (None, None),
            }
        };
        self.start_upload(exchange, sealed);
        let Some(delay) = recheck_after else { return };
        let (ingest, exchange) = (self.clone(), exchange.clone());
        self.shared.deps.runtime.tasks.spawn(async move {
            ingest.shared.deps.runtime.clock.sleep(delay).await;
            ingest.reevaluate_seal(&exchange);
        });
    }
}
