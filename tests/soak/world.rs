//! Three daemons on one kind of storage, their proxies and clients, and what must be true at the
//! end.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stopover::runtime::Random;

use crate::Kind;
use crate::client::{Clients, Endpoint};
use crate::clocks::WallClocks;
use crate::daemon::Daemon;
use crate::exchange::LEASE;
use crate::process::tail;
use crate::proxy::Proxy;
use crate::store::{Local, Remote, Store};

const DAEMONS: usize = 3;
/// The drain timeout is shorter than some sinks are open.
const CONFIGURATION: &str = "\
    [server]\ndrain_timeout = \"2s\"\n\
    [memory]\nbudget = \"48MiB\"\n\
    [segment]\ntarget_size = \"512KiB\"\n\
    [read]\nchunk_size = \"1MiB\"\n\
    [limits]\nmax_page_size = \"2MiB\"\nmax_batch_size = \"8MiB\"\n\
    [lease]\nduration = \"15s\"\nannouncement_timeout = \"3s\"\nsweep_interval = \"1s\"\n";

/// Gauges that are zero, for all labels, in a daemon without clients.
const ZERO_AT_REST: [&str; 5] = [
    "stopover_sinks_open",
    "stopover_exchanges_with_sinks",
    "stopover_uploads_in_flight",
    "stopover_memory_used_bytes",
    "stopover_memory_waiting_bytes",
];

pub struct World {
    pub name: String,
    pub daemons: Vec<Daemon>,
    pub store: Store,
    pub proxies: Vec<Proxy>,
    pub clients: Rc<Clients>,
}

impl World {
    pub async fn start(kind: Kind, work: &Path, clocks: &WallClocks, rng: &Random) -> Result<Self> {
        let name = kind.name();
        let work = work.join(name);
        let root = work.join("store");
        std::fs::create_dir_all(&root)?;
        let ports = ports(DAEMONS + 1, rng)?;
        let store = match kind.emulator() {
            Some(kind) => {
                let rng = Random::seeded(rng.next_u64());
                Store::Remote(Box::new(
                    Remote::start(kind, &root, &work, ports[DAEMONS], rng).await?,
                ))
            }
            None => Store::Local(Local::create(&root)?),
        };
        let config = format!("{CONFIGURATION}\n{}", store.configuration());
        let (mut daemons, mut proxies, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        for (number, &port) in ports[..DAEMONS].iter().enumerate() {
            let name = format!("daemon-{number}");
            daemons.push(Daemon::new(&name, port, &config, &work, clocks)?);
            let proxy = Proxy::start(port, Random::seeded(rng.next_u64())).await?;
            let urls = [port, proxy.port].map(|port| format!("http://127.0.0.1:{port}"));
            endpoints.push(Endpoint { urls });
            proxies.push(proxy);
        }
        let mut world = Self {
            name: name.to_owned(),
            daemons,
            store,
            proxies,
            clients: Rc::new(Clients::new(endpoints)?),
        };
        world.daemons[0].init().await?;
        for daemon in &mut world.daemons {
            let offset = wall_offset(world.store.is_remote(), rng);
            daemon.start(offset).await?;
        }
        Ok(world)
    }

    /// Stops all faults and starts the daemons that are down.
    pub async fn stop_faults(&mut self, rng: &Random) -> Result<()> {
        self.proxies.iter().for_each(Proxy::stop_faults);
        if let Store::Remote(remote) = &mut self.store {
            remote.proxies.iter().for_each(Proxy::stop_faults);
        }
        for daemon in &mut self.daemons {
            if !daemon.is_running() {
                daemon
                    .start(wall_offset(self.store.is_remote(), rng))
                    .await?;
            }
        }
        Ok(())
    }

    /// Waits until nothing is left anywhere and every gauge is at zero; then stops the daemons.
    pub async fn check_at_rest(&mut self) -> Result<()> {
        // Exchanges without renewals are collected after a sweeper has observed them for a lease.
        let deadline = Instant::now() + 8 * LEASE;
        loop {
            let left = self.store.leftovers().await?;
            let busy = self.busy().await?;
            if left.is_empty() && busy.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                bail!("left at the end: {left:#?}; gauges not at rest: {busy:#?}");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for daemon in &mut self.daemons {
            let metrics = daemon.metrics().await?;
            let integrity_failures = metrics.get("stopover_integrity_failures_total");
            ensure!(
                integrity_failures == Some(&0.0),
                "{} has read corrupt data: {integrity_failures:?}",
                daemon.name
            );
        }
        for daemon in &mut self.daemons {
            daemon.stop().await?;
        }
        let left = self.store.leftovers().await?;
        ensure!(left.is_empty(), "left after the stop: {left:#?}");
        Ok(())
    }

    /// Gauges that do not have the value that they should have without requests.
    async fn busy(&self) -> Result<Vec<String>> {
        let mut busy = Vec::new();
        for daemon in &self.daemons {
            for (sample, value) in daemon.metrics().await? {
                let name = sample.split('{').next().unwrap_or_default();
                let expected = match name {
                    name if ZERO_AT_REST.contains(&name) => 0.0,
                    // The request for the metrics.
                    "stopover_http_requests_in_flight" => 1.0,
                    "stopover_storage_healthy" => 1.0,
                    _ => continue,
                };
                if value != expected {
                    busy.push(format!("{}: {sample} {value}", daemon.name));
                }
            }
        }
        Ok(busy)
    }

    /// How many lines of the daemons' logs contain any of these texts.
    pub fn log_lines(&self, words: &[&str]) -> Result<usize> {
        let mut lines = 0;
        for daemon in &self.daemons {
            let log = std::fs::read(&daemon.log)?;
            let log = String::from_utf8_lossy(&log);
            let says = |line: &&str| words.iter().any(|word| line.contains(word));
            lines += log.lines().filter(says).count();
        }
        Ok(lines)
    }

    pub fn print_logs(&self) {
        for daemon in &self.daemons {
            println!(
                "---- {} {}: {} ----",
                self.name,
                daemon.name,
                daemon.log.display()
            );
            for line in tail(&daemon.log, 12).lines() {
                println!("{}", line.chars().take(200).collect::<String>());
            }
        }
        if let Store::Remote(remote) = &self.store {
            let server = remote.log();
            println!("---- {} ----\n{}", server.display(), tail(&server, 10));
        }
    }
}

/// Draws an offset of a wall clock, in seconds: up to a day, on an object store up to ten minutes,
/// because servers reject signatures that are 15 minutes off.
pub fn wall_offset(remote: bool, rng: &Random) -> i64 {
    let most = if remote { 600 } else { 86_400 };
    (rng.next_u64() % (2 * most + 1)) as i64 - most as i64
}

/// Free ports below the range of outgoing connections.
fn ports(count: usize, rng: &Random) -> Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..10_000 {
        let port = 10_240 + (rng.next_u64() % 20_000) as u16;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    Err(anyhow::anyhow!("{count} ports between 10240 and 30240")).context("none are free")
}
