//! The claim about opening base directories from arbitrary configurations: none panics, neither
//! when it is opened nor in its first requests.
//!
//! Does: split an input into file, variables and flags as `config.rs` does, open what is accepted,
//! and make a request to each store of a cloud. Does not: decode an input with few dependencies: it
//! needs the whole crate, from `tests/it/opening.rs` and from libFuzzer. Invariant: nothing leaves
//! this machine, as every client gets a proxy on loopback that refuses connections; no folder is
//! touched.

use std::time::Duration;

use stopover::config::{BaseDirectoryConfig, Environment, Files, Flags, Machine, Secret, draft};
use stopover::runtime::Runtime;
use stopover::store::keys;
use stopover::store::open::{open_in, review};

/// Separates the file from the variables, and these from the flags.
const NEXT_LAYER: &str = "===\n";
const FILE: &str = "/somewhere/stopover.toml";
/// What a store answers instead of a panic of its client.
const PANICKED: &str = "the store's client cannot make a request of what it was given";

/// Opens an input: a file, variables and base directories, separated by [`NEXT_LAYER`]. Variables
/// have their whole names. A value may hold any character: the escape `\n` is the end of a line.
pub fn open(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut layers = text.splitn(3, NEXT_LAYER);
    let mut next = || layers.next().unwrap_or_default();
    let (file, variables, uris) = (next(), next(), next());
    let variables = variables.lines().map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.replace("\\n", "\n"))
    });
    let (own, clouds): (Vec<_>, Vec<_>) =
        variables.partition(|(name, _)| name.starts_with("STOPOVER_"));
    let flags = Flags {
        config: Some(FILE.into()),
        base_directories: uris.lines().map(str::to_owned).collect(),
        ..Flags::default()
    };
    let environment = Environment {
        variables: own,
        cwd: "/somewhere".into(),
        machine: Machine::default(),
        files: Files::InMemory([(FILE.into(), file.to_owned())].into()),
    };
    let clouds = clouds.into_iter().map(|(name, value)| (name, value.into()));
    open_each(
        draft(&flags, &environment).loaded.config.base_directories,
        &clouds.collect::<Vec<_>>(),
    );
}

/// Opens base directories and makes a request to each.
pub fn open_each(mut bases: Vec<BaseDirectoryConfig>, variables: &[(String, Secret)]) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let _within = runtime.enter();
    let ours = Runtime::seeded(1);
    bases.iter_mut().for_each(stay_here);
    let reviewed = review(&bases, variables, &ours);
    for (_, fault) in &reviewed.faults {
        assert!(
            !fault.reason.to_string().is_empty(),
            "refused without a reason"
        );
    }
    bases.retain(|base| prefix(&base.uri).is_some());
    let is_harmless = |name: &str| !name.to_ascii_lowercase().contains("proxy");
    let variables: Vec<_> = variables
        .iter()
        .filter(|(name, _)| is_harmless(name))
        .cloned()
        .collect();
    for base in bases {
        let Ok(opened) = open_in(&[base], &variables, &ours) else {
            continue;
        };
        let probes = keys::probes();
        let request = opened[0].opened.store.list(&probes);
        let answer = runtime.block_on(tokio::time::timeout(Duration::from_millis(200), request));
        if let Ok(Err(error)) = answer {
            assert!(!error.to_string().contains(PANICKED), "the client panicked");
        }
    }
}

/// The prefix of the client's options for a store that is reached through the network.
fn prefix(uri: &str) -> Option<&'static str> {
    let prefixes = [("s3://", "aws_"), ("gs://", "google_"), ("az://", "azure_")];
    let found = prefixes.iter().find(|(scheme, _)| uri.starts_with(scheme));
    found.map(|(_, prefix)| *prefix)
}

fn stay_here(base: &mut BaseDirectoryConfig) {
    let Some(prefix) = prefix(&base.uri) else {
        return;
    };
    base.options.retain(|name, _| !name.contains("proxy"));
    let proxy = "http://127.0.0.1:1".into();
    base.options.insert(format!("{prefix}proxy_url"), proxy);
    // To read them takes most of the time.
    let none = "true".into();
    base.options
        .insert(format!("{prefix}disable_system_certificates"), none);
}
