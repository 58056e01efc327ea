//! Certificates for a test, and clients that speak TLS.
//!
//! Invariant: every key is drawn anew and goes with the test; nothing is kept in the repository.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use stopover::config::Config;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // Another name than those of the certificates it issues: some clients take a certificate
        // whose issuer has its own name for self-signed.
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a daemon on loopback.
    pub fn server(&self) -> Identity {
        let mut params = CertificateParams::new(loopback()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A certificate for a client.
    pub fn client(&self) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn loopback() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

/// A client's certificate that nobody but itself vouches for.
pub fn self_signed_client() -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    Identity {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// The files of a daemon's doors.
pub struct DoorFiles {
    folder: tempfile::TempDir,
}

impl DoorFiles {
    pub fn new(server: &Identity) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write("certificate.pem", &server.certificate);
        files.write("key.pem", &server.key);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file whole.
    pub fn write(&self, name: &str, content: &str) {
        write_whole(&self.path(name), content);
    }

    /// Points a configuration at those that exist.
    pub fn configure(&self, config: &mut Config) {
        let existing = |name: &str| Some(self.path(name)).filter(|path| path.exists());
        config.server.tls_certificate_file = existing("certificate.pem");
        config.server.tls_key_file = existing("key.pem");
        config.server.tls_client_ca_file = existing("clients.pem");
        config.server.token_file = existing("tokens");
    }
}

/// Writes a file under another name and renames it.
pub fn write_whole(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A client that trusts some certificates (PEM) and may have one of its own.
pub struct TlsClient {
    pub trusted: String,
    pub identity: Option<Identity>,
    pub protocols: Vec<&'static str>,
}

impl TlsClient {
    pub fn trusting(certificate: &str) -> Self {
        Self {
            trusted: certificate.to_owned(),
            identity: None,
            protocols: vec!["http/1.1"],
        }
    }

    pub fn with(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Connects; the handshake of TLS 1.3 may be refused only when something is read.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self
            .protocols
            .iter()
            .map(|p| p.as_bytes().to_vec())
            .collect();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(address.ip());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}
