//! The forms of values in Trino's file, and their conversion.
//!
//! Pure. Does not: know the properties. Invariant: no message contains a value, which may be a
//! secret.

use url::Url;

/// Why a value cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("not a size: a number and B, kB, MB, GB or TB")]
    Size,
    #[error("neither true nor false")]
    Flag,
    #[error("not a whole number")]
    Number,
    #[error("neither NONE nor S3 nor KMS")]
    Encryption,
    #[error("not a URI: {0}")]
    Uri(#[from] url::ParseError),
    #[error("Trino reads it from the environment: write the value into the file first")]
    FromEnvironment,
    #[error("a size that the daemon cannot have: {0}")]
    Daemon(#[from] crate::config::InvalidValue),
}

/// A size as Trino writes it, `16MB`, as Stopover does, `16MiB`: Trino's units are powers of 1024.
pub(super) fn size(text: &str) -> Result<String, ValueError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = match unit.trim() {
        "B" => "B",
        "kB" => "KiB",
        "MB" => "MiB",
        "GB" => "GiB",
        "TB" => "TiB",
        _ => return Err(ValueError::Size),
    };
    match number.parse::<f64>() {
        Ok(_) => Ok(format!("{number}{unit}")),
        Err(_) => Err(ValueError::Size),
    }
}

/// The name of the environment variable that a value is read from: `${ENV:NAME}`.
pub(super) fn environment_variable(text: &str) -> Option<&str> {
    text.trim().strip_prefix("${ENV:")?.strip_suffix('}')
}

/// Domain of storage accounts of the public cloud.
const AZURE_SUFFIX: &str = "core.windows.net";

/// `abfss://container@account.dfs.core.windows.net/path` as `az://container/path`, and the account.
pub(super) fn azure_uri(text: &str) -> Result<(String, Option<String>), ValueError> {
    let url = Url::parse(text)?;
    let host = url.host_str().unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    if url.username().is_empty() {
        return Ok((format!("az://{host}{path}"), None));
    }
    let account = host.split('.').next().unwrap_or_default();
    let uri = format!("az://{}{path}", url.username());
    Ok((uri, Some(account.to_owned())))
}

/// The account in the URL of an endpoint, if it is one of the public cloud.
pub(super) fn account_of(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    let (account, rest) = url.host_str()?.split_once('.')?;
    let is_public = rest == format!("blob.{AZURE_SUFFIX}") || rest == format!("dfs.{AZURE_SUFFIX}");
    is_public.then(|| account.to_owned())
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_bytes_although_the_units_are_written_differently() {
        for (trino, ours) in [("16MB", "16MiB"), ("1.5 GB", "1.5GiB"), ("7B", "7B")] {
            assert_eq!(size(trino).as_deref(), Ok(ours));
            assert!(crate::config::units::parse_size(ours).is_ok(), "{ours}");
        }
        for bad in ["", "MB", "16", "16MiB", "16mb", "1.2.3MB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_forms_of_an_azure_uri_name_the_container() {
        let (uri, account) = azure_uri("abfss://spool@acme.dfs.core.windows.net/fte/").unwrap();
        assert_eq!(
            (uri.as_str(), account.as_deref()),
            ("az://spool/fte", Some("acme"))
        );
        let (uri, account) = azure_uri("abfs://spool/fte").unwrap();
        assert_eq!((uri.as_str(), account), ("az://spool/fte", None));
        let account = account_of("https://acme.blob.core.windows.net/");
        assert_eq!(account.as_deref(), Some("acme"));
        assert_eq!(account_of("http://127.0.0.1:10000/devstoreaccount1"), None);
    }
}
