//! What the clients of all clouds have in common.
//!
//! Does: map options to the client's keys, check endpoints, name the location. Does not: know a
//! cloud (`s3`, `gs`, `az`). Invariant: a client retries nothing itself
//! (docs/decisions/storage-failure-and-health.md).

use std::io::Read as _;
use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::backend::ObjectBackend;
use super::guard::Guard;
use super::redact::Redactor;
use crate::config::{BaseUri, Secret};
use crate::store::deadline::DeadlinePolicy;
use crate::store::opened::OpenedStore;
use crate::store::options::Options;
use crate::store::{StoreLimits, keys};

/// Longest key of an object, in bytes: S3's limit, and the lowest of all.
const MAX_OBJECT_KEY: usize = 1024;

/// None: failed operations are retried above, where another base directory is an alternative.
pub fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// One setting of a client.
pub struct Setting<K> {
    /// The option or the environment variable, as it was written.
    name: String,
    is_variable: bool,
    /// The client's own name.
    pub key: K,
    pub value: Secret,
}

impl<K> Setting<K> {
    /// The name of the option.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn refuse(&self, options: &mut Options, reason: &str) {
        if self.is_variable {
            let variable = format!("environment variable {}", self.name);
            options.fault(variable, reason);
        } else {
            options.refuse(&self.name, reason);
        }
    }
}

/// Removes the options that the client understands: ours by the table, others by the client's own
/// names, which begin with `prefix`. Reports those that are unknown, given twice, or the bucket.
pub fn take_given<K: FromStr + PartialEq + Copy>(
    options: &mut Options,
    table: &[(&str, K)],
    prefix: &str,
    bucket: K,
) -> Vec<Setting<K>> {
    let mut given: Vec<Setting<K>> = Vec::new();
    let setting = |name: &str, key, value| Setting {
        name: name.to_owned(),
        is_variable: false,
        key,
        value,
    };
    for (name, key) in table {
        let value = options.take(name);
        given.extend(value.map(|value| setting(name, *key, value)));
    }
    for (name, value) in options.take_prefixed(prefix) {
        let Ok(key) = name.parse::<K>() else {
            options.refuse_unknown(&name);
            continue;
        };
        if key == bucket {
            options.refuse(&name, "is part of the URI");
        } else if name.ends_with("_timeout") && name != format!("{prefix}connect_timeout") {
            let reason = "limits whole requests, however slow the store is; set `timeout` instead";
            options.refuse(&name, reason);
        } else if let Some(other) = given.iter().find(|other| other.key == key) {
            let reason = format!("and `{}` are the same option; set one", other.name);
            options.refuse(&name, &reason);
        } else {
            given.push(setting(&name, key, value));
        }
    }
    given.retain_mut(|setting| check_form(options, setting));
    given
}

/// What the environment says about the client: variables that begin with `prefix`, and some others.
pub fn from_environment<K: FromStr + Copy>(
    options: &mut Options,
    prefix: &str,
    others: &[(&str, K)],
) -> Vec<Setting<K>> {
    let key = |name: &str| {
        let other = others.iter().find(|(other, _)| *other == name);
        let known = || {
            name.starts_with(prefix)
                .then(|| name.to_ascii_lowercase().parse().ok())
        };
        let key = other.map(|(_, key)| *key).or_else(|| known().flatten())?;
        Some((name.to_owned(), key))
    };
    let found = options.variables(key).into_iter();
    let settings = found.map(|((name, key), value)| Setting {
        name,
        is_variable: true,
        key,
        value,
    });
    let mut settings: Vec<_> = settings.collect();
    settings.retain_mut(|setting| check_form(options, setting));
    settings
}

/// Checks what the client would only notice in a request, with a panic or a worse message: URLs,
/// which it gets in their normal form, and files.
fn check_form<K>(options: &mut Options, setting: &mut Setting<K>) -> bool {
    let name = setting.name.to_ascii_lowercase();
    let ends_with = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let checked = if ends_with(&[
        "endpoint",
        "endpoint_url",
        "_url_s3",
        "_url_sts",
        "base_url",
        "authority_host",
        "_full_uri",
    ]) {
        normal_url(setting.value.expose())
    } else if name.ends_with("_relative_uri") {
        normal_path(setting.value.expose())
    } else if name.ends_with("region") {
        check_word(
            setting.value.expose(),
            "the name of a region, such as eu-central-1",
        )
    } else if ends_with(&["account", "account_name"]) && !name.ends_with("service_account") {
        check_word(setting.value.expose(), "the name of a storage account")
    } else if ends_with(&["tenant_id", "authority_id", "cluster_identifier"]) {
        check_word(
            setting.value.expose(),
            "an id of letters, digits and hyphens",
        )
    } else if ends_with(&["token_file"]) {
        check_token_file(setting.value.expose())
    } else if ends_with(&["_path", "_credentials", "_service_account", "ca_file"]) {
        check_file(setting.value.expose())
    } else {
        return true;
    };
    match checked {
        Ok(normal) => {
            setting.value = normal.unwrap_or_else(|| setting.value.clone());
            true
        }
        Err(reason) => {
            setting.refuse(options, &reason);
            false
        }
    }
}

