//! The current tokens and certificates, and their reload.
//!
//! Does: load the files at start, and again when they have changed or on request. Does not: know
//! routes or connections. Invariant: an invalid file never replaces a valid one: the previous
//! content stays in use, the log and a metric report it, and the next change is tried. A credential
//! that was removed from a valid file grants nothing, not even on existing connections.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::tls::{Tls, TlsError, TlsFiles};
use super::tokens::{TokenFile, TokenFileError, Tokens};
use crate::certificate::Validity;
use crate::config::ServerConfig;
use crate::runtime::Clock;
use crate::telemetry::credentials::{Credential, CredentialMetrics};

mod warnings;

/// Why a credential file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The credentials that a daemon checks and presents. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    config: ServerConfig,
    /// The names under which clients without a token may reach the daemon, in lower case.
    allowed_hosts: Vec<String>,
    address: Address,
    tls_files: Option<TlsFiles>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    tls: RwLock<Option<Arc<Tls>>>,
    last_tried: Mutex<ContentHashes>,
    /// What was insecure when the files were last read.
    warnings: Mutex<Vec<String>>,
    logged_warnings: Mutex<Vec<String>>,
    next_generation: AtomicU64,
    clock: Clock,
    metrics: CredentialMetrics,
}

/// The configured names, and those of the advertised URIs: clients connect to them.
fn allowed_hosts(config: &ServerConfig) -> Vec<String> {
    let configured = config.allowed_hosts.iter().cloned();
    configured.chain(config.advertised_hosts()).collect()
}

/// What is configured separately for each address.
#[derive(Clone)]
struct Address {
    listen: SocketAddr,
    token_file: Option<PathBuf>,
    /// The setting that names that file.
    token_setting: &'static str,
    /// As which its reloads are counted.
    tokens: Credential,
}

impl Address {
    /// `server.listen`.
    fn main(config: &ServerConfig) -> Self {
        Self {
            listen: config.listen,
            token_file: config.token_file.clone(),
            token_setting: "server.token_file",
            tokens: Credential::Tokens,
        }
    }
}

/// Hashes of the last loaded content, valid or not; 0 for none.
#[derive(Default)]
struct ContentHashes {
    tokens: u64,
    tls: u64,
}

/// The client of a TLS connection.
#[derive(Clone)]
pub struct Peer(Arc<PeerState>);

struct PeerState {
    certificates: Vec<CertificateDer<'static>>,
    /// When they expire, in milliseconds since 1970.
    expires: Option<u64>,
    /// The [`Tls::generation`] of the last verification, and its outcome.
    verified: Mutex<(u64, bool)>,
}

impl Peer {
    /// A client that presented these certificates; the handshake verified them under `tls`.
    pub fn new(certificates: Option<&[CertificateDer<'_>]>, tls: &Tls) -> Self {
        let certificates = certificates.unwrap_or_default();
        let certificates: Vec<_> = certificates
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        let shown = !certificates.is_empty();
        let expires = Validity::of_chain(&certificates).map(|validity| validity.not_after);
        Self(Arc::new(PeerState {
            certificates,
            expires,
            verified: Mutex::new((tls.generation, shown)),
        }))
    }

    /// Whether a certificate of the client has expired since the handshake.
    pub fn has_expired(&self, now_millis: u64) -> bool {
        self.0.expires.is_some_and(|expires| now_millis > expires)
    }
}

impl Credentials {
    /// Loads the configured credentials: tokens, certificates, both or none.
    ///
    /// # Errors
    /// A file is invalid: a daemon does not start with other credentials than configured.
    pub fn open(config: &ServerConfig, clock: &Clock) -> Result<Self, CredentialError> {
        let address = Address::main(config);
        Self::open_for(address, config, clock, CredentialMetrics::default())
    }

