//! Clients that show a certificate of their own to the store.
//!
//! Does: read the certificate and its key, build the client of the HTTP library that shows it. Does
//! not: read `ca_file` for clients without such a certificate (`client`). Invariant: a key is in no
//! message.
//!
//! The store's client library has no setting for it, and builds its HTTP client itself. So that
//! client is built here, from the same options.

use std::str::FromStr;
use std::time::Duration;

use object_store::{ClientConfigKey as Key, ClientOptions};
use reqwest::{Certificate, ClientBuilder, Identity, NoProxy, Proxy};

use super::form;
use crate::certificate::Validity;
use crate::store::options::Options;

/// A certificate that is shown to the store, and the CAs that are trusted.
#[derive(Clone)]
pub struct ClientTls {
    identity: Identity,
    trusted: Vec<Certificate>,
    validity: Option<Validity>,
}

/// Without the key.
impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// What the options `client_certificate_file` and `client_key_file` name, with the CAs of
    /// `ca_file`; `None` without them. What is wrong is reported.
    pub(super) fn take(options: &mut Options) -> Option<Self> {
        const CERTIFICATE: &str = "client_certificate_file";
        const KEY: &str = "client_key_file";
        let (certificate, key) = match (options.take(CERTIFICATE), options.take(KEY)) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                options.refuse(CERTIFICATE, "is set without `client_key_file`; set both");
                return None;
            }
            (None, Some(_)) => {
                options.refuse(KEY, "is set without `client_certificate_file`; set both");
                return None;
            }
        };
        let files = [&certificate, &key].map(|path| form::content(path.expose()));
        let (chain, key) = match files.into() {
            (Ok(chain), Ok(key)) => (chain, key),
            (Err(error), _) => {
                options.refuse(CERTIFICATE, &error.to_string());
                return None;
            }
            (_, Err(error)) => {
                options.refuse(KEY, &error.to_string());
                return None;
            }
        };
        let validity = Validity::of_pem(&chain);
        let pem = [key, b"\n".to_vec(), chain].concat();
        let Ok(identity) = Identity::from_pem(&pem) else {
            let reason = "and `client_key_file` must name a certificate and its key in PEM";
            options.refuse(CERTIFICATE, reason);
            return None;
        };
        // An error of it is reported by `client_options`.
        let trusted = options.get("ca_file").map(|path| {
            let found = form::certificates(path.expose(), Certificate::from_pem_bundle);
            found.unwrap_or_default()
        });
        Some(Self {
            identity,
            trusted: trusted.unwrap_or_default(),
            validity,
        })
    }

    /// When all of the certificate's chain is valid; `None` if that cannot be read.
    pub(super) fn validity(&self) -> Option<Validity> {
        self.validity
    }

    /// A client with these options that shows the certificate.
    ///
    /// # Errors
    /// If an option has no such value, or the key does not belong to the certificate.
    pub(super) fn client(&self, options: &ClientOptions) -> reqwest::Result<reqwest::Client> {
        let given = Given(options);
        let mut builder = ClientBuilder::new()
            .identity(self.identity.clone())
            .https_only(!given.flag(Key::AllowHttp))
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        builder = match given.flag(Key::NoSystemCertificates) {
            true => builder.tls_certs_only(self.trusted.clone()),
            false => builder.tls_certs_merge(self.trusted.clone()),
        };
        if given.flag(Key::AllowInvalidCertificates) {
            builder = builder.danger_accept_invalid_certs(true);
        }
        if let Some(timeout) = given.duration(Key::ConnectTimeout) {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(timeout) = given.duration(Key::PoolIdleTimeout) {
            builder = builder.pool_idle_timeout(timeout);
        }
        if let Some(most) = given.parsed(Key::PoolMaxIdlePerHost) {
            builder = builder.pool_max_idle_per_host(most);
        }
        if let Some(agent) = given.text(Key::UserAgent) {
            builder = builder.user_agent(agent);
        }
        if given.flag(Key::Http2Only) {
            builder = builder.http2_prior_knowledge();
        } else if given.flag(Key::Http1Only) {
            builder = builder.http1_only();
        }
        with_proxy(builder, &given)?.build()
    }
}

fn with_proxy(mut builder: ClientBuilder, given: &Given<'_>) -> reqwest::Result<ClientBuilder> {
    let Some(url) = given.text(Key::ProxyUrl) else {
        return Ok(builder);
    };
    if let Some(pem) = given.text(Key::ProxyCaCertificate) {
        builder = builder.tls_certs_merge([Certificate::from_pem(pem.as_bytes())?]);
    }
    let excluded = given.text(Key::ProxyExcludes);
    let excluded = excluded.and_then(|hosts| NoProxy::from_string(&hosts));
    Ok(builder.proxy(Proxy::all(url)?.no_proxy(excluded)))
}

/// The options of a client, by their texts.
struct Given<'a>(&'a ClientOptions);

impl Given<'_> {
    fn text(&self, key: Key) -> Option<String> {
        self.0.get_config_value(&key)
    }

    fn flag(&self, key: Key) -> bool {
        self.text(key).as_deref() == Some("true")
    }

    fn parsed<T: FromStr>(&self, key: Key) -> Option<T> {
        self.text(key)?.parse().ok()
    }

    fn duration(&self, key: Key) -> Option<Duration> {
        humantime::parse_duration(&self.text(key)?).ok()
    }
}
