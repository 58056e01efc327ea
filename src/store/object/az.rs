//! Opening `az://container/prefix`.
//!
//! Does: turn options and the environment into a client of Azure Blob Storage. Does not: read the
//! environment itself. Invariant: once a base directory names credentials of its own, of the
//! environment only the account's name is used for it.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey as Az, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::HttpConnector as _;
use object_store::{ClientConfigKey, ClientOptions};
use url::Url;

use super::client::{
    self, Built, check_endpoint, client_options, from_environment, is_true, no_retries, take_given,
    token_file,
};
use super::pod::WorkloadIdentity;
use super::progress::Connector;
use super::sas;
use super::tls::ClientTls;
use super::token_file::TokenFile;
use crate::config::BaseUri;
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

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

/// The client prefers these to a workload identity if all are set.
const FABRIC: [Az; 4] = [
    Az::FabricTokenServiceUrl,
    Az::FabricWorkloadHost,
    Az::FabricSessionToken,
    Az::FabricClusterIdentifier,
];

const SECRETS: [Az; 4] = [Az::AccessKey, Az::SasKey, Az::ClientSecret, Az::Token];

/// Opens a base directory; `None` if its options are wrong or contradict each other, which is
/// reported.
pub fn open(uri: &BaseUri, options: &mut Options, mut connector: Connector) -> Option<OpenedStore> {
    connector.tls = ClientTls::take(options);
    let client_options = client_options(options);
    let storage_class = options.take("storage_class");
    let storage_class = storage_class.map(|class| class.expose().to_owned());
    expand_connection_string(options);
    let given = take_given(options, OPTIONS, "azure_", Az::ContainerName);
    let gives = |key: &Az| given.iter().any(|setting| setting.key == *key);
    check_credentials(options, gives);
    let variables = [("IDENTITY_ENDPOINT", Az::MsiEndpoint)];
    let mut environment = from_environment(options, "AZURE_", &variables);
    if SECRETS.iter().any(gives) {
        environment.retain(|variable| variable.key == Az::AccountName);
    }
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client_options.clone());
    for setting in environment.iter().chain(&given) {
        builder = builder.with_config(setting.key, setting.value.expose());
    }
    let emulator = is_true(builder.get_config_value(&Az::UseEmulator));
    let account = builder
        .get_config_value(&Az::AccountName)
        .unwrap_or_default();
    if account.is_empty() && !emulator {
        options.refuse("account", "is needed: the name of the storage account");
    }
    let endpoint = builder.get_config_value(&Az::Endpoint);
    let allow_http = is_true(builder.get_config_value(&Az::Client(ClientConfigKey::AllowHttp)));
    if let Some(endpoint) = &endpoint {
        check_endpoint(options, uri, endpoint, allow_http || emulator);
    }
    if let Some(url) = builder.get_config_value(&Az::MsiEndpoint) {
        connector.reach_directly(&url);
    }
    let builder = builder
        .with_container_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let token = token_file(&environment, &given, &Az::FederatedTokenFile);
    let endpoint = endpoint.as_deref().unwrap_or("azure").trim_end_matches('/');
    let endpoint = format!("{endpoint} {account}");
    let now = connector.clock.wall_millis();
    let validity = builder.get_config_value(&Az::SasKey);
    let validity = validity.and_then(|token| sas::validity(&token, now));
    client::opened(uri, options, &endpoint, &connector, || {
        let builder = with_tokens(builder, &client_options, token, &connector)?;
        Ok(Built {
            storage_class,
            validity,
            ..Built::new(builder.build()?)
        })
    })
}

/// The builder with a provider of tokens that are requested again where the store does not accept
/// one; as it is, where it has a key or a signature instead.
fn with_tokens(
    builder: MicrosoftAzureBuilder,
    client_options: &ClientOptions,
    token: Option<Arc<TokenFile>>,
    connector: &Connector,
) -> object_store::Result<MicrosoftAzureBuilder> {
    let sets = |key: &Az| builder.get_config_value(key).is_some();
    let is_fabric = FABRIC.iter().all(sets);
    let is_fixed = [Az::Token, Az::AccessKey].iter().any(sets) && !is_fabric;
    if is_fixed || is_true(builder.get_config_value(&Az::UseEmulator)) {
        return Ok(builder);
    }
    let pod = match is_fabric {
        true => None,
        false => pod_identity(&builder, client_options, token, connector)?,
    };
    let is_signed = pod.is_none() && sets(&Az::SasKey) && !sets(&Az::ClientSecret) && !is_fabric;
    if is_signed {
        return Ok(builder);
    }
    connector.seen.note_renewed_tokens();
    let credentials = match pod {
        Some(pod) => pod,
        None => connector.renewing(builder.clone())?,
    };
    Ok(builder.with_credentials(credentials))
}

