//! A private CA and client certificates, for each base directory.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use stopover::runtime::Runtime;
use stopover::store::open::open_all;

use crate::gate::Gate;
use crate::tls::{Authority, Identity, self_signed_client};
use crate::{base, fault};

/// A server with a certificate of this CA, which may demand one of its clients.
pub fn server_config(authority: &Authority, wants_clients: bool) -> ServerConfig {
    server_config_of(authority, &authority.server(), wants_clients)
}

/// The same with this certificate.
pub fn server_config_of(
    authority: &Authority,
    server: &Identity,
    wants_clients: bool,
) -> ServerConfig {
    let Identity { certificate, key } = server;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match wants_clients {
        false => builder.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            let ca = authority.certificate();
            roots
                .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    builder.with_single_cert(chain, key).unwrap()
}

/// The files of a client, in a folder.
fn files(folder: &Path, authority: &Authority, client: &Identity) -> [String; 3] {
    let contents = [
        ("ca.pem", authority.certificate()),
        ("client.pem", client.certificate.clone()),
        ("client.key", client.key.clone()),
    ];
    contents.map(|(name, content)| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_wants_a_client_certificate_gets_that_of_its_base_directory() {
    let authority = Authority::new();
    let gate = Gate::start_tls(server_config(&authority, true)).await;
    let endpoint = format!("https://localhost:{}", gate.address.port());
    let folder = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = files(folder.path(), &authority, &authority.client());
    let other = tempfile::tempdir().unwrap();
    let [_, foreign, foreign_key] = files(other.path(), &authority, &self_signed_client());
    let with = |more: &[(&str, &str)]| {
        let own = [
            ("endpoint", endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", "key"),
            ("secret_access_key", "secret"),
            ("ca_file", &ca),
        ];
        base("s3://bucket/p", &[&own[..], more].concat())
    };
    let shown = [
        ("client_certificate_file", certificate.as_str()),
        ("client_key_file", &key),
    ];
    assert_eq!(fault(with(&shown)).await, None);
    let none = fault(with(&[])).await;
    assert!(
        none.is_some(),
        "the server wants no certificate: the test proves nothing"
    );
    let refused = fault(with(&[
        ("client_certificate_file", &foreign),
        ("client_key_file", &foreign_key),
    ]));
    assert!(
        refused.await.is_some(),
        "a certificate of another CA is accepted"
    );
}

/// Two base directories trust two CAs; neither trusts the other's.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_directory_trusts_its_own_ca_alone() {
    let authorities = [Authority::new(), Authority::new()];
    let folder = tempfile::tempdir().unwrap();
    for (server, authority) in authorities.iter().enumerate() {
        let gate = Gate::start_tls(server_config(authority, false)).await;
        let endpoint = format!("https://localhost:{}", gate.address.port());
        for (trusted, authority) in authorities.iter().enumerate() {
            let ca = folder.path().join("ca.pem");
            std::fs::write(&ca, authority.certificate()).unwrap();
            let options = [
                ("endpoint", endpoint.as_str()),
                ("region", "us-east-1"),
                ("access_key_id", "key"),
                ("secret_access_key", "secret"),
                ("ca_file", ca.to_str().unwrap()),
            ];
            let found = fault(base("s3://bucket/p", &options)).await;
            assert_eq!(found.is_none(), server == trusted, "{found:?}");
            if let Some(error) = found {
                assert!(error.contains("ca_file"), "{error}");
            }
        }
    }
}

#[test]
fn a_client_certificate_needs_its_key_and_both_must_be_pem() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no PEM").unwrap();
    let text = text.to_str().unwrap();
    let [certificate, key] = ["client_certificate_file", "client_key_file"];
    for (options, words) in [
        (vec![(certificate, text)], "without `client_key_file`"),
        (vec![(key, text)], "without `client_certificate_file`"),
        (vec![(certificate, text), (key, text)], "in PEM"),
        (
            vec![(certificate, "/no/such"), (key, text)],
            "cannot be read",
        ),
        (
            vec![(certificate, text), (key, "/no/such")],
            "cannot be read",
        ),
    ] {
        for (uri, account) in [("s3://b/p", None), ("az://b/p", Some(("account", "a")))] {
            let options: Vec<_> = options.iter().copied().chain(account).collect();
            let opened = open_all(&[base(uri, &options)], &Runtime::seeded(1));
            let error = opened.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
