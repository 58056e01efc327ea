//! The options of base directories: the name and form of each, by scheme.
//!
//! Does: distinguish known options from unknown ones, check the form of a value, suggest what was
//! probably meant. Does not: check combinations of options, or options with the prefix of a store's
//! client (both `store`). Invariant: no message contains a value, since any of them may be a
//! secret.

use std::time::Duration;

use super::base_uri::Scheme;
use super::units;

/// Upper bound of the option `max_concurrent_requests`.
pub const MAX_CONCURRENT_REQUESTS: usize = 4096;

/// The form of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number from 1.
    Number { max: usize },
    /// A size, or a percentage.
    SizeOrPercent,
    /// A duration.
    Duration { least: Duration, most: Duration },
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// Anything without control characters.
    Text,
}

/// A name and the form of its value.
type Named = (&'static str, Form);

/// Options of every base directory.
const COMMON: &[Named] = &[
    ("require_init", Form::Flag),
    (
        "max_concurrent_requests",
        Form::Number {
            max: MAX_CONCURRENT_REQUESTS,
        },
    ),
    (
        "timeout",
        Form::Duration {
            least: Duration::from_millis(100),
            most: Duration::from_secs(3600),
        },
    ),
];

const FILE: &[Named] = &[
    ("fsync", Form::Flag),
    ("direct_io", Form::Flag),
    ("group_access", Form::Flag),
    ("min_free", Form::SizeOrPercent),
];

const S3: &[Named] = &[
    ("region", Form::Text),
    ("endpoint", Form::Text),
    ("allow_http", Form::Flag),
    ("ca_file", Form::Text),
    ("client_certificate_file", Form::Text),
    ("client_key_file", Form::Text),
    ("path_style", Form::Flag),
    ("upload_checksum", Form::OneOf(&["sha256", "crc64nvme"])),
    ("conditional_writes", Form::Flag),
    ("delete_versions", Form::Flag),
    ("storage_class", Form::Text),
    ("iam_role", Form::Text),
    ("external_id", Form::Text),
    ("access_key_id", Form::Text),
    ("secret_access_key", Form::Text),
    ("session_token", Form::Text),
];

const GS: &[Named] = &[
    ("service_account_path", Form::Text),
    ("service_account_key", Form::Text),
    ("application_credentials", Form::Text),
    ("endpoint", Form::Text),
    ("allow_http", Form::Flag),
    ("ca_file", Form::Text),
    ("client_certificate_file", Form::Text),
    ("client_key_file", Form::Text),
    ("storage_class", Form::Text),
];

const AZ: &[Named] = &[
    ("account", Form::Text),
    ("access_key", Form::Text),
    ("sas_token", Form::Text),
    ("client_id", Form::Text),
    ("client_secret", Form::Text),
    ("tenant_id", Form::Text),
    ("endpoint", Form::Text),
    ("allow_http", Form::Flag),
    ("ca_file", Form::Text),
    ("client_certificate_file", Form::Text),
    ("client_key_file", Form::Text),
    ("use_emulator", Form::Flag),
    ("storage_class", Form::Text),
    ("connection_string", Form::Text),
];

const HDFS: &[Named] = &[
    ("config_dir", Form::Text),
    ("config_files", Form::Text),
    ("user", Form::Text),
    ("replication", Form::Number { max: 512 }),
    ("kerberos_principal", Form::Text),
    ("kerberos_keytab", Form::Text),
    ("kerberos_cache", Form::Text),
];

/// The options that contain or name only credentials and trusted certificates.
const CREDENTIALS: &[&str] = &[
    "access_key_id",
    "secret_access_key",
    "session_token",
    "iam_role",
    "external_id",
    "service_account_path",
    "service_account_key",
    "application_credentials",
    "access_key",
    "sas_token",
    "client_id",
    "client_secret",
    "tenant_id",
    "connection_string",
    "user",
    "kerberos_principal",
    "kerberos_keytab",
    "kerberos_cache",
    "ca_file",
    "client_certificate_file",
    "client_key_file",
];

/// The credentials in files that are read only when a base directory is opened.
const FILES: &[&str] = &[
    "ca_file",
    "client_certificate_file",
    "client_key_file",
    "service_account_path",
    "application_credentials",
];

/// The options that name a file with a secret. Files with the token of a pod are not among them:
/// the platform writes them, often so that every user of the container may read them.
const SECRET_FILES: &[&str] = &[
    "client_key_file",
    "service_account_path",
    "service_account",
    "application_credentials",
    "kerberos_keytab",
    "kerberos_cache",
];

/// Whether an option, or a variable in lower case, names a file with a secret.
pub fn names_secret_file(name: &str) -> bool {
    is_one_of(SECRET_FILES, name)
}

/// Whether an option is part of the credentials of its base directory, under its own name or under
/// that of the store's client.
pub fn is_credential(name: &str) -> bool {
    is_one_of(CREDENTIALS, name)
}

/// Whether an option names a file that is read only when its base directory is opened.
pub fn names_file(name: &str) -> bool {
    is_one_of(FILES, name)
}

fn is_one_of(options: &[&str], name: &str) -> bool {
    let prefixes = Scheme::ALL.into_iter().filter_map(Scheme::client_prefix);
    let mut names = prefixes.filter_map(|prefix| name.strip_prefix(prefix));
    options.contains(&name) || names.any(|name| options.contains(&name))
}

impl Scheme {
    /// The options of base directories of this scheme, besides those of all.
    fn options(self) -> &'static [Named] {
        match self {
            Self::File => FILE,
            Self::Memory => &[],
            Self::S3 => S3,
            Self::Gs => GS,
            Self::Az => AZ,
            Self::Hdfs | Self::ViewFs => HDFS,
        }
    }

    /// What the names of further options begin with: those of the store's client, under its names.
    pub fn client_prefix(self) -> Option<&'static str> {
        match self {
            Self::S3 => Some("aws_"),
            Self::Gs => Some("google_"),
            Self::Az => Some("azure_"),
            Self::File | Self::Memory | Self::Hdfs | Self::ViewFs => None,
        }
    }
}

