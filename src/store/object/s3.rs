//! Opening `s3://bucket/prefix`.
//!
//! Does: turn options and the environment into a client of S3. Does not: read the environment
//! itself. Invariant: once a base directory names credentials of its
//! own, none of the environment's are used for it, not even to complete them.

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3, Checksum};
use url::Url;

use super::client::{
    self, check_endpoint, client_options, from_environment, is_plain, is_true, no_retries,
    take_given,
};
use super::progress::Connector;
use crate::config::{BaseUri, Secret};
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

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

/// Opens a base directory; `None` if its options are wrong or contradict each other, which is
/// reported.
pub fn open(uri: &BaseUri, options: &mut Options, connector: Connector) -> Option<OpenedStore> {
    check(options);
    let client_options = client_options(options);
    let given = take_given(options, OPTIONS, "aws_", S3::Bucket);
    let path_style = options.take_bool("path_style");
    let checksum = options.take_one_of("upload_checksum", UPLOAD_CHECKSUMS);
    let gives = |key: &S3| given.iter().any(|setting| setting.key == *key);
    let mut environment = from_environment(options, "AWS_", &[]);
    environment.retain(|v| is_retained(&v.key, gives(&S3::AccessKeyId), gives(&S3::RoleArn)));
    let settings = || environment.iter().chain(&given);
    let mut builder = AmazonS3Builder::new().with_client_options(client_options);
    for setting in settings() {
        builder = builder.with_config(setting.key, setting.value.expose());
    }
    if let Some(endpoint) = given.iter().find(|setting| setting.key == S3::Endpoint) {
        // An endpoint for S3 alone in the environment would override the one given here.
        builder = builder.with_config(S3::S3Endpoint, endpoint.value.expose());
    }
    let endpoint = [S3::S3Endpoint, S3::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let allow_http = is_true(builder.get_config_value(&S3::Client(ClientConfigKey::AllowHttp)));
    if let Some(endpoint) = &endpoint {
        check_endpoint(options, uri, endpoint, allow_http);
    }
    // A certificate for virtual hosts covers one label only: a bucket with dots needs path style.
    let path_style = path_style.unwrap_or(endpoint.is_some() || uri.bucket().contains('.'));
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let (Some(endpoint), false) = (&endpoint, path_style) {
        let host = virtual_host(options, endpoint, uri.bucket())?;
        builder = builder.with_config(S3::S3Endpoint, host);
    }
    let plain = endpoint.as_deref().is_some_and(is_plain);
    builder = with_checksum(builder, checksum, !gives(&S3::UnsignedPayload) && !plain);
    let builder = builder
        .with_bucket_name(uri.bucket())
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let endpoint = endpoint.as_deref().unwrap_or("aws");
    client::opened(uri, options, endpoint, connector.policy, || builder.build())
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
