//! Loading of the configuration: defaults, then file, then environment, then flags. Variables of
//! OpenTelemetry (`OTEL_…`), which are for all programs of a machine, come before the file.
//!
//! Does: read the environment (nothing else in the program does) and validate the result. Does not:
//! parse units or define keys. Invariant: the outcome is a valid configuration or the list of all
//! problems.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::base_directory::{self, Places};
use super::files::{exposure_warning, read_text_file};
use super::keys::{self, KEYS};
use super::layers::Layers;
use super::machine::Machine;
use super::otel_variables;
use super::problem::{ConfigErrors, InvalidValue, Origin, Problem};
use super::secret::{Secret, names_token_file};
use super::validate::Validator;
use super::{Config, Origins, units};

/// Configuration given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// The values of `--base-directory`.
    pub base_directories: Vec<String>,
    /// `--memory-budget`
    pub memory_budget: Option<String>,
    /// The values of `--set section.key=value`.
    pub set: Vec<String>,
}

/// What loading depends on besides the flags; tests pass their own.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// Working directory; relative paths are resolved against it. Empty if there is none any more.
    pub cwd: PathBuf,
    /// Memory.
    pub machine: Machine,
    /// The configuration file, and those that settings name.
    pub files: Files,
}

/// Where files are read from.
#[derive(Debug, Clone)]
pub enum Files {
    /// The file system.
    Real,
    /// The given texts, by absolute path.
    InMemory(BTreeMap<PathBuf, String>),
}

impl Files {
    fn in_memory(files: &BTreeMap<PathBuf, String>, path: &Path) -> io::Result<String> {
        let text = files.get(path).cloned();
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match self {
            Self::Real => read_text_file(path),
            Self::InMemory(files) => Self::in_memory(files, path),
        }
    }

    fn open(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => std::fs::File::open(path).map(drop),
            Self::InMemory(files) => Self::in_memory(files, path).map(drop),
        }
    }

    /// A warning about the configuration file, if every user may read it.
    fn exposure(&self, path: &Path) -> Option<String> {
        match self {
            Self::Real => exposure_warning("the configuration file", path),
            Self::InMemory(_) => None,
        }
    }

    fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Real => path.exists(),
            Self::InMemory(files) => files.contains_key(path),
        }
    }
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        Self {
            variables: std::env::vars_os()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            cwd: std::env::current_dir().unwrap_or_default(),
            machine: Machine::detect(),
            files: Files::Real,
        }
    }
}

/// The environment variables that the tools of the clouds and of Hadoop use, for the clients of
/// stores.
pub fn cloud_variables() -> Vec<(String, Secret)> {
    const PREFIXES: [&str; 4] = ["AWS_", "GOOGLE_", "AZURE_", "HADOOP_"];
    const OTHERS: [&str; 3] = ["SERVICE_ACCOUNT", "IDENTITY_ENDPOINT", "GCE_METADATA_HOST"];
    let is_of_cloud = |name: &str| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || OTHERS.contains(&name)
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        // An empty variable is one that is not set, as for those tools.
        .filter(|(name, value)| is_of_cloud(name) && !value.is_empty())
        .map(|(name, value)| (name, value.to_string_lossy().into_owned().into()))
        .collect()
}

/// A loaded configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, checked.
    pub config: Config,
    /// Origin of each.
    pub origins: Origins,
    /// Messages for the operator: settings that were adapted, variables that were ignored.
    pub notices: Vec<String>,
    /// Where the keys of each base directory were written, in the order of the configuration.
    bases: Vec<Places>,
    flags: Flags,
    /// Each setting as it was loaded, before a command adapted it to the process.
    written: Vec<(&'static str, String)>,
}

/// A configuration that may still have problems. Problems that only other modules can detect, such
/// as contradicting options of a store, are added before it is used, so that all are reported at
/// once.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What was configured, as far as it has no problem.
    pub loaded: Loaded,
    problems: Vec<Problem>,
}

impl Draft {
    /// Adds a problem with a key of a base directory, which is named by its position.
    pub fn refuse_option(&mut self, base: usize, option: &str, what: impl Into<String>) {
        self.problems.push(match self.loaded.bases.get(base) {
            Some(places) => places.problem(option, what),
            None => Problem::new(format!("base_directory.{base}.{option}"), None, None, what),
        });
    }

