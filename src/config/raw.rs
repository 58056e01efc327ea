//! Values as they were written, before they are interpreted.
//!
//! Does: hold a value from the file, the environment or a flag. Does not: interpret it (`values`)
//! or record its origin (`located`). Invariant: its text is not printed by `Debug`.

use toml::Spanned;
use toml::de::DeValue;

use super::secret::Secret;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// A string, or anything from the environment or a flag.
    Text(Secret),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A type that no setting accepts: its kind.
    Unsupported(&'static str),
}

impl Raw {
    /// The value as text, for options that are passed on as they are.
    pub(super) fn plain(&self) -> Secret {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Bool(flag) => flag.to_string().into(),
            Self::Unsupported(kind) => format!("an {kind}").into(),
        }
    }

    /// The value as a message may quote it, if it may.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", text.expose()),
            other => other.plain().expose().to_owned(),
        }
    }
}

/// A value of a TOML file.
pub(super) fn from_toml(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.as_ref().into()),
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
