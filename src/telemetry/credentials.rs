//! Metrics of tokens and certificates: reloads, staleness, failed handshakes.
//!
//! Does: record them. Does not: access tokens or certificates. Invariant: labels come from
//! bounded sets.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalog;
use super::series::create_series;

/// What a file holds that is reloaded when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// `server.token_file`
    Tokens,
    /// `server.admin_token_file`
    AdminTokens,
    /// The certificate files and the key file.
    Tls,
}

impl Credential {
    const ALL: [Self; 3] = [Self::Tokens, Self::AdminTokens, Self::Tls];

    /// The value of the label `credential`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::AdminTokens => "admin_tokens",
            Self::Tls => "tls",
        }
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Metrics of tokens and certificates; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct CredentialMetrics {
    reloads: Family<Labels<2>, Counter>,
    stale: Family<Labels<1>, Gauge>,
    /// Without a series for what does not expire or is not configured.
    not_before: Family<Labels<1>, Gauge>,
    not_after: Family<Labels<1>, Gauge>,
    handshakes_failed: Counter,
}

impl CredentialMetrics {
    /// Records the reload of a changed file, and whether its content is now in use.
    pub fn reloaded(&self, credential: Credential, in_use: bool) {
        let credential = ("credential", credential.as_str());
        let outcome = ("outcome", if in_use { "ok" } else { "refused" });
        self.reloads.get_or_create(&[credential, outcome]).inc();
        let stale = self.stale.get_or_create(&[credential]);
        stale.set(i64::from(!in_use));
    }

    /// Whether the last changed file was invalid, so that the previous content is still in use.
    pub fn is_stale(&self, credential: Credential) -> bool {
        let credential = ("credential", credential.as_str());
        self.stale.get_or_create(&[credential]).get() == 1
    }

    /// Records when a credential in use is valid, in seconds since 1970.
    pub fn set_validity(&self, credential: Credential, not_before: u64, not_after: u64) {
        let credential = ("credential", credential.as_str());
        for (family, seconds) in [(&self.not_before, not_before), (&self.not_after, not_after)] {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            family.get_or_create(&[credential]).set(seconds);
        }
    }

    /// Records a TLS handshake that failed or timed out.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        for credential in Credential::ALL {
            let credential = ("credential", credential.as_str());
            let outcomes = ["ok", "refused"].map(|outcome| [credential, ("outcome", outcome)]);
            create_series(&self.reloads, outcomes);
            create_series(&self.stale, [[credential]]);
        }
        catalog::CREDENTIAL_RELOADS.register(registry, self.reloads.clone());
        catalog::CREDENTIALS_STALE.register(registry, self.stale.clone());
        catalog::CREDENTIALS_NOT_BEFORE.register(registry, self.not_before.clone());
        catalog::CREDENTIALS_NOT_AFTER.register(registry, self.not_after.clone());
        catalog::HANDSHAKES_FAILED.register(registry, self.handshakes_failed.clone());
    }
}
