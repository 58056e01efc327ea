//! Opening the clouds' object stores: S3, Google Cloud Storage, Azure.
//!
//! Does: turn options and the environment into a client. Does not: parse URIs or take values from
//! the environment itself (the client's `from_env` does). Invariant: as soon as a base directory
//! names credentials of its own, none of the environment's are used for it, not even to complete
//! them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use super::ObjectBackend;
use super::checksums::{self, Checksums};
use super::error::Redactor;
use crate::config::Environment;
use crate::store::Store;
use crate::store::limit::StoreLimits;
use crate::store::open::{Built, prefix};
use crate::store::options::{OpenError, Options, open_error};

type Answer = Result<(Built, Options), OpenError>;

/// The client's own tries: enough for a dropped connection or one 503. Patience is `retry`'s, and
/// for puts the facade's, which turns to another base directory first.
fn client_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
    }
}

/// A whole request, body included: 256 MiB at 5 MB/s.
const REQUEST_TIMEOUT: &str = "60 seconds";

fn bucket<'a>(label: &str, url: &'a Url) -> Result<&'a str, OpenError> {
    url.host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| {
            let message = format!("it needs a bucket: {}://bucket/prefix", url.scheme());
            open_error(label, "its `uri`".into(), message)
        })
}

fn client_error(label: &str, error: &object_store::Error, redactor: &Redactor) -> OpenError {
    open_error(
        label,
        "its client".into(),
        redactor.clean(&error.to_string()),
    )
}

/// Makes backends of clients for the same place, which differ in nothing that is seen here.
struct Place {
    name: String,
    prefix: Path,
    redactor: Redactor,
}

impl Place {
    fn new(label: &str, url: &Url, at: &str, redactor: Redactor) -> Result<Self, OpenError> {
        let prefix = prefix(label, url)?;
        let bucket = url.host_str().unwrap_or("");
        let name = format!("{}://{bucket}/{prefix} at {at}", url.scheme());
        Ok(Self {
            name,
            prefix,
            redactor,
        })
    }

    fn backend(&self, client: Arc<dyn ObjectStore>) -> ObjectBackend {
        ObjectBackend::new(client, self.prefix.clone(), self.redactor.clone(), true)
    }

    fn built(self, store: ObjectBackend) -> Built {
        Built {
            place: self.name,
            store: Arc::new(store),
            limits: StoreLimits::REMOTE,
        }
    }
}

/// Refuses `http://` without `allow_http`: the client would fail later, with less to say.
fn check_endpoint(
    options: &Options,
    endpoint: Option<&str>,
    allow_http: bool,
) -> Result<(), OpenError> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    match Url::parse(endpoint)
        .map(|url| url.scheme().to_owned())
        .as_deref()
    {
        Ok("https") => Ok(()),
        Ok("http") if allow_http => Ok(()),
        Ok("http") => Err(options.refuse(
            "endpoint",
            "is http://; set `allow_http = true` if that is meant",
        )),
        _ => Err(options.refuse("endpoint", "must be an http:// or https:// URL")),
    }
}

/// Whether an endpoint is spoken to without TLS.
fn is_plain(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| url.scheme() == "http")
}

fn is_true(value: Option<String>) -> bool {
    value.as_deref() == Some("true")
}

const S3_OPTIONS: &[(&str, AmazonS3ConfigKey)] = &[
    ("region", AmazonS3ConfigKey::Region),
    ("endpoint", AmazonS3ConfigKey::Endpoint),
    (
        "allow_http",
        AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp),
    ),
    ("access_key_id", AmazonS3ConfigKey::AccessKeyId),
    ("secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
    ("session_token", AmazonS3ConfigKey::Token),
];

