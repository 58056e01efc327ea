//! Values as they were written, before anything knows what they mean.
//!
//! Does: carry a value from the file, the environment or a flag together with its origin. Does not:
//! interpret it (`values`). Invariant: the value of a secret is never printed.

use toml::Spanned;
use toml::de::DeValue;

use super::keys;
use super::options::may_have_lines;
use super::problem::{Origin, Problem};
use super::secret::{Secret, is_secret_name};

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A string, or anything from the environment or a flag.
    Text(Secret),
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
    /// The value as text, for options that are passed on as they are.
    pub fn plain(&self) -> Secret {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Bool(flag) => flag.to_string().into(),
            Self::Unsupported(kind) => format!("an {kind}").into(),
        }
    }

    /// The value as a message may quote it.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", text.expose()),
            other => other.plain().expose().to_owned(),
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
    /// A text and where it comes from.
    pub fn text(text: &str, origin: &Origin) -> Self {
        let (raw, origin) = (Raw::Text(text.into()), origin.clone());
        Self { raw, origin }
    }

    /// A problem with this value, which is shown unless the key may be that of a secret.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        let value = is_showable(key, &self.raw).then(|| self.raw.shown());
        Problem::new(key, value, self.origin.clone(), what)
    }

    /// Removes white space at the ends of a text, as files and Kubernetes Secrets often have, with
    /// a notice.
    ///
    /// # Errors
    /// Control characters remain: no setting has any, and clients of stores fail on them.
    pub fn tidy(&mut self, key: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        let Raw::Text(text) = &self.raw else {
            return Ok(());
        };
        let trimmed = text.expose().trim();
        if trimmed.contains(char::is_control) && !may_have_lines(key) {
            let what = "it contains a control character, such as the end of a line: write it \
                        without";
            return Err(Problem::new(key, None, self.origin.clone(), what));
        }
        if trimmed.len() < text.expose().len() {
            let origin = &self.origin;
            notices.push(format!(
                "{key} ({origin}): white space at its ends was removed, such as the end of a line"
            ));
            self.raw = Raw::Text(trimmed.into());
        }
        Ok(())
    }
}

/// Whether a value may be shown: settings hold no secrets, and the rest of base directories is
/// checked without quoting anything. What resembles no setting may be one under a wrong name, and
/// a file's name may be the token itself.
fn is_showable(key: &str, raw: &Raw) -> bool {
    match raw {
        Raw::Text(text) if key.ends_with("_file") => text.expose().contains(['/', '.']),
        Raw::Unsupported(_) => false,
        _ => keys::find(key).is_some() || (!is_secret_name(key) && keys::is_misspelt(key)),
    }
}

/// A value of a TOML file.
pub fn from_toml(value: &Spanned<DeValue<'_>>) -> Raw {
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
