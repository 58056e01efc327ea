//! Credentials of AWS that expire, asked for again when a server takes them for expired.
//!
//! Does: replace the provider, and with it what it cached, since the client's own providers keep
//! credentials until five minutes before the end that they were told. Does not: notice expiry
//! (`backend`), or know where credentials come from (`s3`). Invariant: a provider that works is
//! replaced only by one that was built.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answers::Seen;
use crate::runtime::Clock;

/// Shortest time between two replacements, for a server that refuses new credentials, too.
const PAUSE: Duration = Duration::from_secs(1);

/// Builds a provider that has cached nothing.
pub(super) type Build = dyn Fn() -> object_store::Result<AwsCredentialProvider> + Send + Sync;

/// Gives the credentials of a provider that can be replaced.
pub(super) struct Renewing {
    build: Box<Build>,
    current: Mutex<Current>,
    clock: Clock,
    /// Knows when a server took the credentials for expired.
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
    pub(super) fn new(
        first: AwsCredentialProvider,
        build: Box<Build>,
        clock: Clock,
        seen: Arc<Seen>,
    ) -> Self {
        let current = Current {
            provider: first,
            replaceable: clock.now(),
            expirations: seen.expirations(),
        };
        Self {
            build,
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
            if let Ok(provider) = (self.build)() {
                tracing::info!(
                    "the credentials of the base directory expired: they are asked for \
                    again"
                );
                current.provider = provider;
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::StaticCredentialProvider;

    use super::*;
    use crate::runtime::Runtime;

    fn numbered(number: usize) -> AwsCredentialProvider {
        Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id: format!("key-{number}"),
            secret_key: "hush".into(),
            token: None,
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn expired_credentials_are_replaced_once_and_at_most_once_a_second() {
        let (built, seen) = (Arc::new(AtomicUsize::new(0)), Arc::<Seen>::default());
        let count = Arc::clone(&built);
        let renewing = Renewing::new(
            numbered(0),
            Box::new(move || Ok(numbered(1 + count.fetch_add(1, Ordering::Relaxed)))),
            Runtime::seeded(1).clock,
            Arc::clone(&seen),
        );
        let key = async || renewing.get_credential().await.unwrap().key_id.clone();
        assert_eq!(key().await, "key-0");
        seen.note_expired();
        assert_eq!(key().await, "key-1");
        assert_eq!(key().await, "key-1", "only what was noted since counts");
        seen.note_expired();
        assert_eq!(key().await, "key-1", "not again within the pause");
        tokio::time::sleep(PAUSE).await;
        assert_eq!(key().await, "key-2");
    }
}
