//! Base directories as configured: their URIs made whole, their other keys passed on as text.
//!
//! Does: check and normalise URIs (local paths become absolute `file://` URIs), refuse duplicates
//! and nesting. Does not: know what options a store takes; `storage` checks those. Invariant: two
//! base directories never share a key space.

use std::path::{Component, Path, PathBuf};

use url::Url;

use super::BaseDirectoryConfig;
use super::layers::RawBase;
use super::problem::{Origin, Problem};
use super::raw::{Located, Raw};
use crate::id::{BaseName, InvalidId};

/// The schemes that `storage` knows.
pub const SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "memory"];

/// Where segments go if no base directory is configured.
pub const DEFAULT_URI: &str = "./data/stopover";

/// A base directory together with where it was configured.
#[derive(Debug, Clone)]
pub struct PlacedBase {
    /// What was configured.
    pub config: BaseDirectoryConfig,
    /// The key under which its URI stands, for messages.
    pub uri_key: String,
    /// Where its URI stands.
    pub origin: Origin,
}

/// Checks all base directories; relative paths lie under `cwd`.
pub fn resolve(
    raw: Option<Vec<RawBase>>,
    cwd: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<PlacedBase> {
    let raw = raw.unwrap_or_else(|| {
        let located = Located {
            raw: Raw::Text(DEFAULT_URI.to_owned()),
            origin: Origin::Default,
        };
        vec![RawBase {
            origin: Origin::Default,
            entries: [("uri".to_owned(), located)].into(),
        }]
    });
    if raw.is_empty() {
        problems.push(Problem {
            key: "base_directory".into(),
            value: None,
            origin: None,
            what:
                "the list is empty: name at least one, such as file:///var/lib/stopover, or leave \
                   the list out"
                    .into(),
        });
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
            "uri" => match normalise(&located.raw.plain(), cwd) {
                Ok(uri) => {
                    config.uri = uri;
                    origin = located.origin;
                }
                Err(what) => problems.push(located.problem(&key("uri"), what)),
            },
            "name" => match check_name(&located.raw.plain()) {
                Ok(name) => config.name = name,
                Err(what) => problems.push(located.problem(&key("name"), what)),
            },
            _ => {
                config.options.insert(name, located.raw.plain());
            }
        }
    }
    if config.uri.is_empty() && problems.len() == before {
        problems.push(Problem {
            key: key("uri"),
            value: None,
            origin: Some(base.origin),
            what: "it is missing: write uri = \"file:///…\" or s3://bucket/prefix".into(),
        });
    }
    (problems.len() == before).then_some(PlacedBase {
        config,
        uri_key: key("uri"),
        origin,
    })
}

/// Empty, or fit to be written into segments and handles.
fn check_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    match name.parse::<BaseName>() {
        Ok(name) => Ok(name.to_string()),
        Err(InvalidId { rule, .. }) => Err(format!("it is not a name: {rule}")),
    }
}

/// Makes a URI whole: `./data`, `/data`, `file:data` become `file:///…`; a slash at the end goes.
fn normalise(text: &str, cwd: &Path) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty: write file:///…, s3://bucket/prefix or a local path".into());
    }
    let Some((scheme, rest)) = text.split_once(':').filter(|(s, _)| is_scheme(s)) else {
        return local(text, cwd);
    };
    if scheme == "file" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let path = path
            .strip_prefix("localhost")
            .filter(|p| p.starts_with('/'))
            .unwrap_or(path);
        if !path.starts_with('/') {
            // A relative path is taken as it stands; an absolute one may hold escapes such as %20.
            return local(path, cwd);
        }
        return Url::parse(&format!("file://{path}"))
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| "it is no local path: write file:///…".to_owned())
            .and_then(|path| {
                let text = path.to_str();
                let text = text.ok_or("the name of a base directory must be UTF-8")?;
                local(text, cwd)
            });
    }
    if !SCHEMES.contains(&scheme) {
        return Err(unknown_scheme(scheme, rest));
    }
    let url = Url::parse(text).map_err(|e| format!("it is not a URI: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "credentials do not belong into a URI: give them as keys of the base directory or \
             in the environment"
                .into(),
        );
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!(
            "it names no bucket: write {scheme}://bucket/prefix"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a base directory has no ? or #: write options as keys of their own".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
}

fn unknown_scheme(scheme: &str, rest: &str) -> String {
    let hint = match scheme {
        "s3a" | "s3n" => Some("s3"),
        "gcs" => Some("gs"),
        "abfs" | "abfss" | "azure" | "wasb" | "wasbs" => Some("az"),
        _ => SCHEMES
            .into_iter()
            .find(|known| strsim::damerau_levenshtein(known, scheme) <= 1),
    };
    match hint {
        Some(known) if known != "az" => {
            format!("the scheme {scheme} is not known: write {known}:{rest}")
        }
        Some(_) => format!(
            "the scheme {scheme} is not known: write az://container/prefix and the key account"
        ),
        None => format!(
            "the scheme {scheme} is not known: it is one of {}",
            SCHEMES.join(", ")
        ),
    }
}

fn local(path: &str, cwd: &Path) -> Result<String, String> {
    let mut whole = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            other => whole.push(other),
        }
    }
    if whole.parent().is_none() {
        return Err("the root of the file system is no base directory: name a folder".into());
    }
    Url::from_file_path(&whole)
        .map(String::from)
        .map_err(|()| "it is no local path: write file:///…".to_owned())
}

/// Two base directories in the same place, one within another, or of one name.
fn refuse_overlaps(placed: &[PlacedBase], problems: &mut Vec<Problem>) {
    for (index, later) in placed.iter().enumerate() {
        for earlier in &placed[..index] {
            let what = if same_store(&earlier.config, &later.config) {
                overlap(&earlier.config.uri, &later.config.uri)
            } else {
                None
            };
            if let Some(what) = what {
                let what = format!(
                    "it {what} {} ({}): give each base directory a place of its own",
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
    Problem {
        key: key.to_owned(),
        value: Some(format!("{value:?}")),
        origin: Some(base.origin.clone()),
        what,
    }
}

/// Buckets of the same name at two endpoints or of two accounts are different places.
fn same_store(a: &BaseDirectoryConfig, b: &BaseDirectoryConfig) -> bool {
    ["endpoint", "account"]
        .iter()
        .all(|key| a.options.get(*key) == b.options.get(*key))
}

fn overlap(earlier: &str, later: &str) -> Option<&'static str> {
    let within = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    if earlier == later {
        Some("is the same place as")
    } else if within(earlier, later) {
        Some("lies within")
    } else if within(later, earlier) {
        Some("encloses")
    } else {
        None
    }
}
