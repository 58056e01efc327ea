//! Opening `s3://bucket/prefix`.
//!
//! Does: turn options and the environment into clients of S3. Does not: read the environment
//! itself, or assume roles (`role`). Invariant: once a base directory names credentials of its
//! own, none of the environment's are used for it, not even to complete them.

use std::sync::Arc;

use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey as S3, AwsCredentialProvider, Checksum, S3ConditionalPut,
};
use object_store::client::HttpConnector as _;
use object_store::{ClientConfigKey, ClientOptions};
use url::Url;

use super::client::{
    self, Built, Setting, check_endpoint, client_options, from_environment, is_plain, is_true,
    no_retries, take_given, token_file,
};
use super::issued::Remembered;
use super::known::Deleting;
use super::pod::{AgentToken, PodIdentity, WebIdentity, is_agent};
use super::progress::Connector;
use super::role::AssumedRole;
use super::tls::ClientTls;
use super::token_file::TokenFile;
use super::versions::Versions;
use crate::config::{BaseUri, Secret};
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

const NO_PROFILES: &str = "profiles (~/.aws) are not read: \
    `aws configure export-credentials --format env` prints what they hold";

const NO_TOKEN_FILE: &str = "needs aws_web_identity_token_file, the file with a pod's token; to \
    assume a role with other credentials, set iam_role instead";

const GOOGLE_SOFT_DELETE: &str = "buckets of Google Cloud Storage keep what is deleted for 7 days \
    and charge for it, unless their soft delete is off; s3:// does not show whether it is: switch \
    it off (gcloud storage buckets update gs://BUCKET --clear-soft-delete), or use gs://";

const OPTIONS: &[(&str, S3)] = &[
    ("region", S3::Region),
    ("endpoint", S3::Endpoint),
    ("allow_http", S3::Client(ClientConfigKey::AllowHttp)),
    ("access_key_id", S3::AccessKeyId),
    ("secret_access_key", S3::SecretAccessKey),
    ("session_token", S3::Token),
];

/// What protects an upload against damage on its way (docs/decisions/s3-checksums.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadChecksum {
    /// The SHA-256 of the body, which the signature covers. Every server verifies it.
    Sha256,
    /// A CRC-64/NVME in a header, which costs less. A server that does not know it ignores it.
    Crc64Nvme,
}

const UPLOAD_CHECKSUMS: &[(&str, UploadChecksum)] = &[
    ("sha256", UploadChecksum::Sha256),
    ("crc64nvme", UploadChecksum::Crc64Nvme),
];

/// What Stopover does differently for one base directory; the rest are settings of the client.
struct Choices {
    path_style: Option<bool>,
    delete_versions: bool,
    conditional: bool,
    checksum: Option<UploadChecksum>,
    storage_class: Option<String>,
    /// A role to assume, and the id that its owner demands.
    role: Option<(String, Option<String>)>,
}

impl Choices {
    fn take(options: &mut Options) -> Self {
        let text = |secret: Secret| secret.expose().to_owned();
        let external_id = options.take("external_id");
        let role = options.take("iam_role");
        if external_id.is_some() && role.is_none() {
            options.refuse("external_id", "is set without `iam_role`; set both");
        }
        if role
            .as_ref()
            .is_some_and(|role| !role.expose().starts_with("arn:"))
        {
            let reason = "must be the ARN of a role, such as arn:aws:iam::123456789012:role/NAME";
            options.refuse("iam_role", reason);
        }
        Self {
            path_style: options.take_bool("path_style"),
            delete_versions: options.take_bool("delete_versions").unwrap_or(false),
            conditional: options.take_bool("conditional_writes").unwrap_or(true),
            checksum: options.take_one_of("upload_checksum", UPLOAD_CHECKSUMS),
            storage_class: options.take("storage_class").map(text),
            role: role.map(|role| (text(role), external_id.map(text))),
        }
    }
}

