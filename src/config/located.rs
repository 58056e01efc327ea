//! Values together with where they were written.
//!
//! Does: report a problem with a value, with or without quoting it; remove white space at its ends.
//! Does not: interpret it (`values`). Invariant: a value that may be a secret is never quoted.

use super::keys;
use super::options::may_have_lines;
use super::problem::{Origin, Problem};
use super::raw::Raw;
use super::secret::{is_secret_name, shown_uri};

/// A value and its origin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    /// The value.
    pub raw: Raw,
    /// Its origin.
    pub origin: Origin,
}

impl Located {
    /// A text and its origin.
    pub(super) fn text(text: &str, origin: &Origin) -> Self {
        let (raw, origin) = (Raw::Text(text.into()), origin.clone());
        Self { raw, origin }
    }

    /// A problem with this value, which is shown unless the key may be that of a secret.
    pub(super) fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        let value = is_showable(key, &self.raw).then(|| self.raw.shown());
        Problem::new(key, value, self.origin.clone(), what)
    }

    /// Whether it is a secret, or a URI with one.
    pub(super) fn holds_secret(&self, key: &str) -> bool {
        let Raw::Text(text) = &self.raw else {
            return false;
        };
        let text = text.expose();
        match text {
            "" | "true" | "false" => false,
            _ if text.contains("://") => shown_uri(text) != text,
            _ => is_secret_name(key),
        }
    }

    /// Removes white space at the ends of a text, as files and Kubernetes Secrets often have, with
    /// a notice.
    ///
    /// # Errors
    /// Control characters remain: no setting has any, and clients of stores fail on them.
    pub(super) fn tidy(&mut self, key: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
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

/// Whether a value may be shown: for a setting, its name determines whether it is a secret; options
/// of base directories are never quoted. A value whose key resembles no setting may be a secret
/// under a wrong name, and instead of the name of a file there may be its content.
fn is_showable(key: &str, raw: &Raw) -> bool {
    match raw {
        Raw::Text(_) if key.ends_with("_file") => false,
        Raw::Unsupported(_) => false,
        _ if is_secret_name(key) => false,
        _ if keys::find(key).is_some() => true,
        // The secret may be the one that was misspelt.
        _ => keys::is_misspelt(key) && !keys::nearest(key).is_some_and(|key| is_secret_name(&key)),
    }
}
