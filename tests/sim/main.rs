//! Deterministic simulation: whole worlds of daemons, stores, networks and clients from a seed.
//!
//! `docs/decisions/simulation.md` says how it works. A failing seed prints the command that replays
//! it.

#![allow(clippy::disallowed_methods, missing_docs)] // worlds spawn and read the environment

mod attempt;
mod chance;
mod chaos;
mod client;
mod cluster;
mod coordinator;
mod crash;
mod disk;
mod history;
mod host;
mod meter;
mod mutants;
mod nest;
mod net;
mod plan;
mod reader;
mod simulation;
mod store;
mod stories;
mod tap;
mod verdict;
mod weather;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mutants::Mutant;
use parking_lot::Mutex;
use simulation::Report;

/// Seeds in which every mutant must be found.
const MUTANT_SEEDS: u64 = 40;

/// What many seeds must have met, or they proved little.
const MUST_MEET: &[&str] = &[
    "a coordinator that pauses",
    "a daemon drained",
    "a daemon frozen",
    "a daemon killed",
    "a daemon killed at some await",
    "a finish acknowledged",
    "a finish told by another daemon",
    "a late writer",
    "a live exchange judged",
    "a partition read",
    "a query waits at its limit",
    "a read resumed",
    "a repeated batch",
    "a speculative attempt",
    "a writer that stalls",
    "an abort acknowledged",
    "an attempt foretold",
    "an exchange abandoned",
    "an exchange closed",
    "an exchange read",
    "an outage longer than a lease",
    "somebody waits for memory",
    "stores that do not answer",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the worlds of many seeds on all cores, until `enough` says so. In the order of the seeds.
fn run_all(
    seeds: Range<u64>,
    mutant: Option<Mutant>,
    enough: impl Fn(&Report) -> bool + Sync,
) -> Vec<Report> {
    let (next, ended) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let reports = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let mut report = world::run(seed, mutant, false);
                    if report.violation.is_none() {
                        report.lines.clear();
                    }
                    if enough(&report) {
                        ended.store(true, Ordering::Relaxed);
                    }
                    reports.lock().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner();
    reports.sort_by_key(|report: &Report| report.seed);
    reports
}

/// What a broken seed prints: the end of its trace, what was broken, how to see it again.
fn tell(report: &Report) {
    let Some(violation) = &report.violation else {
        return;
    };
    let seed = report.seed;
    println!("---- seed {seed}, trace {:016x}", report.hash);
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {violation}");
    println!("replay: STOPOVER_SIM_SEED={seed} cargo test --test sim no_seed -- --nocapture");
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("STOPOVER_SIM_SEED") {
        let report = world::run(seed, None, true);
        println!("trace {:016x}", report.hash);
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let count = number("STOPOVER_SIM_SEEDS").unwrap_or(200);
    let first = number("STOPOVER_SIM_FIRST").unwrap_or(0);
    let reports = run_all(first..first + count, None, |_| false);
    let mut met = BTreeMap::<&str, u64>::new();
    for (what, times) in reports.iter().flat_map(|report| &report.counts) {
        *met.entry(what).or_default() += times;
    }
    for (what, times) in &met {
        println!("{times:9} {what}");
    }
    reports.iter().for_each(tell);
    let broken: Vec<_> = reports.iter().filter(|r| r.violation.is_some()).collect();
    let seeds: Vec<_> = broken.iter().map(|report| report.seed).collect();
    println!("{} seeds, {} broke a promise", reports.len(), seeds.len());
    assert!(
        seeds.is_empty(),
        "a promise was broken by the seeds {seeds:?}"
    );
    let missed: Vec<_> = MUST_MEET
        .iter()
        .filter(|w| !met.contains_key(**w))
        .collect();
    assert!(count < 200 || missed.is_empty(), "no seed met {missed:?}");
}

#[test]
fn the_same_seed_is_the_same_world_in_this_process_and_in_another() {
    for seed in [1, 2, 3, 5, 8, 13, 21, 34] {
        let (once, again) = (world::run(seed, None, false), world::run(seed, None, false));
        assert_eq!(once.lines, again.lines, "seed {seed}");
        assert_eq!(once.hash, again.hash, "seed {seed}");
        let elsewhere = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_seed_breaks_a_promise", "--nocapture"])
            .env("STOPOVER_SIM_SEED", seed.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&elsewhere.stdout);
        assert!(
            text.contains(&format!("trace {:016x}", once.hash)),
            "seed {seed}"
        );
    }
    let hashes: std::collections::BTreeSet<_> =
        (0..8).map(|s| world::run(s, None, false).hash).collect();
    assert_eq!(hashes.len(), 8, "other seeds are other worlds");
}

#[test]
fn every_broken_promise_is_found_within_a_few_seeds() {
    let mut missed = Vec::new();
    for mutant in mutants::ALL {
        let broken = |report: &Report| report.violation.is_some();
        let reports = run_all(0..MUTANT_SEEDS, Some(*mutant), broken);
        match reports.iter().find(|report| broken(report)) {
            Some(report) => println!(
                "{mutant:?}: seed {}: {}",
                report.seed,
                report.violation.as_deref().unwrap_or_default()
            ),
            None => missed.push(mutant),
        }
    }
    assert!(
        missed.is_empty(),
        "{MUTANT_SEEDS} seeds did not find {missed:?}"
    );
}
