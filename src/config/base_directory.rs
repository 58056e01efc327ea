//! Base directories as configured: URIs and names are checked, other keys are passed on as text.
//!
//! Does: check them with their origin, refuse duplicates and nesting. Does not: know the forms of a
//! URI (`base_uri`) or the options of a store (`store::options`). Invariant: two base directories
//! of one store never share a key space.

use std::path::Path;

use super::BaseDirectoryConfig;
use super::base_uri::{BaseUri, Overlap};
use super::layers::RawBase;
use super::problem::{Origin, Problem};
use super::raw::Raw;
use crate::id::{BaseName, InvalidId};

/// The base directory that is used if none is configured.
pub const DEFAULT_URI: &str = "./data/stopover";

/// A base directory together with where it was configured.
#[derive(Debug, Clone)]
pub struct PlacedBase {
    /// What was configured.
    pub config: BaseDirectoryConfig,
    /// The key of its URI, for messages.
    pub uri_key: String,
    /// Where its URI was set.
    pub origin: Origin,
}

/// Checks all base directories; relative paths are below `cwd`.
pub fn resolve(
    raw: Option<Vec<RawBase>>,
    cwd: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<PlacedBase> {
    let default = || vec![RawBase::of_uri(DEFAULT_URI.to_owned(), &Origin::Default)];
    let raw = raw.unwrap_or_else(default);
    if raw.is_empty() {
        let what = "the list is empty: name at least one, such as file:///var/lib/stopover, or \
                    leave the list out";
        problems.push(Problem::new("base_directory", None, None, what));
    }
    let placed: Vec<_> = raw
        .into_iter()
        .enumerate()
        .filter_map(|(index, base)| place(index, base, cwd, problems))
        .collect();
    refuse_overlaps(&placed, problems);
    placed
}

fn place(
    index: usize,
    base: RawBase,
    cwd: &Path,
    problems: &mut Vec<Problem>,
) -> Option<PlacedBase> {
    let key = |name: &str| format!("base_directory.{index}.{name}");
    let before = problems.len();
    let mut config = BaseDirectoryConfig::default();
    let mut origin = base.origin.clone();
    for (name, located) in base.entries {
        if let Raw::Unsupported(kind) = located.raw {
            let what = format!("an {kind} does not fit here: write text, a number, true or false");
            problems.push(located.problem(&key(&name), what));
            continue;
        }
        match name.as_str() {
            "uri" => match BaseUri::resolve(&located.raw.plain(), cwd) {
                Ok(uri) => {
                    config.uri = uri.to_string();
                    origin = located.origin;
                }
                Err(error) => problems.push(located.problem(&key("uri"), error.to_string())),
            },
            "name" => match check_name(&located.raw.plain()) {
                Ok(name) => config.name = name,
                Err(InvalidId { rule, .. }) => {
                    let what = format!("it is not a valid name: {rule}");
                    problems.push(located.problem(&key("name"), what));
                }
            },
            _ => {
                config.options.insert(name, located.raw.plain());
            }
        }
    }
    if config.uri.is_empty() && problems.len() == before {
        let what = "it is missing: write uri = \"file:///…\" or s3://bucket/prefix";
        problems.push(Problem::new(key("uri"), None, base.origin, what));
    }
    (problems.len() == before).then_some(PlacedBase {
        config,
        uri_key: key("uri"),
        origin,
    })
}

/// Empty, or valid in segments and handles.
fn check_name(name: &str) -> Result<String, InvalidId> {
    match name {
        "" => Ok(String::new()),
        name => Ok(name.parse::<BaseName>()?.to_string()),
    }
}

/// Refuses two base directories in the same location, one within another, or with one name.
fn refuse_overlaps(placed: &[PlacedBase], problems: &mut Vec<Problem>) {
    for (index, later) in placed.iter().enumerate() {
        for earlier in &placed[..index] {
            if let Some(overlap) = overlap(&earlier.config, &later.config) {
                let what = format!(
                    "it {overlap} {} ({}): give each base directory its own location",
                    earlier.config.uri, earlier.origin
                );
                problems.push(problem_at(later, &later.uri_key, &later.config.uri, what));
            }
            if !later.config.name.is_empty() && earlier.config.name == later.config.name {
                let key = later.uri_key.replace(".uri", ".name");
                let what = format!(
                    "{} ({}) has this name too: segments are found again by it, choose another",
                    earlier.config.uri, earlier.origin
                );
                problems.push(problem_at(later, &key, &later.config.name, what));
            }
        }
    }
}

fn problem_at(base: &PlacedBase, key: &str, value: &str, what: String) -> Problem {
    Problem::new(key, Some(format!("{value:?}")), base.origin.clone(), what)
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
