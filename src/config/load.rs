//! Loading: defaults, then file, then environment, then flags; checked as a whole.
//!
//! Does: the one place of the program that reads the environment. Does not: parse units or know
//! single keys. Invariant: either a configuration that contradicts itself nowhere, or all problems
//! at once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::base_directory;
use super::keys::{self, KEYS};
use super::layers::Layers;
use super::machine::Machine;
use super::problem::{ConfigErrors, Origin, Problem, is_secret};
use super::validate::Examination;
use super::{Config, Origins, units};

/// What the command line says about the configuration.
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

/// The world around the process, passed in so that tests can make one up.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// The working directory, under which relative paths lie.
    pub cwd: PathBuf,
    /// Memory.
    pub machine: Machine,
    /// The configuration file, and those that settings name.
    pub files: Files,
}

/// Files that are looked into while the configuration is loaded.
#[derive(Debug, Clone)]
pub enum Files {
    /// The machine's.
    Real,
    /// These texts by their whole paths, and no others.
    InMemory(BTreeMap<PathBuf, String>),
}

impl Files {
    fn made_up(files: &BTreeMap<PathBuf, String>, path: &Path) -> io::Result<String> {
        let text = files.get(path).cloned();
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match self {
            Self::Real => std::fs::read_to_string(path),
            Self::InMemory(files) => Self::made_up(files, path),
        }
    }

    fn open(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => std::fs::File::open(path).map(drop),
            Self::InMemory(files) => Self::made_up(files, path).map(drop),
        }
    }
}

impl Environment {
    /// The real ones.
    pub fn of_process() -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        Self {
            environment: std::env::vars_os()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            machine: Machine::detect(),
            files: Files::Real,
        }
    }
}

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, checked.
    pub config: Config,
    /// Where each comes from.
    pub origins: Origins,
    /// What the operator should know: settings that were adapted, variables that were ignored.
    pub notices: Vec<String>,
}

impl Loaded {
    /// Each setting as `(name, value, origin)`, secrets left out.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, String, Origin)> {
        KEYS.iter().map(|key| {
            let origin = self.origins.0.get(key.name).cloned();
            let origin = origin.unwrap_or(Origin::Default);
            (key.name, (key.show)(&self.config), origin)
        })
    }
}

/// Loads the configuration of this process.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(flags: &Flags) -> Result<Loaded, ConfigErrors> {
    load_in(flags, &Environment::of_process())
}

/// Loads a configuration in given surroundings.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_in(flags: &Flags, around: &Environment) -> Result<Loaded, ConfigErrors> {
    let mut layers = gather(flags, around);
    let mut problems = std::mem::take(&mut layers.problems);
    let mut config = Config::default();
    let mut origins = Origins::default();
    for (name, located) in &layers.settings {
        let Some(key) = keys::find(name) else {
            continue;
        };
        match (key.set)(&mut config, &located.raw) {
            Ok(()) => {
                origins.0.insert(key.name, located.origin.clone());
            }
            Err(what) => problems.push(located.problem(name, what)),
        }
    }
    let bases = base_directory::resolve(layers.bases.take(), &around.cwd, &mut problems);
    config.base_directories = bases.into_iter().map(|base| base.config).collect();
    let mut notices = layers.notices;
    finish(&mut config, &origins, around, &mut notices, &mut problems);
    if problems.is_empty() {
        Ok(Loaded {
            config,
            origins,
            notices,
        })
    } else {
        Err(ConfigErrors(problems))
    }
}

fn gather(flags: &Flags, around: &Environment) -> Layers {
    let mut layers = Layers::default();
    if let Some((path, origin)) = config_file(flags, around) {
        match around.files.read(&around.cwd.join(&path)) {
            Ok(text) => layers.add_file(&path, &text),
            Err(error) => layers.problems.push(Problem {
                key: "the configuration file".into(),
                value: Some(path.display().to_string()),
                origin: Some(origin),
                what: format!("it cannot be read: {error}"),
            }),
        }
    }
    layers.add_environment(&around.environment);
    // Before --set, which may add keys to them.
    if !flags.base_directories.is_empty() {
        let origin = Origin::Flag("--base-directory".into());
        layers.replace_bases(flags.base_directories.clone(), &origin);
    }
    for assignment in &flags.set {
        match assignment.split_once('=') {
            Some((key, value)) => {
                layers.add_flag(&format!("--set {}", key.trim()), key.trim(), value)
            }
            None => layers.problems.push(Problem {
                key: "--set".into(),
                // Without its key nothing tells whether this is a secret.
                value: None,
                origin: None,
                what: "write --set section.key=value, such as --set segment.target_size=32MiB"
                    .into(),
            }),
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

fn config_file(flags: &Flags, around: &Environment) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &flags.config {
        return Some((path.clone(), Origin::Flag("--config".into())));
    }
    let named = |(name, value): &&(String, String)| name == "STOPOVER_CONFIG" && !value.is_empty();
    around
        .environment
        .iter()
        .find(named)
        .map(|(name, value)| (value.into(), Origin::Environment(name.clone())))
}

/// Adapts what was left to the daemon, then checks the whole.
fn finish(
    config: &mut Config,
    origins: &Origins,
    around: &Environment,
    notices: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    let usable = around.machine.usable();
    let split = config.memory.split_on(around.machine);
    adapt_target_size(config, origins, split.write, notices);
    let examination = Examination {
        config,
        origins,
        split,
        usable,
    };
    problems.extend(examination.problems());
    let server = &mut config.server;
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
        *path = around.cwd.join(&*path);
        if let Err(what) = check(&around.files, path) {
            problems.push(Problem {
                key: key.into(),
                value: Some(path.display().to_string()),
                origin: origins.0.get(key).cloned(),
                what,
            });
        }
    }
}

/// Small machines get smaller segments, unless somebody wrote down both the budget and the size:
/// then the two contradict each other and it is not for the daemon to choose.
fn adapt_target_size(
    config: &mut Config,
    origins: &Origins,
    write: u64,
    notices: &mut Vec<String>,
) {
    let most = write / 2;
    let both_written =
        config.memory.budget.is_some() && origins.0.contains_key("segment.target_size");
    if config.segment.target_size > most && !both_written {
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

/// Says what is wrong with a file.
type FileCheck = fn(&Files, &Path) -> Result<(), String>;

/// What is in it is checked when the doors are fitted.
fn check_file(files: &Files, path: &Path) -> Result<(), String> {
    let opened = files.open(path);
    opened.map_err(|e| format!("it cannot be read: {e}"))
}

fn check_token_file(files: &Files, path: &Path) -> Result<(), String> {
    let text = files.read(path);
    let text = text.map_err(|e| format!("it cannot be read: {e}"))?;
    if text.lines().all(|line| line.trim().is_empty()) {
        return Err("it holds no token: write one to a line, or set the key to \"\"".into());
    }
    Ok(())
}

/// An option of a base directory as it may be shown.
pub fn shown_option<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { "(hidden)" } else { value }
}
