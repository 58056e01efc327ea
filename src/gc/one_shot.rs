//! One collection for an operator (`stopover gc`): observe all exchanges, then remove what expired.
//!
//! Does: inspect the exchanges until each that existed at the start is decided: expired, renewed,
//! or removed by another daemon. Does not: print (the command does) or store anything between runs.
//! Invariant: it is as cautious as a sweeper: it removes nothing that it has not observed itself
//! for the whole time, and nothing at all in a dry run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::collect::{Collected, Collector, Inspection, Lease, Observation};
use super::lease_tracker::{LeaseState, Verdict};
use super::orphan_observation_time;
use crate::config::units::format_duration;
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{ForeignFolder, Inventory, ListedExchange, Storage, StorageError};

/// Inspections during a watch.
const INSPECTIONS: u32 = 16;
/// After this many times the watch, exchanges that are not decided are reported as undetermined.
/// The time that successful inspections take does not count: lists of a large bucket may take
/// longer than the watch.
const MAX_WATCHES: u32 = 3;

/// The options of `stopover gc`.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// How long an exchange must not be renewed before it is removed.
    pub watch: Duration,
    /// How long the marker of an exchange may be missing after its announcement.
    pub announcement: Duration,
    /// Report what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// Why an exchange is removed or retained.
#[derive(Debug)]
pub enum GcOutcome {
    /// Removed: not renewed for the whole watch.
    Expired,
    /// Removed: it has no marker, only objects that a late writer or a dead daemon left.
    Orphaned,
    /// Removed: it had been claimed before, but not completely removed.
    HalfRemoved,
    /// Retained: renewed during the watch.
    Renewed,
    /// Retained: its folder holds only objects that Stopover did not write.
    Foreign,
    /// Retained: announced during the watch.
    New,
    /// Closed or collected by another daemon during the watch.
    RemovedElsewhere,
    /// Retained: it could not be observed for long enough, or not be removed.
    Undetermined(Obstacle),
}

impl GcOutcome {
    /// Whether such an exchange is removed, or would be without `dry_run`.
    pub fn is_removable(&self) -> bool {
        matches!(self, Self::Expired | Self::Orphaned | Self::HalfRemoved)
    }
}

/// Why an exchange could not be decided.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    #[error("a base directory was not writable for long enough")]
    NotWritable,
    #[error(
        "its lease is {}; {} are too short to determine that it is not renewed: watch for at \
         least {}",
        format_duration(*.lease), format_duration(*.watch), format_duration(*.lease / 2)
    )]
    LongerLease { lease: Duration, watch: Duration },
    #[error(
        "it has no marker, and {} are too short to determine that none is being written: \
         watch for at least {}",
        format_duration(*.watch), format_duration(*.needed)
    )]
    PerhapsAnnounced { watch: Duration, needed: Duration },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What became of one exchange.
#[derive(Debug)]
pub struct GcEntry {
    pub outcome: GcOutcome,
    /// What it held before anything was removed.
    pub inventory: Inventory,
    /// Objects removed.
    pub removed: u64,
}

#[derive(Debug)]
pub struct GcReport {
    pub entries: BTreeMap<ExchangeId, GcEntry>,
    /// Temporary files removed, none of which a running daemon was writing.
    pub temporaries: u64,
    /// Probe objects that existed for the whole watch, removed: their daemons are dead.
    pub probes: u64,
    /// Other probe objects, retained: daemons that probe remove their own.
    pub running_probes: u64,
    /// Folders that hold objects which Stopover did not write; those are retained.
    pub foreign: Vec<ForeignFolder>,
}

/// Observes all exchanges and removes those that expire, unless `dry_run`. `started` receives the
/// number of exchanges.
///
/// # Errors
/// The exchanges cannot be listed. An error with one exchange is in the report.
pub async fn collect_once(
    storage: &Storage,
    runtime: &Runtime,
    options: GcOptions,
    started: impl FnOnce(usize),
) -> Result<GcReport, StorageError> {
    let interval = options.watch / INSPECTIONS;
    let mut run = GcRun {
        storage,
        collector: Collector::new(
            storage.clone(),
            runtime.clone(),
            Lease::Fixed(options.watch),
            interval,
        ),
        options,
        entries: BTreeMap::new(),
        undecided: BTreeMap::new(),
        listed: BTreeMap::new(),
    };
    storage.check_members().await?;
    let probes = storage.list_probes().await?;
    let inspections = run.collector.inspect_all().await?;
    started(inspections.len());
    for inspection in inspections {
        let obstacle = Obstacle::NotWritable;
        run.undecided.insert(inspection.exchange.clone(), obstacle);
        run.handle(inspection, true).await?;
    }
    let mut left = options.watch * MAX_WATCHES;
    while !run.undecided.is_empty() && !left.is_zero() {
        runtime.clock.sleep(interval).await;
        left = left.saturating_sub(interval);
        let begun = runtime.clock.now();
        if !run.inspect().await? {
            left = left.saturating_sub(runtime.clock.now() - begun);
        }
    }
    for (exchange, obstacle) in std::mem::take(&mut run.undecided) {
        let listed = run.listed.remove(&exchange).unwrap_or_default();
        run.decide(exchange, GcOutcome::Undetermined(obstacle), &listed)
            .await?;
    }
    let (mut interrupted, mut running_probes) = (Vec::new(), 0);
    for probe in storage.list_probes().await? {
        match probes.binary_search(&probe) {
            Ok(_) => interrupted.push(probe),
            Err(_) => running_probes += 1,
        }
    }
    let mut temporaries = 0;
    if !options.dry_run {
        for probe in &interrupted {
            storage.remove_probe(probe).await?;
        }
        temporaries = storage.remove_stale_temporaries().await?;
    }
    Ok(GcReport {
        entries: run.entries,
        temporaries,
        probes: interrupted.len() as u64,
        running_probes,
        foreign: storage.foreign_folders(),
    })
}

