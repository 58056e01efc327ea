//! What has changed in the configuration of a running daemon.
//!
//! Does: load the configuration again and compare it with the one that is in effect, key by key.
//! Does not: apply anything (`crate::reload`). Invariant: no value of an option of a base directory
//! is in the outcome, since any of them may be a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use super::keys::{KEYS, Reload};
use super::load::Loaded;
use super::options::{is_credential, names_file};
use super::raw::Raw;
use super::{BaseDirectoryConfig, Config, read_file};

/// Replaces a value that is not shown.
const HIDDEN: &str = "(hidden)";
/// The key of the list of base directories.
const BASE_DIRECTORIES: &str = "base_directory";
/// Shown instead of the value of an option whose file has changed.
const NEW_CONTENT: &str = "(new content)";

/// The content of the files that options of base directories name, as a hash; `None` for one that
/// cannot be read.
#[derive(Debug, Clone, Default)]
pub struct BaseFiles(Vec<BTreeMap<String, Option<u64>>>);

impl BaseFiles {
    /// As they are now. Blocks on file I/O.
    pub fn read(config: &Config) -> Self {
        let of_base = |base: &BaseDirectoryConfig| {
            let files = base.options.iter().filter(|(name, _)| names_file(name));
            files
                .map(|(name, path)| (name.clone(), content_hash(path.expose())))
                .collect()
        };
        Self(config.base_directories.iter().map(of_base).collect())
    }
}

fn content_hash(path: &str) -> Option<u64> {
    let content = read_file(Path::new(path)).ok()?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(hasher.finish())
}

/// One setting that was edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`, or `base_directory.N.option`.
    pub key: String,
    /// The value in effect.
    pub from: String,
    /// The value that is configured now.
    pub to: String,
}

/// All that was edited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes that a running daemon applies.
    pub live: Vec<Change>,
    /// Changes that take effect at its next start.
    pub restart: Vec<Change>,
    /// Indexes of the base directories whose credentials are among `live`.
    pub credentials: Vec<usize>,
}

impl Changes {
    /// Compares what is in effect with what is configured now.
    pub fn between(in_effect: &Loaded, now: &Loaded) -> Self {
        let mut changes = Self::default();
        for (key, (before, after)) in KEYS.iter().zip(in_effect.written().zip(now.written())) {
            if before == after {
                continue;
            }
            let change = Change {
                key: key.name.to_owned(),
                from: before.to_owned(),
                to: after.to_owned(),
            };
            match key.reload {
                Reload::Live => changes.live.push(change),
                Reload::Restart => changes.restart.push(change),
            }
        }
        let (before, after) = (&in_effect.config, &now.config);
        changes.compare_hidden(before, after);
        changes.compare_bases(&before.base_directories, &after.base_directories);
        changes
    }

    /// Adds the options of base directories whose files have changed.
    pub fn add_files(&mut self, in_effect: &BaseFiles, now: &BaseFiles) {
        let other_places = |change: &Change| change.key == BASE_DIRECTORIES;
        if self.restart.iter().any(other_places) {
            return;
        }
        for (index, (before, after)) in in_effect.0.iter().zip(&now.0).enumerate() {
            let of_base = format!("base_directory.{index}.");
            let has = |changes: &[Change]| changes.iter().any(|c| c.key.starts_with(&of_base));
            if has(&self.restart) {
                continue;
            }
            for (name, content) in after {
                let key = format!("{of_base}{name}");
                let edited = self.live.iter().any(|change| change.key == key);
                if edited || before.get(name).is_none_or(|old| old == content) {
                    continue;
                }
                self.live.push(Change {
                    key,
                    from: HIDDEN.to_owned(),
                    to: NEW_CONTENT.to_owned(),
                });
                if !self.credentials.contains(&index) {
                    self.credentials.push(index);
                }
            }
        }
    }

    /// What is in effect once the live changes were applied.
    pub fn with_live_changes(&self, in_effect: &Loaded, now: &Loaded) -> Loaded {
        let mut after = in_effect.clone();
        copy_live_settings(&now.config, self, &mut after.config);
        for change in &self.live {
            after.set_written(&change.key, &change.to);
        }
        after
    }

    /// Compares headers, whose values are not shown.
    fn compare_hidden(&mut self, before: &Config, after: &Config) {
        const KEY: &str = "tracing.headers";
        let known = self.restart.iter().any(|change| change.key == KEY);
        if !known && before.tracing.headers != after.tracing.headers {
            self.restart.push(Change {
                key: KEY.to_owned(),
                from: HIDDEN.to_owned(),
                to: HIDDEN.to_owned(),
            });
        }
    }

    fn compare_bases(&mut self, before: &[BaseDirectoryConfig], after: &[BaseDirectoryConfig]) {
        let same_places = before.len() == after.len()
            && before
                .iter()
                .zip(after)
                .all(|(a, b)| (&a.uri, &a.name) == (&b.uri, &b.name));
        if !same_places {
            let shown = |bases: &[BaseDirectoryConfig]| {
                let uris = bases.iter().map(|base| base.uri.as_str());
                uris.collect::<Vec<_>>().join(",")
            };
            self.restart.push(Change {
                key: BASE_DIRECTORIES.to_owned(),
                from: shown(before),
                to: shown(after),
            });
            return;
        }
        for (index, (before, after)) in before.iter().zip(after).enumerate() {
            let names: BTreeSet<_> = before.options.keys().chain(after.options.keys()).collect();
            let changed = |name: &&&String| before.options.get(**name) != after.options.get(**name);
            let changed: Vec<_> = names.iter().filter(changed).collect();
            // All or nothing of one base directory: credentials belong to what they are for.
            let live = changed.iter().all(|name| is_credential(name));
            for name in &changed {
                let word = |config: &BaseDirectoryConfig| match config.options.get(**name) {
                    Some(_) => HIDDEN.to_owned(),
                    None => "(none)".to_owned(),
                };
                let change = Change {
                    key: format!("base_directory.{index}.{name}"),
                    from: word(before),
                    to: word(after),
                };
                match live {
                    true => self.live.push(change),
                    false => self.restart.push(change),
                }
            }
            if live && !changed.is_empty() {
                self.credentials.push(index);
            }
        }
    }
}

/// Copies the live settings.
fn copy_live_settings(from: &Config, changes: &Changes, into: &mut Config) {
    for key in KEYS.iter().filter(|key| key.reload == Reload::Live) {
        let shown = Raw::Text((key.show)(from).into());
        (key.set)(into, &shown).expect("what a setting shows is read back");
    }
    for index in &changes.credentials {
        let options = &from.base_directories[*index].options;
        into.base_directories[*index].options.clone_from(options);
    }
}
