//! Opening base directories from their configuration.
//!
//! Does: build the store of each, derive its name, refuse duplicates. Does not: parse URIs
//! (`config`) or access a store. Invariant: base directories that are opened together differ in
//! name and location, and none uses the credentials of another.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;
use parking_lot::Mutex;

use super::deadline::DeadlinePolicy;
use super::local::{LocalStore, WriteMode};
use super::object::issued::IssuedSecrets;
use super::object::progress::Connector;
use super::object::redact::Redactor;
use super::object::{ObjectBackend, az, client, gs, s3};
use super::opened::OpenedStore;
use super::options::Options;
pub use super::options::{OpenError, OpenReason};
use super::place::Place;
use super::{StoreLimits, stable_hash};
use crate::config::units::SizeOrPercent;
use crate::config::{BaseDirectoryConfig, BaseUri, Draft, Scheme, Secret, cloud_variables};
use crate::id::{BaseName, InvalidId};
use crate::runtime::Runtime;

/// An opened base directory.
#[derive(Debug)]
pub struct Opened {
    /// As configured, or derived from the location.
    pub name: BaseName,
    /// Without credentials.
    pub uri: BaseUri,
    /// Its store, without wrappers.
    pub opened: OpenedStore,
    /// Whether only `stopover init` may create its identity.
    pub require_init: bool,
}

/// Opens all base directories, with the environment variables of this process.
///
/// # Errors
/// If one is misconfigured, two are the same, or there is none.
pub fn open_all(
    configs: &[BaseDirectoryConfig],
    runtime: &Runtime,
) -> Result<Vec<Opened>, OpenError> {
    open_in(configs, &cloud_variables(), runtime)
}

/// Opens all base directories, with the given environment variables.
///
/// # Errors
/// If one is misconfigured, two are the same, or there is none.
pub fn open_in(
    configs: &[BaseDirectoryConfig],
    variables: &[(String, Secret)],
    runtime: &Runtime,
) -> Result<Vec<Opened>, OpenError> {
    let (mut all, mut places): (Vec<Opened>, Vec<Place>) = Default::default();
    for config in configs {
        let (opened, _) = open(config, variables, runtime);
        let new = opened.map_err(|faults| {
            let unnamed = || OpenError::new(&config.name, "its `uri`", "it cannot be opened");
            faults.into_iter().next().unwrap_or_else(unnamed)
        })?;
        let place = Place::of(&new.opened.location);
        let mut earlier = all.iter().zip(&places);
        let conflict = earlier.find_map(|(old, at)| conflict((old, at), (&new, &place)));
        if let Some(reason) = conflict {
            let (name, uri) = (new.name.as_str(), new.uri.to_string());
            return Err(OpenError::new(name, uri, reason));
        }
        all.push(new);
        places.push(place);
    }
    if all.is_empty() {
        let reason = "at least one [[base_directory]] is needed";
        return Err(OpenError::new("none", "the configuration", reason));
    }
    Ok(all)
}

/// The faults of each base directory, by its index, and notices about them.
#[derive(Debug, Default)]
pub struct Review {
    /// All faults, not only the first.
    pub faults: Vec<(usize, OpenError)>,
    /// Messages for the operator, such as variables that were adapted.
    pub notices: Vec<String>,
}

/// Opens each base directory separately to detect all its faults.
pub fn review(
    configs: &[BaseDirectoryConfig],
    variables: &[(String, Secret)],
    runtime: &Runtime,
) -> Review {
    let mut review = Review::default();
    for (index, config) in configs.iter().enumerate() {
        let (opened, notices) = open(config, variables, runtime);
        let faults = opened.err().unwrap_or_default();
        review
            .faults
            .extend(faults.into_iter().map(|fault| (index, fault)));
        for notice in notices {
            if !review.notices.contains(&notice) {
                review.notices.push(notice);
            }
        }
    }
    review
}

/// Adds the faults of the base directories of a configuration to its problems.
pub fn check_bases(draft: &mut Draft, variables: &[(String, Secret)], runtime: &Runtime) {
    let review = review(&draft.loaded.config.base_directories, variables, runtime);
    draft.loaded.notices.extend(review.notices);
    for (base, fault) in review.faults {
        let option = fault.option.as_deref().unwrap_or("uri");
        let what = match &fault.option {
            Some(_) => fault.reason.to_string(),
            None => format!("{}: {}", fault.object, fault.reason),
        };
        draft.refuse_option(base, option, what);
    }
}

/// What was configured may differ and still name the same location, for example through an
/// endpoint in the environment, the client's own name of an option, or a symbolic link.
fn conflict((old, earlier): (&Opened, &Place), (new, later): (&Opened, &Place)) -> Option<String> {
    if let Some(overlap) = earlier.overlap(later) {
        let (name, uri) = (&old.name, &old.uri);
        return Some(format!("it {overlap} {name} ({uri}); remove one"));
    }
    let same_name = old.name == new.name;
    same_name.then(|| {
        format!(
            "{} has the same name; give one of them another `name`",
            old.uri
        )
    })
}

