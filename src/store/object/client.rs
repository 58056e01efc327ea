//! What the clients of all clouds have in common.
//!
//! Does: map options to the client's keys, check endpoints, name the location. Does not: know a
//! cloud (`s3`, `gs`, `az`). Invariant: a client retries nothing itself
//! (docs/decisions/storage-failure-and-health.md).

use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use super::backend::ObjectBackend;
use super::redact::Redactor;
use crate::config::BaseUri;
use crate::store::deadline::DeadlinePolicy;
use crate::store::opened::OpenedStore;
use crate::store::options::{OpenError, Options};
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

/// An option as it was named, the client's key for it, and its value.
type Given<K> = Vec<(String, K, String)>;

/// Removes the options that the client understands: ours by the table, others by the client's own
/// names, which begin with `prefix`.
///
/// # Errors
/// If one is unknown, is given twice, or is the bucket.
pub fn take_given<K: FromStr + PartialEq + Copy>(
    options: &mut Options,
    table: &[(&str, K)],
    prefix: &str,
    bucket: K,
) -> Result<Given<K>, OpenError> {
    let mut given = Given::new();
    for (name, key) in table {
        let value = options.take(name);
        given.extend(value.map(|value| ((*name).to_owned(), *key, value)));
    }
    for (name, value) in options.take_prefixed(prefix) {
        let Ok(key) = name.parse::<K>() else {
            return Err(options.unknown(&name));
        };
        if key == bucket {
            return Err(options.refuse(&name, "is part of the URI"));
        }
        if name.ends_with("_timeout") && name != format!("{prefix}connect_timeout") {
            let reason = "limits whole requests, however slow the store is; set `timeout` instead";
            return Err(options.refuse(&name, reason));
        }
        if let Some((other, ..)) = given.iter().find(|(_, k, _)| *k == key) {
            let reason = format!("and `{other}` are the same option; set one");
            return Err(options.refuse(&name, &reason));
        }
        given.push((name, key, value));
    }
    Ok(given)
}

/// Checks an endpoint: a client would fail later, with a less helpful error.
///
/// # Errors
/// If it is neither `https://` nor, with `allow_http`, `http://`.
pub fn check_endpoint(
    options: &Options,
    endpoint: Option<&str>,
    allow_http: bool,
) -> Result<(), OpenError> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    match Url::parse(endpoint).as_ref().map(Url::scheme) {
        Ok("https") => Ok(()),
        Ok("http") if allow_http => Ok(()),
        Ok("http") => Err(options.refuse(
            "endpoint",
            "is http://, which is not encrypted; set `allow_http = true` to permit that",
        )),
        _ => Err(options.refuse("endpoint", "must be an http:// or https:// URL")),
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

/// The path of a URI as the prefix of object keys.
///
/// # Errors
/// If keys below it would be too long or invalid.
pub fn prefix(uri: &BaseUri, options: &Options) -> Result<Path, OpenError> {
    let path = Path::from_url_path(uri.path());
    let path = path.map_err(|error| options.error("its `uri`", error.to_string()))?;
    let longest = MAX_OBJECT_KEY - keys::LONGEST_KEY;
    if path.as_ref().len() > longest {
        let reason = format!("its path is longer than {longest} bytes");
        return Err(options.error("its `uri`", reason));
    }
    Ok(path)
}

/// The store of a client that was built, or the reason why it could not be.
///
/// # Errors
/// If the client rejects its options, or the URI its path.
pub fn opened(
    uri: &BaseUri,
    options: &Options,
    endpoint: &str,
    deadline: DeadlinePolicy,
    redactor: Redactor,
    client: object_store::Result<impl ObjectStore>,
) -> Result<OpenedStore, OpenError> {
    let client =
        client.map_err(|error| options.error("its client", redactor.clean(&error.to_string())))?;
    let prefix = prefix(uri, options)?;
    let (scheme, bucket) = (uri.scheme().name(), uri.bucket());
    let endpoint = endpoint.trim_end_matches('/');
    Ok(OpenedStore {
        location: format!("{scheme}://{bucket}/{prefix} at {endpoint}"),
        store: Arc::new(ObjectBackend::new(Arc::new(client), prefix, redactor, true)),
        limits: StoreLimits {
            deadline,
            ..StoreLimits::REMOTE
        },
    })
}