    /// The credentials of `server.admin_listen`; `None` if there is no such address. They are
    /// reloaded separately and counted together.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_admin(&self) -> Result<Option<Self>, CredentialError> {
        let main = &self.0;
        let Some(address) = main.config.admin_listen else {
            return Ok(None);
        };
        let mut address = Address {
            listen: address,
            ..main.address.clone()
        };
        if let Some(file) = &main.config.admin_token_file {
            address.token_file = Some(file.clone());
            address.token_setting = "server.admin_token_file";
            address.tokens = Credential::AdminTokens;
        }
        let (config, clock, metrics) = (&main.config, &main.clock, main.metrics.clone());
        let admin = Self::open_for(address, config, clock, metrics)?;
        // What is insecure about both is logged once.
        *admin.0.logged_warnings.lock() = self.warnings();
        Ok(Some(admin))
    }

    fn open_for(
        address: Address,
        config: &ServerConfig,
        clock: &Clock,
        metrics: CredentialMetrics,
    ) -> Result<Self, CredentialError> {
        let tls_files = config.tls().map(|(certificate, key)| TlsFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: config.tls_client_ca_file.clone(),
            http2: config.http2,
        });
        let credentials = Self(Arc::new(Inner {
            allowed_hosts: allowed_hosts(config),
            config: config.clone(),
            address,
            tls_files,
            tokens: RwLock::default(),
            tls: RwLock::default(),
            last_tried: Mutex::default(),
            warnings: Mutex::default(),
            logged_warnings: Mutex::default(),
            next_generation: AtomicU64::new(1),
            clock: clock.clone(),
            metrics,
        }));
        let mut last_tried = credentials.0.last_tried.lock();
        credentials.0.load_tokens(&mut last_tried.tokens)?;
        credentials.0.load_tls(&mut last_tried.tls)?;
        drop(last_tried);
        credentials.0.find_warnings();
        Ok(credentials)
    }

    /// The current tokens; `None` if requests need none.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.0.tokens.read().clone()
    }

    /// The current certificates; `None` if the server does not speak TLS.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.0.tls.read().clone()
    }

    /// Names under which clients without a token may reach the daemon, in lower case.
    pub fn allowed_hosts(&self) -> &[String] {
        &self.0.allowed_hosts
    }

    /// Whether other machines can reach the address that these credentials protect.
    pub fn is_reachable(&self) -> bool {
        !self.0.address.listen.ip().to_canonical().is_loopback()
    }

    /// The setting that names the file with the tokens.
    pub fn token_setting(&self) -> &'static str {
        self.0.address.token_setting
    }

    /// What was insecure about the credentials when they were last loaded, as text for people.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warnings.lock().clone()
    }

    /// Logs each warning that is new since the last call.
    pub fn log_warnings(&self) {
        let warnings = self.warnings();
        let mut logged = self.0.logged_warnings.lock();
        for warning in warnings.iter().filter(|warning| !logged.contains(warning)) {
            tracing::warn!("{warning}");
        }
        *logged = warnings;
    }

    /// Metrics, to be registered once.
    pub fn metrics(&self) -> &CredentialMetrics {
        &self.0.metrics
    }

    /// Whether requests of this client may be served: always, unless clients need a certificate.
    pub fn admits(&self, peer: Option<&Peer>) -> bool {
        let Some(tls) = self.tls().filter(|tls| tls.requires_client_certificate()) else {
            return true;
        };
        let now = self.0.clock.wall_millis();
        let Some(Peer(peer)) = peer.filter(|peer| !peer.has_expired(now)) else {
            return false;
        };
        let mut verified = peer.verified.lock();
        if verified.0 != tls.generation {
            *verified = (tls.generation, tls.verifies(&peer.certificates, now));
        }
        verified.1
    }

    /// Loads every file whose content has changed since the last try, or all if `forced`. Blocks on
    /// file I/O.
    pub fn reload(&self, forced: bool) {
        let mut last_tried = self.0.last_tried.lock();
        if forced {
            *last_tried = ContentHashes::default();
        }
        let tokens = self.0.load_tokens(&mut last_tried.tokens);
        self.0
            .report(self.0.address.tokens, tokens.map_err(Into::into));
        let tls = self.0.load_tls(&mut last_tried.tls);
        self.0.report(Credential::Tls, tls.map_err(Into::into));
        drop(last_tried);
        self.0.find_warnings();
        self.log_warnings();
    }
}

