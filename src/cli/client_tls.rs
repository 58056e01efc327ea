//! TLS to a daemon whose certificate is known.
//!
//! Does: wrap a socket in TLS that accepts exactly one certificate, and present one of its own if
//! the daemon asks for it. Does not: check names, CAs or
//! dates: possession of the certificate's key identifies the daemon. Invariant: signatures of the
//! handshake are verified.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::config::read_file;

/// The files that TLS to a daemon needs.
#[derive(Debug, Clone)]
pub(super) struct TlsFiles {
    /// The certificate that the daemon has.
    pub expected: PathBuf,
    /// Certificate chain and key of the client, for a daemon that requires them.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Performs the handshake lazily, on first use of the returned stream.
///
/// # Errors
/// A certificate file that cannot be read, or a socket without a peer.
pub(super) fn within(
    stream: TcpStream,
    files: &TlsFiles,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let certificate = &files.expected;
    let expected = CertificateDer::from_pem_slice(&read(certificate)?)
        .map_err(|error| unusable(certificate, "certificate", &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pinned = Pinned {
        expected,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned));
    let config = match &files.own {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(&read(chain)?)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unusable(chain, "certificate", &error))?;
            let own = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|error| unusable(key, "private key", &error))?;
            config
                .with_client_auth_cert(chain, own)
                .map_err(io::Error::other)?
        }
    };
    let name = ServerName::from(stream.peer_addr()?.ip());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let unreadable = |error| io::Error::other(format!("{}: {error}", path.display()));
    read_file(path).map_err(unreadable)
}

fn unusable(path: &Path, what: &str, error: &pem::Error) -> io::Error {
    io::Error::other(format!("{} has no PEM {what}: {error:?}", path.display()))
}

/// Accepts one certificate only.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *end_entity == self.expected {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General(
                "the daemon presented a certificate other than the first one in the file"
                    .to_owned(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}
