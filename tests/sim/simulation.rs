//! What all parts of one simulated world share: the trace, the history, the result.
//!
//! Does: record what happens, and stop the world at the first broken promise. Does not: know the
//! promises (`history`). Invariant: the trace of a seed has the same hash in every process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::mutants::Mutant;

/// How many lines of the trace are retained, to be printed after a failure.
const TRACE_LINES: usize = 80;

/// One world.
pub struct Simulation {
    pub seed: u64,
    pub start: Instant,
    pub history: Mutex<History>,
    /// How a promise is broken on purpose, if one is.
    pub mutant: Option<Mutant>,
    /// Runs of daemons that have not ended; temporary files of others are stale.
    pub live_processes: Mutex<BTreeSet<u64>>,
    /// Cancelled once a promise was broken, which ends the world.
    pub stopped: CancellationToken,
    print: bool,
    trace: Mutex<Trace>,
}

#[derive(Default)]
struct Trace {
    hash: DefaultHasher,
    lines: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<String>,
}

/// How a world ended.
pub struct Report {
    pub seed: u64,
    pub hash: u64,
    pub violation: Option<String>,
    pub lines: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Simulation {
    pub fn new(seed: u64, history: History, mutant: Option<Mutant>, print: bool) -> Arc<Self> {
        Arc::new(Self {
            seed,
            start: Instant::now(),
            history: Mutex::new(history),
            mutant,
            live_processes: Mutex::default(),
            stopped: CancellationToken::new(),
            print,
            trace: Mutex::default(),
        })
    }

    /// Appends a line to the trace.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:9} {what}", self.start.elapsed().as_millis());
        let mut trace = self.trace.lock();
        trace.hash.write(line.as_bytes());
        if self.print {
            println!("{line}");
        }
        if trace.lines.len() == TRACE_LINES {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// Counts an event that a run of many seeds must cover.
    pub fn count(&self, what: &'static str) {
        *self.trace.lock().counts.entry(what).or_default() += 1;
    }

    /// Reports a broken promise.
    pub fn violate(&self, what: impl fmt::Display) {
        self.note(format_args!("BROKEN {what}"));
        let mut trace = self.trace.lock();
        trace.violation.get_or_insert_with(|| what.to_string());
        self.stopped.cancel();
    }

    /// Reports a broken promise if a check of the history failed.
    pub fn check(&self, checked: Result<(), String>) {
        if let Err(what) = checked {
            self.violate(what);
        }
    }

    /// Spawns a task that outlives daemons: a client, or the far side of a store.
    pub fn spawn(
        self: &Arc<Self>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let simulation = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                simulation.violate(format_args!("a client panicked: {}", panic_text(&*panic)));
            }
        })
    }

    pub fn report(&self) -> Report {
        let trace = self.trace.lock();
        Report {
            seed: self.seed,
            hash: trace.hash.finish(),
            violation: trace.violation.clone(),
            lines: trace.lines.iter().cloned().collect(),
            counts: trace.counts.clone(),
        }
    }
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}

/// `note!(simulation, "format", …)`
macro_rules! note {
    ($simulation:expr, $($text:tt)*) => { $simulation.note(format_args!($($text)*)) };
}
pub(crate) use note;
