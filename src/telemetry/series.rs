//! Series that exist before anything was counted.
//!
//! Does: create them for labels whose values are known. Does not: define metrics. Invariant: every
//! counter is exported from the start, with 0, so that an alert or `rate()` detects the first
//! event. A test of `app` compares the export of a new daemon with the catalogs.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::metrics::family::{Family, MetricConstructor};

/// Creates the series with these labels, unless they exist.
pub fn create_series<L, M, C>(family: &Family<L, M, C>, labels: impl IntoIterator<Item = L>)
where
    L: Clone + Hash + Eq + Debug,
    C: MetricConstructor<M>,
{
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
}
