//! Opening `gs://bucket/prefix`.
//!
//! Does: turn options and the environment into a client of Google Cloud Storage. Does not: read the
//! environment itself. Invariant: once a base directory names credentials of its own, none of the
//! environment's settings are used for it.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::client::HttpConnector as _;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Gs};

use super::bucket_settings::BucketSettings;
use super::client::{
    self, Built, Setting, check_endpoint, client_options, from_environment, is_true, no_retries,
    take_given,
};
use super::google_file::{self, Purpose};
use super::known::Deleting;
use super::progress::Connector;
use super::tls::ClientTls;
use crate::config::{BaseUri, read_file};
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

const ENDPOINT: &str = "https://storage.googleapis.com";

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
    let mut client_options = client_options(options);
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
    // The client reads it by itself.
    if let Some(host) = options.take_variable("GCE_METADATA_HOST") {
        connector.reach_directly(&format!("http://{}", host.expose()));
    }
    let variables = [("SERVICE_ACCOUNT", Gs::ServiceAccount)];
    let environment = match named[..] {
        [] => from_environment(options, "GOOGLE_", &variables),
        _ => Vec::new(),
    };
    check_documents(options, &environment, &given);
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client_options.clone());
    for setting in environment.iter().chain(&given) {
        if let Gs::Client(key) = setting.key {
            client_options = client_options.with_config(key, setting.value.expose());
        }
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
    let is_signed = !is_true(builder.get_config_value(&Gs::SkipSignature));
    let interface = endpoint.as_deref().unwrap_or(ENDPOINT);
    let endpoint = endpoint.as_deref().unwrap_or("google");
    client::opened(uri, options, endpoint, &connector, || {
        let has_tokens = is_signed && builder.get_config_value(&Gs::BearerToken).is_none();
        let builder = match has_tokens {
            true => with_renewed_tokens(builder, &connector)?,
            false => builder,
        };
        let store = builder.build()?;
        let settings = BucketSettings::new(
            interface,
            uri.bucket(),
            is_signed.then(|| Arc::clone(store.credentials())),
            connector.connect(&client_options)?,
            connector.clock.clone(),
            connector.tasks.clone(),
        );
        Ok(Built {
            storage_class,
            deleting: Deleting::in_bucket(settings),
            ..Built::new(store)
        })
    })
}

/// The builder with its own provider of tokens, which are requested again where the store does not
/// accept one.
fn with_renewed_tokens(
    builder: GoogleCloudStorageBuilder,
    connector: &Connector,
) -> object_store::Result<GoogleCloudStorageBuilder> {
    connector.seen.note_renewed_tokens();
    let credentials = connector.renewing(builder.clone())?;
    Ok(builder.with_credentials(credentials))
}

/// Refuses documents with credentials of a type that the client does not know: its own message
/// names no way out.
fn check_documents(options: &mut Options, environment: &[Setting<Gs>], given: &[Setting<Gs>]) {
    let in_effect = |key: Gs| {
        let mut settings = given.iter().chain(environment);
        settings.find(|setting| setting.key == key)
    };
    let account = [Gs::ServiceAccount, Gs::ServiceAccountKey].map(in_effect);
    for setting in account.into_iter().flatten() {
        check_document(options, setting, Purpose::ServiceAccount);
    }
    // The client reads it only where there is nothing else.
    let has_others = in_effect(Gs::BearerToken).is_some() || account.iter().any(Option::is_some);
    if let (Some(setting), false) = (in_effect(Gs::ApplicationCredentials), has_others) {
        check_document(options, setting, Purpose::ApplicationDefault);
    }
}

fn check_document(options: &mut Options, setting: &Setting<Gs>, purpose: Purpose) {
    let value = setting.value.expose();
    let fault = match setting.key {
        Gs::ServiceAccountKey => google_file::fault(value.as_bytes(), purpose),
        // One that cannot be read is refused by the client.
        _ => read_file(value.as_ref()).ok().and_then(|document| {
            let fault = google_file::fault(&document, purpose)?;
            Some(format!("names the file {value}, which {fault}"))
        }),
    };
    if let Some(fault) = fault {
        setting.refuse(options, &fault);
    }
}
