//! The layers of the configuration: file, environment, flags.
//!
//! Does: turn each layer into values with their origin; later layers override earlier ones. Does
//! not: interpret values (`values`). Invariant: everything given becomes a value, a problem or a
//! notice; nothing is dropped silently.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::{Origin, Problem, is_secret};
use super::raw::{Located, Raw, from_toml};

/// One base directory as written.
#[derive(Debug, Clone)]
pub struct RawBase {
    /// Where its table starts.
    pub origin: Origin,
    /// Its keys.
    pub entries: BTreeMap<String, Located>,
}

/// The merged layers.
#[derive(Debug, Default)]
pub struct Layers {
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
    pub fn add_file(&mut self, path: &Path, text: &str) {
        let origin = |at: usize| Origin::File {
            path: path.to_owned(),
            line: text[..at.min(text.len())].matches('\n').count() + 1,
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            self.problems.push(Problem {
                key: "the file".into(),
                value: None,
                origin: Some(origin(error.span().map_or(0, |s| s.start))),
                what: format!("it is not TOML: {}", error.message().replace('\n', "; ")),
            });
        }
        for (name, value) in table.get_ref() {
            let section: &str = name.get_ref();
            let line = origin(name.span().start);
            match value.get_ref() {
                DeValue::Array(bases) if section == "base_directory" => {
                    let bases = bases.iter().collect::<Vec<_>>();
                    self.add_file_bases(&bases, &line, &origin);
                }
                DeValue::Table(keys) if section != "base_directory" => {
                    for (key, value) in keys {
                        let at = origin(key.span().start);
                        self.set(
                            &format!("{section}.{}", key.get_ref()),
                            from_toml(value),
                            at,
                        );
                    }
                }
                _ if section == "base_directory" => {
                    let what = "each base directory begins with [[base_directory]], in double \
                                brackets";
                    self.problem(section, None, line, what.into());
                }
                _ => self.unknown_key(section, &from_toml(value), line),
            }
        }
    }

    fn add_file_bases(
        &mut self,
        bases: &[&Spanned<DeValue<'_>>],
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

    /// Adds environment variables; only `STOPOVER_…` are considered.
    pub fn add_environment(&mut self, variables: &[(String, String)]) {
        let mut sorted: Vec<_> = variables.iter().collect();
        // The list of base directories comes before their single keys, and indexes in order.
        sorted.sort_by_key(|(name, _)| (name.matches("__").count(), name.len(), name.as_str()));
        for (name, value) in sorted {
            let Some(rest) = name.strip_prefix("STOPOVER_") else {
                continue;
            };
            let origin = Origin::Environment(name.clone());
            let parts: Vec<_> = rest.split("__").map(str::to_ascii_lowercase).collect();
            match parts.as_slice() {
                [name] if name == "config" => {}
                [name] if name == "base_directories" || name == "base_directory" => {
                    let uris = value.split(',').map(str::trim).filter(|u| !u.is_empty());
                    self.replace_bases(uris.map(str::to_owned).collect(), &origin);
                }
                [lone] => self.unseparated_variable(name, lone),
                [first, index, key] if is_bases(first) => {
                    self.set_base(index, key, Raw::Text(value.clone()), origin);
                }
                _ => self.set(&parts.join("."), Raw::Text(value.clone()), origin),
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
    pub fn add_flag(&mut self, flag: &str, key: &str, value: &str) {
        let origin = Origin::Flag(flag.to_owned());
        let parts: Vec<_> = key.split('.').collect();
        match parts.as_slice() {
            [first, index, key] if is_bases(first) => {
                self.set_base(index, key, Raw::Text(value.to_owned()), origin);
            }
            _ => self.set(key, Raw::Text(value.to_owned()), origin),
        }
    }

    /// Replaces the base directories of earlier layers.
    pub fn replace_bases(&mut self, uris: Vec<String>, origin: &Origin) {
        let base = |uri| RawBase {
            origin: origin.clone(),
            entries: BTreeMap::from([(
                "uri".to_owned(),
                Located {
                    raw: Raw::Text(uri),
                    origin: origin.clone(),
                },
            )]),
        };
        self.bases = Some(uris.into_iter().map(base).collect());
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
                bases[index]
                    .entries
                    .insert(key.to_owned(), Located { raw, origin });
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
            self.unknown_key(key, &raw, origin);
        }
    }

    fn unknown_key(&mut self, key: &str, raw: &Raw, origin: Origin) {
        let way_out = keys::nearest(key).map_or_else(
            || "docs/configuration.md lists all settings".to_owned(),
            |nearest| format!("did you mean {nearest}?"),
        );
        let value = (!is_secret(key) && !matches!(raw, Raw::Unsupported(_))).then(|| raw.shown());
        let what = format!("there is no such setting: {way_out}");
        self.problem(key, value, origin, what);
    }

    fn problem(&mut self, key: &str, value: Option<String>, origin: Origin, what: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            value,
            origin: Some(origin),
            what,
        });
    }
}

fn is_bases(section: &str) -> bool {
    section == "base_directories" || section == "base_directory"
}