/// A URL as the client shall use it.
fn normal_url(text: &str) -> Result<Option<Secret>, String> {
    let malformed = "must be an http:// or https:// URL, such as https://minio.example:9000";
    let url = Url::parse(text).map_err(|_| malformed)?;
    if !matches!(url.scheme(), "http" | "https") || !text.contains("://") {
        return Err(malformed.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        let reason = "must not contain a user or a password: give credentials as options";
        return Err(reason.to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a ? or #".to_owned());
    }
    Ok(Some(url.as_str().trim_end_matches('/').into()))
}

/// The path of a URL on the host that gives credentials to containers.
fn normal_path(text: &str) -> Result<Option<Secret>, String> {
    let url = Url::parse(&format!("http://169.254.170.2{text}")).ok();
    let url = url.filter(|url| text.starts_with('/') && url.query().is_none());
    let url = url.ok_or("must be the path of a URL, such as /v2/credentials/…")?;
    Ok(Some(url.path().into()))
}

/// Checks what becomes a part of a URL.
fn check_word(text: &str, what: &str) -> Result<Option<Secret>, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.chars().all(is_allowed) {
        true => Ok(None),
        false => Err(format!("must be {what}")),
    }
}

/// Checks that a path does not name a device or a folder. A file that is missing may come later.
fn check_file(path: &str) -> Result<Option<Secret>, String> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err("must name a file".to_owned()),
        _ => Ok(None),
    }
}

/// Longest token that is read from a file, in bytes.
const MAX_TOKEN: u64 = 64 << 10;

/// Checks a file with a token, as far as it exists already. The client reads it for itself and
/// sends it as it is.
fn check_token_file(path: &str) -> Result<Option<Secret>, String> {
    check_file(path)?;
    let mut token = String::new();
    let file = std::fs::File::open(path).map(|file| file.take(MAX_TOKEN));
    let read = file.and_then(|mut file| file.read_to_string(&mut token));
    if read.is_ok() && (token.trim() != token || token.contains(char::is_control)) {
        return Err(
            "names a file whose token is followed by the end of a line or other white space: write \
             the token alone, such as with printf %s"
                .to_owned(),
        );
    }
    Ok(None)
}

/// Checks the endpoint that is in effect, from wherever it comes: a client would fail later, with a
/// less helpful error.
pub fn check_endpoint(options: &mut Options, uri: &BaseUri, endpoint: &str, allow_http: bool) {
    let Ok(url) = Url::parse(endpoint) else {
        return options.refuse("endpoint", "must be an http:// or https:// URL");
    };
    if url.scheme() == "http" && !allow_http {
        options.refuse(
            "endpoint",
            "is http://, which is not encrypted; set `allow_http = true` to permit that",
        );
    }
    let bucket = uri.bucket();
    let in_host = url.host_str().and_then(|host| host.strip_prefix(bucket));
    let in_path = url.path().trim_end_matches('/').rsplit('/').next() == Some(bucket);
    if in_path || in_host.is_some_and(|rest| rest.starts_with('.')) {
        options.refuse(
            "endpoint",
            "contains the bucket, which the URI names: leave it out here",
        );
    }
}

/// The client's options with the CA of `ca_file`, if that is given.
pub fn client_options(options: &mut Options) -> ClientOptions {
    let Some(path) = options.take("ca_file") else {
        return ClientOptions::new();
    };
    let read = check_file(path.expose()).and_then(|_| {
        let pem = std::fs::read(path.expose()).map_err(|e| format!("cannot be read: {e}"))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|all| !all.is_empty());
        certificates.ok_or_else(|| "names a file without a certificate in PEM".to_owned())
    });
    match read {
        Ok(all) => all
            .into_iter()
            .fold(ClientOptions::new(), ClientOptions::with_root_certificate),
        Err(reason) => {
            options.refuse("ca_file", &reason);
            ClientOptions::new()
        }
    }
}

/// Whether an endpoint is used without TLS.
pub fn is_plain(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| url.scheme() == "http")
}

/// Whether a setting of the client is on.
pub fn is_true(value: Option<String>) -> bool {
    value.as_deref() == Some("true")
}

/// The path of a URI as the prefix of object keys; reports one with which keys below it would be
/// too long or invalid.
pub fn prefix(uri: &BaseUri, options: &mut Options) -> Option<Path> {
    let longest = MAX_OBJECT_KEY - keys::LONGEST_KEY;
    match Path::from_url_path(uri.path()) {
        Ok(path) if path.as_ref().len() <= longest => return Some(path),
        Ok(_) => {
            let reason = format!("its path is longer than {longest} bytes");
            options.fault("its `uri`", reason);
        }
        Err(error) => options.fault("its `uri`", error.to_string()),
    }
    None
}

/// The store of a client; `None` if anything was reported so far, or if the client rejects its
/// options.
pub fn opened<C: ObjectStore>(
    uri: &BaseUri,
    options: &mut Options,
    endpoint: &str,
    deadline: DeadlinePolicy,
    build: impl FnOnce() -> object_store::Result<C>,
) -> Option<OpenedStore> {
    let prefix = prefix(uri, options)?;
    if !options.is_sound() {
        return None;
    }
    let redactor = Redactor::new(options.secrets());
    let client = match build() {
        Ok(client) => client,
        Err(error) => {
            options.fault("its client", redactor.clean(&error.to_string()));
            return None;
        }
    };
    let (scheme, bucket) = (uri.scheme().name(), uri.bucket());
    let endpoint = endpoint.trim_end_matches('/');
    let backend = ObjectBackend::new(Arc::new(client), prefix.clone(), redactor, true);
    Some(OpenedStore {
        location: format!("{scheme}://{bucket}/{prefix} at {endpoint}"),
        store: Arc::new(Guard(backend)),
        limits: StoreLimits {
            deadline,
            ..StoreLimits::REMOTE
        },
    })
}
