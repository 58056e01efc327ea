//! Decoders against any bytes: what fuzzing was begun from and what it found, replayed, and as much
//! again with changes drawn from a seed.
//!
//! `fuzz/regressions/<decoder>/` holds the inputs. How many changed inputs are tried for each
//! decoder, and from which seed, says `STOPOVER_TEST_FUZZ=inputs:seed`.

use std::path::Path;

use stopover::runtime::Random;

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

#[test]
fn every_input_that_fuzzing_kept_is_decoded_as_it_should() {
    for (name, check) in decoders::ALL {
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
    for (name, check) in decoders::ALL {
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
