//! The plan of a seed's world. Each seed has some kinds of faults and not others, since worlds with
//! all of them would resemble one another.
//!
//! To add a kind of fault: a field here, and its effect in `faults`, `chaos` or `writer`.

use std::time::Duration;

use stopover::config::{Config, LeaseConfig, QueryConfig};
use stopover::storage::{RetryPolicy, StoreLimits};
use stopover::store::deadline::DeadlinePolicy;

use crate::faults::{NetFaults, StoreFaults};
use crate::rng::Rng;

/// Of the operations of a store: longer than the slowest, shorter than it is frozen at times.
const DEADLINES: DeadlinePolicy = DeadlinePolicy {
    timeout: Duration::from_secs(15),
    ..DeadlinePolicy::REMOTE
};

pub const LEASE: Duration = Duration::from_secs(30);
/// How long a marker may be missing after its exchange was announced.
pub const ANNOUNCEMENT: Duration = Duration::from_secs(15);
const SWEEP: Duration = Duration::from_secs(4);

/// What happens to daemons, stores and coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `kill -9`, now.
    Kill,
    /// `kill -9`, at a later await.
    KillAtAwait,
    /// SIGTERM, then a new run.
    Stop,
    /// Frozen for seconds.
    Freeze,
    /// Frozen for about a lease.
    LongFreeze,
    /// Unreachable by its clients for seconds.
    CutOff,
    /// A base directory fails for seconds.
    Outage,
    /// A base directory is gone for about a lease.
    Vanish,
    /// One daemon cannot reach a base directory for a while.
    Partition,
    /// All base directories execute requests but do not answer, for seconds.
    SilentOutage,
    /// All base directories fail for longer than a lease.
    LongOutage,
    /// A base directory takes no puts for a while, and does everything else.
    FullDisk,
    /// A base directory answers nothing for a while.
    Hang,
    /// The disk of a base directory is unmounted for a while: its folder is empty.
    Unmount,
    /// One request in two to a base directory fails for a while.
    Flaky,
}

const EVENTS: &[Event] = &[
    Event::Kill,
    Event::KillAtAwait,
    Event::Stop,
    Event::Freeze,
    Event::LongFreeze,
    Event::CutOff,
    Event::Vanish,
    Event::Partition,
    Event::Outage,
    Event::SilentOutage,
    Event::LongOutage,
    Event::FullDisk,
    Event::Hang,
    Event::Unmount,
];

/// One exchange.
#[derive(Debug, Clone)]
pub struct ExchangePlan {
    pub name: String,
    pub partitions: u32,
    pub ordered: bool,
    pub tasks: u32,
    /// Closed while its tasks write.
    pub closed_early: Option<Duration>,
    /// Its coordinator stops instead of closing it.
    pub abandoned: bool,
    /// Its coordinator pauses: when, and for how long.
    pub pauses: Option<(Duration, Duration)>,
    /// Its coordinator stops for ever in the middle of the query.
    pub stops: Option<Duration>,
}

