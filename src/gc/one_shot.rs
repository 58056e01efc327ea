//! Collecting once, for an operator: watch everything that is there, then say or do what follows.
//!
//! Does: look again and again until each exchange that was there at the beginning is settled:
//! silent for the whole watch, or renewed, or gone. Does not: print (the command `gc` does) or keep
//! anything from one run to the next. Invariant: as cautious as the sweeper; nothing goes that it
//! has not watched itself, and nothing at all in a dry run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::collect::{Collector, Inspection, Observation};
use super::lease_tracker::{MarkerState, Verdict};
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{Inventory, Storage, StorageError};

/// Looks during a watch.
const LOOKS: u32 = 16;
/// After this many times the watch it gives up on those that are not settled.
const PATIENCE: u32 = 3;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// How long an exchange must be silent.
    pub watch: Duration,
    /// Only say what would go.
    pub dry_run: bool,
}

/// Why an exchange goes or stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcOutcome {
    /// Nobody renewed it: it goes.
    Expired,
    /// It has no announcement, only objects that a late or dead writer left: it goes.
    Orphaned,
    /// Its end was claimed before, and not carried out to the end: it goes.
    HalfRemoved,
    /// It was renewed meanwhile: it stays.
    Renewed,
    /// It appeared meanwhile: it stays.
    New,
    /// Somebody else has closed or collected it.
    RemovedElsewhere,
    /// It could not be watched for long enough, or not be removed: it stays for now.
    Undetermined(String),
}

impl GcOutcome {
    /// Whether such an exchange is to go.
    pub fn is_removable(&self) -> bool {
        matches!(self, Self::Expired | Self::Orphaned | Self::HalfRemoved)
    }
}

/// What became of one exchange.
#[derive(Debug)]
pub struct GcEntry {
    /// Why.
    pub outcome: GcOutcome,
    /// What it held before anything was removed.
    pub inventory: Inventory,
    /// How many objects were removed.
    pub removed: u64,
}

/// What became of all.
#[derive(Debug)]
pub struct GcReport {
    /// By exchange.
    pub entries: BTreeMap<ExchangeId, GcEntry>,
    /// Temporary files removed that no running daemon writes.
    pub temporaries: u64,
}

/// Watches, and then removes unless told not to. `began` is told how many exchanges there are.
///
/// # Errors
/// When the exchanges cannot be listed; what befell single ones is in the report.
pub async fn collect_once(
    storage: &Storage,
    runtime: &Runtime,
    options: GcOptions,
    began: impl FnOnce(usize),
) -> Result<GcReport, StorageError> {
    let interval = options.watch / LOOKS;
    let collector = Collector::new(storage.clone(), runtime.clone(), options.watch, interval);
    let mut round = Round {
        storage,
        collector,
        options,
        entries: BTreeMap::new(),
        waiting: BTreeMap::new(),
    };
    let found = round.collector.inspect_all().await?;
    began(found.len());
    for finding in found {
        let why = reason(&finding);
        round.waiting.insert(finding.exchange.clone(), why);
        round.take(finding, true).await?;
    }
    let give_up = runtime.clock.now() + options.watch * PATIENCE;
    while !round.waiting.is_empty() && runtime.clock.now() < give_up {
        runtime.clock.sleep(interval).await;
        round.look().await?;
    }
    for (exchange, why) in std::mem::take(&mut round.waiting) {
        round
            .settle(exchange, GcOutcome::Undetermined(why), 0)
            .await?;
    }
    let temporaries = match options.dry_run {
        true => 0,
        false => storage.remove_stale_temporaries().await?,
    };
    Ok(GcReport {
        entries: round.entries,
        temporaries,
    })
}

struct Round<'a> {
    storage: &'a Storage,
    collector: Collector,
    options: GcOptions,
    entries: BTreeMap<ExchangeId, GcEntry>,
    /// Those that are not settled, with what keeps them from it.
    waiting: BTreeMap<ExchangeId, String>,
}

impl Round<'_> {
    async fn look(&mut self) -> Result<(), StorageError> {
        let found = match self.collector.inspect_all().await {
            Ok(found) => found,
            Err(error) => {
                for why in self.waiting.values_mut() {
                    *why = error.to_string();
                }
                return Ok(());
            }
        };
        let there =
            |exchange: &ExchangeId| found.iter().any(|finding| finding.exchange == *exchange);
        let waiting: Vec<ExchangeId> = self.waiting.keys().cloned().collect();
        for exchange in waiting.into_iter().filter(|exchange| !there(exchange)) {
            self.settle(exchange, GcOutcome::RemovedElsewhere, 0)
                .await?;
        }
        for finding in found {
            self.take(finding, false).await?;
        }
        Ok(())
    }

    /// Settles what a look found, as far as it can be.
    async fn take(&mut self, finding: Inspection, first: bool) -> Result<(), StorageError> {
        let exchange = finding.exchange.clone();
        if !self.waiting.contains_key(&exchange) {
            if !self.entries.contains_key(&exchange) {
                self.settle(exchange, GcOutcome::New, 0).await?;
            }
            return Ok(());
        }
        self.waiting.insert(exchange.clone(), reason(&finding));
        match finding.outcome {
            Ok(seen) if seen.verdict == Verdict::Expired => self.end(exchange, seen).await,
            Ok(seen) if seen.verdict == Verdict::Fresh && !first => {
                self.settle(exchange, GcOutcome::Renewed, 0).await
            }
            _ => Ok(()),
        }
    }

    async fn end(&mut self, exchange: ExchangeId, seen: Observation) -> Result<(), StorageError> {
        let outcome = match seen.sight {
            MarkerState::Open(_) => GcOutcome::Expired,
            MarkerState::Missing => GcOutcome::Orphaned,
            MarkerState::Tombstone => GcOutcome::HalfRemoved,
        };
        if self.options.dry_run {
            return self.settle(exchange, outcome, 0).await;
        }
        let inventory = self.storage.inventory(&exchange).await?;
        let (outcome, removed) = match self.collector.collect(&exchange, &seen, || {}).await {
            Ok(Some(removed)) => (outcome, removed),
            Ok(None) => (GcOutcome::Renewed, 0),
            Err(error) => (GcOutcome::Undetermined(error.to_string()), 0),
        };
        self.enter(exchange, outcome, inventory, removed);
        Ok(())
    }

    async fn settle(
        &mut self,
        exchange: ExchangeId,
        outcome: GcOutcome,
        removed: u64,
    ) -> Result<(), StorageError> {
        let inventory = match &outcome {
            GcOutcome::RemovedElsewhere => Inventory::default(),
            // Whatever keeps it from being looked at may keep it from being listed, too.
            GcOutcome::Undetermined(_) => {
                self.storage.inventory(&exchange).await.unwrap_or_default()
            }
            _ => self.storage.inventory(&exchange).await?,
        };
        self.enter(exchange, outcome, inventory, removed);
        Ok(())
    }

    fn enter(
        &mut self,
        exchange: ExchangeId,
        outcome: GcOutcome,
        inventory: Inventory,
        removed: u64,
    ) {
        self.waiting.remove(&exchange);
        let entry = GcEntry {
            outcome,
            inventory,
            removed,
        };
        self.entries.insert(exchange, entry);
    }
}

/// What keeps an exchange from being settled.
fn reason(finding: &Inspection) -> String {
    match &finding.outcome {
        Ok(_) => "a base directory did not take writes for long enough to tell".to_owned(),
        Err(error) => error.to_string(),
    }
}
