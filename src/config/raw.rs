//! Values as they were written, before anything knows what they mean.
//!
//! Does: carry a value from the file, the environment or a flag together with its origin. Does not:
//! interpret it (`values`). Invariant: the value of a secret is never printed.

use toml::Spanned;
use toml::de::DeValue;

use super::problem::{Origin, Problem, is_secret};

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A string, or anything from the environment or a flag.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Something that no setting takes: its kind.
    Unsupported(&'static str),
}

impl Raw {
    /// The value as text, for options that are passed on as they are and for messages.
    pub fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Unsupported(kind) => format!("an {kind}"),
        }
    }

    /// The value as it may be quoted in a message.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            other => other.plain(),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The value.
    pub raw: Raw,
    /// Its origin.
    pub origin: Origin,
}

impl Located {
    /// A problem with this value.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        let value = (!is_secret(key)).then(|| self.raw.shown());
        Problem::new(key, value, self.origin.clone(), what)
    }
}

/// A value of a TOML file.
pub fn from_toml(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map_or(Raw::Unsupported("integer beyond 64 bits"), Raw::Integer)
        }
        DeValue::Float(number) => {
            let number = number.as_str().replace('_', "").parse();
            number.map_or(Raw::Unsupported("unreadable number"), Raw::Float)
        }
        DeValue::Boolean(flag) => Raw::Bool(*flag),
        DeValue::Datetime(_) => Raw::Unsupported("unquoted date"),
        DeValue::Array(_) => Raw::Unsupported("array"),
        DeValue::Table(_) => Raw::Unsupported("inner table"),
    }
}