/// Whether an option accepts a text of several lines: a JSON document or certificates.
pub fn may_have_lines(name: &str) -> bool {
    name.ends_with("service_account_key") || name.ends_with("proxy_ca_certificate")
}

/// Every option that has a name of Stopover's own, with its scheme; `None` for those of all.
pub fn all() -> impl Iterator<Item = (Option<Scheme>, &'static str)> {
    let of_schemes = Scheme::ALL.into_iter().flat_map(|scheme| {
        scheme
            .options()
            .iter()
            .map(move |(name, _)| (Some(scheme), *name))
    });
    of_schemes.chain(COMMON.iter().map(|(name, _)| (None, *name)))
}

/// The fault of an option of a base directory, as text that follows its name; `None` for options of
/// the store's client, which only the store can check. Without a scheme, an option of any scheme is
/// accepted.
pub fn fault(scheme: Option<Scheme>, name: &str, value: &str) -> Option<String> {
    let schemes = || {
        Scheme::ALL
            .into_iter()
            .filter(|s| scheme.is_none_or(|given| *s == given))
    };
    let mut prefixes = schemes().filter_map(Scheme::client_prefix);
    if prefixes.any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let mut known = schemes().flat_map(Scheme::options).chain(COMMON);
    match known.find(|(known, _)| *known == name) {
        Some((_, form)) => form.fault(value),
        None => Some(unknown(scheme, name)),
    }
}

impl Form {
    fn fault(self, value: &str) -> Option<String> {
        match self {
            Self::Text => None,
            Self::Flag => Self::OneOf(&["true", "false"]).fault(value),
            Self::OneOf(words) if words.contains(&value) => None,
            Self::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                Some(format!("must be {}", words.join(" or ")))
            }
            Self::Duration { least, most } => match units::parse_duration(value) {
                Ok(duration) if (least..=most).contains(&duration) => None,
                _ => {
                    let [least, most] = [least, most].map(units::format_duration);
                    Some(format!(
                        "must be a duration from {least} to {most}, such as 45s"
                    ))
                }
            },
            Self::SizeOrPercent => match units::parse_size_or_percent(value) {
                Ok(_) => None,
                Err(_) => Some("must be a size or a percentage, such as 10GiB or 2.5%".to_owned()),
            },
            Self::Number { max } => match value.parse::<usize>() {
                Ok(number) if (1..=max).contains(&number) => None,
                _ => Some(format!("must be a whole number from 1 to {max}")),
            },
        }
    }
}

/// That an option is unknown, and the one that may have been meant.
pub fn unknown(scheme: Option<Scheme>, name: &str) -> String {
    let has = |scheme: Scheme| scheme.options().iter().any(|(known, _)| *known == name);
    if scheme == Some(Scheme::Gs) && has_hmac_name(name) {
        return "is an HMAC key, which gs:// does not use: name a service account with \
                service_account_path, or reach the bucket as s3:// with \
                endpoint = \"https://storage.googleapis.com\""
            .to_owned();
    }
    if let (Some(given), Some(other)) = (scheme, Scheme::ALL.into_iter().find(|s| has(*s))) {
        let (given, other) = (given.name(), other.name());
        return format!("is an option of {other}:// base directories, and this one is {given}://");
    }
    let candidates = || {
        let of_scheme = all().filter(|(of, _)| scheme.is_none() || of.is_none() || *of == scheme);
        of_scheme.map(|(_, name)| name).chain(["uri", "name"])
    };
    // A name this long is not a misspelling, and comparing it would be slow.
    let is_short = name.len() <= super::keys::LONGEST_MISSPELT;
    let similarity = |known: &str| match is_short {
        true => strsim::normalized_damerau_levenshtein(known, name),
        false => 0.0,
    };
    let nearest = candidates().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|nearest| similarity(nearest) > 0.6) {
        Some(nearest) => format!("is unknown; did you mean `{nearest}`?"),
        None => {
            let mut known: Vec<_> = candidates().collect();
            known.sort_unstable();
            known.dedup();
            let of = scheme.map_or_else(String::new, |s| format!(" of {}://", s.name()));
            format!("is unknown; the options{of} are {}", known.join(", "))
        }
    }
}

fn has_hmac_name(name: &str) -> bool {
    let name = name.strip_prefix("aws_").unwrap_or(name);
    matches!(name, "access_key_id" | "secret_access_key" | "access_key")
}