/// Opens a base directory; `None` if its options are wrong or contradict each other, which is
/// reported.
pub fn open(uri: &BaseUri, options: &mut Options, mut connector: Connector) -> Option<OpenedStore> {
    check(options);
    connector.tls = ClientTls::take(options);
    let mut client_options = client_options(options);
    let given = take_given(options, OPTIONS, "aws_", S3::Bucket);
    let choices = Choices::take(options);
    let gives = |key: &S3| given.iter().any(|setting| setting.key == *key);
    if gives(&S3::RoleArn) && !gives(&S3::WebIdentityTokenFile) && !options.has_token_file() {
        options.refuse("aws_role_arn", NO_TOKEN_FILE);
    }
    if !gives(&S3::AccessKeyId) {
        options.notice_of_variable("AWS_PROFILE", NO_PROFILES);
    }
    let agent_token = options.take_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let mut environment = from_environment(options, "AWS_", &[]);
    environment.retain(|v| is_retained(&v.key, gives(&S3::AccessKeyId), gives(&S3::RoleArn)));
    for setting in environment.iter().chain(&given) {
        if let S3::Client(key) = setting.key {
            client_options = client_options.with_config(key, setting.value.expose());
        }
    }
    let mut builder = AmazonS3Builder::new().with_client_options(client_options.clone());
    for setting in environment.iter().chain(&given) {
        builder = builder.with_config(setting.key, setting.value.expose());
    }
    if let Some(endpoint) = given.iter().find(|setting| setting.key == S3::Endpoint) {
        // An endpoint for S3 alone in the environment would override the one given here.
        builder = builder.with_config(S3::S3Endpoint, endpoint.value.expose());
    }
    let (mut builder, endpoint) = addressed(builder, uri, options, choices.path_style)?;
    if !choices.conditional {
        builder = builder.with_conditional_put(S3ConditionalPut::Disabled);
    }
    let agent_file = token_file(&environment, &given, &S3::ContainerAuthorizationTokenFile);
    let tokens = Tokens {
        web: token_file(&environment, &given, &S3::WebIdentityTokenFile),
        agent: match (agent_file, agent_token) {
            (Some(file), _) => AgentToken::File(file),
            (None, Some(text)) => AgentToken::Text(text),
            (None, None) => AgentToken::None,
        },
    };
    check_agent(options, &environment, &given);
    for key in [S3::ContainerCredentialsFullUri, S3::MetadataEndpoint] {
        if let Some(url) = builder.get_config_value(&key) {
            connector.reach_directly(&url);
        }
    }
    if endpoint.as_deref().is_some_and(is_google) {
        options.notice(format!("base directory {uri}: {GOOGLE_SOFT_DELETE}"));
    }
    let plain = endpoint.as_deref().is_some_and(is_plain);
    let protected = !gives(&S3::UnsignedPayload) && !plain;
    let builder = with_checksum(builder, choices.checksum, protected)
        .with_bucket_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let endpoint = endpoint.as_deref().unwrap_or("aws");
    client::opened(uri, options, endpoint, &connector, || {
        let credentials = credentials(&builder, &client_options, tokens, &choices, &connector)?;
        let builder = match credentials {
            Some(credentials) => builder.with_credentials(credentials),
            None => builder,
        };
        built(builder, &client_options, &choices, &connector)
    })
}

/// The tokens of a pod.
struct Tokens {
    web: Option<Arc<TokenFile>>,
    agent: AgentToken,
}

/// Refuses an agent that would send credentials through a network without TLS.
fn check_agent(options: &mut Options, environment: &[Setting<S3>], given: &[Setting<S3>]) {
    let in_effect = |key| {
        let mut settings = given.iter().rev().chain(environment);
        settings.find(|setting| setting.key == key)
    };
    let others = [S3::AccessKeyId, S3::ContainerCredentialsRelativeUri];
    if let Some(setting) = in_effect(S3::ContainerCredentialsFullUri)
        && !others.into_iter().any(|key| in_effect(key).is_some())
        && !is_agent(setting.value.expose())
    {
        let reason = "must be https://, or http:// with an address of this machine's loopback or \
            of the agents of ECS and EKS (169.254.170.2, 169.254.170.23, [fd00:ec2::23])";
        setting.refuse(options, reason);
    }
}

fn region(builder: &AmazonS3Builder) -> String {
    let region = builder.get_config_value(&S3::Region);
    region.unwrap_or_else(|| "us-east-1".into())
}

fn sts_endpoint(builder: &AmazonS3Builder) -> String {
    let endpoint = builder.get_config_value(&S3::StsEndpoint);
    endpoint.unwrap_or_else(|| {
        let region = region(builder);
        let domain = partition(&region).unwrap_or("amazonaws.com");
        format!("https://sts.{region}.{domain}")
    })
}

fn session(builder: &AmazonS3Builder) -> String {
    let session = builder.get_config_value(&S3::RoleSessionName);
    session.unwrap_or_else(|| "stopover".into())
}

