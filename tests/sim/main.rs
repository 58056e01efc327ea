//! Deterministic simulation: a seed determines a world of daemons, stores, a network and clients.
//!
//! `docs/decisions/simulation.md` explains how it works. A failing seed prints the command that
//! replays it.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own
#![allow(clippy::disallowed_methods, missing_docs)] // worlds spawn tasks and read the environment

mod adversity;
mod announcing;
mod census;
mod chaos;
mod client;
mod cluster;
mod coordinator;
mod crash;
mod crash_point;
mod disk;
mod faults;
mod final_checks;
mod history;
mod host;
mod interleavings;
mod meter;
mod mutants;
mod net;
mod plan;
mod process;
mod reader;
mod regressions;
mod rng;
mod sets;
mod simulation;
mod store;
mod sweeper;
mod wire;
mod world;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mutants::Mutant;
use parking_lot::Mutex;
use simulation::Report;

/// How many seeds may be needed to detect a mutant.
const MUTANT_SEEDS: u64 = 40;

/// Events that must occur in a run of many seeds; a run without them proves little.
const MUST_COVER: &[&str] = &[
    "a coordinator that pauses",
    "a base directory that fails half of the time",
    "a base directory that vanishes",
    "a coordinator that stops",
    "a daemon cut off from a base directory",
    "a daemon drained",
    "a daemon frozen",
    "a daemon killed",
    "a daemon killed at an await",
    "a daemon without one of the base directories",
    "a disk unmounted",
    "a finish acknowledged",
    "a full disk",
    "a finish answered by another daemon",
    "a home that is another one for the next attempt",
    "a late writer",
    "a live exchange checked",
    "a partition read",
    "a plan from memory",
    "a query waits at its limit",
    "a read resumed",
    "a repeated batch",
    "a speculative attempt",
    "a store that hangs",
    "a writer that stalls",
    "a writer that stops after its finish was sent",
    "a writer that stops before its first batch",
    "a writer that stops between batches",
    "a writer that stops in a batch",
    "an abort acknowledged",
    "an announcement at once",
    "a declared sink",
    "a sink withdrawn",
    "a small attempt at its home",
    "a small attempt that left its home",
    "an exchange abandoned",
    "an exchange closed",
    "an exchange read",
    "an outage longer than a lease",
    "an upload that halts",
    "a request waits for memory",
    "stores that do not answer",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the worlds of many seeds on all cores until `enough` returns true for a report; returns
/// the reports in the order of the seeds.
fn run_all(
    seeds: Range<u64>,
    mutant: Option<Mutant>,
    enough: impl Fn(&Report) -> bool + Sync,
) -> Vec<Report> {
    let (next, stopped) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let reports = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let mut report = world::run(seed, mutant, false);
                    if report.violation.is_none() {
                        report.lines.clear();
                    }
                    if enough(&report) {
                        stopped.store(true, Ordering::Relaxed);
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

/// Prints the end of the trace of a failed seed, the violation, and how to replay it.
fn print_failure(report: &Report) {
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
    let mut covered = BTreeMap::<&str, u64>::new();
    for (what, times) in reports.iter().flat_map(|report| &report.counts) {
        *covered.entry(what).or_default() += times;
    }
    for (what, times) in &covered {
        println!("{times:9} {what}");
    }
    reports.iter().for_each(print_failure);
    let broken: Vec<_> = reports.iter().filter(|r| r.violation.is_some()).collect();
    let seeds: Vec<_> = broken.iter().map(|report| report.seed).collect();
    println!("{} seeds, {} broke a promise", reports.len(), seeds.len());
    assert!(seeds.is_empty(), "these seeds broke a promise: {seeds:?}");
    let missed: Vec<_> = MUST_COVER
        .iter()
        .filter(|w| !covered.contains_key(**w))
        .collect();
    assert!(
        count < 200 || missed.is_empty(),
        "no seed covered {missed:?}"
    );
}

#[test]
fn a_seed_gives_the_same_world_again_in_this_process_and_in_another() {
    for seed in [1, 2, 3, 5, 8, 13, 21, 34] {
        let (once, again) = (world::run(seed, None, false), world::run(seed, None, false));
        assert_eq!(once.lines, again.lines, "seed {seed}");
        assert_eq!(once.hash, again.hash, "seed {seed}");
        let other = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_seed_breaks_a_promise", "--nocapture"])
            .env("STOPOVER_SIM_SEED", seed.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&other.stdout);
        assert!(
            text.contains(&format!("trace {:016x}", once.hash)),
            "seed {seed}"
        );
    }
    let hashes: std::collections::BTreeSet<_> =
        (0..8).map(|s| world::run(s, None, false).hash).collect();
    assert_eq!(hashes.len(), 8, "different seeds give different worlds");
}

#[test]
fn every_mutant_is_detected_within_a_few_seeds() {
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
        "{MUTANT_SEEDS} seeds did not detect {missed:?}"
    );
}
