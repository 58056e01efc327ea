//! Reports the phase of the daemon to systemd (`Type=notify`).
//!
//! Does: send readiness, the end of the start and the drain to the socket in `NOTIFY_SOCKET`. Does
//! not: wait for an answer, or fail without a supervisor. Invariant: the daemon counts as started
//! once it listens, whatever its base directories do.

use sd_notify::NotifyState;

use crate::app::{DrainProgress, Phase};
use crate::human::count;

/// Reports a phase; nothing happens where no supervisor listens.
pub(super) fn notify(phase: Phase) {
    let sent = match phase {
        Phase::Listening(address) => sd_notify::notify(&[
            NotifyState::Ready,
            NotifyState::Status(&format!("bringing up the base directories; {address}")),
        ]),
        Phase::Serving(address) => {
            let status = format!("serving {address}");
            sd_notify::notify(&[NotifyState::Status(&status)])
        }
        Phase::Draining(DrainProgress { left, .. }) => {
            let status = format!("draining: {} may finish", count(left, "open sink"));
            sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(&status)])
        }
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the supervisor at NOTIFY_SOCKET");
    }
}
