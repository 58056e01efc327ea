//! The layers of the configuration: file, environment, flags.
//!
//! Does: turn each layer into values with their origin; later layers override earlier ones. Does
//! not: interpret values (`values`). Invariant: every input becomes a value, a problem or a notice;
//! nothing is dropped silently.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::located::Located;
use super::problem::{Origin, Problem};
use super::raw::{Raw, from_toml};

/// One base directory as written.
#[derive(Debug, Clone)]
pub(super) struct RawBase {
    /// Where its table starts.
    pub origin: Origin,
    /// Its keys.
    pub entries: BTreeMap<String, Located>,
}

impl RawBase {
    /// A base directory with nothing but its URI.
    pub(super) fn of_uri(uri: &str, origin: &Origin) -> Self {
        Self {
            origin: origin.clone(),
            entries: [("uri".to_owned(), Located::text(uri, origin))].into(),
        }
    }
}

/// The merged layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Values by `section.key`.
    pub settings: BTreeMap<String, Located>,
    /// Base directories; `None` if no layer names any.
    pub bases: Option<Vec<RawBase>>,
    /// What could not be used.
    pub problems: Vec<Problem>,
    /// What was ignored, for the log.
    pub notices: Vec<String>,
}

impl Layers {
    /// Adds a TOML file.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let origin = |at: usize| Origin::File {
            path: path.to_owned(),
            line: text[..at.min(text.len())].matches('\n').count() + 1,
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = origin(error.span().map_or(0, |s| s.start));
            let what = format!("it is not TOML: {}", error.message().replace('\n', "; "));
            self.problem("the file", None, at, what);
        }
        for (name, value) in table.get_ref() {
            let section: &str = name.get_ref();
            let line = origin(name.span().start);
            match value.get_ref() {
                DeValue::Array(bases) if section == "base_directory" => {
                    self.add_file_bases(bases.iter(), &line, &origin);
                }
                DeValue::Table(keys) if section != "base_directory" => {
                    for (key, value) in keys {
                        let (name, at) = (key.get_ref(), origin(key.span().start));
                        self.set(&format!("{section}.{name}"), from_toml(value), at);
                    }
                }
                _ if section == "base_directory" => {
                    let what = "each base directory begins with [[base_directory]], in double \
                                brackets";
                    self.problem(section, None, line, what.into());
                }
                _ => self.unknown_key(section, from_toml(value), line),
            }
        }
    }

    fn add_file_bases<'a>(
        &mut self,
        bases: impl Iterator<Item = &'a Spanned<DeValue<'a>>>,
        line: &Origin,
        origin: &impl Fn(usize) -> Origin,
    ) {
        let mut found = Vec::new();
        for base in bases {
            let Some(table) = base.get_ref().as_table() else {
                let what =
                    "a base directory is a table: [[base_directory]] and below it uri = \"…\"";
                self.problem("base_directory", None, line.clone(), what.into());
                continue;
            };
            let entries = table.iter().map(|(key, value)| {
                let at = Located {
                    raw: from_toml(value),
                    origin: origin(key.span().start),
                };
                (key.get_ref().to_string(), at)
            });
            found.push(RawBase {
                origin: origin(base.span().start),
                entries: entries.collect(),
            });
        }
        self.bases = Some(found);
    }

    /// A key that holds a secret.
    pub(super) fn any_secret(&self) -> Option<String> {
        let settings = self.settings.iter();
        let settings = settings.map(|(key, value)| (key.clone(), value));
        let bases = self.bases.iter().flatten().enumerate();
        let options = bases.flat_map(|(index, base)| {
            let entries = base.entries.iter();
            entries.map(move |(key, value)| (format!("base_directory.{index}.{key}"), value))
        });
        let mut all = settings.chain(options);
        all.find(|(key, value)| value.holds_secret(key))
            .map(|(key, _)| key)
    }

    /// Adds environment variables; only `STOPOVER_…` are considered.
    pub(super) fn add_environment(&mut self, variables: &[(String, String)]) {
        let mut sorted: Vec<_> = variables.iter().collect();
        // The list of base directories comes before their single keys, and indexes in order.
        sorted.sort_by_key(|(name, _)| (name.matches("__").count(), name.len(), name.as_str()));
        for (name, value) in sorted {
            let Some(rest) = name.strip_prefix("STOPOVER_") else {
                continue;
            };
            let origin = Origin::Environment(name.clone());
            let lower = rest.to_ascii_lowercase();
            match lower.split("__").collect::<Vec<_>>().as_slice() {
                ["config"] => {}
                [name] if is_bases(name) => {
                    let uris = value.split(',').map(str::trim).filter(|u| !u.is_empty());
                    self.replace_bases(uris, &origin);
                }
                [lone] => self.unseparated_variable(name, lone),
                parts => self.set_text(parts, value, origin),
            }
        }
    }

    /// Handles a variable without `__`, which names no setting. One that resembles a setting is an
    /// error; any other is unrelated: Kubernetes sets `STOPOVER_SERVICE_HOST` for a service named
    /// `stopover`.
    fn unseparated_variable(&mut self, name: &str, lone: &str) {
        let mut names = keys::names().filter(|_| lone.len() <= keys::LONGEST_MISSPELT);
        let meant = names.find(|key| {
            let leaf = key.split('.').nth(1).unwrap_or(key);
            [leaf, &key.replace('.', "_")]
                .iter()
                .any(|known| strsim::normalized_damerau_levenshtein(known, lone) > 0.85)
        });
        match meant {
            Some(key) => {
                let variable = format!("STOPOVER_{}", key.replace('.', "__").to_uppercase());
                let what = format!("no setting has this name: write {variable}");
                self.problem(name, None, Origin::Environment(name.to_owned()), what);
            }
            None => self.notices.push(format!(
                "environment variable {name} names no setting and is ignored (settings are written \
                 STOPOVER_SECTION__KEY)"
            )),
        }
    }

    /// Adds a flag that sets one setting, such as `--listen` or `--set section.key=value`.
    pub(super) fn add_flag(&mut self, flag: &str, key: &str, value: &str) {
        let parts: Vec<_> = key.split('.').collect();
        self.set_text(&parts, value, Origin::Flag(flag.to_owned()));
    }

    fn set_text(&mut self, parts: &[&str], value: &str, origin: Origin) {
        let raw = Raw::Text(value.into());
        match parts {
            [first, index, key] if is_bases(first) => self.set_base(index, key, raw, origin),
            _ => self.set(&parts.join("."), raw, origin),
        }
    }

    /// Replaces the base directories of earlier layers.
    pub(super) fn replace_bases<'a>(
        &mut self,
        uris: impl Iterator<Item = &'a str>,
        origin: &Origin,
    ) {
        self.bases = Some(uris.map(|uri| RawBase::of_uri(uri, origin)).collect());
    }

    fn set_base(&mut self, index: &str, key: &str, raw: Raw, origin: Origin) {
        let shown = format!("base_directory.{index}.{key}");
        let count = self.bases.as_ref().map_or(0, Vec::len);
        match index.parse::<usize>() {
            Ok(index) if index <= count => {
                let bases = self.bases.get_or_insert_default();
                if index == count {
                    bases.push(RawBase {
                        origin: origin.clone(),
                        entries: BTreeMap::new(),
                    });
                }
                let entries = &mut bases[index].entries;
                entries.insert(key.to_owned(), Located { raw, origin });
            }
            _ => {
                let what = format!(
                    "base directories are numbered 0, 1, 2 … without gaps, and {count} are given \
                     so far: the next is {count}"
                );
                self.problem(&shown, None, origin, what);
            }
        }
    }

    fn set(&mut self, key: &str, raw: Raw, origin: Origin) {
        if keys::find(key).is_some() {
            self.settings
                .insert(key.to_owned(), Located { raw, origin });
        } else {
            self.unknown_key(key, raw, origin);
        }
    }

    fn unknown_key(&mut self, key: &str, raw: Raw, origin: Origin) {
        let way_out = keys::nearest(key).map_or_else(
            || "docs/configuration.md lists all settings".to_owned(),
            |nearest| format!("did you mean {nearest}?"),
        );
        let what = format!("there is no such setting: {way_out}");
        self.problems
            .push(Located { raw, origin }.problem(key, what));
    }

    fn problem(&mut self, key: &str, value: Option<String>, origin: Origin, what: String) {
        self.problems.push(Problem::new(key, value, origin, what));
    }
}

fn is_bases(section: &str) -> bool {
    section == "base_directories" || section == "base_directory"
}
