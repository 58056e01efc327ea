//! What opens the doors now: the tokens and certificates in force, and their renewal.
//!
//! Does: load them, and load them again when their files have changed or when told to. Does not:
//! know routes or connections. Invariant: a file that cannot be used never replaces one that could:
//! the old one stays in force, the log and a metric say so, and the next change is tried again;
//! what was taken out of a file that can be used opens nothing any more, on connections that exist,
//! too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::tls::{Tls, TlsError, TlsFiles};
use super::tokens::{TokenFileError, Tokens};
use crate::config::ServerConfig;
use crate::runtime::Clock;
use crate::telemetry::credentials::{Credential, CredentialMetrics};

/// Why the doors cannot be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The doors of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    token_file: Option<PathBuf>,
    tls_files: Option<TlsFiles>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    tls: RwLock<Option<Arc<Tls>>>,
    /// What was tried last, by hash.
    tried: Mutex<Tried>,
    generations: AtomicU64,
    clock: Clock,
    metrics: CredentialMetrics,
}

#[derive(Default)]
struct Tried {
    tokens: u64,
    tls: u64,
}

/// Who is at the other end of a TLS connection.
#[derive(Clone)]
pub struct Peer(Arc<PeerState>);

struct PeerState {
    certificates: Vec<CertificateDer<'static>>,
    /// Under which generation it was found in order last, and whether it was.
    verified: Mutex<(u64, bool)>,
}

impl Peer {
    /// A client that showed these certificates, which were verified under `tls`.
    pub fn new(certificates: Option<&[CertificateDer<'_>]>, tls: &Tls) -> Self {
        let certificates = certificates.unwrap_or_default();
        let certificates: Vec<_> = certificates
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        let shown = !certificates.is_empty();
        Self(Arc::new(PeerState {
            certificates,
            verified: Mutex::new((tls.generation, shown)),
        }))
    }
}

impl Credentials {
    /// Credentials as configured: with tokens, TLS, both or none.
    ///
    /// # Errors
    /// A file that cannot be used: a daemon does not start with doors that are not what its
    /// configuration says.
    pub fn open(config: &ServerConfig, clock: &Clock) -> Result<Self, CredentialError> {
        let tls_files = config.tls().map(|(certificate, key)| TlsFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: config.tls_client_ca_file.clone(),
        });
        let credentials = Self(Arc::new(Inner {
            token_file: config.token_file.clone(),
            tls_files,
            tokens: RwLock::default(),
            tls: RwLock::default(),
            tried: Mutex::default(),
            generations: AtomicU64::new(1),
            clock: clock.clone(),
            metrics: CredentialMetrics::default(),
        }));
        let mut tried = credentials.0.tried.lock();
        credentials.0.load_tokens(&mut tried.tokens)?;
        credentials.0.load_tls(&mut tried.tls)?;
        drop(tried);
        Ok(credentials)
    }

    /// The tokens in force; none: no token is asked for.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.0.tokens.read().clone()
    }

    /// The certificates in force; none: TLS is not spoken.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.0.tls.read().clone()
    }

    /// Counters, to be registered once.
    pub fn metrics(&self) -> &CredentialMetrics {
        &self.0.metrics
    }

    /// Whether a request from there may be looked at: always, unless clients need a certificate.
    pub fn admits(&self, peer: Option<&Peer>) -> bool {
        let Some(tls) = self.tls().filter(|tls| tls.asks_clients()) else {
            return true;
        };
        let Some(Peer(peer)) = peer else {
            return false;
        };
        let mut verified = peer.verified.lock();
        if verified.0 != tls.generation {
            let now = self.0.clock.wall_millis();
            *verified = (tls.generation, tls.vouches_for(&peer.certificates, now));
        }
        verified.1
    }

    /// Reads every file again whose content has changed since it was last tried, or all if
    /// `forced`. Blocks on files.
    pub fn reload(&self, forced: bool) {
        let mut tried = self.0.tried.lock();
        if forced {
            *tried = Tried::default();
        }
        if self.0.token_file.is_some() {
            let outcome = self.0.load_tokens(&mut tried.tokens);
            self.0
                .tell(Credential::Tokens, outcome.map_err(CredentialError::from));
        }
        if self.0.tls_files.is_some() {
            let outcome = self.0.load_tls(&mut tried.tls);
            self.0
                .tell(Credential::Tls, outcome.map_err(CredentialError::from));
        }
    }
}

impl Inner {
    /// `false` if there was nothing new.
    fn load_tokens(&self, tried: &mut u64) -> Result<bool, TokenFileError> {
        let Some(path) = &self.token_file else {
            return Ok(false);
        };
        let text = read_tokens(path);
        if !is_new(tried, &text.as_ref().map_err(ToString::to_string)) {
            return Ok(false);
        }
        let tokens = Tokens::parse(&text?, path)?;
        *self.tokens.write() = Some(Arc::new(tokens));
        Ok(true)
    }

    fn load_tls(&self, tried: &mut u64) -> Result<bool, TlsError> {
        let Some(files) = &self.tls_files else {
            return Ok(false);
        };
        let content = files.read();
        if !is_new(tried, &content.as_ref().map_err(ToString::to_string)) {
            return Ok(false);
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let tls = Tls::build(&content?, files, generation)?;
        *self.tls.write() = Some(Arc::new(tls));
        Ok(true)
    }

    fn tell(&self, what: Credential, outcome: Result<bool, CredentialError>) {
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                self.metrics.reloaded(what, true);
                let tokens = self.tokens.read().as_ref().map_or(0, |t| t.count());
                tracing::info!(
                    what = what.as_str(),
                    tokens,
                    "read again, in force from now on"
                );
            }
            Err(error) => {
                self.metrics.reloaded(what, false);
                tracing::error!(what = what.as_str(), %error,
                    "changed and cannot be used: what was in force before STAYS IN FORCE");
            }
        }
    }
}

fn read_tokens(path: &Path) -> Result<String, TokenFileError> {
    std::fs::read_to_string(path).map_err(|error| TokenFileError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Whether the content differs from what was tried last; notes it as tried.
fn is_new(tried: &mut u64, content: &impl Hash) -> bool {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let hash = hasher.finish().max(1);
    std::mem::replace(tried, hash) != hash
}