/// The base directory or all of its faults, at least one; and notices.
fn open(
    config: &BaseDirectoryConfig,
    variables: &[(String, Secret)],
    runtime: &Runtime,
) -> (Result<Opened, Vec<OpenError>>, Vec<String>) {
    let uri = match BaseUri::parse(&config.uri) {
        Ok(uri) => uri,
        Err(error) => {
            let base = match config.name.as_str() {
                "" => "without a name",
                name => name,
            };
            let fault = OpenError::new(base, "its `uri`", error);
            return (Err(vec![fault]), Vec::new());
        }
    };
    let mut options = Options::new(&config.name, &uri, &config.options, variables);
    let limit = options.take_number("max_concurrent_requests");
    let require_init = options.take_bool("require_init").unwrap_or(false);
    let opened = open_store(&uri, &mut options, runtime);
    let opened = opened.and_then(|mut opened| {
        opened.limits.concurrency = limit.unwrap_or(opened.limits.concurrency);
        let name = match config.name.as_str() {
            "" => format!("b-{:08x}", stable_hash(&[opened.location.as_bytes()]) >> 32),
            given => given.into(),
        };
        let name: Result<BaseName, InvalidId> = name.parse();
        let name = name
            .map_err(|error| options.fault("option `name`", error))
            .ok()?;
        Some(Opened {
            name,
            uri,
            opened,
            require_init,
        })
    });
    let (faults, notices) = options.finish();
    match opened {
        Some(opened) if faults.is_empty() => (Ok(opened), notices),
        _ => (Err(faults), notices),
    }
}

fn open_store(uri: &BaseUri, options: &mut Options, runtime: &Runtime) -> Option<OpenedStore> {
    let timeout = options.take_duration("timeout");
    let with_timeout = |policy: DeadlinePolicy| DeadlinePolicy {
        timeout: timeout.unwrap_or(policy.timeout),
        ..policy
    };
    let connector = Connector {
        policy: with_timeout(DeadlinePolicy::REMOTE),
        clock: runtime.clock.clone(),
        tasks: runtime.tasks.clone(),
        seen: Arc::default(),
        issued: IssuedSecrets::default(),
        tls: None,
        direct: Vec::new(),
    };
    let mut opened = match uri.scheme() {
        Scheme::File => open_folder(uri, options, runtime),
        Scheme::Memory => open_memory(uri, options)?,
        Scheme::S3 => return s3::open(uri, options, connector),
        Scheme::Gs => return gs::open(uri, options, connector),
        Scheme::Az => return az::open(uri, options, connector),
        Scheme::Hdfs | Scheme::ViewFs => {
            return open_hdfs(uri, options, with_timeout(DeadlinePolicy::REMOTE), runtime);
        }
    };
    opened.limits.deadline = with_timeout(opened.limits.deadline);
    Some(opened)
}

#[cfg(feature = "hdfs")]
use super::hdfs::open as open_hdfs;

#[cfg(not(feature = "hdfs"))]
fn open_hdfs(
    uri: &BaseUri,
    options: &mut Options,
    _: DeadlinePolicy,
    _: &Runtime,
) -> Option<OpenedStore> {
    let scheme = uri.scheme().name();
    let reason =
        format!("this stopover was built without {scheme}://: build it with --features hdfs");
    options.fault("its `uri`", reason);
    None
}

/// What must stay free on the file system of a folder.
const DEFAULT_MIN_FREE: SizeOrPercent = SizeOrPercent::Percent(1.0);

fn open_folder(uri: &BaseUri, options: &mut Options, runtime: &Runtime) -> OpenedStore {
    let folder = uri.folder().unwrap_or_default();
    let fsync = options.take_bool("fsync").unwrap_or(true);
    let direct = options.take_bool("direct_io").unwrap_or(true);
    let mode = match (fsync, direct) {
        (false, _) => WriteMode::Unsynced,
        (true, false) => WriteMode::Cached,
        (true, true) => WriteMode::Direct,
    };
    let location = format!("file://{}", folder.display());
    let min_free = options.take_size_or_percent("min_free");
    let mut store = LocalStore::new(folder, mode, runtime.random.next_u64())
        .with_min_free(min_free.unwrap_or(DEFAULT_MIN_FREE));
    if options.take_bool("group_access").unwrap_or(false) {
        store = store.shared_with_group();
    }
    OpenedStore {
        location,
        store: Arc::new(store),
        limits: StoreLimits::LOCAL,
        validity: None,
    }
}

/// The stores in the memory of this process, by location: base directories with the same URI share
/// their content, as two daemons share a bucket.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

fn open_memory(uri: &BaseUri, options: &mut Options) -> Option<OpenedStore> {
    let prefix = client::prefix(uri, options)?;
    let location = format!("memory://{}/{prefix}", uri.bucket());
    let store = Arc::clone(MEMORY.lock().entry(location.clone()).or_default());
    Some(OpenedStore {
        location,
        store: Arc::new(ObjectBackend::new(
            store,
            prefix,
            Redactor::default(),
            false,
        )),
        limits: StoreLimits::LOCAL,
        validity: None,
    })
}
