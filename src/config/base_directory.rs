//! Base directories as configured: each key is checked, and stored with its origin.
//!
//! Does: check them all, refuse duplicates and nesting. Does not: parse URIs (`base_uri`), define
//! the names of options (`options`) or check their combinations (`store`). Invariant: two base
//! directories of one store never share a key space; no message contains the value of an option.

use std::collections::BTreeMap;
use std::path::Path;

use super::BaseDirectoryConfig;
use super::base_uri::{BaseUri, BaseUriError, Overlap, Scheme};
use super::layers::RawBase;
use super::options;
use super::problem::{Origin, Problem};
use super::raw::Raw;
use super::secret::{Secret, shown_uri};
use crate::id::{BaseName, InvalidId};

/// The base directory that is used if none is configured.
pub(super) const DEFAULT_URI: &str = "./data/stopover";

/// A base directory together with where it was configured.
#[derive(Debug, Clone)]
pub(super) struct PlacedBase {
    /// What was configured.
    pub config: BaseDirectoryConfig,
    /// The place of each of its keys.
    pub places: Places,
}

/// Where the keys of one base directory were written.
#[derive(Debug, Clone)]
pub(super) struct Places {
    index: usize,
    table: Origin,
    origins: BTreeMap<String, Origin>,
}

impl Places {
    /// A key in messages.
    fn key(&self, name: &str) -> String {
        format!("base_directory.{}.{name}", self.index)
    }

    /// Where a key was written, or the table if it was not.
    fn of(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&self.table)
    }

    /// A problem with a key, whose value is not shown: it may be a secret.
    pub(super) fn problem(&self, name: &str, what: impl Into<String>) -> Problem {
        Problem::new(self.key(name), None, self.of(name).clone(), what)
    }
}

/// Checks all base directories; relative paths are below `cwd`.
pub(super) fn resolve(
    raw: Option<Vec<RawBase>>,
    cwd: &Path,
    notices: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Vec<PlacedBase> {
    let default = || vec![RawBase::of_uri(DEFAULT_URI, &Origin::Default)];
    let raw = raw.unwrap_or_else(default);
    if raw.is_empty() {
        let what = "the list is empty: name at least one, such as file:///var/lib/stopover, or \
                    leave the list out";
        problems.push(Problem::new("base_directory", None, None, what));
    }
    let placed: Vec<_> = raw
        .into_iter()
        .enumerate()
        .filter_map(|(index, base)| place(index, base, cwd, notices, problems))
        .collect();
    refuse_overlaps(&placed, problems);
    placed
}

fn place(
    index: usize,
    base: RawBase,
    cwd: &Path,
    notices: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Option<PlacedBase> {
    let before = problems.len();
    let origins = base
        .entries
        .iter()
        .map(|(key, at)| (key.clone(), at.origin.clone()));
    let places = Places {
        index,
        table: base.origin,
        origins: origins.collect(),
    };
    let mut values = BTreeMap::new();
    for (name, mut located) in base.entries {
        if let Err(problem) = located.tidy(&places.key(&name), notices) {
            problems.push(problem);
        } else if let Raw::Unsupported(kind) = located.raw {
            let what = format!("an {kind} does not fit here: write text, a number, true or false");
            problems.push(places.problem(&name, what));
        } else {
            values.insert(name, located.raw.plain());
        }
    }
    let (uri, name) = (values.remove("uri"), values.remove("name"));
    // Before what is missing: it may have been written under one of these names.
    let scheme = uri.as_ref().and_then(|uri| Scheme::of(uri.expose()));
    for (name, value) in &values {
        if let Some(fault) = options::fault(scheme, name, value.expose()) {
            problems.push(places.problem(name, format!("`{name}` {fault}")));
        }
    }
    if uri.is_none() && places.origins.contains_key("uri") {
        return None;
    }
    let uri = check_uri(&places, uri.as_ref(), cwd).map_err(|problem| problems.push(problem));
    let name = check_name(&places, name.as_ref()).map_err(|problem| problems.push(problem));
    let config = BaseDirectoryConfig {
        uri: uri.ok()?,
        name: name.ok()?,
        options: values,
    };
    (problems.len() == before).then_some(PlacedBase { config, places })
}

fn check_uri(places: &Places, uri: Option<&Secret>, cwd: &Path) -> Result<String, Problem> {
    let Some(uri) = uri.map(Secret::expose) else {
        let what = "it is missing: write uri = \"file:///…\" or s3://bucket/prefix";
        return Err(places.problem("uri", what));
    };
    BaseUri::resolve(uri, cwd)
        .map(|uri| uri.to_string())
        .map_err(|error| {
            let shown = match error {
                BaseUriError::Credentials | BaseUriError::ControlCharacter => None,
                _ => Some(format!("{:?}", shown_uri(uri))),
            };
            let origin = places.of("uri").clone();
            Problem::new(places.key("uri"), shown, origin, error.to_string())
        })
}

/// Empty, or valid in segments and handles.
fn check_name(places: &Places, name: Option<&Secret>) -> Result<String, Problem> {
    let name = name.map_or("", Secret::expose);
    if name.is_empty() {
        return Ok(String::new());
    }
    let valid: Result<BaseName, InvalidId> = name.parse();
    let valid = valid.map_err(|InvalidId { rule, .. }| {
        places.problem("name", format!("it is not a valid name: {rule}"))
    })?;
    Ok(valid.to_string())
}

/// Refuses two base directories in the same location, one within another, or with one name.
fn refuse_overlaps(placed: &[PlacedBase], problems: &mut Vec<Problem>) {
    for (index, later) in placed.iter().enumerate() {
        for earlier in &placed[..index] {
            let uri = &earlier.config.uri;
            let origin = earlier.places.of("uri");
            if let Some(overlap) = overlap(&earlier.config, &later.config) {
                let what = format!(
                    "it {overlap} {uri} ({origin}): give each base directory its own location"
                );
                problems.push(problem_at(later, "uri", &later.config.uri, what));
            }
            if !later.config.name.is_empty() && earlier.config.name == later.config.name {
                let what = format!(
                    "{uri} ({origin}) has this name too: segments are found again by it, choose \
                     another"
                );
                problems.push(problem_at(later, "name", &later.config.name, what));
            }
        }
    }
}

fn problem_at(base: &PlacedBase, key: &str, value: &str, what: String) -> Problem {
    Problem {
        value: Some(format!("{value:?}")),
        ..base.places.problem(key, what)
    }
}

/// Buckets of the same name at two endpoints or of two accounts are different locations.
fn overlap(earlier: &BaseDirectoryConfig, later: &BaseDirectoryConfig) -> Option<Overlap> {
    let same = |key| earlier.options.get(key) == later.options.get(key);
    if !same("endpoint") || !same("account") {
        return None;
    }
    let uri = |config: &BaseDirectoryConfig| BaseUri::parse(&config.uri).ok();
    uri(earlier)?.overlap(&uri(later)?)
}