    /// The configuration.
    ///
    /// # Errors
    /// All problems.
    pub fn finish(self) -> Result<Loaded, ConfigErrors> {
        match self.problems.is_empty() {
            true => Ok(self.loaded),
            false => Err(ConfigErrors(self.problems)),
        }
    }
}

impl Loaded {
    /// Reads the configuration again, from where this was read.
    pub fn again_in(&self, environment: &Environment) -> Draft {
        draft(&self.flags, environment)
    }

    /// The values of all settings as they were written, in the order of the table.
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        self.written.iter().map(|(_, value)| value.as_str())
    }

    /// The same as if the values of its configuration had been written.
    #[cfg(test)]
    pub(super) fn rewritten(mut self) -> Self {
        let written = self.settings().map(|(name, value, _)| (name, value));
        self.written = written.collect();
        self
    }

    /// Sets the written value of a setting.
    pub(super) fn set_written(&mut self, key: &str, value: &str) {
        for (_, written) in self.written.iter_mut().filter(|(name, _)| *name == key) {
            value.clone_into(written);
        }
    }

    /// Each setting as `(name, value, origin)`.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, String, Origin)> {
        KEYS.iter().map(|key| {
            let origin = self.origins.of(key.name);
            (key.name, (key.show)(&self.config), origin)
        })
    }
}

/// Loads the configuration of this process.
///
/// # Errors
/// All problems of the configuration.
pub fn load(flags: &Flags) -> Result<Loaded, ConfigErrors> {
    load_in(flags, &Environment::of_process())
}

/// Loads the configuration in a given environment.
///
/// # Errors
/// All problems of the configuration.
pub fn load_in(flags: &Flags, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    draft(flags, environment).finish()
}

/// Reads the configuration and finds its problems, but does not report them yet.
pub fn draft(flags: &Flags, environment: &Environment) -> Draft {
    let mut layers = gather(flags, environment);
    let mut problems = std::mem::take(&mut layers.problems);
    let mut loaded = Loaded {
        config: Config::default(),
        origins: Origins::default(),
        notices: std::mem::take(&mut layers.notices),
        bases: Vec::new(),
        flags: flags.clone(),
        written: Vec::new(),
    };
    for (name, mut located) in std::mem::take(&mut layers.settings) {
        let Some(key) = keys::find(&name) else {
            continue;
        };
        if let Err(problem) = located.tidy(&name, &mut loaded.notices) {
            problems.push(problem);
            continue;
        }
        match (key.set)(&mut loaded.config, &located.raw) {
            Ok(()) => {
                loaded.origins.0.insert(key.name, located.origin.clone());
            }
            Err(why) => problems.push(located.problem(&name, why.to_string())),
        }
    }
    let raw = layers.bases.take();
    let notices = &mut loaded.notices;
    let bases = base_directory::resolve(raw, &environment.cwd, notices, &mut problems);
    let bases = bases.into_iter().map(|base| (base.config, base.places));
    (loaded.config.base_directories, loaded.bases) = bases.unzip();
    finish(&mut loaded, environment, &mut problems);
    let written = loaded.settings().map(|(name, value, _)| (name, value));
    loaded.written = written.collect();
    Draft { loaded, problems }
}

