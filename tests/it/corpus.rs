//! Every decoder against arbitrary bytes: replays the fuzzing seeds and the inputs that fuzzing
//! found, then as many again with random mutations.
//!
//! `fuzz/regressions/<decoder>/` holds the inputs. `STOPOVER_TEST_FUZZ=inputs:seed` sets how many
//! mutated inputs are tried for each decoder, and the seed that they are drawn from.

use std::path::Path;

use stopover::runtime::Random;

#[path = "../../fuzz/decoders.rs"]
mod decoders;

pub fn inputs(decoder: &str) -> Vec<Vec<u8>> {
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

#[test]
fn every_regression_input_is_decoded_as_specified() {
    for (name, check) in decoders::ALL {
        inputs(name).iter().for_each(|input| check(input));
    }
}

/// One input with some bytes changed, dropped, duplicated, or inserted from another input.
pub fn mutated(inputs: &[Vec<u8>], random: &Random) -> Vec<u8> {
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

/// How many mutated inputs are tried, and the seed that they are drawn from.
pub fn mutations() -> (u64, u64) {
    let given = std::env::var("STOPOVER_TEST_FUZZ").unwrap_or_default();
    let (count, seed) = given.split_once(':').unwrap_or((&given, ""));
    (count.parse().unwrap_or(1000), seed.parse().unwrap_or(1))
}

#[test]
fn mutated_inputs_are_decoded_as_specified() {
    let (count, seed) = mutations();
    for (name, check) in decoders::ALL {
        let (inputs, random) = (inputs(name), Random::seeded(seed));
        for n in 0..count {
            let input = mutated(&inputs, &random);
            let checked = std::panic::catch_unwind(|| check(&input));
            assert!(
                checked.is_ok(),
                "{name}, input {n} of seed {seed}: {input:?}"
            );
        }
    }
}
