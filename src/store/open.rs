//! Opening base directories from their configuration.
//!
//! Does: build the store of each, derive its name, refuse duplicates. Does not: parse URIs
//! (`config`) or access a store. Invariant: base directories that are opened together differ in
//! name and location, and none uses the credentials of another.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use object_store::memory::InMemory;
use parking_lot::Mutex;

use super::deadline::DeadlinePolicy;
use super::local::{LocalStore, WriteMode};
use super::object::progress::Connector;
use super::object::redact::Redactor;
use super::object::{ObjectBackend, az, client, gs, s3};
use super::opened::OpenedStore;
use super::options::Options;
pub use super::options::{OpenError, OpenReason};
use super::{StoreLimits, stable_hash};
use crate::config::{BaseDirectoryConfig, BaseUri, Scheme};
use crate::id::BaseName;
use crate::runtime::Runtime;

/// Upper bound of the option `max_concurrent_requests`.
const MAX_CONCURRENT_REQUESTS: usize = 4096;

/// Bounds of the option `timeout`.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// An opened base directory.
#[derive(Debug)]
pub struct Opened {
    /// As given, or derived from the location.
    pub name: BaseName,
    /// Without credentials.
    pub uri: BaseUri,
    /// Its store, without wrappers.
    pub opened: OpenedStore,
}

/// Opens all base directories.
///
/// # Errors
/// If one is misconfigured, two are the same, or there is none.
pub fn open_all(
    configs: &[BaseDirectoryConfig],
    runtime: &Runtime,
) -> Result<Vec<Opened>, OpenError> {
    let mut all: Vec<Opened> = Vec::new();
    for config in configs {
        let new = open(config, runtime)?;
        if let Some(reason) = all.iter().find_map(|old| conflict(old, &new)) {
            let (name, uri) = (new.name.as_str(), new.uri.to_string());
            return Err(OpenError::new(name, uri, reason));
        }
        all.push(new);
    }
    if all.is_empty() {
        let reason = "at least one [[base_directory]] is needed";
        return Err(OpenError::new("none", "the configuration", reason));
    }
    Ok(all)
}

/// What was configured may differ and still name the same location, for example through an
/// endpoint in the environment.
fn conflict(old: &Opened, new: &Opened) -> Option<String> {
    if old.opened.location == new.opened.location {
        let (name, uri) = (&old.name, &old.uri);
        return Some(format!(
            "it is the same location as {name} ({uri}); remove one"
        ));
    }
    let same_name = old.name == new.name;
    same_name.then(|| {
        format!(
            "{} has the same name; give one of them another `name`",
            old.uri
        )
    })
}

fn open(config: &BaseDirectoryConfig, runtime: &Runtime) -> Result<Opened, OpenError> {
    let uri = BaseUri::parse(&config.uri).map_err(|error| {
        let base = match config.name.as_str() {
            "" => "without a name",
            name => name,
        };
        OpenError::new(base, "its `uri`", error)
    })?;
    let mut options = Options::new(&config.name, &uri, &config.options);
    let mut opened = open_store(&uri, &mut options, runtime)?;
    let name = match config.name.as_str() {
        "" => format!("b-{:08x}", stable_hash(&[opened.location.as_bytes()]) >> 32),
        given => given.into(),
    };
    let name = name
        .parse()
        .map_err(|error: crate::id::InvalidId| options.error("option `name`", error))?;
    if let Some(limit) = options.take_number("max_concurrent_requests", MAX_CONCURRENT_REQUESTS)? {
        opened.limits.concurrency = limit;
    }
    options.finish()?;
    Ok(Opened { name, uri, opened })
}

fn open_store(
    uri: &BaseUri,
    options: &mut Options,
    runtime: &Runtime,
) -> Result<OpenedStore, OpenError> {
    let timeout = options.take_duration("timeout", TIMEOUTS)?;
    let with_timeout = |policy: DeadlinePolicy| DeadlinePolicy {
        timeout: timeout.unwrap_or(policy.timeout),
        ..policy
    };
    let connector = Connector {
        policy: with_timeout(DeadlinePolicy::REMOTE),
        clock: runtime.clock.clone(),
    };
    let mut opened = match uri.scheme() {
        Scheme::File => open_folder(uri, options, runtime)?,
        Scheme::Memory => open_memory(uri, options)?,
        Scheme::S3 => return s3::open(uri, options, connector),
        Scheme::Gs => return gs::open(uri, options, connector),
        Scheme::Az => return az::open(uri, options, connector),
    };
    opened.limits.deadline = with_timeout(opened.limits.deadline);
    Ok(opened)
}

fn open_folder(
    uri: &BaseUri,
    options: &mut Options,
    runtime: &Runtime,
) -> Result<OpenedStore, OpenError> {
    let folder = uri.folder().unwrap_or_default();
    let fsync = options.take_bool("fsync")?.unwrap_or(true);
    let direct = options.take_bool("direct_io")?.unwrap_or(true);
    let mode = match (fsync, direct) {
        (false, _) => WriteMode::Unsynced,
        (true, false) => WriteMode::Cached,
        (true, true) => WriteMode::Direct,
    };
    let location = format!("file://{}", folder.display());
    let mut store = LocalStore::new(folder, mode, runtime.random.next_u64());
    if options.take_bool("group_access")?.unwrap_or(false) {
        store = store.shared_with_group();
    }
    Ok(OpenedStore {
        location,
        store: Arc::new(store),
        limits: StoreLimits::LOCAL,
    })
}

/// The stores in the memory of this process, by location: base directories with the same URI share
/// their content, as two daemons share a bucket.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

fn open_memory(uri: &BaseUri, options: &Options) -> Result<OpenedStore, OpenError> {
    let prefix = client::prefix(uri, options)?;
    let location = format!("memory://{}/{prefix}", uri.bucket());
    let store = Arc::clone(MEMORY.lock().entry(location.clone()).or_default());
    Ok(OpenedStore {
        location,
        store: Arc::new(ObjectBackend::new(
            store,
            prefix,
            Redactor::default(),
            false,
        )),
        limits: StoreLimits::LOCAL,
    })
}
