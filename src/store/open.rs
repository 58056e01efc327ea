//! Opening a base directory from its configuration.
//!
//! Does: read the URI and the options, derive the name, build the store. Does not: touch the store;
//! open the clouds' clients (`cloud`). Invariant: two base directories that open together have
//! different names and different places, and nothing of one's credentials reaches the other.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use url::Url;

use super::limit::StoreLimits;
use super::local::{LocalStore, WriteMode};
use super::object::ObjectBackend;
use super::object::cloud;
use super::object::error::Redactor;
pub use super::options::OpenError;
use super::options::{Options, open_error};
use super::{Store, keys, stable_hash};
use crate::config::BaseDirectoryConfig;
use crate::id::BaseName;
use crate::runtime::Runtime;

/// Most requests that may be allowed at a time.
const MAX_CONCURRENT_REQUESTS: usize = 4096;

/// A base directory, opened.
#[derive(Debug)]
pub struct Opened {
    /// Its name, given or derived.
    pub name: BaseName,
    /// Its URI; it holds no credentials, or it would have been refused.
    pub uri: String,
    /// What tells its place from any other.
    pub place: String,
    /// Its store, bare.
    pub store: Arc<dyn Store>,
    /// What it is allowed.
    pub limits: StoreLimits,
}

/// A store and the place it stands for.
pub(crate) struct Built {
    pub place: String,
    pub store: Arc<dyn Store>,
    pub limits: StoreLimits,
}

/// Opens all, and refuses those that are the same.
pub fn open_all(
    configs: &[BaseDirectoryConfig],
    runtime: &Runtime,
) -> Result<Vec<Opened>, OpenError> {
    let mut opened: Vec<Opened> = Vec::new();
    for config in configs {
        let new = open(config, runtime)?;
        for old in &opened {
            let reason = if old.place == new.place {
                format!(
                    "it is the same place as {} ({}); remove one",
                    old.name, old.uri
                )
            } else if old.name == new.name {
                format!(
                    "{} has the same name; give one of them another `name`",
                    old.uri
                )
            } else {
                continue;
            };
            return Err(open_error(new.name.as_str(), new.uri, reason));
        }
        opened.push(new);
    }
    if opened.is_empty() {
        let message = "at least one [[base_directory]] is needed".into();
        return Err(open_error("none", "the configuration".into(), message));
    }
    Ok(opened)
}

fn open(config: &BaseDirectoryConfig, runtime: &Runtime) -> Result<Opened, OpenError> {
    let url = parse_uri(config)?;
    let label = if config.name.is_empty() {
        shown(&url)
    } else {
        config.name.clone()
    };
    let mut built = build(&label, &url, config, runtime)?;
    let name = match config.name.as_str() {
        "" => format!("b-{:08x}", stable_hash(&[built.0.place.as_bytes()]) >> 32),
        given => given.into(),
    };
    let name = name.parse().map_err(|error: crate::id::InvalidId| {
        open_error(&label, "option `name`".into(), error.to_string())
    })?;
    let concurrency = built
        .1
        .take_number("max_concurrent_requests", MAX_CONCURRENT_REQUESTS)?;
    if let Some(concurrency) = concurrency {
        built.0.limits.concurrency = concurrency;
    }
    built.1.finish()?;
    let Built {
        place,
        store,
        limits,
    } = built.0;
    Ok(Opened {
        name,
        uri: shown(&url),
        place,
        store,
        limits,
    })
}

fn parse_uri(config: &BaseDirectoryConfig) -> Result<Url, OpenError> {
    let refuse = |message: &str| {
        let base = if config.name.is_empty() {
            "without a name"
        } else {
            &config.name
        };
        Err(open_error(base, "its `uri`".into(), message.into()))
    };
    let Ok(url) = Url::parse(&config.uri) else {
        return refuse(
            "it is not a URI; write for example file:///var/lib/stopover or s3://bucket/prefix",
        );
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "credentials do not belong into the URI; use the options or the environment",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("it has a `?` or `#` part; options are set beside it, not in it");
    }
    Ok(url)
}

/// The URI without what `parse_uri` would refuse, and without a final slash.
fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned() + if url.path() == "/" { "/" } else { "" }
}

fn build(
    label: &str,
    url: &Url,
    config: &BaseDirectoryConfig,
    runtime: &Runtime,
) -> Result<(Built, Options), OpenError> {
    let options = |scheme| Options::new(label, scheme, &config.options);
    match url.scheme() {
        "file" => build_file(label, url, options("file"), runtime),
        "memory" => build_memory(label, url, options("memory")),
        "s3" => cloud::build_s3(label, url, options("s3")),
        "gs" => cloud::build_gs(label, url, options("gs")),
        "az" => cloud::build_az(label, url, options("az")),
        other => Err(open_error(
            label,
            "its `uri`".into(),
            format!("`{other}://` is unknown; there are file, s3, gs, az and memory"),
        )),
    }
}

fn build_file(
    label: &str,
    url: &Url,
    mut options: Options,
    runtime: &Runtime,
) -> Result<(Built, Options), OpenError> {
    let root = match (url.host_str(), url.to_file_path()) {
        (None | Some(""), Ok(root)) if root.parent().is_some() => root,
        _ => {
            let message = "it must be file:/// and the absolute path of a folder other than /";
            return Err(open_error(label, "its `uri`".into(), message.into()));
        }
    };
    let fsync = options.take_bool("fsync")?.unwrap_or(true);
    let direct = options.take_bool("direct_io")?.unwrap_or(true);
    let writing = match (fsync, direct) {
        (false, _) => WriteMode::Unsynced,
        (true, false) => WriteMode::Cached,
        (true, true) => WriteMode::Direct,
    };
    // Components drop a final slash and doubled ones.
    let root: std::path::PathBuf = root.components().collect();
    let place = format!("file://{}", root.display());
    let store = LocalStore::new(root, writing, runtime.random.next_u64());
    Ok((
        Built {
            place,
            store: Arc::new(store),
            limits: StoreLimits::LOCAL,
        },
        options,
    ))
}

/// The stores in memory of this process, by place: those who open the same URI share the content,
/// as two daemons share a bucket.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

fn build_memory(label: &str, url: &Url, options: Options) -> Result<(Built, Options), OpenError> {
    let prefix = prefix(label, url)?;
    let host = url.host_str().unwrap_or_default();
    let place = format!("memory://{host}/{prefix}");
    let store = Arc::clone(MEMORY.lock().entry(place.clone()).or_default());
    let store = ObjectBackend::new(store, prefix, Redactor::default(), false);
    Ok((
        Built {
            place,
            store: Arc::new(store),
            limits: StoreLimits::LOCAL,
        },
        options,
    ))
}

/// The path of a URI as the prefix of object keys.
pub(super) fn prefix(label: &str, url: &Url) -> Result<Path, OpenError> {
    let path = Path::from_url_path(url.path().trim_matches('/'));
    let path = path.map_err(|error| open_error(label, "its `uri`".into(), error.to_string()))?;
    let longest = keys::LONGEST_KEY;
    if path.as_ref().len() + longest > 1024 {
        let message = format!("its path is longer than {} bytes", 1024 - longest);
        return Err(open_error(label, "its `uri`".into(), message));
    }
    Ok(path)
}
