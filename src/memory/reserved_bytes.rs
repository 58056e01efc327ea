//! Bytes that own their reservation, and weak handles to it.
//!
//! Does: release a reservation when the last slice of its bytes is dropped. Invariant: a
//! [`WeakReservation`] never keeps bytes from being released.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::pool::{MemoryPool, Reservation};

/// Bytes together with the reservation for them.
pub struct ReservedBytes {
    bytes: Bytes,
    _reservation: Arc<Mutex<Reservation>>,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReservedBytes {
    /// Binds bytes to their reservation, which is released when the last slice of the result is
    /// dropped.
    pub fn into_bytes(bytes: Bytes, reservation: Reservation) -> Bytes {
        Self::into_transferable(bytes, reservation).0
    }

    /// As [`ReservedBytes::into_bytes`], with a handle that can change the reservation.
    pub fn into_transferable(bytes: Bytes, reservation: Reservation) -> (Bytes, WeakReservation) {
        let reservation = Arc::new(Mutex::new(reservation));
        let weak = WeakReservation(Arc::downgrade(&reservation));
        let owner = Self {
            bytes,
            _reservation: reservation,
        };
        (Bytes::from_owner(owner), weak)
    }
}

/// Weak handle to a buffer's reservation; can move it to another pool.
#[derive(Debug, Clone)]
pub struct WeakReservation(Weak<Mutex<Reservation>>);

impl WeakReservation {
    /// Whether any slice of the buffer is alive.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Moves the reservation to another pool, if that has enough free memory for which no request
    /// waits. Returns the bytes released in the former pool, or `None` if the other pool has too
    /// little.
    pub fn transfer_to(&self, pool: &MemoryPool) -> Option<u64> {
        let Some(reservation) = self.0.upgrade() else {
            return Some(0);
        };
        let mut reservation = reservation.lock();
        let moved = pool.try_reserve_free(reservation.query(), reservation.bytes())?;
        *reservation = moved;
        Some(reservation.bytes())
    }
}
