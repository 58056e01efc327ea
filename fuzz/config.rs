//! The claims about loading a configuration from arbitrary text: file, environment, flags.
//!
//! Does: split an input into the three layers, load it, and check two claims: a refused
//! configuration is reported with the origin of each problem, and an accepted one is unchanged when
//! its settings are printed and loaded again. Does not: access files. Invariant: as in
//! `decoders.rs`.

use std::path::PathBuf;

use stopover::config::{
    Config, ConfigErrors, Environment, Files, Flags, Loaded, Machine, Origin, Problem, load_in,
};

/// Separates the file from the variables, and these from the flags.
const NEXT_LAYER: &str = "===\n";
/// All files other than these are missing.
const FILE: &str = "/somewhere/stopover.toml";
const TOKENS: &str = "/somewhere/tokens";

/// One configuration: a file, then variables and flags, one per line.
#[derive(Clone, Copy, Default)]
struct Given<'a> {
    file: &'a str,
    variables: &'a str,
    flags: &'a str,
}

/// Checks an input: a file, variables and flags, separated by [`NEXT_LAYER`].
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut layers = text.splitn(3, NEXT_LAYER);
    let mut next = || layers.next().unwrap_or_default();
    let (file, variables, flags) = (next(), next(), next());
    check(Given {
        file,
        variables,
        flags,
    });
}

fn check(given: Given<'_>) {
    match load_in(&flags(given), &around(given)) {
        Ok(loaded) => survives_printing(&loaded),
        Err(ConfigErrors(problems)) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in &problems {
                assert!(
                    !problem.what.is_empty() && has_an_origin(problem, given),
                    "the problem names no origin: {problem:?}"
                );
            }
        }
    }
}

fn flags(given: Given<'_>) -> Flags {
    let mut flags = Flags {
        config: Some(FILE.into()),
        ..Flags::default()
    };
    for line in given.flags.lines() {
        match line.split_once(' ') {
            Some(("--listen", value)) => flags.listen = Some(value.into()),
            Some(("--memory-budget", value)) => flags.memory_budget = Some(value.into()),
            Some(("--base-directory", value)) => flags.base_directories.push(value.into()),
            _ => flags.set.push(line.to_owned()),
        }
    }
    flags
}

fn around(given: Given<'_>) -> Environment {
    let variables = given.variables.lines().map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (format!("STOPOVER_{name}"), value.to_owned())
    });
    let files = [(FILE, given.file), (TOKENS, "a-token-of-some-length")];
    Environment {
        variables: variables.collect(),
        cwd: "/somewhere".into(),
        machine: Machine {
            memory: Some(16 << 30),
            cgroup_limit: None,
        },
        files: Files::InMemory(
            files
                .map(|(path, text)| (path.into(), text.to_owned()))
                .into(),
        ),
    }
}

/// Whether the origin of a problem exists: a line of the file, a variable or flag of the input, or
/// a setting with its default value.
fn has_an_origin(problem: &Problem, given: Given<'_>) -> bool {
    match &problem.origin {
        Some(Origin::File { path, line }) => {
            let lines = given.file.split('\n').count();
            path == &PathBuf::from(FILE) && (1..=lines).contains(line)
        }
        Some(Origin::Environment(variable)) => {
            let name = variable.strip_prefix("STOPOVER_").unwrap_or_default();
            let mut names = given.variables.lines().map(|line| line.split('=').next());
            names.any(|given| given == Some(name))
        }
        Some(Origin::Flag(flag)) => {
            let set = flag.strip_prefix("--set ");
            given.flags.lines().any(|line| match set {
                Some(key) => line.split('=').next().is_some_and(|k| k.trim() == key),
                None => line.starts_with(flag.as_str()),
            })
        }
        Some(Origin::Default) => is_setting(&problem.key),
        None => problem.key == "--set" || is_setting(&problem.key),
    }
}

fn is_setting(key: &str) -> bool {
    let nothing = Given::default();
    let defaults = load_in(&flags(nothing), &around(nothing)).expect("the defaults are valid");
    key.starts_with("base_directory") || defaults.settings().any(|(name, ..)| name == key)
}

/// Checks that the printed settings, given as flags, result in the same configuration.
fn survives_printing(loaded: &Loaded) {
    let config = &loaded.config;
    assert!(!config.base_directories.is_empty());
    let settings = loaded.settings();
    let mut again = Flags {
        set: settings
            .map(|(name, value, _)| format!("{name}={value}"))
            .collect(),
        ..Flags::default()
    };
    for (index, base) in config.base_directories.iter().enumerate() {
        again.base_directories.push(base.uri.clone());
        let name = ("name", base.name.as_str());
        let options = base
            .options
            .iter()
            .map(|(key, value)| (key.as_str(), value.expose()));
        // The key of a flag ends at the first =, and its parts at each dot.
        let plain = |key: &str| !key.contains(['.', '=']) && key.trim() == key;
        let keys = options.filter(|(key, _)| plain(key)).chain([name]);
        again
            .set
            .extend(keys.map(|(key, value)| format!("base_directories.{index}.{key}={value}")));
    }
    let repeated = match load_in(&again, &around(Given::default())) {
        Ok(loaded) => comparable(&loaded.config),
        Err(refused) => panic!("an accepted configuration is refused when repeated: {refused}"),
    };
    assert_eq!(repeated, comparable(config));
}

/// A configuration without the options that no flag can name.
fn comparable(config: &Config) -> String {
    let mut config = config.clone();
    for base in &mut config.base_directories {
        base.options
            .retain(|key, _| !key.contains(['.', '=']) && key.trim() == key);
    }
    let shown = format!("{config:?}");
    let options = config
        .base_directories
        .iter()
        .flat_map(|base| &base.options);
    // Their values are hidden by the line above.
    options.fold(shown, |all, (key, value)| {
        format!("{all}\n{key}={}", value.expose())
    })
}