/// `s3://bucket/prefix`.
pub(crate) fn build_s3(label: &str, url: &Url, mut options: Options) -> Answer {
    use AmazonS3ConfigKey as S3;
    let bucket = bucket(label, url)?;
    check_s3_options(&options)?;
    let given = take_given(&mut options, S3_OPTIONS, "aws_", S3::Bucket)?;
    let path_style = options.take_bool("path_style")?;
    let gives = |key: &S3| given.iter().any(|(_, k, _)| k == key);
    let mut builder = s3_environment(gives(&S3::AccessKeyId), gives(&S3::RoleArn))
        .with_config(S3::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (_, key, value) in &given {
        builder = builder.with_config(*key, value);
    }
    if let Some((_, _, endpoint)) = given.iter().find(|(_, key, _)| *key == S3::Endpoint) {
        // An environment's endpoint for S3 alone would win over the one given here.
        builder = builder.with_config(S3::S3Endpoint, endpoint);
    }
    let endpoint = [S3::S3Endpoint, S3::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let allow_http = is_true(builder.get_config_value(&S3::Client(ClientConfigKey::AllowHttp)));
    check_endpoint(&options, endpoint.as_deref(), allow_http)?;
    // Certificates of virtual hosts cover one label only, so a bucket with dots needs its path.
    let path_style = path_style.unwrap_or(endpoint.is_some() || bucket.contains('.'));
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let (Some(endpoint), false) = (&endpoint, path_style) {
        builder = builder.with_config(S3::S3Endpoint, virtual_host(&options, endpoint, bucket)?);
    }
    let plain = endpoint.as_deref().is_some_and(is_plain);
    if !gives(&S3::UnsignedPayload) && !plain {
        // TLS already protects the bytes; hashing each of them again only costs time.
        builder = builder.with_unsigned_payload(true);
    }
    let may_choose = plain && !UPLOADS.iter().any(gives) && uploads_are_as_by_default(&builder);
    let secrets = [S3::AccessKeyId, S3::SecretAccessKey, S3::Token];
    let redactor = Redactor::new(
        secrets
            .iter()
            .filter_map(|key| builder.get_config_value(key)),
    );
    let builder = builder
        .with_bucket_name(bucket)
        .with_retry(client_retries());
    let at = endpoint.unwrap_or_else(|| "aws".into());
    let place = Place::new(label, url, at.trim_end_matches('/'), redactor)?;
    let store = s3_store(builder, may_choose, &place);
    let store = store.map_err(|error| client_error(label, &error, &place.redactor))?;
    Ok((place.built(store), options))
}

/// How uploads are protected, as far as it can be told to the client.
const UPLOADS: [AmazonS3ConfigKey; 2] = [
    AmazonS3ConfigKey::UnsignedPayload,
    AmazonS3ConfigKey::Checksum,
];

/// Whether nobody has said how uploads are to be protected, and they are hashed for being signed.
fn uploads_are_as_by_default(builder: &AmazonS3Builder) -> bool {
    let is_said = |(name, _): &(String, String)| {
        let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase());
        key.and_then(|key| key.parse().ok())
            .is_some_and(|key| UPLOADS.contains(&key))
    };
    let signed = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
    // The client does not tell what its environment says from what nobody said.
    let around = Environment::of_process().variables;
    signed.as_deref() == Some("false") && !around.iter().any(is_said)
}

/// A store that may choose how it uploads has what it needs for that.
fn s3_store(
    builder: AmazonS3Builder,
    may_choose: bool,
    place: &Place,
) -> object_store::Result<ObjectBackend> {
    let client = builder.clone().build()?;
    if !may_choose {
        return Ok(place.backend(Arc::new(client)));
    }
    let [checked, damaging] = checksums::clients(&builder, &client)?
        .map(|client| -> Arc<dyn Store> { Arc::new(place.backend(client)) });
    let store = place.backend(Arc::new(client));
    Ok(store.with_checksums(Checksums::new(checked, damaging)))
}

fn check_s3_options(options: &Options) -> Result<(), OpenError> {
    let contrary = "aws_virtual_hosted_style_request";
    if options.has(contrary) {
        return Err(options.refuse(contrary, "is the contrary of `path_style`; use that"));
    }
    let encryption = "aws_server_side_encryption";
    // The client would refuse it too, but name values that it does not take.
    if options.is_none_of(encryption, &["AES256", "aws:kms", "aws:kms:dsse", "sse-c"]) {
        let words = "must be `AES256`, `aws:kms`, `aws:kms:dsse` or `sse-c`";
        return Err(options.refuse(encryption, words));
    }
    let has = |name: &str| options.has(name) || options.has(&format!("aws_{name}"));
    match (
        has("access_key_id"),
        has("secret_access_key"),
        has("session_token"),
    ) {
        (true, false, _) => Err(options.refuse(
            "access_key_id",
            "is set without `secret_access_key`; set both",
        )),
        (false, true, _) => Err(options.refuse(
            "secret_access_key",
            "is set without `access_key_id`; set both",
        )),
        (false, false, true) => Err(options.refuse(
            "session_token",
            "is set without `access_key_id` and `secret_access_key`; set all three",
        )),
        _ => Ok(()),
    }
}

/// An option as it was named, the client's key for it, and its value.
type Given<K> = Vec<(String, K, String)>;

/// Takes the options that are the client's: ours by the table, others by the client's own names.
fn take_given<K: FromStr + PartialEq + Copy>(
    options: &mut Options,
    table: &[(&str, K)],
    prefix: &str,
    bucket: K,
) -> Result<Given<K>, OpenError> {
    let mut given = Given::new();
    for (name, key) in table {
        given.extend(
            options
                .take(name)
                .map(|value| ((*name).to_owned(), *key, value)),
        );
    }
    for (name, value) in options.take_prefixed(prefix) {
        let Ok(key) = name.parse::<K>() else {
            return Err(options.unknown(&name));
        };
        if key == bucket {
            return Err(options.refuse(&name, "is part of the URI"));
        }
        if let Some((other, ..)) = given.iter().find(|(_, k, _)| *k == key) {
            let reason = format!("and `{other}` are the same option; set one");
            return Err(options.refuse(&name, &reason));
        }
        given.push((name, key, value));
    }
    Ok(given)
}

/// What the environment says; without its credentials if the base directory names its own keys or
/// role.
fn s3_environment(own_keys: bool, own_role: bool) -> AmazonS3Builder {
    use AmazonS3ConfigKey as S3;
    let environment = AmazonS3Builder::from_env();
    if !own_keys && !own_role {
        return environment;
    }
    let mut kept = vec![S3::Region, S3::Endpoint, S3::S3Endpoint];
    if own_role && !own_keys {
        // The platform gives one token, with which several roles can be taken.
        kept.extend([
            S3::WebIdentityTokenFile,
            S3::RoleSessionName,
            S3::StsEndpoint,
        ]);
    }
    kept.push(S3::Client(ClientConfigKey::AllowHttp));
    kept.into_iter()
        .fold(AmazonS3Builder::new(), |builder, key| {
            match environment.get_config_value(&key) {
                Some(value) => builder.with_config(key, value),
                None => builder,
            }
        })
}

fn virtual_host(options: &Options, endpoint: &str, bucket: &str) -> Result<String, OpenError> {
    let refuse = || {
        options.refuse(
            "path_style",
            "is false, but the endpoint takes no host prefix",
        )
    };
    let mut url = Url::parse(endpoint).map_err(|_| refuse())?;
    let host = format!("{bucket}.{}", url.host_str().ok_or_else(refuse)?);
    url.set_host(Some(&host)).map_err(|_| refuse())?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

const GS_OPTIONS: &[(&str, GoogleConfigKey)] = &[
    ("service_account_path", GoogleConfigKey::ServiceAccount),
    ("service_account_key", GoogleConfigKey::ServiceAccountKey),
    (
        "application_credentials",
        GoogleConfigKey::ApplicationCredentials,
    ),
    ("endpoint", GoogleConfigKey::BaseUrl),
    (
        "allow_http",
        GoogleConfigKey::Client(ClientConfigKey::AllowHttp),
    ),
];

/// `gs://bucket/prefix`.
pub(crate) fn build_gs(label: &str, url: &Url, mut options: Options) -> Answer {
    use GoogleConfigKey as Gs;
    let bucket = bucket(label, url)?;
    let given = take_given(&mut options, GS_OPTIONS, "google_", Gs::Bucket)?;
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
    }
    .with_config(Gs::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (_, key, value) in &given {
        builder = builder.with_config(*key, value);
    }
    let endpoint = builder.get_config_value(&Gs::BaseUrl);
    let asked = given
        .iter()
        .find(|(_, key, _)| *key == Gs::Client(ClientConfigKey::AllowHttp))
        .map(|(_, _, v)| v.as_str());
    check_endpoint(&options, endpoint.as_deref(), asked == Some("true"))?;
    let secrets = [Gs::ServiceAccountKey, Gs::BearerToken];
    let redactor = Redactor::new(
        secrets
            .iter()
            .filter_map(|key| builder.get_config_value(key)),
    );
    let client = builder
        .with_bucket_name(bucket)
        .with_retry(client_retries())
        .build();
    let client = client.map_err(|error| client_error(label, &error, &redactor))?;
    let at = endpoint.unwrap_or_else(|| "google".into());
    let place = Place::new(label, url, at.trim_end_matches('/'), redactor)?;
    let store = place.backend(Arc::new(client));
    Ok((place.built(store), options))
}

const AZ_OPTIONS: &[(&str, AzureConfigKey)] = &[
    ("account", AzureConfigKey::AccountName),
    ("access_key", AzureConfigKey::AccessKey),
    ("sas_token", AzureConfigKey::SasKey),
    ("client_id", AzureConfigKey::ClientId),
    ("client_secret", AzureConfigKey::ClientSecret),
    ("tenant_id", AzureConfigKey::AuthorityId),
    ("endpoint", AzureConfigKey::Endpoint),
    (
        "allow_http",
        AzureConfigKey::Client(ClientConfigKey::AllowHttp),
    ),
    ("use_emulator", AzureConfigKey::UseEmulator),
];

/// `az://container/prefix`.
pub(crate) fn build_az(label: &str, url: &Url, mut options: Options) -> Answer {
    use AzureConfigKey as Az;
    let container = bucket(label, url)?;
    let given = take_given(&mut options, AZ_OPTIONS, "azure_", Az::ContainerName)?;
    let gives = |key: &Az| given.iter().any(|(_, k, _)| k == key);
    check_azure_credentials(&options, gives)?;
    let named = [Az::AccessKey, Az::SasKey, Az::ClientSecret, Az::Token]
        .iter()
        .any(gives);
    let mut builder = if named {
        let account = MicrosoftAzureBuilder::from_env().get_config_value(&Az::AccountName);
        let new = MicrosoftAzureBuilder::new();
        account.map_or_else(|| new.clone(), |account| new.clone().with_account(account))
    } else {
        MicrosoftAzureBuilder::from_env()
    }
    .with_config(Az::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
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
    let asked = is_true(builder.get_config_value(&Az::Client(ClientConfigKey::AllowHttp)));
    check_endpoint(&options, endpoint.as_deref(), asked || emulator)?;
    let secrets = [Az::AccessKey, Az::SasKey, Az::ClientSecret, Az::Token];
    let redactor = Redactor::new(
        secrets
            .iter()
            .filter_map(|key| builder.get_config_value(key)),
    );
    let client = builder
        .with_container_name(container)
        .with_retry(client_retries())
        .build();
    let client = client.map_err(|error| client_error(label, &error, &redactor))?;
    let at = format!(
        "{} {account}",
        endpoint.as_deref().unwrap_or("azure").trim_end_matches('/')
    );
    let place = Place::new(label, url, &at, redactor)?;
    let store = place.backend(Arc::new(client));
    Ok((place.built(store), options))
}

fn check_azure_credentials(
    options: &Options,
    gives: impl Fn(&AzureConfigKey) -> bool,
) -> Result<(), OpenError> {
    use AzureConfigKey as Az;
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