impl ExchangePlan {
    /// Whether its coordinator never closes it.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned || self.stops.is_some()
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub config: Config,
    pub limits: StoreLimits,
    pub hosts: usize,
    /// The lease in the configuration of each host.
    pub leases: Vec<Duration>,
    /// One base directory each: whether it is a file system.
    pub sites: Vec<bool>,
    /// How many of them each host is configured with; all, if nothing is said.
    pub known_sites: Vec<usize>,
    /// Whether another daemon runs that no client knows, without the last base directory.
    pub has_stranger: bool,
    /// Each daemon believes that it alone sweeps.
    pub all_sweep: bool,
    pub exchanges: Vec<ExchangePlan>,
    pub store: StoreFaults,
    pub net: NetFaults,
    pub events: Vec<Event>,
    pub yield_per_mille: u64,
    /// Maximum size of a page, except rare larger ones.
    pub page: u64,
    /// In how many of 100 attempts one is aborted, run twice, stalls, or stops at any moment.
    pub aborts: u64,
    pub speculates: u64,
    pub stalls: u64,
    pub stops: u64,
    /// Requested page bytes per handle.
    pub target: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let rng = Rng::new(seed, "plan");
        let sometimes = |most: u64| match rng.chance(500) {
            true => rng.between(1, most),
            false => 0,
        };
        let delay = *rng.pick(&[2, 20, 200]);
        let store = StoreFaults {
            delay,
            slow: sometimes(20),
            fails: sometimes(60),
            throttles: sometimes(100),
            fails_after_effect: sometimes(60),
            late_effects: sometimes(30),
            partial_deletes: sometimes(200),
            contended: sometimes(60),
            corrupts: sometimes(40),
            hangs: sometimes(10),
        };
        let net = NetFaults {
            delay: *rng.pick(&[1, 10, 60]),
            slow: sometimes(20),
            loses_requests: sometimes(60),
            loses_answers: sometimes(80),
            cuts_uploads: sometimes(60),
            trickles: sometimes(200),
            halts_uploads: sometimes(30),
        };
        let mut events = EVENTS.to_vec();
        events.retain(|_| rng.chance(450));
        if Rng::new(seed, "flaky").chance(300) {
            events.push(Event::Flaky);
        }
        let quiet = rng.chance(80);
        let (store, net) = match quiet {
            true => (store.without_faults(), net.without_faults()),
            false => (store, net),
        };
        let mut config = config(&rng);
        config.query = query(seed);
        let hosts = rng.between(1, 3) as usize;
        Self {
            config,
            limits: limits(&rng),
            hosts,
            leases: leases(seed, hosts),
            sites: (0..rng.between(1, 3)).map(|_| rng.chance(350)).collect(),
            known_sites: Vec::new(),
            has_stranger: Rng::new(seed, "stranger").chance(250),
            all_sweep: false,
            exchanges: (0..rng.between(1, 2)).map(|n| exchange(&rng, n)).collect(),
            store,
            net,
            events: if quiet { Vec::new() } else { events },
            yield_per_mille: *rng.pick(&[0, 30, 300]),
            page: *rng.pick(&[20, 200, 1500]),
            aborts: sometimes(20),
            speculates: sometimes(40),
            stalls: sometimes(8),
            stops: sometimes(15),
            target: *rng.pick(&[1, 1000, 1 << 20]),
        }
    }

    /// A world without faults and events, with this many daemons and object stores.
    pub fn quiet(hosts: usize, sites: usize) -> Self {
        let rng = Rng::new(0, "quiet");
        let mut config = config(&rng);
        (config.memory.budget, config.memory.write_share) = (Some(240 << 10), 0.2);
        config.segment.target_size = 2 << 10;
        config.read.fetch_concurrency = 3;
        Self {
            config,
            limits: StoreLimits {
                deadline: DEADLINES,
                concurrency: 8,
                retry: RetryPolicy {
                    max_elapsed: Duration::from_secs(1),
                    first_wait: Duration::from_millis(50),
                    longest_wait: Duration::from_secs(1),
                    longest_asked_wait: Duration::from_secs(1),
                },
                cancellable: true,
            },
            hosts,
            leases: vec![LEASE; hosts],
            sites: vec![false; sites],
            known_sites: Vec::new(),
            has_stranger: false,
            all_sweep: false,
            exchanges: Vec::new(),
            store: StoreFaults::default(),
            net: NetFaults::default(),
            events: Vec::new(),
            yield_per_mille: 0,
            page: 100,
            aborts: 0,
            speculates: 0,
            stalls: 0,
            stops: 0,
            target: 1000,
        }
    }

    /// Whether its base directories exist before its daemons, which create none: one that starts
    /// while a disk is unmounted cannot tell it from an empty one.
    pub fn is_initialized(&self) -> bool {
        self.events.contains(&Event::Unmount)
    }

    /// Whether this world has no faults and no events.
    pub fn is_quiet(&self) -> bool {
        let rates = [
            self.store.slow + self.store.fails + self.store.throttles + self.store.contended,
            self.store.fails_after_effect + self.store.late_effects + self.store.partial_deletes,
            self.store.corrupts + self.net.slow + self.net.loses_requests,
            self.net.loses_answers + self.net.cuts_uploads + self.net.trickles,
            self.store.hangs + self.net.halts_uploads + self.stops,
        ];
        self.events.is_empty() && rates.iter().all(|rate| *rate == 0)
    }
}

fn config(rng: &Rng) -> Config {
    let mut config = Config::default();
    // Little to write in, and enough to read in for the footers of an exchange.
    let (budget, share) = *rng.pick(&[(160 << 10, 0.15), (240 << 10, 0.2), (1 << 20, 0.5)]);
    (config.memory.budget, config.memory.write_share) = (Some(budget), share);
    config.segment.target_size = *rng.pick(&[300, 2 << 10, 16 << 10]);
    config.segment.upload_concurrency = *rng.pick(&[1, 2, 4]);
    config.read.chunk_size = 4096;
    config.read.fetch_concurrency = *rng.pick(&[1, 3]);
    config.limits.max_control_body_size = 64 << 10;
    config.lease = LeaseConfig {
        duration: LEASE,
        announcement_timeout: ANNOUNCEMENT,
        sweep_interval: SWEEP,
    };
    config
}

/// Limits of one query: none, or little more than its largest request needs.
fn query(seed: u64) -> QueryConfig {
    let rng = Rng::new(seed, "query");
    QueryConfig {
        max_write_memory: *rng.pick(&[None, Some(21 << 10)]),
        max_read_memory: *rng.pick(&[None, Some(96 << 10)]),
        ..QueryConfig::default()
    }
}

/// A third of the usual lease, or three of them, at some hosts of some worlds.
fn leases(seed: u64, hosts: usize) -> Vec<Duration> {
    let rng = Rng::new(seed, "leases");
    let equal = rng.chance(600);
    let lease = |_| match equal {
        true => LEASE,
        false => *rng.pick(&[LEASE / 3, LEASE, LEASE * 3]),
    };
    (0..hosts).map(lease).collect()
}

fn limits(rng: &Rng) -> StoreLimits {
    StoreLimits {
        deadline: DEADLINES,
        concurrency: *rng.pick(&[2, 8, 32]),
        retry: RetryPolicy {
            max_elapsed: *rng.pick(&[Duration::from_secs(1), Duration::from_secs(8)]),
            first_wait: Duration::from_millis(50),
            longest_wait: Duration::from_secs(1),
            longest_asked_wait: Duration::from_secs(1),
        },
        cancellable: true,
    }
}

fn exchange(rng: &Rng, number: u64) -> ExchangePlan {
    let sometimes = |share, low, high| rng.chance(share).then(|| rng.millis(low, high));
    ExchangePlan {
        name: format!("x{number}"),
        partitions: rng.between(1, 4) as u32,
        ordered: rng.chance(300),
        tasks: rng.between(1, 5) as u32,
        closed_early: sometimes(200, 100, 4000),
        abandoned: rng.chance(250),
        pauses: sometimes(250, 100, 10_000).map(|when| (when, rng.millis(5000, 45_000))),
        stops: sometimes(120, 10, 6000),
    }
}
