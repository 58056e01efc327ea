//! What a seed's world is made of. Each seed has some kinds of trouble and not others: worlds with
//! everything in them look alike.
//!
//! To add a kind of trouble: a field here, and what it does in `weather`, `chaos` or `attempt`.

use std::time::Duration;

use stopover::config::{Config, LeaseConfig, QueryConfig};
use stopover::storage::{RetryPolicy, StoreLimits};

use crate::chance::Chance;
use crate::weather::{NetWeather, StoreWeather};

pub const LEASE: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(4);

/// What happens to daemons, stores and coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `kill -9`, now.
    Kill,
    /// `kill -9`, at some await to come.
    KillAtAwait,
    /// SIGTERM, then a new run.
    Stop,
    /// Frozen for seconds.
    Freeze,
    /// Frozen for about a lease.
    FreezeLong,
    /// Out of reach of its clients for seconds.
    CutOff,
    /// A base directory fails for seconds.
    Outage,
    /// All base directories do what they are asked for, and nobody learns of it, for seconds.
    Mute,
    /// All base directories fail for longer than a lease.
    OutageLong,
}

const EVENTS: &[Event] = &[
    Event::Kill,
    Event::KillAtAwait,
    Event::Stop,
    Event::Freeze,
    Event::FreezeLong,
    Event::CutOff,
    Event::Outage,
    Event::Mute,
    Event::OutageLong,
];

/// One exchange.
#[derive(Debug, Clone)]
pub struct ExchangePlan {
    pub name: String,
    pub partitions: u32,
    pub ordered: bool,
    pub tasks: u32,
    /// Closed while its tasks write.
    pub closed_in_the_midst: Option<Duration>,
    /// Its coordinator goes away instead of closing it.
    pub abandoned: bool,
    /// Its coordinator pauses: when, and for how long.
    pub pauses: Option<(Duration, Duration)>,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub config: Config,
    pub limits: StoreLimits,
    pub hosts: usize,
    /// Whether each is a file system.
    pub sites: Vec<bool>,
    pub exchanges: Vec<ExchangePlan>,
    pub store: StoreWeather,
    pub net: NetWeather,
    pub events: Vec<Event>,
    pub shuffle: u64,
    /// Largest page but for rare ones.
    pub page: u64,
    /// How often in a hundred an attempt is aborted, run twice, or stalls.
    pub aborts: u64,
    pub speculates: u64,
    pub stalls: u64,
    /// Page bytes that a handle should hold about.
    pub target: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let chance = Chance::new(seed, "plan");
        let sometimes = |most: u64| match chance.yes(500) {
            true => chance.between(1, most),
            false => 0,
        };
        let delay = *chance.pick(&[2, 20, 200]);
        let store = StoreWeather {
            delay,
            slow: sometimes(20),
            fails: sometimes(60),
            throttles: sometimes(100),
            fails_afterwards: sometimes(60),
            late: sometimes(30),
            halfway: sometimes(200),
            contended: sometimes(60),
            damages: sometimes(40),
        };
        let net = NetWeather {
            delay: *chance.pick(&[1, 10, 60]),
            slow: sometimes(20),
            loses_requests: sometimes(60),
            loses_answers: sometimes(80),
            cuts_uploads: sometimes(60),
            trickles: sometimes(200),
        };
        let mut events = EVENTS.to_vec();
        events.retain(|_| chance.yes(450));
        let quiet = chance.yes(80);
        let (store, net) = match quiet {
            true => (store.calm(), net.calm()),
            false => (store, net),
        };
        let mut config = config(&chance);
        config.query = query(seed);
        Self {
            config,
            limits: limits(&chance),
            hosts: chance.between(1, 3) as usize,
            sites: (0..chance.between(1, 3)).map(|_| chance.yes(350)).collect(),
            exchanges: (0..chance.between(1, 2))
                .map(|n| exchange(&chance, n))
                .collect(),
            store,
            net,
            events: if quiet { Vec::new() } else { events },
            shuffle: *chance.pick(&[0, 30, 300]),
            page: *chance.pick(&[20, 200, 1500]),
            aborts: sometimes(20),
            speculates: sometimes(40),
            stalls: sometimes(8),
            target: *chance.pick(&[1, 1000, 1 << 20]),
        }
    }

    /// A world in which nothing happens by itself, with so many daemons and object stores.
    pub fn quiet(hosts: usize, sites: usize) -> Self {
        let chance = Chance::new(0, "quiet");
        let mut config = config(&chance);
        config.memory.budget = Some(96 << 10);
        config.segment.target_size = 2 << 10;
        Self {
            config,
            limits: StoreLimits {
                concurrency: 8,
                retry: RetryPolicy {
                    max_elapsed: Duration::from_secs(1),
                    first_wait: Duration::from_millis(50),
                    longest_wait: Duration::from_secs(1),
                },
                cancellable: true,
            },
            hosts,
            sites: vec![false; sites],
            exchanges: Vec::new(),
            store: StoreWeather::default(),
            net: NetWeather::default(),
            events: Vec::new(),
            shuffle: 0,
            page: 100,
            aborts: 0,
            speculates: 0,
            stalls: 0,
            target: 1000,
        }
    }

    /// Whether nothing at all goes wrong in this world.
    pub fn is_quiet(&self) -> bool {
        let rates = [
            self.store.slow + self.store.fails + self.store.throttles + self.store.contended,
            self.store.fails_afterwards + self.store.late + self.store.halfway,
            self.store.damages + self.net.slow + self.net.loses_requests,
            self.net.loses_answers + self.net.cuts_uploads + self.net.trickles,
        ];
        self.events.is_empty() && rates.iter().all(|rate| *rate == 0)
    }
}