/// The workload identity of a pod, where the client would use that: it would send the file with the
/// token as it is.
fn pod_identity(
    builder: &MicrosoftAzureBuilder,
    client_options: &ClientOptions,
    token: Option<Arc<TokenFile>>,
    connector: &Connector,
) -> object_store::Result<Option<AzureCredentialProvider>> {
    let setting = |key: &Az| builder.get_config_value(key);
    let identity = (token, setting(&Az::ClientId), setting(&Az::AuthorityId));
    let (Some(token), Some(client_id), Some(tenant)) = identity else {
        return Ok(None);
    };
    let host = setting(&Az::AuthorityHost);
    let host = host.unwrap_or_else(|| "https://login.microsoftonline.com".into());
    let identity = WorkloadIdentity {
        token,
        http: connector.connect(client_options)?,
        url: format!("{}/{tenant}/oauth2/v2.0/token", host.trim_end_matches('/')),
        client_id,
    };
    Ok(Some(connector.renewed(identity)))
}

/// Replaces a connection string, as Azure's tools print it, by the options that it stands for.
fn expand_connection_string(options: &mut Options) {
    const NAME: &str = "connection_string";
    let Some(text) = options.take(NAME) else {
        return;
    };
    let parts = text
        .expose()
        .split(';')
        .filter(|part| !part.trim().is_empty());
    let mut protocol = "https";
    let (mut suffix, mut account, mut endpoint) = (None, None, None);
    for part in parts {
        let Some((key, value)) = part.trim().split_once('=') else {
            return options.refuse(NAME, "must be pairs such as AccountName=…, separated by ;");
        };
        match key {
            "DefaultEndpointsProtocol" => protocol = value,
            "EndpointSuffix" => suffix = Some(value),
            "BlobEndpoint" => endpoint = Some(value.trim_end_matches('/').to_owned()),
            "AccountName" => {
                account = Some(value);
                options.add_from(NAME, "account", value);
            }
            "AccountKey" => options.add_from(NAME, "access_key", value),
            "SharedAccessSignature" => options.add_from(NAME, "sas_token", value),
            "UseDevelopmentStorage" => options.add_from(NAME, "use_emulator", value),
            // Of other services of the account.
            "QueueEndpoint" | "TableEndpoint" | "FileEndpoint" => {}
            _ => return options.refuse(NAME, "has a part that is unknown here"),
        }
    }
    // The client knows the public cloud's endpoint.
    let is_other = suffix.filter(|suffix| *suffix != "core.windows.net");
    if let (None, Some(suffix), Some(account)) = (&endpoint, is_other, account) {
        endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
    }
    let Some(endpoint) = endpoint else { return };
    // Azure's portal prints none beside a shared access signature.
    if let (None, false, Some(account)) = (account, options.has("account"), account_of(&endpoint)) {
        options.add_from(NAME, "account", &account);
    }
    options.add_from(NAME, "endpoint", &endpoint);
}

/// The account that an endpoint belongs to: the first label of the host name. Emulators are reached
/// by address, and have the account as the first part of the path.
fn account_of(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    let mut parts = url.path_segments()?.filter(|part| !part.is_empty());
    let label = url.domain().and_then(|host| Some(host.split_once('.')?.0));
    parts.next().or(label).map(str::to_owned)
}

fn check_credentials(options: &mut Options, gives: impl Fn(&Az) -> bool) {
    if gives(&Az::AccessKey) && gives(&Az::SasKey) {
        options.refuse("access_key", "and `sas_token` contradict; set one");
    }
    if gives(&Az::ClientSecret) && !(gives(&Az::ClientId) && gives(&Az::AuthorityId)) {
        options.refuse(
            "client_secret",
            "is set without `client_id` and `tenant_id`; set all three",
        );
    }
}
