//! Opening `gs://bucket/prefix`.
//!
//! Does: turn options and the environment into a client of Google Cloud Storage. Does not: read the
//! environment itself (the client's `from_env` does). Invariant: once a base directory names
//! credentials of its own, none of the environment's settings are used for it.

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Gs};

use super::client::{self, check_endpoint, is_true, no_retries, take_given};
use super::progress::Connector;
use super::redact::Redactor;
use crate::config::BaseUri;
use crate::store::opened::OpenedStore;
use crate::store::options::{OpenError, Options};

const ALLOW_HTTP: Gs = Gs::Client(ClientConfigKey::AllowHttp);

const OPTIONS: &[(&str, Gs)] = &[
    ("service_account_path", Gs::ServiceAccount),
    ("service_account_key", Gs::ServiceAccountKey),
    ("application_credentials", Gs::ApplicationCredentials),
    ("endpoint", Gs::BaseUrl),
    ("allow_http", ALLOW_HTTP),
];

/// Opens a base directory.
///
/// # Errors
/// If the options are wrong or contradict each other.
pub fn open(
    uri: &BaseUri,
    options: &mut Options,
    connector: Connector,
) -> Result<OpenedStore, OpenError> {
    let given = take_given(options, OPTIONS, "google_", Gs::Bucket)?;
    let credentials = [
        Gs::ServiceAccount,
        Gs::ServiceAccountKey,
        Gs::ApplicationCredentials,
        Gs::BearerToken,
    ];
    let named: Vec<&str> = given
        .iter()
        .filter(|(_, key, _)| credentials.contains(key))
        .map(|(name, ..)| name.as_str())
        .collect();
    if let [first, second, ..] = named[..] {
        return Err(options.refuse(first, &format!("and `{second}` contradict; set one")));
    }
    let mut builder = match named[..] {
        [] => GoogleCloudStorageBuilder::from_env(),
        _ => GoogleCloudStorageBuilder::new(),
    };
    for (_, key, value) in &given {
        builder = builder.with_config(*key, value);
    }
    let endpoint = builder.get_config_value(&Gs::BaseUrl);
    // Only a permission that was given here counts, not the environment's.
    let allow_http = given.iter().find(|(_, key, _)| *key == ALLOW_HTTP);
    let allow_http = is_true(allow_http.map(|(_, _, value)| value.clone()));
    check_endpoint(options, endpoint.as_deref(), allow_http)?;
    let secrets = [Gs::ServiceAccountKey, Gs::BearerToken];
    let secrets = secrets
        .iter()
        .filter_map(|key| builder.get_config_value(key));
    let redactor = Redactor::new(secrets);
    let builder = builder
        .with_bucket_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let endpoint = endpoint.as_deref().unwrap_or("google");
    client::opened(
        uri,
        options,
        endpoint,
        connector.policy,
        redactor,
        builder.build(),
    )
}
