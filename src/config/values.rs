//! How the value of a setting is read from text, and printed again.
//!
//! Does: provide one reader and one printer for each type of setting. Does not: know the settings
//! (`keys`) or check ranges. Invariant: what a printer prints, its reader reads back as the same
//! value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

use super::problem::InvalidValue;
use super::raw::Raw;
use super::units::{format_duration, format_size, parse_duration, parse_size};

/// How "no limit" is written.
const UNLIMITED: &str = "unlimited";
/// How "resolved on this machine" is written.
const AUTO: &str = "auto";

pub(super) fn text(raw: &Raw) -> Result<String, InvalidValue> {
    match raw {
        Raw::Text(text) => Ok(text.expose().to_owned()),
        _ => Err("write it as text, in double quotes".into()),
    }
}

pub(super) fn address(raw: &Raw) -> Result<SocketAddr, InvalidValue> {
    text(raw)?.parse().map_err(|_| {
        "not an address to listen on: write IP and port, such as 127.0.0.1:7077 or [::1]:7077 \
         (port 0 picks a free one)"
            .into()
    })
}

/// An address, or none if the text is empty.
pub(super) fn optional_address(raw: &Raw) -> Result<Option<SocketAddr>, InvalidValue> {
    match text(raw)?.is_empty() {
        true => Ok(None),
        false => address(raw).map(Some),
    }
}

pub(super) fn flag(raw: &Raw) -> Result<bool, InvalidValue> {
    let flag = match raw {
        Raw::Bool(flag) => Some(*flag),
        Raw::Text(text) => text.expose().trim().parse().ok(),
        _ => None,
    };
    flag.ok_or_else(|| "write true or false".into())
}

pub(super) fn optional_path(raw: &Raw) -> Result<Option<PathBuf>, InvalidValue> {
    let path = text(raw)?;
    Ok((!path.is_empty()).then(|| path.into()))
}

/// Host names, separated by commas, in lower case.
pub(super) fn host_names(raw: &Raw) -> Result<Vec<String>, InvalidValue> {
    let text = text(raw)?.to_ascii_lowercase();
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    let is_valid = |name: &String| {
        name.len() <= 253
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    match names.iter().find(|name| !is_valid(name)) {
        None => Ok(names),
        Some(name) => Err(format!(
            "{name:?} is not a host name: write names without port, separated by commas, such as \
             \"stopover,stopover.trino.svc\""
        )
        .into()),
    }
}

/// URIs by which others reach this daemon, separated by commas: scheme, host and port.
pub(super) fn advertised(raw: &Raw) -> Result<Vec<String>, InvalidValue> {
    let text = text(raw)?;
    let uris = text.split(',').map(str::trim).filter(|uri| !uri.is_empty());
    let mut found = Vec::new();
    for text in uris {
        let uri = advertised_uri(text).ok_or_else(|| {
            format!(
                "{text:?} is not an address that others can connect to: write http://host:port or \
                 https://host:port, separated by commas, such as \"http://10.0.0.12:7077\""
            )
        })?;
        if !found.contains(&uri) {
            found.push(uri);
        }
    }
    Ok(found)
}

/// The URI without a trailing slash; `None` if it is not one of a daemon that can be connected to.
fn advertised_uri(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let connectable = match url.host()? {
        Host::Domain(name) => !name.is_empty(),
        Host::Ipv4(address) => !address.is_unspecified(),
        Host::Ipv6(address) => !address.is_unspecified(),
    };
    let plain = url.username().is_empty() && url.password().is_none();
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let port = url.port_or_known_default()? != 0;
    let valid = matches!(url.scheme(), "http" | "https") && connectable && plain && bare && port;
    valid.then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// The name of a zone, such as `eu-central-1a`.
pub(super) fn zone(raw: &Raw) -> Result<String, InvalidValue> {
    let zone = text(raw)?;
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if zone.len() <= 64 && zone.bytes().all(valid) {
        return Ok(zone);
    }
    Err(
        "write at most 64 letters, digits, hyphens, dots and underscores, such as \
         \"eu-central-1a\""
            .into(),
    )
}

pub(super) fn duration(raw: &Raw) -> Result<Duration, InvalidValue> {
    match raw {
        Raw::Text(text) => parse_duration(text.expose()),
        Raw::Integer(n) => {
            Err(format!("the duration {n} has no unit: write \"{n}s\" or \"{n}ms\"").into())
        }
        _ => Err("write a duration such as \"30s\" or \"1m 30s\"".into()),
    }
}

pub(super) fn size(raw: &Raw) -> Result<u64, InvalidValue> {
    match raw {
        Raw::Text(text) => parse_size(text.expose()),
        Raw::Integer(number) => {
            u64::try_from(*number).map_err(|_| "a size is not negative: write 64MiB".into())
        }
        _ => Err("write a size such as \"64MiB\" or \"500 kB\"".into()),
    }
}

pub(super) fn budget(raw: &Raw) -> Result<Option<u64>, InvalidValue> {
    unless(AUTO, raw, size)
}

pub(super) fn optional_size(raw: &Raw) -> Result<Option<u64>, InvalidValue> {
    unless(UNLIMITED, raw, size)
}

pub(super) fn optional_count(raw: &Raw) -> Result<Option<u64>, InvalidValue> {
    unless(UNLIMITED, raw, count)
}

/// `None` for that word, otherwise the result of `read`.
fn unless<T>(
    word: &str,
    raw: &Raw,
    read: fn(&Raw) -> Result<T, InvalidValue>,
) -> Result<Option<T>, InvalidValue> {
    match raw {
        Raw::Text(text) if text.expose().trim() == word => Ok(None),
        other => read(other)
            .map(Some)
            .map_err(|why| format!("{why}, or \"{word}\"").into()),
    }
}

pub(super) fn share(raw: &Raw) -> Result<f64, InvalidValue> {
    let number = match raw {
        Raw::Float(number) => Some(*number),
        Raw::Integer(number) => Some(*number as f64),
        Raw::Text(text) => text.expose().trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| "write a share from 0 to 1, such as 0.5".into())
}

pub(super) fn count<T: TryFrom<i64> + FromStr>(raw: &Raw) -> Result<T, InvalidValue> {
    let number = match raw {
        Raw::Integer(number) => T::try_from(*number).ok(),
        Raw::Text(text) => text.expose().trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let most = match size_of::<T>() {
            4 => u64::from(u32::MAX),
            _ => i64::MAX as u64,
        };
        format!("write a whole number from 0 to {most}").into()
    })
}

pub(super) fn json_format(raw: &Raw) -> Result<bool, InvalidValue> {
    match text(raw)?.as_str() {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err("write \"text\" or \"json\"".into()),
    }
}

pub(super) fn show_duration(duration: &Duration) -> String {
    format_duration(*duration)
}

pub(super) fn show_size(size: &u64) -> String {
    format_size(*size)
}

pub(super) fn show_budget(budget: &Option<u64>) -> String {
    budget.map_or_else(|| AUTO.to_owned(), format_size)
}

pub(super) fn show_optional_size(size: &Option<u64>) -> String {
    size.map_or_else(|| UNLIMITED.to_owned(), format_size)
}

pub(super) fn show_optional_count(count: &Option<u64>) -> String {
    count.map_or_else(|| UNLIMITED.to_owned(), |count| count.to_string())
}

pub(super) fn show_list(texts: &[String]) -> String {
    texts.join(",")
}

pub(super) fn show_address(address: &Option<SocketAddr>) -> String {
    address.map_or_else(String::new, |address| address.to_string())
}

pub(super) fn show_path(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}