fn gather(flags: &Flags, environment: &Environment) -> Layers {
    let mut layers = Layers::default();
    let (settings, notices) = otel_variables::settings(&environment.variables);
    layers.settings.extend(settings);
    layers.notices.extend(notices);
    if let Some((path, origin)) = config_file(flags, environment) {
        let absolute = environment.cwd.join(&path);
        match environment.files.read(&absolute) {
            Ok(text) => {
                layers.add_file(&path, &text);
                if let Some(key) = layers.any_secret()
                    && let Some(warning) = environment.files.exposure(&absolute)
                {
                    let notice = format!("{warning}, as it holds {key}");
                    layers.notices.push(notice);
                }
            }
            Err(error) => {
                let (key, path) = ("the configuration file", path.display().to_string());
                let what = format!("cannot be read: {error}");
                let problem = Problem::new(key, Some(path), origin, what);
                layers.problems.push(problem);
            }
        }
    }
    layers.add_environment(&environment.variables);
    // Before --set, which may add keys to these base directories.
    if !flags.base_directories.is_empty() {
        let origin = Origin::Flag("--base-directory".into());
        let uris = flags.base_directories.iter().map(String::as_str);
        layers.replace_bases(uris, &origin);
    }
    for assignment in &flags.set {
        match assignment.split_once('=') {
            Some((key, value)) => {
                layers.add_flag(&format!("--set {}", key.trim()), key.trim(), value)
            }
            None => {
                let what = "write --set section.key=value, such as --set segment.target_size=32MiB";
                // No value: without a key it is unknown whether this is a secret.
                let problem = Problem::new("--set", None, None, what);
                layers.problems.push(problem);
            }
        }
    }
    if let Some(listen) = &flags.listen {
        layers.add_flag("--listen", "server.listen", listen);
    }
    if let Some(budget) = &flags.memory_budget {
        layers.add_flag("--memory-budget", "memory.budget", budget);
    }
    layers
}

fn config_file(flags: &Flags, environment: &Environment) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &flags.config {
        return Some((path.clone(), Origin::Flag("--config".into())));
    }
    let named = |(name, value): &&(String, String)| name == "STOPOVER_CONFIG" && !value.is_empty();
    environment
        .variables
        .iter()
        .find(named)
        .map(|(name, value)| (value.into(), Origin::Environment(name.clone())))
}

/// Adapts settings to the machine, then validates everything.
fn finish(loaded: &mut Loaded, environment: &Environment, problems: &mut Vec<Problem>) {
    let split = loaded.config.memory.split_on(environment.machine);
    adapt_target_size(loaded, split.write);
    let validator = Validator {
        config: &loaded.config,
        origins: &loaded.origins,
        split,
        usable: environment.machine.usable(),
    };
    problems.extend(validator.problems());
    let server = &mut loaded.config.server;
    let files = [
        ("server.token_file", &mut server.token_file),
        ("server.admin_token_file", &mut server.admin_token_file),
        (
            "server.tls_certificate_file",
            &mut server.tls_certificate_file,
        ),
        ("server.tls_key_file", &mut server.tls_key_file),
        ("server.tls_client_ca_file", &mut server.tls_client_ca_file),
    ];
    for (key, file) in files {
        let Some(path) = file else { continue };
        *path = environment.cwd.join(&*path);
        if let Err(what) = check_file(key, &environment.files, path) {
            let origin = loaded.origins.0.get(key).cloned();
            // Where there is no such file, the value may be what should be in it.
            let shown = environment
                .files
                .exists(path)
                .then(|| path.display().to_string());
            problems.push(Problem::new(key, shown, origin, what.to_string()));
        }
    }
}

/// Reduces the segment size on small machines, unless both the budget and the size were configured:
/// then validation reports the contradiction.
fn adapt_target_size(loaded: &mut Loaded, write: u64) {
    let Loaded {
        config,
        origins,
        notices,
        ..
    } = loaded;
    let most = write / 2;
    let both_configured =
        config.memory.budget.is_some() && origins.0.contains_key("segment.target_size");
    if config.segment.target_size > most && !both_configured {
        notices.push(format!(
            "segment.target_size is {} instead of {}: two segments must fit into the {} of \
             memory for writing (memory.budget and memory.write_share)",
            units::format_size(most),
            units::format_size(config.segment.target_size),
            units::format_size(write),
        ));
        config.segment.target_size = most;
    }
}

/// Checks that a file can be read, and that one with tokens is not empty. The content is validated
/// when the credentials are loaded.
fn check_file(key: &str, files: &Files, path: &Path) -> Result<(), InvalidValue> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    if !names_token_file(key) {
        return Ok(files.open(path).map_err(unreadable)?);
    }
    let text = files.read(path).map_err(unreadable)?;
    if text.lines().all(|line| line.trim().is_empty()) {
        return Err("the file holds no token: write one per line, or set the key to \"\"".into());
    }
    Ok(())
}
