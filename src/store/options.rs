//! Options of a base directory: which there are, and what is wrong with those that were given.
//!
//! Does: know every option's name by kind of store, refuse unknown and contradictory ones, parse
//! values. Does not: build stores (`base_dir`). Invariant: an error names the option, the base
//! directory and the way out, and never a value.

use std::collections::BTreeMap;

/// Options of every kind of base directory.
pub const COMMON: &[&str] = &["max_concurrent_requests"];
/// Options of `file://`.
pub const FILE: &[&str] = &["fsync", "direct_io"];
/// Options of `memory://`.
pub const MEMORY: &[&str] = &[];
/// Options of `s3://`; others of the client are taken under their `aws_…` names.
pub const S3: &[&str] = &[
    "region",
    "endpoint",
    "allow_http",
    "path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
];
/// Options of `gs://`; others of the client are taken under their `google_…` names.
pub const GS: &[&str] = &[
    "service_account_path",
    "service_account_key",
    "application_credentials",
    "endpoint",
    "allow_http",
];
/// Options of `az://`; others of the client are taken under their `azure_…` names.
pub const AZ: &[&str] = &[
    "account",
    "access_key",
    "sas_token",
    "client_id",
    "client_secret",
    "tenant_id",
    "endpoint",
    "allow_http",
    "use_emulator",
];

const ALL: &[(&str, &[&str])] = &[
    ("file", FILE),
    ("memory", MEMORY),
    ("s3", S3),
    ("gs", GS),
    ("az", AZ),
];

/// Why a base directory cannot be opened as configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base directory {base}: open of {object} failed: {reason}")]
pub struct OpenError {
    /// Name of the base directory, or its URI if it has no name yet.
    pub base: String,
    /// The option or URI at fault.
    pub object: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

/// The options given for one base directory, taken out one by one; what is left at the end is
/// unknown.
pub struct Options {
    base: String,
    scheme: &'static str,
    left: BTreeMap<String, String>,
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "options of {}: {:?}", self.base, self.left.keys())
    }
}

impl Options {
    /// Those of a base directory, called `base` in errors.
    pub fn new(base: &str, scheme: &'static str, given: &BTreeMap<String, String>) -> Self {
        Self {
            base: base.into(),
            scheme,
            left: given.clone(),
        }
    }

    /// A text, if it was given.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// Whether it was given and not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Whether it was given, and is none of these.
    pub fn is_none_of(&self, name: &str, values: &[&str]) -> bool {
        let value = self.left.get(name);
        value.is_some_and(|value| !values.contains(&value.as_str()))
    }

    /// A truth value, if it was given.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<bool>, OpenError> {
        match self.left.remove(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.refuse(name, "must be true or false")),
        }
    }

    /// A number from 1 to `max`, if it was given.
    pub fn take_number(&mut self, name: &str, max: usize) -> Result<Option<usize>, OpenError> {
        let Some(text) = self.left.remove(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.refuse(name, &format!("must be a whole number from 1 to {max}"))),
        }
    }

    /// Those that begin with the prefix of the store's own client.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let names: Vec<String> = self
            .left
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        names
            .into_iter()
            .filter_map(|name| self.left.remove_entry(&name))
            .collect()
    }

    /// Refuses an option.
    pub fn refuse(&self, name: &str, reason: &str) -> OpenError {
        open_error(
            &self.base,
            format!("option `{name}`"),
            format!("`{name}` {reason}"),
        )
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), OpenError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.unknown(name)),
        }
    }

    /// Says what an unknown option might have meant.
    pub fn unknown(&self, name: &str) -> OpenError {
        let (_, mine) = ALL
            .iter()
            .find(|(scheme, _)| *scheme == self.scheme)
            .unwrap_or(&ALL[0]);
        let elsewhere = ALL.iter().find(|(_, options)| options.contains(&name));
        let known = || mine.iter().chain(COMMON).copied();
        let nearest = known()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        let similar = nearest.filter(|n| strsim::jaro_winkler(n, name) > 0.75);
        let reason = match (elsewhere, similar) {
            (Some((scheme, _)), _) if *scheme != self.scheme => format!(
                "is an option of {scheme}:// base directories, and this one is {}://",
                self.scheme
            ),
            (_, Some(similar)) => format!("is unknown; did you mean `{similar}`?"),
            _ => format!(
                "is unknown; {}:// base directories know {}",
                self.scheme,
                known().collect::<Vec<_>>().join(", ")
            ),
        };
        self.refuse(name, &reason)
    }
}

/// An error of opening a base directory.
pub fn open_error(base: &str, object: String, reason: String) -> OpenError {
    OpenError {
        base: base.into(),
        object,
        reason,
    }
}
