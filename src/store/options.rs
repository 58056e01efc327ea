//! Options of a base directory.
//!
//! Does: know the name of every option by scheme, refuse unknown and malformed ones. Does not:
//! build stores (`open`). Invariant: an error names the base directory, the option and what to do,
//! and never a value.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::{BaseUri, BaseUriError, Scheme, units};
use crate::id::InvalidId;

/// Options of every base directory.
const COMMON: &[&str] = &["max_concurrent_requests", "timeout"];

/// Options by scheme. Those of the clouds' clients are accepted too, under their own names, which
/// begin with `aws_`, `google_` or `azure_`.
fn names(scheme: Scheme) -> &'static [&'static str] {
    match scheme {
        Scheme::File => &["fsync", "direct_io", "group_access"],
        Scheme::Memory => &[],
        Scheme::S3 => &[
            "region",
            "endpoint",
            "allow_http",
            "path_style",
            "upload_checksum",
            "access_key_id",
            "secret_access_key",
            "session_token",
        ],
        Scheme::Gs => &[
            "service_account_path",
            "service_account_key",
            "application_credentials",
            "endpoint",
            "allow_http",
        ],
        Scheme::Az => &[
            "account",
            "access_key",
            "sas_token",
            "client_id",
            "client_secret",
            "tenant_id",
            "endpoint",
            "allow_http",
            "use_emulator",
        ],
    }
}

/// Why a base directory cannot be opened as configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base directory {base}: open of {object} failed: {reason}")]
pub struct OpenError {
    /// Name of the base directory, or its URI if it has no name yet.
    pub base: String,
    /// The option or URI at fault.
    pub object: String,
    /// What is wrong and what to do.
    #[source]
    pub reason: OpenReason,
}

/// What is wrong with the configuration of a base directory.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenReason {
    /// The URI.
    #[error(transparent)]
    Uri(#[from] BaseUriError),
    /// The name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// An option, or several together; also what the store's client says about them, without
    /// secrets.
    #[error("{0}")]
    Invalid(String),
}

impl From<&str> for OpenReason {
    fn from(reason: &str) -> Self {
        Self::Invalid(reason.to_owned())
    }
}

impl From<String> for OpenReason {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl OpenError {
    /// The error of one object of a base directory.
    pub fn new(base: &str, object: impl Into<String>, reason: impl Into<OpenReason>) -> Self {
        Self {
            base: base.into(),
            object: object.into(),
            reason: reason.into(),
        }
    }
}

/// The options given for one base directory, removed one by one; what remains at the end is
/// unknown.
pub struct Options {
    base: String,
    scheme: Scheme,
    remaining: BTreeMap<String, String>,
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "options of {}: {:?}", self.base, self.remaining.keys())
    }
}

impl Options {
    /// The options of a base directory, which errors call by its name, or its URI if it has none.
    pub fn new(name: &str, uri: &BaseUri, given: &BTreeMap<String, String>) -> Self {
        let base = match name {
            "" => uri.to_string(),
            name => name.to_owned(),
        };
        Self {
            base,
            scheme: uri.scheme(),
            remaining: given.clone(),
        }
    }

    /// Removes an option and returns its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.remaining.remove(name)
    }

    /// Whether an option was given and has not been removed yet.
    pub fn has(&self, name: &str) -> bool {
        self.remaining.contains_key(name)
    }

    /// The value of an option that has not been removed yet.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.remaining.get(name).map(String::as_str)
    }

    /// Removes an option with one of a few values.
    ///
    /// # Errors
    /// If it has another value.
    pub fn take_one_of<T: Copy>(
        &mut self,
        name: &str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, OpenError> {
        let Some(text) = self.remaining.remove(name) else {
            return Ok(None);
        };
        if let Some((_, value)) = values.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let words: Vec<String> = values.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(self.refuse(name, &format!("must be {}", words.join(" or "))))
    }

    /// Removes an option that is `true` or `false`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<bool>, OpenError> {
        self.take_one_of(name, &[("true", true), ("false", false)])
    }

    /// Removes an option that is a number from 1 to `max`.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn take_number(&mut self, name: &str, max: usize) -> Result<Option<usize>, OpenError> {
        let Some(text) = self.remaining.remove(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.refuse(name, &format!("must be a whole number from 1 to {max}"))),
        }
    }

    /// Removes an option that is a duration within bounds.
    ///
    /// # Errors
    /// If it is no such duration.
    pub fn take_duration(
        &mut self,
        name: &str,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, OpenError> {
        let Some(text) = self.remaining.remove(name) else {
            return Ok(None);
        };
        match units::parse_duration(&text) {
            Ok(duration) if bounds.contains(&duration) => Ok(Some(duration)),
            _ => {
                let [least, most] =
                    [bounds.start(), bounds.end()].map(|bound| units::format_duration(*bound));
                let reason = format!("must be a duration from {least} to {most}, such as 45s");
                Err(self.refuse(name, &reason))
            }
        }
    }

    /// Removes the options whose names begin with the prefix of the store's client.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let remaining = std::mem::take(&mut self.remaining);
        let (taken, remaining): (BTreeMap<_, _>, _) = remaining
            .into_iter()
            .partition(|(name, _)| name.starts_with(prefix));
        self.remaining = remaining;
        taken.into_iter().collect()
    }

    /// The error that an option is wrong: its name, then `reason`.
    pub fn refuse(&self, name: &str, reason: &str) -> OpenError {
        self.error(format!("option `{name}`"), format!("`{name}` {reason}"))
    }

    /// An error of this base directory.
    pub fn error(&self, object: impl Into<String>, reason: impl Into<OpenReason>) -> OpenError {
        OpenError::new(&self.base, object, reason)
    }

    /// Checks that no option remains.
    ///
    /// # Errors
    /// If one does: it is unknown.
    pub fn finish(self) -> Result<(), OpenError> {
        match self.remaining.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.unknown(name)),
        }
    }

    /// The error that an option is unknown, with the one that may have been meant.
    pub fn unknown(&self, name: &str) -> OpenError {
        let scheme = self.scheme.name();
        let elsewhere = Scheme::ALL.iter().find(|s| names(**s).contains(&name));
        if let Some(other) = elsewhere.filter(|other| **other != self.scheme) {
            let reason = format!(
                "is an option of {}:// base directories, and this one is {scheme}://",
                other.name()
            );
            return self.refuse(name, &reason);
        }
        let known = || names(self.scheme).iter().chain(COMMON).copied();
        let similarity = |known: &str| strsim::jaro_winkler(known, name);
        let nearest = known().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let reason = match nearest.filter(|nearest| similarity(nearest) > 0.75) {
            Some(nearest) => format!("is unknown; did you mean `{nearest}`?"),
            None => format!(
                "is unknown; the options of {scheme}:// are {}",
                known().collect::<Vec<_>>().join(", ")
            ),
        };
        self.refuse(name, &reason)
    }
}
