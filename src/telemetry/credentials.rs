//! Tokens and certificates, as metrics: whether what lies in their files is in force.
//!
//! Does: count reloads and failed handshakes. Does not: know what a token or certificate is.
//! Invariant: labels come from bounded sets.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalog;

/// What was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `server.token_file`
    Tokens,
    /// The files of certificates and their key.
    Tls,
}

impl What {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Tls => "tls",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    what: &'static str,
}

/// Metrics of tokens and certificates; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct CredentialMetrics {
    reloads: Family<ReloadLabels, Counter>,
    stale: Family<WhatLabels, Gauge>,
    handshakes_failed: Counter,
}

impl CredentialMetrics {
    /// A changed file was read again, and is in force or not.
    pub fn reloaded(&self, what: What, in_force: bool) {
        let what = what.as_str();
        let outcome = if in_force { "ok" } else { "refused" };
        self.reloads
            .get_or_create(&ReloadLabels { what, outcome })
            .inc();
        self.stale
            .get_or_create(&WhatLabels { what })
            .set(i64::from(!in_force));
    }

    /// Whether a changed file could not be used, so that the one before it is in force.
    pub fn stale(&self, what: What) -> bool {
        let what = what.as_str();
        self.stale.get_or_create(&WhatLabels { what }).get() == 1
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        catalog::CREDENTIAL_RELOADS.register(registry, self.reloads.clone());
        catalog::CREDENTIALS_STALE.register(registry, self.stale.clone());
        catalog::HANDSHAKES_FAILED.register(registry, self.handshakes_failed.clone());
    }
}
