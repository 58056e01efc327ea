//! Opening `gs://bucket/prefix`.
//!
//! Does: turn options and the environment into a client of Google Cloud Storage. Does not: read the
//! environment itself. Invariant: once a base directory names credentials of its own, none of the
//! environment's settings are used for it.

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Gs};

use super::client::{
    self, Built, Setting, check_endpoint, client_options, from_environment, no_retries, take_given,
};
use super::progress::Connector;
use super::tls::ClientTls;
use crate::config::BaseUri;
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

const ALLOW_HTTP: Gs = Gs::Client(ClientConfigKey::AllowHttp);

const OPTIONS: &[(&str, Gs)] = &[
    ("service_account_path", Gs::ServiceAccount),
    ("service_account_key", Gs::ServiceAccountKey),
    ("application_credentials", Gs::ApplicationCredentials),
    ("endpoint", Gs::BaseUrl),
    ("allow_http", ALLOW_HTTP),
];

/// Opens a base directory; `None` if its options are wrong or contradict each other, which is
/// reported.
pub fn open(uri: &BaseUri, options: &mut Options, mut connector: Connector) -> Option<OpenedStore> {
    connector.tls = ClientTls::take(options);
    let client_options = client_options(options);
    let storage_class = options.take("storage_class");
    let storage_class = storage_class.map(|class| class.expose().to_owned());
    let given = take_given(options, OPTIONS, "google_", Gs::Bucket);
    let credentials = [
        Gs::ServiceAccount,
        Gs::ServiceAccountKey,
        Gs::ApplicationCredentials,
        Gs::BearerToken,
    ];
    let named: Vec<&str> = given
        .iter()
        .filter(|setting| credentials.contains(&setting.key))
        .map(Setting::name)
        .collect();
    if let [first, second, ..] = named[..] {
        options.refuse(first, &format!("and `{second}` contradict; set one"));
    }
    let variables = [("SERVICE_ACCOUNT", Gs::ServiceAccount)];
    let environment = match named[..] {
        [] => from_environment(options, "GOOGLE_", &variables),
        _ => Vec::new(),
    };
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client_options);
    for setting in environment.iter().chain(&given) {
        builder = builder.with_config(setting.key, setting.value.expose());
    }
    let endpoint = builder.get_config_value(&Gs::BaseUrl);
    // Only a permission that was given here counts, not the environment's.
    let allow_http = given.iter().find(|setting| setting.key == ALLOW_HTTP);
    let allow_http = allow_http.is_some_and(|setting| setting.value.expose() == "true");
    if let Some(endpoint) = &endpoint {
        check_endpoint(options, uri, endpoint, allow_http);
    }
    let builder = builder
        .with_bucket_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let endpoint = endpoint.as_deref().unwrap_or("google");
    client::opened(uri, options, endpoint, &connector, || {
        Ok(Built {
            storage_class,
            ..Built::new(builder.build()?)
        })
    })
}
