//! The options of one base directory while it is opened.
//!
//! Does: return options and the variables of the clouds' own tools, collect their faults. Does not:
//! define the names of options (`config::options`) or build stores (`open`). Invariant: an error
//! names the base directory, the option or variable and the remedy, and never a value; no returned
//! value has a control character.

use std::collections::BTreeMap;
use std::time::Duration;

use url::form_urlencoded;

use crate::config::options::{self, may_have_lines};
use crate::config::units::SizeOrPercent;
use crate::config::{
    BaseUri, BaseUriError, Scheme, Secret, exposure_warning, is_secret_name, units,
};
use crate::id::InvalidId;

/// Why a base directory cannot be opened as configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base directory {base}: open of {object} failed: {reason}")]
pub struct OpenError {
    /// Name of the base directory, or its URI if it has no name yet.
    pub base: String,
    /// The option or URI at fault.
    pub object: String,
    /// The option at fault, if it is one.
    pub option: Option<Box<str>>,
    /// The fault and the remedy.
    #[source]
    pub reason: OpenReason,
}

/// A fault of the configuration of a base directory.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenReason {
    /// The URI.
    #[error(transparent)]
    Uri(#[from] BaseUriError),
    /// The name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// A fault of one or several options; also the message of the store's client about them,
    /// without secrets.
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
            option: None,
            reason: reason.into(),
        }
    }
}

/// The options of one base directory, removed one by one; those that remain at the end are unknown.
/// Faults are collected, so that all of them can be reported at once.
pub struct Options {
    base: String,
    scheme: Scheme,
    remaining: BTreeMap<String, Secret>,
    variables: Vec<(String, Secret)>,
    secrets: Vec<String>,
    faults: Vec<OpenError>,
    notices: Vec<String>,
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "options of {}: {:?}", self.base, self.remaining.keys())
    }
}

impl Options {
    /// The options of a base directory, which errors call by its name, or its URI if it has none;
    /// and the environment variables that the clouds' own tools use.
    pub fn new(
        name: &str,
        uri: &BaseUri,
        given: &BTreeMap<String, Secret>,
        variables: &[(String, Secret)],
    ) -> Self {
        let base = match name {
            "" => uri.to_string(),
            name => name.to_owned(),
        };
        let mut options = Self {
            base,
            scheme: uri.scheme(),
            remaining: BTreeMap::new(),
            variables: variables.to_vec(),
            secrets: Vec::new(),
            faults: Vec::new(),
            notices: Vec::new(),
        };
        for (name, value) in given {
            match sendable(name, value) {
                Ok(value) => drop(options.remaining.insert(name.clone(), value)),
                Err(reason) => options.refuse(name, reason),
            }
            options.remember_secret(name, value);
            let what = format!("`{name}` of {}", options.base);
            options.warn_of_exposure(name, &what, value);
        }
        options
    }

    /// Adds a notice if a file with a secret may be read by every user. `what` names the file.
    fn warn_of_exposure(&mut self, name: &str, what: &str, path: &Secret) {
        if options::names_secret_file(name) {
            // Caches of Kerberos may be named with their type.
            let path = path.expose().trim();
            let path = path.strip_prefix("FILE:").unwrap_or(path);
            self.notices.extend(exposure_warning(what, path.as_ref()));
        }
    }

    /// Removes an option and returns its value.
    pub fn take(&mut self, name: &str) -> Option<Secret> {
        self.remaining.remove(name)
    }

    /// Adds an option that is derived from another one, `source`; reports a fault if it was also
    /// set directly.
    pub fn add_from(&mut self, source: &str, name: &str, value: &str) {
        if self.has(name) {
            return self.refuse(name, &format!("and `{source}` contradict; set one"));
        }
        let value = Secret::from(value);
        self.remember_secret(name, &value);
        self.remaining.insert(name.to_owned(), value);
    }

    /// Whether an option was set and has not been removed yet.
    pub fn has(&self, name: &str) -> bool {
        self.remaining.contains_key(name)
    }