fn config(chance: &Chance) -> Config {
    let mut config = Config::default();
    config.memory.budget = Some(*chance.pick(&[48 << 10, 96 << 10, 1 << 20]));
    config.segment.target_size = *chance.pick(&[300, 2 << 10, 16 << 10]);
    config.segment.upload_concurrency = *chance.pick(&[1, 2, 4]);
    config.read.chunk_size = 4096;
    config.read.fetch_concurrency = *chance.pick(&[1, 3]);
    config.limits.max_json_size = 64 << 10;
    config.lease = LeaseConfig {
        duration: LEASE,
        sweep_interval: SWEEP,
    };
    config
}

/// What one query may have: nothing said, or little more than its largest request needs.
fn query(seed: u64) -> QueryConfig {
    let chance = Chance::new(seed, "query");
    QueryConfig {
        max_write_memory: *chance.pick(&[None, Some(21 << 10)]),
        max_read_memory: *chance.pick(&[None, Some(10 << 10)]),
        ..QueryConfig::default()
    }
}

fn limits(chance: &Chance) -> StoreLimits {
    StoreLimits {
        concurrency: *chance.pick(&[2, 8, 32]),
        retry: RetryPolicy {
            max_elapsed: *chance.pick(&[Duration::from_secs(1), Duration::from_secs(8)]),
            first_wait: Duration::from_millis(50),
            longest_wait: Duration::from_secs(1),
        },
        cancellable: true,
    }
}

fn exchange(chance: &Chance, number: u64) -> ExchangePlan {
    let sometimes = |share, low, high| chance.yes(share).then(|| chance.millis(low, high));
    ExchangePlan {
        name: format!("x{number}"),
        partitions: chance.between(1, 4) as u32,
        ordered: chance.yes(300),
        tasks: chance.between(1, 5) as u32,
        closed_in_the_midst: sometimes(200, 100, 4000),
        abandoned: chance.yes(250),
        pauses: sometimes(250, 100, 10_000).map(|when| (when, chance.millis(5000, 45_000))),
    }
}
