//! Memory for batches: what their bytes take, and what they take besides.
//!
//! Does: reserve for a body before it is read, and for what is known only once it was read. Does
//! not: hold pages. Invariant: nobody who holds a batch waits for memory. What a batch takes
//! besides its bytes, and there is no room for, is owed by its exchange and asked for together with
//! the next body, before that is read; otherwise many batches could wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::exchange::ExchangeState;
use super::{Ingest, IngestError};
use crate::id::ExchangeId;
use crate::memory::{Reservation, WeakReservation};

/// Bytes that an exchange has taken without a reservation.
#[derive(Debug, Default)]
pub struct Owed(AtomicU64);

/// A part of it that somebody is about to reserve; owed again if they leave.
struct Debt {
    owed: Arc<Owed>,
    bytes: u64,
}

impl Debt {
    fn take(owed: Arc<Owed>, most: u64) -> Self {
        let left = |all: u64| Some(all.saturating_sub(most));
        let before = owed
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let bytes = before.unwrap_or(0).min(most);
        Self { owed, bytes }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.owed.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Ingest {
    /// Waits for the memory that a body of `bytes` needs, in the turn of the exchange's query, and
    /// for what earlier batches of the exchange owe. Call it before reading the body.
    ///
    /// # Errors
    /// When the memory budget could never hold it.
    pub async fn reserve(
        &self,
        exchange: &ExchangeId,
        bytes: u64,
    ) -> Result<Reservation, IngestError> {
        let pool = &self.shared.parts.pool;
        let owed = self.get(exchange).map(|state| state.lock().owed.clone());
        let most = pool.query_limit().saturating_sub(bytes);
        let mut debt = Debt::take(owed.unwrap_or_default(), most);
        let wanted = bytes + debt.bytes;
        let reservation = pool.reserve(exchange.query(), wanted).await?;
        debt.bytes = 0;
        Ok(reservation)
    }

    /// Reserves what a batch takes besides its bytes, now that it was read and taken; or owes it.
    pub(super) fn charge(
        &self,
        exchange: &Mutex<ExchangeState>,
        query: &str,
        bytes: u64,
        memory: &WeakReservation,
    ) {
        match self.shared.parts.pool.try_reserve(query, bytes) {
            Some(more) => memory.grow(more),
            None => {
                let owed = &exchange.lock().owed;
                owed.0.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}
