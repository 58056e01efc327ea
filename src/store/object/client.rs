//! What the clients of all clouds have in common.
//!
//! Does: map options to the client's keys, check endpoints, name the location. Does not: know a
//! cloud (`s3`, `gs`, `az`). Invariant: a client retries nothing itself
//! (docs/decisions/storage-failure-and-health.md).

use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::backend::ObjectBackend;
use super::form;
use super::guard::Guard;
use super::known::Deleting;
use super::progress::Connector;
use super::redact::Redactor;
use super::tls::ClientTls;
use super::token_file::TokenFile;
use crate::certificate::Validity;
use crate::config::{BaseUri, Secret};
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

/// The clients of one base directory.
pub struct Built {
    /// For all operations.
    pub store: Arc<dyn ObjectStore>,
    /// For deletes.
    pub deleting: Deleting,
    /// Of new objects, if it is not the store's default.
    pub storage_class: Option<String>,
    /// When the credentials are valid, if they say so themselves.
    pub validity: Option<Validity>,
}

impl Built {
    /// One client for all, and the default class of storage.
    pub fn new(store: impl ObjectStore) -> Self {
        Self {
            store: Arc::new(store),
            deleting: Deleting::default(),
            storage_class: None,
            validity: None,
        }
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

    /// The option or variable, as messages call it.
    pub(super) fn origin(&self) -> String {
        match self.is_variable {
            true => format!("environment variable {}", self.name),
            false => format!("`{}`", self.name),
        }
    }

    /// Reports a fault of it: its name, then `reason`.
    pub(super) fn refuse(&self, options: &mut Options, reason: &str) {
        if self.is_variable {
            options.fault(self.origin(), reason);
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
    let found = options.take_variables(key).into_iter();
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

/// Checks the form of a value, and puts it into its normal form; reports one that is wrong.
fn check_form<K>(options: &mut Options, setting: &mut Setting<K>) -> bool {
    let name = setting.name.to_ascii_lowercase();
    match form::normal(&name, &setting.value) {
        Ok(normal) => {
            setting.value = normal;
            !name.ends_with("_token_file") || check_token(options, setting)
        }
        Err(error) => {
            setting.refuse(options, &error.to_string());
            false
        }
    }
}

/// Checks a file with a token as far as it exists already; it is read again when it is needed.
fn check_token<K>(options: &mut Options, setting: &Setting<K>) -> bool {
    let file = TokenFile::new(setting.origin(), setting.value.expose());
    match file.read() {
        Ok(token) if token.trimmed => options.notice(file.notice()),
        Err(error) if !error.is_missing() => {
            setting.refuse(options, &format!("names a file that {}", error.reason()));
            return false;
        }
        Ok(_) | Err(_) => {}
    }
    true
}

/// The file with a token that is in effect: an option counts before a variable.
pub(super) fn token_file<K: PartialEq>(
    environment: &[Setting<K>],
    given: &[Setting<K>],
    key: &K,
) -> Option<Arc<TokenFile>> {
    let settings = environment.iter().chain(given);
    let setting = settings.rev().find(|setting| setting.key == *key)?;
    let file = TokenFile::new(setting.origin(), setting.value.expose());
    Some(Arc::new(file))
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
    let read = form::certificates(path.expose(), Certificate::from_pem_bundle);
    match read {
        Ok(all) => all
            .into_iter()
            .fold(ClientOptions::new(), ClientOptions::with_root_certificate),
        Err(error) => {
            options.refuse("ca_file", &error.to_string());
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
pub fn opened(
    uri: &BaseUri,
    options: &mut Options,
    endpoint: &str,
    connector: &Connector,
    build: impl FnOnce() -> object_store::Result<Built>,
) -> Option<OpenedStore> {
    let prefix = prefix(uri, options)?;
    if !options.is_sound() {
        return None;
    }
    let redactor = Redactor::new(options.secrets()).with_issued(connector.issued.clone());
    let built = match build() {
        Ok(built) => built,
        Err(error) => {
            options.fault("its client", redactor.clean(&error.to_string()));
            return None;
        }
    };
    let (scheme, bucket) = (uri.scheme().name(), uri.bucket());
    let endpoint = endpoint.trim_end_matches('/');
    let backend = ObjectBackend::new(built.store, prefix.clone(), redactor, true);
    let seen = Arc::clone(&connector.seen);
    let backend = backend.with(built.deleting, built.storage_class, seen);
    let certificate = connector.tls.as_ref().and_then(ClientTls::validity);
    let now = connector.clock.wall_millis();
    for (what, validity) in [
        ("client_certificate_file", certificate),
        ("sas_token", built.validity),
    ] {
        if let Some(text) = validity.and_then(|validity| validity.warning(what, now)) {
            options.notice(format!("base directory {uri}: {text}"));
        }
    }
    let both = [certificate, built.validity].into_iter().flatten();
    Some(OpenedStore {
        location: format!("{scheme}://{bucket}/{prefix} at {endpoint}"),
        store: Arc::new(Guard(backend)),
        limits: StoreLimits {
            deadline: connector.policy,
            ..StoreLimits::REMOTE
        },
        validity: both.reduce(Validity::and),
    })
}
