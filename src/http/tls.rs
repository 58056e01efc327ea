//! TLS: certificates and keys from files to what the server needs.
//!
//! Does: read the files, check that they belong together, verify a client's certificate again. Does
//! not: watch the files or hold what is in force (`doors`). Invariant: no key is logged, shown or
//! part of an error; what was built passed every check that can be made without a client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What the protocol is called in TLS; the first that both know is taken.
const PROTOCOLS: [&[u8]; 2] = [H2, b"http/1.1"];
/// HTTP/2 in that list.
pub const H2: &[u8] = b"h2";

/// Why TLS cannot be spoken with these files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {}: {reason}", path.display())]
pub struct TlsError {
    /// Which setting names the file.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Where certificates and keys lie.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// `server.tls_certificate_file`
    pub certificate: PathBuf,
    /// `server.tls_key_file`
    pub key: PathBuf,
    /// `server.tls_client_ca_file`
    pub client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TlsContent {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn read(&self) -> Result<TlsContent, TlsError> {
        let read = |setting, path: &Path| {
            std::fs::read(path)
                .map_err(|error| self.error(setting, path, format!("it cannot be read: {error}")))
        };
        Ok(TlsContent {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: match &self.client_ca {
                Some(path) => Some(read(CLIENT_CA, path)?),
                None => None,
            },
        })
    }

    fn error(&self, setting: &'static str, path: &Path, reason: impl ToString) -> TlsError {
        TlsError {
            setting,
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

const CERTIFICATE: &str = "server.tls_certificate_file";
const KEY: &str = "server.tls_key_file";
const CLIENT_CA: &str = "server.tls_client_ca_file";

/// Certificates and keys in force.
pub struct Tls {
    /// What connections are accepted with.
    pub config: Arc<ServerConfig>,
    /// Tells this from what was in force before.
    pub generation: u64,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Makes a server's side of what the files hold.
    ///
    /// # Errors
    /// A file that is no certificate or key, or two that do not belong together.
    pub fn build(
        content: &TlsContent,
        files: &TlsFiles,
        generation: u64,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&content.certificate)
            .map_err(|reason| files.error(CERTIFICATE, &files.certificate, reason))?;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| {
            let reason = "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)";
            files.error(KEY, &files.key, reason)
        })?;
        let clients = match (&content.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let verifier = client_verifier(pem, &provider);
                Some(verifier.map_err(|reason| files.error(CLIENT_CA, path, reason))?)
            }
            _ => None,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of both versions");
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let reason = format!(
                "the certificate and the key of {KEY} do not go together or cannot be used: {error}"
            );
            files.error(CERTIFICATE, &files.certificate, reason)
        })?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            generation,
            clients,
        })
    }

    /// Whether clients need a certificate.
    pub fn asks_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether a client's certificates are vouched for, also when they were shown before.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>], now_millis: u64) -> bool {
        let (Some(verifier), Some((first, rest))) = (&self.clients, chain.split_first()) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_millis));
        verifier.verify_client_cert(first, rest, now).is_ok()
    }
}

/// Asks for a certificate and lets those in who have none: what they may do then is decided for
/// each request, so that probes are answered and others are told what is missing.
fn client_verifier(
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("it is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(certificates)
}
