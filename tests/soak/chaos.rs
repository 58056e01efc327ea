//! Which faults occur and when, drawn from the seed and independent of what the clients do.
//!
//! Three loops run concurrently: daemons are killed, stopped or frozen, and restarted; storage
//! fails and recovers; connections are cut. Every outage ends before the clients stop retrying.

use std::time::Duration;

use anyhow::Result;
use stopover::runtime::Random;

use crate::client::{chance, pause};
use crate::daemon::Daemon;
use crate::proxy::Proxy;
use crate::store::{Local, Remote, Store};
use crate::tally::{Tally, count};
use crate::world::{World, wall_offset};

/// For how many milliseconds a base directory is away at most: longer than a probe's interval.
const LONGEST_AWAY: u64 = 8000;

/// Injects faults until `kills` daemons were killed.
pub async fn inject_faults(world: &mut World, kills: u64, rng: &Random) -> Result<()> {
    let remote = world.store.is_remote();
    let (clients, name) = (std::rc::Rc::clone(&world.clients), world.name.clone());
    let tally = &clients.tally;
    let done = tokio::sync::watch::Sender::new(false);
    let full = std::cell::Cell::new(None);
    let daemons = async {
        let mut printed = 0;
        while tally.kills.get() < kills {
            if tally.kills.get() / 100 > printed {
                printed = tally.kills.get() / 100;
                println!("{name}: {} kills of {kills}", tally.kills.get());
            }
            disturb_daemons(&mut world.daemons, remote, full.get(), tally, rng).await?;
        }
        done.send_replace(true);
        anyhow::Ok(())
    };
    let storage = async {
        // Kinds of faults alternate, so that a short run has all of them, however long the kills
        // take.
        for round in 0u64.. {
            if *done.borrow() && round >= KINDS {
                break;
            }
            disturb_storage(&mut world.store, round, &full, tally, rng).await?;
        }
        anyhow::Ok(())
    };
    let connections = async {
        while !*done.borrow() {
            disturb_connections(&world.proxies, tally, rng).await;
        }
        anyhow::Ok(())
    };
    let (daemons, storage, connections) = tokio::join!(daemons, storage, connections);
    daemons.and(storage).and(connections)
}

async fn disturb_daemons(
    daemons: &mut [Daemon],
    remote: bool,
    file_limit: Option<u64>,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    pause(rng, 900).await;
    daemons
        .iter_mut()
        .for_each(|daemon| daemon.limit_files(file_limit));
    let one = (rng.next_u64() % daemons.len() as u64) as usize;
    match rng.next_u64() % 100 {
        0..75 => {
            let several = chance(rng, 20);
            let dead: Vec<usize> = (0..daemons.len())
                .filter(|n| *n == one || (several && chance(rng, 60)))
                .collect();
            for &n in &dead {
                daemons[n].kill();
                count(&tally.kills);
            }
            pause(rng, 600).await;
            for n in dead {
                daemons[n].start(wall_offset(remote, rng)).await?;
            }
        }
        75..85 => {
            daemons[one].stop().await?;
            count(&tally.stops);
            pause(rng, 300).await;
            daemons[one].start(wall_offset(remote, rng)).await?;
        }
        _ => {
            daemons[one].freeze(true);
            count(&tally.freezes);
            pause(rng, 2500).await;
            daemons[one].freeze(false);
        }
    }
    Ok(())
}

/// Kinds of faults of base directories, at most.
const KINDS: u64 = 4;

async fn disturb_storage(
    store: &mut Store,
    round: u64,
    file_limit: &std::cell::Cell<Option<u64>>,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    pause(rng, 2500).await;
    let changed = tally.file_times_changed.get() + store.change_file_times(rng)?;
    tally.file_times_changed.set(changed);
    match store {
        Store::Local(local) => disturb_local(local, round, file_limit, tally, rng).await,
        Store::Remote(remote) => disturb_remote(remote, round, tally, rng).await,
    }
}

async fn disturb_local(
    local: &Local,
    round: u64,
    file_limit: &std::cell::Cell<Option<u64>>,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    count(&tally.store_faults);
    if round % 3 == 2 {
        count(&tally.taken_away);
        local.take_away(true)?;
        pause(rng, LONGEST_AWAY).await;
        return local.take_away(false);
    }
    if round % 3 == 1 {
        let all = round % 6 == 4;
        local.lock(all, true)?;
        pause(rng, 2500).await;
        return local.lock(all, false);
    }
    if local.has_small() {
        local.fill(true)?;
        pause(rng, 2500).await;
        return local.fill(false);
    }
    file_limit.set(Some(0));
    pause(rng, 2500).await;
    file_limit.set(None);
    Ok(())
}

async fn disturb_remote(
    remote: &mut Remote,
    round: u64,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    match round % 4 {
        0 => {
            if remote.end() {
                count(&tally.store_kills);
            }
            pause(rng, 1500).await;
            remote.restart().await?;
        }
        1 => {
            count(&tally.store_faults);
            count(&tally.taken_away);
            let bucket = (rng.next_u64() % 2) as usize;
            remote.take_away(bucket, true);
            pause(rng, LONGEST_AWAY).await;
            remote.take_away(bucket, false);
        }
        2 => {
            remote.proxies.iter().for_each(Proxy::cut_all);
            count(&tally.cuts);
        }
        _ => {
            count(&tally.store_faults);
            let silence = |silent| {
                let proxies = remote.proxies.iter();
                proxies.for_each(|proxy| proxy.silence(silent));
            };
            silence(true);
            pause(rng, 2000).await;
            silence(false);
        }
    }
    Ok(())
}

async fn disturb_connections(proxies: &[Proxy], tally: &Tally, rng: &Random) {
    pause(rng, 1500).await;
    let proxy = &proxies[(rng.next_u64() % proxies.len() as u64) as usize];
    if chance(rng, 60) {
        proxy.cut_all();
        count(&tally.cuts);
    } else {
        proxy.silence(true);
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 1500)).await;
        proxy.silence(false);
    }
}
