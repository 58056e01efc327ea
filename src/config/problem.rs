//! Problems of the configuration and the origins of settings.
//!
//! Does: present key, value, origin and remedy to the user, all problems at once. Does not: find
//! them. Invariant: the value of a secret is never printed.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use crate::human::count;

/// Origin of a setting's value; later ones override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, with its name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The fault of a value, and the correct form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(Cow<'static, str>);

impl From<&'static str> for InvalidValue {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for InvalidValue {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// One problem of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, `section.key`, or the text that was given instead.
    pub key: String,
    /// Its value as written; `None` if absent or secret.
    pub value: Option<String>,
    pub origin: Option<Origin>,
    /// The fault and the remedy.
    pub what: String,
}

impl Problem {
    /// A problem with `key`; `value` is `None` if absent or secret.
    pub fn new(
        key: impl Into<String>,
        value: Option<String>,
        origin: impl Into<Option<Origin>>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value,
            origin: origin.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// All problems of the configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration has a problem:\n  {one}"),
            all => {
                write!(f, "the configuration has {}:", count(all.len(), "problem"))?;
                all.iter().try_for_each(|p| write!(f, "\n  {p}"))
            }
        }
    }
}
