//! Credentials that expire and are fetched again in time.
//!
//! Does: keep them, and fetch them before they expire, or once the store calls them expired. Does
//! not: know where they come from (`role`, `pod`). Invariant: while the credentials at hand are
//! valid, no request waits for or fails with their service but the one that fetches them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answers::Seen;
use super::renewing::PAUSE;
use crate::runtime::Clock;

/// How long to go on with credentials that could not be fetched again.
const RETRY: Duration = Duration::from_secs(20);
/// How long before their end they are not used any more.
const MARGIN: Duration = Duration::from_secs(100);

/// Where credentials come from.
#[async_trait]
pub(super) trait CredentialSource: Send + Sync + 'static {
    type Credential: Send + Sync;

    /// The service, as messages call it.
    const SERVICE: &'static str;

    /// New credentials, and how long they are valid.
    ///
    /// # Errors
    /// What the service or a file said, which may hold secrets.
    async fn fetch(&self) -> object_store::Result<(Self::Credential, Duration)>;
}

/// Gives credentials to the requests of one base directory.
pub(super) struct Renewed<S: CredentialSource> {
    source: S,
    clock: Clock,
    /// Knows when a server called the credentials expired.
    seen: Arc<Seen>,
    /// Whether the last attempt to fetch them failed.
    stale: AtomicBool,
    current: Mutex<Option<Held<S::Credential>>>,
    /// Held by the request that fetches.
    fetching: tokio::sync::Mutex<()>,
}

impl<S: CredentialSource> Renewed<S> {
    /// Without credentials so far.
    pub(super) fn new(source: S, clock: Clock, seen: Arc<Seen>) -> Self {
        Self {
            source,
            clock,
            seen,
            stale: AtomicBool::new(false),
            current: Mutex::new(None),
            fetching: tokio::sync::Mutex::default(),
        }
    }
}

/// Without anything secret.
impl<S: CredentialSource> std::fmt::Debug for Renewed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Renewed({})", S::SERVICE)
    }
}

struct Held<C> {
    credential: Arc<C>,
    /// How many expirations the store had reported when they were asked for.
    expirations: u64,
    /// Not before, even if the store calls them expired: it may refuse new ones, too.
    replaceable: Instant,
    renew_at: Instant,
    usable_until: Instant,
}

impl<C> Held<C> {
    /// Credentials that are valid for `lifetime` from now on.
    fn new(credential: C, now: Instant, lifetime: Duration, expirations: u64) -> Self {
        let usable = lifetime - MARGIN.min(lifetime / 10);
        Self {
            credential: Arc::new(credential),
            expirations,
            replaceable: now,
            renew_at: now + lifetime / 4 * 3,
            usable_until: now + usable,
        }
    }
}

/// What to do for a request.
enum Step<C> {
    Use(Arc<C>),
    /// Fetch new ones; meanwhile the others go on with these.
    Renew(Option<Arc<C>>),
}

impl<S: CredentialSource> Renewed<S> {
    fn step(&self) -> Step<S::Credential> {
        let mut current = self.current.lock();
        let now = self.clock.now();
        let Some(held) = current.as_mut() else {
            return Step::Renew(None);
        };
        let expirations = self.seen.expirations();
        if held.expirations != expirations && now >= held.replaceable {
            held.expirations = expirations;
            held.renew_at = now;
        }
        let credential = || Arc::clone(&held.credential);
        match (now < held.renew_at, now < held.usable_until) {
            (true, true) => Step::Use(credential()),
            (_, usable) => Step::Renew(usable.then(credential)),
        }
    }