/// The credentials with which the base directory is used; `None` for keys, which do not expire.
fn credentials(
    builder: &AmazonS3Builder,
    client_options: &ClientOptions,
    tokens: Tokens,
    choices: &Choices,
    connector: &Connector,
) -> object_store::Result<Option<AwsCredentialProvider>> {
    let keys = [S3::AccessKeyId, S3::SecretAccessKey];
    let has_keys = keys
        .iter()
        .any(|key| builder.get_config_value(key).is_some());
    if has_keys && choices.role.is_none() {
        return Ok(None);
    }
    let remembered = |inner| -> AwsCredentialProvider {
        let issued = connector.issued.clone();
        Arc::new(Remembered { inner, issued })
    };
    let own = remembered(match has_keys {
        true => Arc::clone(builder.clone().build()?.credentials()),
        false => match pod_identity(builder, client_options, tokens, connector)? {
            Some(pod) => pod,
            None => connector.renewing(builder.clone())?,
        },
    });
    let Some((role, external_id)) = &choices.role else {
        return Ok(Some(own));
    };
    let role = AssumedRole {
        with: own,
        http: connector.connect(client_options)?,
        endpoint: sts_endpoint(builder),
        region: region(builder),
        role: role.clone(),
        external_id: external_id.clone(),
        session: session(builder),
    };
    Ok(Some(remembered(connector.renewed(role))))
}

/// The credentials of a pod, where the client would use these: it would send the file with the
/// token as it is.
fn pod_identity(
    builder: &AmazonS3Builder,
    client_options: &ClientOptions,
    tokens: Tokens,
    connector: &Connector,
) -> object_store::Result<Option<AwsCredentialProvider>> {
    let setting = |key| builder.get_config_value(&key);
    Ok(match (setting(S3::RoleArn), tokens.web) {
        (Some(role), Some(token)) => {
            let http = connector.connect(&client_options.clone().with_allow_http(false))?;
            let (endpoint, session) = (sts_endpoint(builder), session(builder));
            let identity = WebIdentity {
                token,
                http,
                endpoint,
                role,
                session,
            };
            Some(connector.renewed(identity))
        }
        _ => match setting(S3::ContainerCredentialsFullUri) {
            Some(url) if setting(S3::ContainerCredentialsRelativeUri).is_none() => {
                let http = connector.connect(&client_options.clone().with_allow_http(true))?;
                let token = tokens.agent;
                Some(connector.renewed(PodIdentity { token, http, url }))
            }
            _ => None,
        },
    })
}

/// The clients of a base directory.
fn built(
    builder: AmazonS3Builder,
    client_options: &ClientOptions,
    choices: &Choices,
    connector: &Connector,
) -> object_store::Result<Built> {
    let store = builder.clone().build()?;
    let single = builder
        .with_credentials(Arc::clone(store.credentials()))
        .with_disable_bulk_delete(true);
    let versions = || -> object_store::Result<_> {
        Ok(Versions {
            signer: Box::new(store.clone()),
            http: connector.connect(client_options)?,
        })
    };
    let versions = choices.delete_versions.then(versions).transpose()?;
    let single = Arc::new(single.build()?);
    Ok(Built {
        store: Arc::new(store),
        deleting: Deleting::or_one_by_one(single, versions),
        storage_class: choices.storage_class.clone(),
        validity: None,
    })
}

