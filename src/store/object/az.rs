//! Opening `az://container/prefix`.
//!
//! Does: turn options and the environment into a client of Azure Blob Storage. Does not: read the
//! environment itself (the client's `from_env` does). Invariant: once a base directory names
//! credentials of its own, of the environment only the account's name is used for it.

use object_store::ClientConfigKey;
use object_store::azure::{AzureConfigKey as Az, MicrosoftAzureBuilder};

use super::client::{self, check_endpoint, is_true, no_retries, take_given};
use super::progress::Connector;
use super::redact::Redactor;
use crate::config::BaseUri;
use crate::store::opened::OpenedStore;
use crate::store::options::{OpenError, Options};

const OPTIONS: &[(&str, Az)] = &[
    ("account", Az::AccountName),
    ("access_key", Az::AccessKey),
    ("sas_token", Az::SasKey),
    ("client_id", Az::ClientId),
    ("client_secret", Az::ClientSecret),
    ("tenant_id", Az::AuthorityId),
    ("endpoint", Az::Endpoint),
    ("allow_http", Az::Client(ClientConfigKey::AllowHttp)),
    ("use_emulator", Az::UseEmulator),
];

const SECRETS: [Az; 4] = [Az::AccessKey, Az::SasKey, Az::ClientSecret, Az::Token];

/// Opens a base directory.
///
/// # Errors
/// If the options are wrong or contradict each other.
pub fn open(
    uri: &BaseUri,
    options: &mut Options,
    connector: Connector,
) -> Result<OpenedStore, OpenError> {
    let given = take_given(options, OPTIONS, "azure_", Az::ContainerName)?;
    let gives = |key: &Az| given.iter().any(|(_, k, _)| k == key);
    check_credentials(options, gives)?;
    let mut builder = MicrosoftAzureBuilder::from_env();
    if SECRETS.iter().any(gives) {
        let account = builder.get_config_value(&Az::AccountName);
        builder = MicrosoftAzureBuilder::new();
        if let Some(account) = account {
            builder = builder.with_account(account);
        }
    }
    for (_, key, value) in &given {
        builder = builder.with_config(*key, value);
    }
    let emulator = is_true(builder.get_config_value(&Az::UseEmulator));
    let account = builder
        .get_config_value(&Az::AccountName)
        .unwrap_or_default();
    if account.is_empty() && !emulator {
        return Err(options.refuse("account", "is needed: the name of the storage account"));
    }
    let endpoint = builder.get_config_value(&Az::Endpoint);
    let allow_http = is_true(builder.get_config_value(&Az::Client(ClientConfigKey::AllowHttp)));
    check_endpoint(options, endpoint.as_deref(), allow_http || emulator)?;
    let secrets = SECRETS
        .iter()
        .filter_map(|key| builder.get_config_value(key));
    let redactor = Redactor::new(secrets);
    let builder = builder
        .with_container_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let endpoint = endpoint.as_deref().unwrap_or("azure").trim_end_matches('/');
    let endpoint = format!("{endpoint} {account}");
    client::opened(
        uri,
        options,
        &endpoint,
        connector.policy,
        redactor,
        builder.build(),
    )
}

fn check_credentials(options: &Options, gives: impl Fn(&Az) -> bool) -> Result<(), OpenError> {
    if gives(&Az::AccessKey) && gives(&Az::SasKey) {
        return Err(options.refuse("access_key", "and `sas_token` contradict; set one"));
    }
    if gives(&Az::ClientSecret) && !(gives(&Az::ClientId) && gives(&Az::AuthorityId)) {
        return Err(options.refuse(
            "client_secret",
            "is set without `client_id` and `tenant_id`; set all three",
        ));
    }
    Ok(())
}
