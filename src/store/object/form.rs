//! The form of what clients of stores are configured with.
//!
//! Does: check what a client would only notice in a request, with a panic or a worse message: URLs,
//! which get their normal form, parts of URLs, and files. Does not: report (`client`). Invariant:
//! an error reads well after the name of the option, and contains no value.

use url::Url;

use crate::config::{Secret, read_file};

/// What is wrong with the form of a value, to be read after its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    #[error("must be an http:// or https:// URL, such as https://minio.example:9000")]
    NotUrl,
    #[error("must not contain a user or a password: give credentials as options")]
    User,
    #[error("must not have a ? or #")]
    Query,
    #[error("must be the path of a URL, such as /v2/credentials/…")]
    NotPath,
    #[error("must be {0}")]
    NotWord(&'static str),
    #[error("must name a file")]
    NotFile,
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    #[error("names a file without a certificate in PEM")]
    NoCertificate,
}

/// The value of an option or variable in its normal form; which one, its name in lower case says.
///
/// # Errors
/// If it has another form.
pub(super) fn normal(name: &str, value: &Secret) -> Result<Secret, FormError> {
    const URLS: [&str; 7] = [
        "endpoint",
        "endpoint_url",
        "_url_s3",
        "_url_sts",
        "base_url",
        "authority_host",
        "_full_uri",
    ];
    const FILES: [&str; 4] = ["_path", "_credentials", "service_account", "_token_file"];
    let text = value.expose();
    let ends_with = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends_with(&URLS) {
        return normal_url(text);
    }
    if name.ends_with("_relative_uri") {
        return normal_path(text);
    }
    if ends_with(&FILES) {
        check_file(text)?;
    } else if name.ends_with("region") {
        check_word(text, "the name of a region, such as eu-central-1")?;
    } else if ends_with(&["account", "account_name"]) {
        check_word(text, "the name of a storage account")?;
    } else if ends_with(&["tenant_id", "authority_id", "cluster_identifier"]) {
        check_word(text, "an id of letters, digits and hyphens")?;
    }
    Ok(value.clone())
}

fn normal_url(text: &str) -> Result<Secret, FormError> {
    let url = Url::parse(text).map_err(|_| FormError::NotUrl)?;
    if !matches!(url.scheme(), "http" | "https") || !text.contains("://") {
        return Err(FormError::NotUrl);
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err(FormError::User);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(FormError::Query);
    }
    Ok(url.as_str().trim_end_matches('/').into())
}

/// The path of a URL on the host that gives credentials to containers.
fn normal_path(text: &str) -> Result<Secret, FormError> {
    let url = Url::parse(&format!("http://169.254.170.2{text}")).ok();
    let url = url.filter(|url| text.starts_with('/') && url.query().is_none());
    Ok(url.ok_or(FormError::NotPath)?.path().into())
}

/// Checks what becomes a part of a URL.
fn check_word(text: &str, what: &'static str) -> Result<(), FormError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.chars().all(is_allowed) {
        true => Ok(()),
        false => Err(FormError::NotWord(what)),
    }
}

/// Checks that a path does not name a device or a folder. A file that is missing may come later.
fn check_file(path: &str) -> Result<(), FormError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(FormError::NotFile),
        _ => Ok(()),
    }
}

/// What a file contains.
///
/// # Errors
/// If it cannot be read, is no file, or too large to be a certificate or a key.
pub(super) fn content(path: &str) -> Result<Vec<u8>, FormError> {
    check_file(path)?;
    read_file(path.as_ref()).map_err(FormError::Unreadable)
}

/// What `parse` finds in a file of certificates.
///
/// # Errors
/// If it cannot be read or contains none.
pub(super) fn certificates<T, E>(
    path: &str,
    parse: impl FnOnce(&[u8]) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, FormError> {
    let pem = content(path)?;
    let found = parse(&pem).ok().filter(|found| !found.is_empty());
    found.ok_or(FormError::NoCertificate)
}