impl Inner {
    /// Returns `false` if no file is configured or its content was tried before.
    fn load_tokens(&self, last_tried: &mut u64) -> Result<bool, TokenFileError> {
        let Some(path) = &self.address.token_file else {
            return Ok(false);
        };
        let file = TokenFile {
            setting: self.address.token_setting,
            path: path.clone(),
        };
        let text = file.read();
        if !is_new(last_tried, &text.as_ref().map_err(ToString::to_string)) {
            return Ok(false);
        }
        let tokens = Tokens::parse(&text?, &file)?;
        *self.tokens.write() = Some(Arc::new(tokens));
        Ok(true)
    }

    /// Returns `false` if no files are configured or their content was tried before.
    fn load_tls(&self, last_tried: &mut u64) -> Result<bool, TlsError> {
        let Some(files) = &self.tls_files else {
            return Ok(false);
        };
        let content = files.read();
        if !is_new(last_tried, &content.as_ref().map_err(ToString::to_string)) {
            return Ok(false);
        }
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let tls = Tls::build(&content?, files, generation)?;
        if let Some(validity) = tls.validity {
            let (not_before, not_after) = (validity.not_before / 1000, validity.not_after / 1000);
            self.metrics
                .set_validity(Credential::Tls, not_before, not_after);
        }
        *self.tls.write() = Some(Arc::new(tls));
        Ok(true)
    }

    /// Blocks on file I/O.
    fn find_warnings(&self) {
        let tls = self.tls.read().clone();
        let validity = tls.and_then(|tls| tls.validity);
        let now = self.clock.wall_millis();
        let found = warnings::find(&self.address, &self.config, validity, now);
        *self.warnings.lock() = found;
    }

    fn report(&self, credential: Credential, outcome: Result<bool, CredentialError>) {
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                self.metrics.reloaded(credential, true);
                let tokens = self.tokens.read().as_ref().map_or(0, |t| t.count());
                let credential = credential.as_str();
                tracing::info!(credential, tokens, "credentials reloaded");
            }
            Err(error) => {
                self.metrics.reloaded(credential, false);
                tracing::error!(credential = credential.as_str(), %error,
                    "credential file invalid; still using the previous one");
            }
        }
    }
}

/// What was insecure about the credentials of several addresses when they were last loaded, each
/// once.
pub fn warnings_of<'a>(all: impl IntoIterator<Item = &'a Credentials>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for warning in all.into_iter().flat_map(Credentials::warnings) {
        if !found.contains(&warning) {
            found.push(warning);
        }
    }
    found
}

/// Whether the content differs from the last tried one; records it as tried.
fn is_new(last_tried: &mut u64, content: &impl Hash) -> bool {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let hash = hasher.finish().max(1);
    std::mem::replace(last_tried, hash) != hash
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Story: each request for the dashboard looked at the files again, on a thread that serves
    /// requests. On a file system that hung, two requests ended `/healthz`.
    #[test]
    fn warnings_are_found_when_files_are_loaded_and_kept_until_the_next_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "the-token-0123456789\n").unwrap();
        let set_mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
        };
        set_mode(0o600);
        let config = ServerConfig {
            token_file: Some(file.path().to_owned()),
            ..ServerConfig::default()
        };
        let credentials = Credentials::open(&config, &Clock::default()).unwrap();
        set_mode(0o644);
        assert_eq!(credentials.warnings(), Vec::<String>::new());
        credentials.reload(false);
        let warnings = credentials.warnings();
        assert!(warnings[0].contains("server.token_file"), "{warnings:?}");
        std::fs::remove_file(file.path()).unwrap();
        assert_eq!(credentials.warnings(), warnings);
    }
}