    /// The value of an option that has not been removed yet.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.remaining.get(name)
    }

    /// Removes an option with one of a few values. Another value is a fault, and has its form's
    /// message.
    pub fn take_one_of<T: Copy>(&mut self, name: &str, values: &[(&str, T)]) -> Option<T> {
        let text = self.remaining.remove(name)?;
        let known = values.iter().find(|(word, _)| *word == text.expose());
        if known.is_none() {
            self.refuse_form(name, &text);
        }
        known.map(|(_, value)| *value)
    }

    /// Removes an option that is `true` or `false`.
    pub fn take_bool(&mut self, name: &str) -> Option<bool> {
        self.take_one_of(name, &[("true", true), ("false", false)])
    }

    /// Removes an option that is a number from 1 to its maximum.
    pub fn take_number(&mut self, name: &str) -> Option<usize> {
        let text = self.remaining.remove(name)?;
        if options::fault(Some(self.scheme), name, text.expose()).is_none() {
            return text.expose().parse().ok();
        }
        self.refuse_form(name, &text);
        None
    }

    fn refuse_form(&mut self, name: &str, value: &Secret) {
        let fault = options::fault(Some(self.scheme), name, value.expose());
        self.refuse(name, fault.as_deref().unwrap_or("has no such value"));
    }

    /// Removes an option that is a duration within its bounds.
    pub fn take_duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.remaining.remove(name)?;
        if options::fault(Some(self.scheme), name, text.expose()).is_none() {
            return units::parse_duration(text.expose()).ok();
        }
        self.refuse_form(name, &text);
        None
    }

    /// Adds a notice about an environment variable that has no effect here.
    pub fn notice_of_variable(&mut self, name: &str, what: &str) {
        if self.variables.iter().any(|(known, _)| known == name) {
            self.notice(format!("environment variable {name}: {what}"));
        }
    }

    /// Tells the operator something that is no fault.
    pub fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    /// Whether the environment names a file with a pod's token.
    pub fn has_token_file(&self) -> bool {
        let name = "AWS_WEB_IDENTITY_TOKEN_FILE";
        self.variables.iter().any(|(known, _)| known == name)
    }

    /// Removes an option that is a size or a percentage.
    pub fn take_size_or_percent(&mut self, name: &str) -> Option<SizeOrPercent> {
        let text = self.remaining.remove(name)?;
        let parsed = units::parse_size_or_percent(text.expose());
        if parsed.is_err() {
            self.refuse_form(name, &text);
        }
        parsed.ok()
    }

    /// Removes the options whose names begin with the prefix of the store's client.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, Secret)> {
        let remaining = std::mem::take(&mut self.remaining);
        let (taken, remaining): (BTreeMap<_, _>, _) = remaining
            .into_iter()
            .partition(|(name, _)| name.starts_with(prefix));
        self.remaining = remaining;
        taken.into_iter().collect()
    }

    /// Removes one environment variable, as [`Options::take_variables`] removes several.
    pub fn take_variable(&mut self, name: &str) -> Option<Secret> {
        let mut found = self.take_variables(|known| (known == name).then_some(()));
        found.pop().map(|((), value)| value)
    }

    /// Removes the environment variables for which `key` returns something, and returns them with
    /// white space at their ends removed.
    pub fn take_variables<K>(&mut self, key: impl Fn(&str) -> Option<K>) -> Vec<(K, Secret)> {
        let mut found = Vec::new();
        for (name, value) in std::mem::take(&mut self.variables) {
            let Some(key) = key(&name) else {
                self.variables.push((name, value));
                continue;
            };
            self.remember_secret(&name, &value);
            let what = format!("the file of environment variable {name},");
            self.warn_of_exposure(&name.to_ascii_lowercase(), &what, &value);
            let trimmed = Secret::from(value.expose().trim());
            if trimmed != value {
                self.notices.push(format!(
                    "environment variable {name}: white space at its ends was removed, such as the \
                     end of a line"
                ));
            }
            match sendable(&name, &trimmed) {
                Ok(value) => found.push((key, value)),
                Err(reason) => {
                    self.fault(format!("environment variable {name}"), reason);
                }
            }
        }
        found
    }

    fn remember_secret(&mut self, name: &str, value: &Secret) {
        if is_secret_name(name) || name.to_ascii_lowercase().ends_with("key_id") {
            self.secrets.extend(spellings(value.expose().trim()));
        }
    }

    /// What must not appear in any message about this base directory.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        self.secrets.iter().cloned()
    }

    /// Reports a fault of an option: its name, then `reason`.
    pub fn refuse(&mut self, name: &str, reason: &str) {
        let object = format!("option `{name}`");
        let mut error = OpenError::new(&self.base, object, format!("`{name}` {reason}"));
        error.option = Some(name.into());
        self.faults.push(error);
    }

    /// Reports that an option is unknown, with the one that may have been meant.
    pub fn refuse_unknown(&mut self, name: &str) {
        self.refuse(name, &options::unknown(Some(self.scheme), name));
    }

    /// Reports a fault of another part of this base directory.
    pub fn fault(&mut self, object: impl Into<String>, reason: impl Into<OpenReason>) {
        self.faults.push(OpenError::new(&self.base, object, reason));
    }

    /// Whether nothing was reported so far.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Checks that no option remains. Returns all faults, those of unknown options first, and the
    /// notices.
    pub fn finish(mut self) -> (Vec<OpenError>, Vec<String>) {
        let others = std::mem::take(&mut self.faults);
        let unknown: Vec<String> = self.remaining.keys().cloned().collect();
        for name in unknown {
            self.refuse_unknown(&name);
        }
        self.faults.extend(others);
        (self.faults, self.notices)
    }
}

/// How a secret may appear in a message: as it is, or as a part of a URL. Of a shared access
/// signature, the signature alone is secret.
pub(super) fn spellings(secret: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(secret.as_bytes());
    let signature = pairs
        .filter(|(name, _)| name == "sig")
        .map(|(_, value)| value.into_owned());
    let parts = std::iter::once(secret.to_owned()).chain(signature);
    let encoded = |part: &str| form_urlencoded::byte_serialize(part.as_bytes()).collect();
    // The padding of Base64 may have been cut off.
    let parts = parts.map(|part| part.trim_end_matches('=').to_owned());
    parts.flat_map(|part| [encoded(&part), part]).collect()
}

/// The value of an option or variable, if a client can send it: most become parts of headers, and a
/// client that cannot write them panics.
fn sendable(name: &str, value: &Secret) -> Result<Secret, &'static str> {
    let lower = name.to_ascii_lowercase();
    let text = value.expose();
    if may_have_lines(&lower) {
        return Ok(value.clone());
    }
    if text.contains(char::is_control) {
        return Err("contains a control character, such as the end of a line: write it without");
    }
    let is_path = ["_path", "_file", "_dir", "_files", "_keytab", "credentials"]
        .iter()
        .any(|end| lower.ends_with(end));
    if !is_path && !text.is_ascii() {
        return Err("contains a character that is not ASCII: it may have been damaged when copied");
    }
    Ok(value.clone())
}