/// The client with the endpoint to which requests go, and the endpoint without the bucket; that is
/// `None` where the client knows it.
fn addressed(
    mut builder: AmazonS3Builder,
    uri: &BaseUri,
    options: &mut Options,
    path_style: Option<bool>,
) -> Option<(AmazonS3Builder, Option<String>)> {
    let mut endpoint = [S3::S3Endpoint, S3::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let allow_http = is_true(builder.get_config_value(&S3::Client(ClientConfigKey::AllowHttp)));
    if let Some(endpoint) = &endpoint {
        check_endpoint(options, uri, endpoint, allow_http);
    }
    // A certificate for virtual hosts covers one label only: a bucket with dots needs path style.
    let path_style = path_style.unwrap_or(endpoint.is_some() || uri.bucket().contains('.'));
    builder = builder.with_virtual_hosted_style_request(!path_style);
    let region = builder.get_config_value(&S3::Region).unwrap_or_default();
    if let (Some(domain), None) = (partition(&region), &endpoint) {
        let url = format!("https://s3.{region}.{domain}");
        builder = builder.with_config(S3::S3Endpoint, &url);
        endpoint = Some(url);
    }
    if let (Some(endpoint), false) = (&endpoint, path_style) {
        let host = virtual_host(options, endpoint, uri.bucket())?;
        builder = builder.with_config(S3::S3Endpoint, host);
    }
    Some((builder, endpoint))
}

/// Without a choice uploads are hashed where the connection is not encrypted: TLS protects the
/// bytes already.
fn with_checksum(
    builder: AmazonS3Builder,
    checksum: Option<UploadChecksum>,
    protected: bool,
) -> AmazonS3Builder {
    match checksum {
        Some(UploadChecksum::Sha256) => builder.with_unsigned_payload(false),
        Some(UploadChecksum::Crc64Nvme) => builder
            .with_unsigned_payload(true)
            .with_checksum_algorithm(Checksum::CRC64NVME),
        None if protected => builder.with_unsigned_payload(true),
        None => builder,
    }
}

/// Whether an endpoint is that of Google Cloud Storage, which this protocol reaches with HMAC keys.
fn is_google(endpoint: &str) -> bool {
    let url = Url::parse(endpoint).ok();
    url.is_some_and(|url| url.host_str() == Some("storage.googleapis.com"))
}

/// The domain of a region that is not at `amazonaws.com`, which the client takes for granted.
fn partition(region: &str) -> Option<&'static str> {
    const PARTITIONS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    let found = PARTITIONS
        .iter()
        .find(|(start, _)| region.starts_with(start));
    found.map(|(_, domain)| *domain)
}

fn check(options: &mut Options) {
    let contrary = "aws_virtual_hosted_style_request";
    if options.take(contrary).is_some() {
        let reason = "is the opposite of `path_style`; set that instead";
        options.refuse(contrary, reason);
    }
    for other in ["aws_unsigned_payload", "aws_checksum_algorithm"] {
        if options.has("upload_checksum") && options.has(other) {
            let reason = format!("and `{other}` contradict; set one");
            options.refuse("upload_checksum", &reason);
        }
    }
    check_encryption(options);
    let has = |name: &str| options.has(name) || options.has(&format!("aws_{name}"));
    let given = (
        has("access_key_id"),
        has("secret_access_key"),
        has("session_token"),
    );
    match given {
        (true, false, _) => options.refuse(
            "access_key_id",
            "is set without `secret_access_key`; set both",
        ),
        (false, true, _) => options.refuse(
            "secret_access_key",
            "is set without `access_key_id`; set both",
        ),
        (false, false, true) => options.refuse(
            "session_token",
            "is set without `access_key_id` and `secret_access_key`; set all three",
        ),
        _ => {}
    }
}

/// The client checks this option too, but its error names values that it does not accept.
fn check_encryption(options: &mut Options) {
    let encryption = "aws_server_side_encryption";
    let values = ["AES256", "aws:kms", "aws:kms:dsse", "sse-c"];
    let value = options.get(encryption).map(Secret::expose);
    if value.is_some_and(|value| !values.contains(&value)) {
        let reason = "must be `AES256`, `aws:kms`, `aws:kms:dsse` or `sse-c`";
        options.refuse(encryption, reason);
    }
}

/// Whether a variable of the environment is used for a base directory: all are, unless it names its
/// own keys or role; then none of the environment's credentials.
fn is_retained(key: &S3, own_keys: bool, own_role: bool) -> bool {
    match key {
        _ if !own_keys && !own_role => true,
        S3::Region | S3::DefaultRegion | S3::Endpoint | S3::S3Endpoint => true,
        S3::Client(ClientConfigKey::AllowHttp) => true,
        // The platform issues one token, with which several roles can be assumed.
        S3::WebIdentityTokenFile | S3::RoleSessionName | S3::StsEndpoint => !own_keys,
        _ => false,
    }
}

fn virtual_host(options: &mut Options, endpoint: &str, bucket: &str) -> Option<String> {
    let with_bucket = || {
        let mut url = Url::parse(endpoint).ok()?;
        let host = format!("{bucket}.{}", url.host_str()?);
        url.set_host(Some(&host)).ok()?;
        Some(url.as_str().trim_end_matches('/').to_owned())
    };
    let url = with_bucket();
    if url.is_none() {
        let reason = "is false, but the bucket cannot be put before the host of the endpoint";
        options.refuse("path_style", reason);
    }
    url
}