    async fn fetch(&self) -> object_store::Result<Arc<S::Credential>> {
        let (asked, expirations) = (self.clock.now(), self.seen.expirations());
        let fetched = self.source.fetch().await;
        let stale = fetched.is_err();
        if self.stale.swap(stale, Ordering::Relaxed) != stale {
            self.seen.note_stale(stale);
        }
        let mut current = self.current.lock();
        match (fetched, current.as_mut()) {
            (Ok((credential, lifetime)), before) => {
                let mut held = Held::new(credential, asked, lifetime, expirations);
                if before.is_some() {
                    held.replaceable = asked + PAUSE;
                }
                let credential = Arc::clone(&held.credential);
                *current = Some(held);
                Ok(credential)
            }
            (Err(error), Some(held)) if self.clock.now() < held.usable_until => {
                tracing::warn!(
                    "credentials could not be renewed, and the old ones are still used: {} {}",
                    S::SERVICE,
                    kind(&error)
                );
                held.renew_at = self.clock.now() + RETRY;
                Ok(Arc::clone(&held.credential))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// What failed, without what the service said: an answer may repeat the request.
fn kind(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::Unauthenticated { .. } => "refused",
        _ => "did not answer",
    }
}

#[async_trait]
impl<S: CredentialSource> CredentialProvider for Renewed<S> {
    type Credential = S::Credential;

    async fn get_credential(&self) -> object_store::Result<Arc<S::Credential>> {
        let _fetching = match self.step() {
            Step::Use(credential) => return Ok(credential),
            Step::Renew(None) => self.fetching.lock().await,
            Step::Renew(Some(credential)) => match self.fetching.try_lock() {
                Ok(fetching) => fetching,
                Err(_) => return Ok(credential),
            },
        };
        // Another request may have fetched them since.
        match self.step() {
            Step::Use(credential) => Ok(credential),
            Step::Renew(_) => self.fetch().await,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::runtime::Runtime;

    const LIFETIME: Duration = Duration::from_secs(3600);

    /// Gives out numbers, once it is allowed to.
    struct Numbers {
        next: AtomicU32,
        allowed: Semaphore,
        down: std::sync::atomic::AtomicBool,
        lifetime: Duration,
    }

    #[async_trait]
    impl CredentialSource for Numbers {
        type Credential = u32;
        const SERVICE: &'static str = "the test";

        async fn fetch(&self) -> object_store::Result<(u32, Duration)> {
            self.allowed.acquire().await.unwrap().forget();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match self.down.load(Ordering::Relaxed) {
                true => Err(object_store::Error::Generic {
                    store: "S3",
                    source: "down".into(),
                }),
                false => Ok((number, self.lifetime)),
            }
        }
    }

    fn numbers(allowed: usize, lifetime: Duration) -> Renewed<Numbers> {
        let source = Numbers {
            next: AtomicU32::new(1),
            allowed: Semaphore::new(allowed),
            down: false.into(),
            lifetime,
        };
        Renewed::new(source, Runtime::seeded(1).clock, Arc::default())
    }

    async fn number(renewed: &Renewed<Numbers>) -> u32 {
        *renewed.get_credential().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_fetched_once_and_again_before_they_expire() {
        let renewed = numbers(9, LIFETIME);
        let (first, second) = tokio::join!(number(&renewed), number(&renewed));
        assert_eq!((first, second, number(&renewed).await), (1, 1, 1));
        assert!(!renewed.seen.has_stale_credentials());
        tokio::time::sleep(LIFETIME * 3 / 4).await;
        assert_eq!(number(&renewed).await, 2);
    }

    /// Story: all requests waited while those of a role were renewed, for as long as STS took.
    #[tokio::test(start_paused = true)]
    async fn only_one_request_waits_while_valid_credentials_are_renewed() {
        let renewed = Arc::new(numbers(1, LIFETIME));
        assert_eq!(number(&renewed).await, 1);
        tokio::time::sleep(LIFETIME * 3 / 4).await;
        let mut renewing = Box::pin(number(&renewed));
        assert!(futures::poll!(renewing.as_mut()).is_pending());
        for _ in 0..3 {
            assert_eq!(number(&renewed).await, 1, "the old ones are still valid");
        }
        renewed.source.allowed.add_permits(1);
        assert_eq!(renewing.await, 2);
        assert_eq!(number(&renewed).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_while_it_renews_leaves_that_to_the_next() {
        let renewed = numbers(1, LIFETIME);
        assert_eq!(number(&renewed).await, 1);
        tokio::time::sleep(LIFETIME * 3 / 4).await;
        let mut renewing = Box::pin(number(&renewed));
        assert!(futures::poll!(renewing.as_mut()).is_pending());
        drop(renewing);
        renewed.source.allowed.add_permits(1);
        assert_eq!(number(&renewed).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_service_is_down_valid_credentials_are_used_and_no_others() {
        let renewed = numbers(9, LIFETIME);
        assert_eq!(number(&renewed).await, 1);
        renewed.source.down.store(true, Ordering::Relaxed);
        tokio::time::sleep(LIFETIME * 3 / 4).await;
        for _ in 0..3 {
            assert_eq!(number(&renewed).await, 1);
        }
        let asked = renewed.source.next.load(Ordering::Relaxed) - 1;
        assert_eq!(asked, 2, "not every request asks again");
        assert!(renewed.seen.has_stale_credentials());
        tokio::time::sleep(LIFETIME / 4 - MARGIN).await;
        assert!(renewed.get_credential().await.is_err());
        assert!(renewed.seen.has_stale_credentials());
        renewed.source.down.store(false, Ordering::Relaxed);
        renewed.get_credential().await.unwrap();
        assert!(!renewed.seen.has_stale_credentials());
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_the_store_calls_expired_are_replaced() {
        let renewed = numbers(9, LIFETIME);
        assert_eq!(number(&renewed).await, 1);
        renewed.seen.note_expired();
        assert_eq!((number(&renewed).await, number(&renewed).await), (2, 2));
        // A store that refuses these too does not have the service asked with each request.
        renewed.seen.note_expired();
        assert_eq!(number(&renewed).await, 2, "within a second");
        tokio::time::sleep(PAUSE).await;
        assert_eq!((number(&renewed).await, number(&renewed).await), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_of_any_lifetime_are_renewed_before_they_are_unusable() {
        for seconds in [0, 1, 60, 900, 21_600] {
            let lifetime = Duration::from_secs(seconds);
            let now = Runtime::seeded(1).clock.now();
            let held = Held::new((), now, lifetime, 0);
            assert!(held.renew_at <= held.usable_until, "{seconds} s");
            assert!(held.usable_until <= now + lifetime, "{seconds} s");
        }
    }
}
