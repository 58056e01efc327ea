//! Decoders against any bytes: what fuzzing was begun from and what it found, replayed, and as much
//! again with changes drawn from a seed.
//!
//! `fuzz/regressions/<decoder>/` holds the inputs. The configuration is no target of the fuzzer (it
//! needs half of the daemon), so it is only here. How many changed inputs are tried for each
//! decoder, and from which seed, says `STOPOVER_TEST_FUZZ=inputs:seed`.

use std::path::Path;

use stopover::clock::Random;
use stopover::config::{Flags, Machine, Surroundings, load_in};

#[path = "../../fuzz/decoders.rs"]
mod decoders;

fn inputs(decoder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let files = std::fs::read_dir(folder.join(decoder)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{decoder} has {} inputs", paths.len());
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn decoders() -> Vec<decoders::Named> {
    let config = ("config", config as fn(&[u8]));
    decoders::ALL.into_iter().chain([config]).collect()
}

#[test]
fn every_input_that_fuzzing_kept_is_decoded_as_it_should() {
    for (name, check) in decoders() {
        inputs(name).iter().for_each(|input| check(input));
    }
}

/// One input with some bytes changed, dropped, doubled, or taken from another input.
fn changed(inputs: &[Vec<u8>], random: &Random) -> Vec<u8> {
    let below = |n: usize| (random.next_u64() % n.max(1) as u64) as usize;
    let mut bytes = inputs[below(inputs.len())].clone();
    for _ in 0..=below(6) {
        let at = below(bytes.len());
        match below(6) {
            0 if !bytes.is_empty() => bytes[at] = random.next_u64() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + below(8)).min(bytes.len()))),
            4 => bytes.extend_from_within(at.min(bytes.len())..),
            _ => {
                let other = &inputs[below(inputs.len())];
                let from = below(other.len());
                let to = (from + below(64)).min(other.len());
                let at = at.min(bytes.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn inputs_with_any_change_are_decoded_as_they_should() {
    let given = std::env::var("STOPOVER_TEST_FUZZ").unwrap_or_default();
    let (count, seed) = given.split_once(':').unwrap_or((&given, ""));
    let (count, seed) = (count.parse().unwrap_or(1000), seed.parse().unwrap_or(1));
    for (name, check) in decoders() {
        let (inputs, random) = (inputs(name), Random::seeded(seed));
        for n in 0..count {
            let input = changed(&inputs, &random);
            let checked = std::panic::catch_unwind(|| check(&input));
            assert!(
                checked.is_ok(),
                "{name}, input {n} of seed {seed}: {input:?}"
            );
        }
    }
}

/// A configuration file, and the same as flags: taken, or refused with something to read.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let around = Surroundings {
        environment: Vec::new(),
        cwd: folder.path().to_owned(),
        machine: Machine {
            memory: Some(16 << 30),
            cgroup_limit: None,
        },
    };
    std::fs::write(folder.path().join("stopover.toml"), text).unwrap();
    let file = Flags {
        config: Some("stopover.toml".into()),
        ..Flags::default()
    };
    let set = Flags {
        set: text.lines().map(str::to_owned).collect(),
        ..Flags::default()
    };
    for flags in [file, set] {
        match load_in(&flags, &around) {
            Ok(loaded) => assert!(!loaded.config.base_directories.is_empty()),
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
    }
}
