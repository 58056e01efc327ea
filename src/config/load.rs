//! Loading of the configuration: defaults, then file, then environment, then flags.
//!
//! Does: read the environment (nothing else in the program does) and validate the result. Does not:
//! parse units or know single keys. Invariant: the outcome is a valid configuration or the list of
//! all problems.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::base_directory;
use super::keys::{self, KEYS};
use super::layers::Layers;
use super::machine::Machine;
use super::problem::{ConfigErrors, InvalidValue, Origin, Problem};
use super::validate::Validator;
use super::{Config, Origins, units};

/// Configuration given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--base-directory`, each time it is given.
    pub base_directories: Vec<String>,
    /// `--memory-budget`
    pub memory_budget: Option<String>,
    /// `--set section.key=value`, each time it is given.
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
            Self::Real => std::fs::read_to_string(path),
            Self::InMemory(files) => Self::in_memory(files, path),
        }
    }

    fn open(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => std::fs::File::open(path).map(drop),
            Self::InMemory(files) => Self::in_memory(files, path).map(drop),
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

/// A loaded configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, checked.
    pub config: Config,
    /// Origin of each.
    pub origins: Origins,
    /// Messages for the operator: settings that were adapted, variables that were ignored.
    pub notices: Vec<String>,
}

impl Loaded {
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
    let mut layers = gather(flags, environment);
    let mut problems = std::mem::take(&mut layers.problems);
    let mut loaded = Loaded {
        config: Config::default(),
        origins: Origins::default(),
        notices: layers.notices,
    };
    for (name, located) in &layers.settings {
        let Some(key) = keys::find(name) else {
            continue;
        };
        match (key.set)(&mut loaded.config, &located.raw) {
            Ok(()) => {
                loaded.origins.0.insert(key.name, located.origin.clone());
            }
            Err(why) => problems.push(located.problem(name, why.to_string())),
        }
    }
    let bases = base_directory::resolve(layers.bases.take(), &environment.cwd, &mut problems);
    loaded.config.base_directories = bases.into_iter().map(|base| base.config).collect();
    finish(&mut loaded, environment, &mut problems);
    match problems.is_empty() {
        true => Ok(loaded),
        false => Err(ConfigErrors(problems)),
    }
}

fn gather(flags: &Flags, environment: &Environment) -> Layers {
    let mut layers = Layers::default();
    if let Some((path, origin)) = config_file(flags, environment) {
        match environment.files.read(&environment.cwd.join(&path)) {
            Ok(text) => layers.add_file(&path, &text),
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
        layers.replace_bases(flags.base_directories.clone(), &origin);
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
    let files: [(&str, &mut Option<PathBuf>, FileCheck); 4] = [
        (
            "server.token_file",
            &mut server.token_file,
            check_token_file,
        ),
        (
            "server.tls_certificate_file",
            &mut server.tls_certificate_file,
            check_file,
        ),
        ("server.tls_key_file", &mut server.tls_key_file, check_file),
        (
            "server.tls_client_ca_file",
            &mut server.tls_client_ca_file,
            check_file,
        ),
    ];
    for (key, file, check) in files {
        let Some(path) = file else { continue };
        *path = environment.cwd.join(&*path);
        if let Err(why) = check(&environment.files, path) {
            let origin = loaded.origins.0.get(key).cloned();
            let path = path.display().to_string();
            problems.push(Problem::new(key, Some(path), origin, why.to_string()));
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

type FileCheck = fn(&Files, &Path) -> Result<(), InvalidValue>;

/// The content is validated when the credentials are loaded.
fn check_file(files: &Files, path: &Path) -> Result<(), InvalidValue> {
    let opened = files.open(path);
    opened.map_err(|e| format!("cannot be read: {e}").into())
}

fn check_token_file(files: &Files, path: &Path) -> Result<(), InvalidValue> {
    let text = files.read(path);
    let text = text.map_err(|e| format!("cannot be read: {e}"))?;
    if text.lines().all(|line| line.trim().is_empty()) {
        return Err("the file holds no token: write one per line, or set the key to \"\"".into());
    }
    Ok(())
}
