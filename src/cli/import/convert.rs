//! From Trino's properties to both of Stopover's files.
//!
//! Pure: text to [`Converted`]. Does not: read or write files, or convert single properties
//! (`rules`). Invariant: every property of the input is converted, named in a note, or a fault.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::properties::{self, Pair};
use super::rules::{Form, Rule, Store, find};
use super::values::{ValueError, account_of, azure_uri, environment_variable, shortened, size};
use crate::config::{LimitsConfig, Secret, is_secret_name, shown_uri, units};

/// The `[[base_directory]]` of one URI.
#[derive(Debug, Clone)]
struct Base {
    uri: String,
    store: Option<Store>,
    options: BTreeMap<&'static str, Value>,
}

/// The value of an option.
#[derive(Debug, Clone)]
enum Value {
    Toml(toml::Value),
    /// That of an environment variable.
    Environment(String),
}

/// The conversion of a property that needs a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Line and name of the property.
    property: Option<(usize, String)>,
    text: String,
}

impl Note {
    /// About the file as a whole.
    pub(super) fn general(text: String) -> Self {
        Self {
            property: None,
            text,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.property {
            Some((line, name)) => write!(f, "line {line}: {name}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

struct Property {
    line: usize,
    name: String,
    value: Secret,
}

impl Property {
    /// With the name, if it can be one of Trino's: a line may be a part of a secret.
    fn note(&self, text: impl Into<String>) -> Note {
        let is_named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        let name = match self.name.chars().all(is_named) {
            true => shortened(&self.name),
            false => "(not a name of a property)".to_owned(),
        };
        Note {
            property: Some((self.line, name)),
            text: text.into(),
        }
    }
}

/// The result.
#[derive(Debug, Clone, Default)]
pub(super) struct Converted {
    bases: Vec<Base>,
    settings: BTreeMap<&'static str, toml::Value>,
    plugin: BTreeMap<&'static str, String>,
    /// What differs.
    pub(super) notes: Vec<Note>,
}

/// Converts the text of `exchange-manager.properties`.
///
/// # Errors
/// Everything that prevents a result.
pub(super) fn convert(text: &str) -> Result<Converted, Vec<Note>> {
    let properties = parse(text)?;
    let mut faults = Vec::new();
    let mut converted = Converted::default();
    converted.add_bases(&properties, &mut faults);
    for property in &properties {
        match converted.add(property) {
            Ok(()) => {}
            Err(what) => faults.push(property.note(what.to_string())),
        }
    }
    converted.finish();
    match faults.is_empty() {
        true => Ok(converted),
        false => Err(faults),
    }
}

fn parse(text: &str) -> Result<Vec<Property>, Vec<Note>> {
    let mut properties: Vec<Property> = Vec::new();
    let mut faults = Vec::new();
    let malformed = |line| {
        vec![Note::general(format!(
            "line {line}: a malformed \\u escape"
        ))]
    };
    for Pair { line, name, value } in properties::parse(text).map_err(malformed)? {
        let property = Property {
            line,
            name,
            value: value.into(),
        };
        match properties.iter().find(|other| other.name == property.name) {
            Some(other) => {
                let what = format!("also in line {}: Trino refuses that", other.line);
                faults.push(property.note(what));
            }
            None => properties.push(property),
        }
    }
    match faults.is_empty() {
        true => Ok(properties),
        false => Err(faults),
    }
}

impl Converted {
    fn add_bases(&mut self, properties: &[Property], faults: &mut Vec<Note>) {
        let named = |name: &str| properties.iter().find(|property| property.name == name);
        match named("exchange-manager.name").map(|property| property.value.expose().trim()) {
            Some("filesystem" | "hdfs") => {}
            _ => faults.push(Note::general(
                "exchange-manager.name is neither filesystem nor hdfs: give the file \
                 etc/exchange-manager.properties of Trino's own exchange manager"
                    .to_owned(),
            )),
        }
        let uris = named("exchange.base-directories").or(named("exchange.base-directory"));
        let Some(uris) = uris else {
            let what = "it has no exchange.base-directories";
            return faults.push(Note::general(what.to_owned()));
        };
        let uses_hmac = named("exchange.s3.aws-access-key").is_some();
        let has_json_key = named("exchange.gcs.json-key").is_some()
            || named("exchange.gcs.json-key-file-path").is_some();
        for uri in uris.value.expose().split(',').map(str::trim) {
            match self.base(uris, uri, uses_hmac && !has_json_key) {
                Ok(base) => self.bases.push(base),
                Err(what) => faults.push(uris.note(what.to_string())),
            }
        }
    }

    fn base(
        &mut self,
        property: &Property,
        uri: &str,
        gcs_by_hmac: bool,
    ) -> Result<Base, ValueError> {
        let mut options = BTreeMap::new();
        let mut text = |name, value: &str| {
            options.insert(name, Value::Toml(value.into()));
        };
        if uri.contains("${") {
            return Err(ValueError::FromEnvironment);
        }
        let trimmed = uri.trim_end_matches('/');
        let (uri, store) = match uri.split_once("://").map_or("file", |(scheme, _)| scheme) {
            "file" => (uri.to_owned(), None),
            "s3" => (trimmed.to_owned(), Some(Store::S3)),
            "gs" if gcs_by_hmac => {
                text("endpoint", "https://storage.googleapis.com");
                self.notes.push(property.note(
                    "gs:// with an HMAC key becomes s3:// with Google's endpoint; a service \
                     account on gs:// is the better way",
                ));
                (trimmed.replacen("gs://", "s3://", 1), Some(Store::S3))
            }
            "gs" => (trimmed.to_owned(), Some(Store::Gcs)),
            "abfs" | "abfss" => {
                let (uri, account) = azure_uri(uri)?;
                if let Some(account) = account {
                    text("account", &account);
                }
                (uri, Some(Store::Azure))
            }
            "hdfs" | "viewfs" => (trimmed.to_owned(), Some(Store::Hdfs)),
            _ => (trimmed.to_owned(), None),
        };
        Ok(Base {
            uri,
            store,
            options,
        })
    }

    fn add(&mut self, property: &Property) -> Result<(), ValueError> {
        let value = property.value.expose();
        let Some(rule) = find(&property.name) else {
            let what = "unknown to Trino 476 to 483, so it is left out";
            self.notes.push(property.note(what));
            return Ok(());
        };
        if environment_variable(value).is_some() && !matches!(rule, Rule::Option(..)) {
            return Err(ValueError::FromEnvironment);
        }
        match rule {
            Rule::Known => {}
            Rule::Option(store, name, form) => self.option(property, store, name, form)?,
            Rule::Setting(name, form) => {
                self.settings.insert(name, form.convert(value)?);
            }
            Rule::Plugin(name) => {
                self.plugin.insert(name, value.trim().to_owned());
            }
            Rule::PageSize => self.page_size(value)?,
            Rule::Endpoint(store) => self.endpoint(property, store)?,
            Rule::Encryption => match value.trim().to_ascii_uppercase().as_str() {
                "NONE" => {}
                "S3" => self.of(Store::S3, "aws_server_side_encryption", "AES256"),
                "KMS" => self.of(Store::S3, "aws_server_side_encryption", "aws:kms"),
                _ => return Err(ValueError::Encryption),
            },
            Rule::Nothing(why) => self
                .notes
                .push(property.note(format!("no counterpart: {why}"))),
        }
        Ok(())
    }

    fn option(
        &mut self,
        property: &Property,
        store: Store,
        name: &'static str,
        form: Form,
    ) -> Result<(), ValueError> {
        let value = property.value.expose();
        let value = match environment_variable(value) {
            Some(variable) => Value::Environment(variable.to_owned()),
            None => Value::Toml(form.convert(value)?),
        };
        let mut used = false;
        for base in self
            .bases
            .iter_mut()
            .filter(|base| base.store == Some(store))
        {
            base.options.insert(name, value.clone());
            used = true;
        }
        if !used {
            let what = "left out: no base directory is of that store";
            self.notes.push(property.note(what));
        }
        Ok(())
    }

    fn of(&mut self, store: Store, name: &'static str, value: &str) {
        for base in self
            .bases
            .iter_mut()
            .filter(|base| base.store == Some(store))
        {
            base.options.insert(name, Value::Toml(value.into()));
        }
    }

    fn endpoint(&mut self, property: &Property, store: Store) -> Result<(), ValueError> {
        let value = property.value.expose().trim();
        if store == Store::Azure
            && let Some(account) = account_of(value)
        {
            self.of(store, "account", &account);
            return Ok(());
        }
        self.option(property, store, "endpoint", Form::Text)?;
        if value.starts_with("http://") {
            let bases = self
                .bases
                .iter_mut()
                .filter(|base| base.store == Some(store));
            for base in bases {
                base.options.insert("allow_http", Value::Toml(true.into()));
            }
        }
        Ok(())
    }

    /// The plugin and the daemon limit pages, and a batch holds at least one page.
    fn page_size(&mut self, value: &str) -> Result<(), ValueError> {
        let ours = size(value)?;
        let bytes = units::parse_size(&ours)?;
        let default = LimitsConfig::default();
        self.plugin
            .insert("stopover.max-page-size", value.trim().to_owned());
        self.settings.insert("limits.max_page_size", ours.into());
        // A batch holds at least a page and its frame.
        let room = bytes.saturating_add(1 << 20);
        if room > default.max_batch_size {
            let batch = units::format_size(room);
            self.settings.insert("limits.max_batch_size", batch.into());
        }
        Ok(())
    }

    fn finish(&mut self) {
        // A connection string names its account.
        let named = self.bases.iter_mut();
        for base in named.filter(|base| base.options.contains_key("connection_string")) {
            base.options.remove("account");
        }
        for (index, base) in self.bases.iter().enumerate() {
            for (name, value) in &base.options {
                let Value::Environment(from) = value else {
                    continue;
                };
                self.notes.push(Note::general(format!(
                    "start the daemons with {}=${{{from}}}: Trino reads it from the environment",
                    variable(index, name)
                )));
            }
        }
    }

    /// The daemon's file.
    pub(super) fn daemon(&self, with_secrets: bool) -> String {
        let mut text = String::new();
        let mut last = "";
        for (key, value) in &self.settings {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            if section != last {
                let _ = writeln!(text, "[{section}]");
                last = section;
            }
            let _ = writeln!(text, "{name} = {value}");
        }
        let shown = |name: &str, value: &toml::Value| match with_secrets {
            true => value.clone(),
            false => masked(name, value),
        };
        for base in &self.bases {
            let uri = shown("uri", &base.uri.as_str().into());
            let _ = writeln!(text, "\n[[base_directory]]\nuri = {uri}");
            for (name, value) in &base.options {
                let _ = match value {
                    Value::Environment(_) => writeln!(text, "# {name}: from the environment"),
                    Value::Toml(value) => writeln!(text, "{name} = {}", shown(name, value)),
                };
            }
        }
        text
    }

    /// The plugin's file, for Trino's nodes.
    pub(super) fn plugin(&self) -> String {
        let mut text =
            "exchange-manager.name=stopover\nstopover.uris=http://127.0.0.1:7077\n".to_owned();
        for (name, value) in &self.plugin {
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }

    /// The environment variables that the daemon's file relies on, with values of no meaning.
    pub(super) fn placeholders(&self) -> Vec<(String, String)> {
        let bases = self.bases.iter().enumerate();
        let from_environment =
            |(_, value): &(&&str, &Value)| matches!(value, Value::Environment(_));
        let variables = bases.flat_map(|(index, base)| {
            let options = base.options.iter().filter(from_environment);
            options.map(move |(name, _)| (variable(index, name), "x".to_owned()))
        });
        variables.collect()
    }
}

/// The value of an option without what may be a secret in it: that of a secret, and the user part
/// and the query of a URI.
fn masked(name: &str, value: &toml::Value) -> toml::Value {
    match value.as_str() {
        _ if is_secret_name(name) => "***".into(),
        Some(text) => shown_uri(text).into(),
        None => value.clone(),
    }
}

fn variable(index: usize, option: &str) -> String {
    format!(
        "STOPOVER_BASE_DIRECTORIES__{index}__{}",
        option.to_uppercase()
    )
}

#[cfg(test)]
mod tests;
