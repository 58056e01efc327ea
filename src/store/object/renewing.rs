//! Credentials that expire, requested again when a server reports them as expired.
//!
//! Does: replace the client library's own provider, and with it what it cached: it keeps
//! credentials until five minutes before their announced end. Does not: detect expiry (`backend`),
//! choose where credentials come from (`s3`, `az`, `gs`), or wrap the providers of Stopover itself
//! (`renewed`). Invariant: a provider that works is replaced only by one that was built.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::azure::{AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answers::Seen;
use crate::runtime::Clock;

/// Shortest time between two replacements, for a server that refuses new credentials, too.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// Builds providers that have cached nothing.
pub(super) trait ProviderBuilder: Send + Sync + 'static {
    type Credential: Send + Sync + 'static;

    /// A new provider.
    ///
    /// # Errors
    /// Those of the client.
    fn provider(&self) -> object_store::Result<Provider<Self::Credential>>;
}

impl ProviderBuilder for AmazonS3Builder {
    type Credential = AwsCredential;

    fn provider(&self) -> object_store::Result<AwsCredentialProvider> {
        Ok(Arc::clone(self.clone().build()?.credentials()))
    }
}

impl ProviderBuilder for MicrosoftAzureBuilder {
    type Credential = AzureCredential;

    fn provider(&self) -> object_store::Result<AzureCredentialProvider> {
        Ok(Arc::clone(self.clone().build()?.credentials()))
    }
}

impl ProviderBuilder for GoogleCloudStorageBuilder {
    type Credential = GcpCredential;

    fn provider(&self) -> object_store::Result<GcpCredentialProvider> {
        Ok(Arc::clone(self.clone().build()?.credentials()))
    }
}

/// Gives the credentials of a provider that can be replaced.
pub(super) struct Renewing<B: ProviderBuilder> {
    builder: B,
    current: Mutex<Current<B::Credential>>,
    clock: Clock,
    /// Counts how often a server reported the credentials as expired.
    seen: Arc<Seen>,
}

struct Current<C> {
    provider: Provider<C>,
    /// When it may be replaced.
    replaceable: Instant,
    /// The number of expirations that led to it.
    expirations: u64,
}

/// Without anything secret.
impl<B: ProviderBuilder> std::fmt::Debug for Renewing<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl<B: ProviderBuilder> Renewing<B> {
    /// Gives the credentials of the provider that the builder builds, now and for each replacement.
    ///
    /// # Errors
    /// Those of the client.
    pub(super) fn new(builder: B, clock: Clock, seen: Arc<Seen>) -> object_store::Result<Self> {
        let current = Current {
            provider: builder.provider()?,
            replaceable: clock.now(),
            expirations: seen.expirations(),
        };
        Ok(Self {
            builder,
            current: Mutex::new(current),
            clock,
            seen,
        })
    }

    fn provider(&self) -> Provider<B::Credential> {
        let mut current = self.current.lock();
        let (now, expirations) = (self.clock.now(), self.seen.expirations());
        if now >= current.replaceable && expirations != current.expirations {
            current.replaceable = now + PAUSE;
            current.expirations = expirations;
            if let Ok(provider) = self.builder.provider() {
                tracing::info!(
                    "the credentials of the base directory expired: they are requested again"
                );
                current.provider = provider;
            }
        }
        Arc::clone(&current.provider)
    }
}

#[async_trait]
impl<B: ProviderBuilder> CredentialProvider for Renewing<B> {
    type Credential = B::Credential;

    async fn get_credential(&self) -> object_store::Result<Arc<B::Credential>> {
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
        let clock = Runtime::seeded(1).clock;
        let renewing = Renewing::new(builder, clock, Arc::clone(&seen)).unwrap();
        let first = renewing.provider();
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
