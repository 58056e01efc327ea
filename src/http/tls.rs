//! TLS: turns certificate and key files into the server's configuration.
//!
//! Does: read the files, check that they match, and verify client certificates again after a
//! reload. Does not: watch the files or hold the current configuration (`credentials` does).
//! Invariant: no key is logged or part of an error; a [`Tls`] has passed every check that needs no
//! client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};

use crate::certificate::Validity;
use crate::config::read_file;

/// Protocols offered by ALPN, in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERTIFICATE: &str = "server.tls_certificate_file";
const KEY: &str = "server.tls_key_file";
const CLIENT_CA: &str = "server.tls_client_ca_file";

/// Why a file cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {}: {source}", path.display())]
pub struct TlsError {
    /// The setting that names the file.
    pub setting: &'static str,
    pub path: PathBuf,
    pub source: TlsFileError,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is not PEM: {0}")]
    NotPem(#[from] pem::Error),
    #[error("contains no certificate in PEM")]
    NoCertificate,
    /// Has no source: it could contain a part of the key.
    #[error("contains no unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    #[error("the certificate does not match the key of {KEY}, or one of them cannot be used: {0}")]
    Pair(#[source] Error),
    #[error("contains a certificate that cannot be used: {0}")]
    ClientCa(#[source] Error),
    #[error("cannot be used to verify clients: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The files that hold certificates and keys.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The CA of client certificates; `None` if clients need none.
    pub client_ca: Option<PathBuf>,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
}

/// The content of [`TlsFiles`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TlsContent {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self) -> Result<TlsContent, TlsError> {
        let read =
            |setting, path: &Path| read_file(path).map_err(|error| at(setting, path)(error.into()));
        let client_ca = self.client_ca.as_deref();
        Ok(TlsContent {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: client_ca.map(|path| read(CLIENT_CA, path)).transpose()?,
        })
    }
}

/// Adds the setting and the file to an error.
fn at(setting: &'static str, path: &Path) -> impl FnOnce(TlsFileError) -> TlsError {
    move |source| TlsError {
        setting,
        path: path.to_owned(),
        source,
    }
}

/// The server's side of TLS, built from one version of the files.
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// Distinguishes versions of the files.
    pub generation: u64,
    /// When the daemon's certificate is valid, if that can be read.
    pub validity: Option<Validity>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Builds the configuration from the content of the files.
    ///
    /// # Errors
    /// A file contains no certificate or key, or the certificate does not match the key.
    pub fn build(
        content: &TlsContent,
        files: &TlsFiles,
        generation: u64,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain =
            certificates(&content.certificate).map_err(at(CERTIFICATE, &files.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| at(KEY, &files.key)(TlsFileError::NoKey))?;
        let clients = match (&content.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                Some(client_verifier(pem, &provider).map_err(at(CLIENT_CA, path))?)
            }
            _ => None,
        };
        let validity = Validity::of_chain(&chain);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports both TLS versions");
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| at(CERTIFICATE, &files.certificate)(TlsFileError::Pair(error)))?;
        let protocols = &PROTOCOLS[usize::from(!files.http2)..];
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            generation,
            validity,
            clients,
        })
    }

    /// Whether clients need a certificate.
    pub fn requires_client_certificate(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether a client's certificate chain is valid under the client CA at `now_millis`
    /// (milliseconds since 1970), regardless of earlier verifications.
    pub fn verifies(&self, chain: &[CertificateDer<'_>], now_millis: u64) -> bool {
        let (Some(verifier), Some((first, rest))) = (&self.clients, chain.split_first()) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_millis));
        verifier.verify_client_cert(first, rest, now).is_ok()
    }
}

/// Requests a client certificate and accepts connections without one. Access is decided per
/// request: probes need no certificate, and other clients get a response that names what is
/// missing.
fn client_verifier(
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(TlsFileError::ClientCa)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    Ok(verifier.allow_unauthenticated().build()?)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    match certificates.is_empty() {
        true => Err(TlsFileError::NoCertificate),
        false => Ok(certificates),
    }
}
