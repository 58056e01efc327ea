//! Credentials of AWS that expire, requested again when a server reports them as expired.
//!
//! Does: replace the client library's own provider, and with it what it cached: it keeps
//! credentials until five minutes before their announced end. Does not: detect expiry (`backend`),
//! choose where credentials come from (`s3`), or wrap the providers of Stopover itself (`renewed`).
//! Invariant: a provider that works is replaced only by one that was built.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answers::Seen;
use crate::runtime::Clock;

/// Shortest time between two replacements, for a server that refuses new credentials, too.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives the credentials of a provider that can be replaced.
pub(super) struct Renewing {
    /// Builds providers that have cached nothing.
    builder: AmazonS3Builder,
    current: Mutex<Current>,
    clock: Clock,
    /// Counts how often a server reported the credentials as expired.
    seen: Arc<Seen>,
}

struct Current {
    provider: AwsCredentialProvider,
    /// When it may be replaced.
    replaceable: Instant,
    /// The number of expirations that led to it.
    expirations: u64,
}

/// Without anything secret.
impl std::fmt::Debug for Renewing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl Renewing {
    /// The first provider, and the builder of it and of those that replace it.
    pub(super) fn new(
        first: AwsCredentialProvider,
        builder: AmazonS3Builder,
        clock: Clock,
        seen: Arc<Seen>,
    ) -> Self {
        let current = Current {
            provider: first,
            replaceable: clock.now(),
            expirations: seen.expirations(),
        };
        Self {
            builder,
            current: Mutex::new(current),
            clock,
            seen,
        }
    }

    fn provider(&self) -> AwsCredentialProvider {
        let mut current = self.current.lock();
        let (now, expirations) = (self.clock.now(), self.seen.expirations());
        if now >= current.replaceable && expirations != current.expirations {
            current.replaceable = now + PAUSE;
            current.expirations = expirations;
            if let Ok(client) = self.builder.clone().build() {
                tracing::info!(
                    "the credentials of the base directory expired: they are requested again"
                );
                current.provider = Arc::clone(client.credentials());
            }
        }
        Arc::clone(&current.provider)
    }
}

#[async_trait]
impl CredentialProvider for Renewing {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.provider().get_credential().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    #[tokio::test(start_paused = true)]
    async fn a_provider_is_replaced_once_for_each_expiration_and_at_most_once_a_second() {
        let seen = Arc::<Seen>::default();
        let builder = AmazonS3Builder::new().with_bucket_name("bucket");
        let first = Arc::clone(builder.clone().build().unwrap().credentials());
        let clock = Runtime::seeded(1).clock;
        let renewing = Renewing::new(Arc::clone(&first), builder, clock, Arc::clone(&seen));
        assert!(Arc::ptr_eq(&renewing.provider(), &first));
        seen.note_expired();
        let second = renewing.provider();
        assert!(!Arc::ptr_eq(&second, &first));
        assert!(Arc::ptr_eq(&renewing.provider(), &second));
        seen.note_expired();
        assert!(
            Arc::ptr_eq(&renewing.provider(), &second),
            "within a second"
        );
        tokio::time::sleep(PAUSE).await;
        assert!(!Arc::ptr_eq(&renewing.provider(), &second));
    }
}
