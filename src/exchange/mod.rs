//! What an exchange is and whether it is open.
//!
//! Does: describe exchanges ([`descriptor`]), announce them and renew their leases ([`announce`]),
//! wait for markers ([`pending_marker`], within [`bounds`]), answer whether an exchange is open
//! ([`lookup`]), and record which ones were closed ([`status`]). Does not: access segments, or
//! release what other modules hold of a closed exchange (`gc::close`). Invariant: an exchange that
//! this daemon knows to be closed is never reopened by it, even by a late request.

mod announce;
mod bounds;
pub mod descriptor;
mod error;
mod exchanges;
mod listing;
mod lookup;
mod marker;
mod overview;
mod pending_marker;
mod removal;
mod status;
mod unfinished;

pub use self::announce::{Announce, Announced};
pub use self::descriptor::{Descriptor, DescriptorError, ExchangeSpec};
pub use self::error::{ExchangeError, MarkerFailure};
pub use self::exchanges::{Exchanges, ExchangesDeps, Terms};
pub use self::listing::{ExchangePage, ListFilter, overview_of};
pub use self::marker::MarkerError;
pub(crate) use self::marker::{lease_of, set_of};
pub use self::overview::{BaseShare, ExchangeOverview, ExchangeState, MarkerView};