struct GcRun<'a> {
    storage: &'a Storage,
    collector: Collector,
    options: GcOptions,
    entries: BTreeMap<ExchangeId, GcEntry>,
    /// The undecided exchanges of those that existed at the start, with the reason.
    undecided: BTreeMap<ExchangeId, Obstacle>,
    /// What the lists showed last.
    listed: BTreeMap<ExchangeId, ListedExchange>,
}

impl GcRun<'_> {
    /// Inspects all exchanges once more; returns whether they could be listed.
    async fn inspect(&mut self) -> Result<bool, StorageError> {
        let inspected = match self.storage.check_members().await {
            Ok(()) => self.collector.inspect_all().await,
            Err(error) => Err(error),
        };
        let inspections = match inspected {
            Ok(inspections) => inspections,
            Err(error) => {
                for obstacle in self.undecided.values_mut() {
                    *obstacle = Obstacle::Storage(error.clone());
                }
                return Ok(false);
            }
        };
        let undecided: Vec<ExchangeId> = self.undecided.keys().cloned().collect();
        for exchange in undecided {
            if inspections.iter().all(|i| i.exchange != exchange) {
                let nothing = ListedExchange::default();
                let outcome = GcOutcome::RemovedElsewhere;
                self.decide(exchange, outcome, &nothing).await?;
            }
        }
        for inspection in inspections {
            self.handle(inspection, false).await?;
        }
        Ok(true)
    }

    /// Decides an exchange if its inspection allows it.
    async fn handle(&mut self, inspection: Inspection, first: bool) -> Result<(), StorageError> {
        let Inspection {
            exchange,
            listed,
            lease,
            outcome,
        } = inspection;
        self.listed.insert(exchange.clone(), listed.clone());
        let Some(obstacle) = self.undecided.get_mut(&exchange) else {
            if !self.entries.contains_key(&exchange) {
                self.decide(exchange, GcOutcome::New, &listed).await?;
            }
            return Ok(());
        };
        let watch = self.options.watch;
        if let Some(lease) = lease.filter(|lease| *lease / 2 > watch) {
            let obstacle = Obstacle::LongerLease { lease, watch };
            let outcome = GcOutcome::Undetermined(obstacle);
            return self.decide(exchange, outcome, &listed).await;
        }
        let observation = match outcome {
            Ok(observation) => observation,
            Err(error) => {
                *obstacle = Obstacle::Storage(error);
                return Ok(());
            }
        };
        let longest = self.storage.longest_announcement();
        let needed = orphan_observation_time(self.options.announcement.max(longest));
        if observation.marker == LeaseState::Missing && watch < needed {
            let outcome = GcOutcome::Undetermined(Obstacle::PerhapsAnnounced { watch, needed });
            return self.decide(exchange, outcome, &listed).await;
        }
        *obstacle = Obstacle::NotWritable;
        match observation.verdict {
            Verdict::Expired => self.remove(exchange, observation, &listed).await,
            Verdict::Fresh if !first => self.decide(exchange, GcOutcome::Renewed, &listed).await,
            Verdict::Fresh | Verdict::Unrenewed(_) => Ok(()),
        }
    }

    async fn remove(
        &mut self,
        exchange: ExchangeId,
        observation: Observation,
        listed: &ListedExchange,
    ) -> Result<(), StorageError> {
        let inventory = self.storage.inventory(&exchange, listed).await?;
        let outcome = match observation.marker {
            LeaseState::Missing if inventory.objects == 0 => GcOutcome::Foreign,
            LeaseState::Open(_) => GcOutcome::Expired,
            LeaseState::Missing => GcOutcome::Orphaned,
            LeaseState::Tombstone(_) => GcOutcome::HalfRemoved,
        };
        if self.options.dry_run || matches!(outcome, GcOutcome::Foreign) {
            self.record(exchange, outcome, inventory, 0);
            return Ok(());
        }
        let collector = &mut self.collector;
        let collected = collector.collect(&exchange, listed, &observation, || {});
        let (outcome, removed) = match collected.await {
            Ok(Collected::Removed(removed)) => (outcome, removed),
            Ok(Collected::Retained) => (GcOutcome::Renewed, 0),
            Ok(Collected::Foreign) => (GcOutcome::Foreign, 0),
            Err(error) => (GcOutcome::Undetermined(error.into()), 0),
        };
        self.record(exchange, outcome, inventory, removed);
        Ok(())
    }

    /// Records the outcome of an exchange of which nothing was removed.
    async fn decide(
        &mut self,
        exchange: ExchangeId,
        outcome: GcOutcome,
        listed: &ListedExchange,
    ) -> Result<(), StorageError> {
        let inventory = self.storage.inventory(&exchange, listed).await;
        let inventory = match &outcome {
            // Listing it may fail for the same reason.
            GcOutcome::Undetermined(_) => inventory.unwrap_or_default(),
            _ => inventory?,
        };
        self.record(exchange, outcome, inventory, 0);
        Ok(())
    }

    fn record(
        &mut self,
        exchange: ExchangeId,
        outcome: GcOutcome,
        inventory: Inventory,
        removed: u64,
    ) {
        self.undecided.remove(&exchange);
        let entry = GcEntry {
            outcome,
            inventory,
            removed,
        };
        self.entries.insert(exchange, entry);
    }
}
