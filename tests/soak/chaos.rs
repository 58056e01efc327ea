//! What breaks, and when: drawn from the seed. Nothing here looks at what the clients do.
//!
//! Three strands at once: daemons die, stop or freeze and come back; the storage fails and works
//! again; connections are cut. An outage is always over before the clients' patience is.

use std::time::Duration;

use anyhow::Result;
use stopover::runtime::Random;

use crate::client::{chance, pause};
use crate::daemon::Daemon;
use crate::proxy::Proxy;
use crate::store::{Local, S3, Store};
use crate::tally::{Tally, count};
use crate::world::{World, wall_offset};

/// Breaks things until so many daemons were killed.
pub async fn storm(world: &mut World, kills: u64, rng: &Random) -> Result<()> {
    let s3 = matches!(world.store, Store::S3(_));
    let (clients, name) = (std::rc::Rc::clone(&world.clients), world.name.clone());
    let tally = &clients.tally;
    let over = tokio::sync::watch::Sender::new(false);
    let full = std::cell::Cell::new(None);
    let daemons = async {
        let mut told = 0;
        while tally.kills.get() < kills {
            if tally.kills.get() / 100 > told {
                told = tally.kills.get() / 100;
                println!("{name}: {} kills of {kills}", tally.kills.get());
            }
            strike_daemons(&mut world.daemons, s3, full.get(), tally, rng).await?;
        }
        over.send_replace(true);
        anyhow::Ok(())
    };
    let storage = async {
        // In turn, so that a short storm has all kinds.
        for turn in 0u64.. {
            if *over.borrow() {
                break;
            }
            strike_storage(&mut world.store, turn, &full, tally, rng).await?;
        }
        anyhow::Ok(())
    };
    let connections = async {
        while !*over.borrow() {
            strike_connections(&world.proxies, tally, rng).await;
        }
        anyhow::Ok(())
    };
    let (daemons, storage, connections) = tokio::join!(daemons, storage, connections);
    daemons.and(storage).and(connections)
}

async fn strike_daemons(
    daemons: &mut [Daemon],
    s3: bool,
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
                daemons[n].start(wall_offset(s3, rng)).await?;
            }
        }
        75..85 => {
            daemons[one].stop().await?;
            count(&tally.stops);
            pause(rng, 300).await;
            daemons[one].start(wall_offset(s3, rng)).await?;
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

async fn strike_storage(
    store: &mut Store,
    turn: u64,
    file_limit: &std::cell::Cell<Option<u64>>,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    pause(rng, 2500).await;
    let falsified = tally.times_falsified.get() + store.falsify_times(rng)?;
    tally.times_falsified.set(falsified);
    match store {
        Store::Local(local) => strike_local(local, turn, file_limit, tally, rng).await,
        Store::S3(s3) => strike_s3(s3, turn, tally, rng).await,
    }
}

async fn strike_local(
    local: &Local,
    turn: u64,
    file_limit: &std::cell::Cell<Option<u64>>,
    tally: &Tally,
    rng: &Random,
) -> Result<()> {
    count(&tally.store_faults);
    if !turn.is_multiple_of(2) {
        let all = turn % 4 == 3;
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

async fn strike_s3(s3: &mut S3, turn: u64, tally: &Tally, rng: &Random) -> Result<()> {
    match turn % 3 {
        0 => {
            s3.kill();
            count(&tally.store_kills);
            pause(rng, 1500).await;
            s3.restart().await?;
        }
        1 => {
            s3.proxy.cut_all();
            count(&tally.cuts);
        }
        _ => {
            count(&tally.store_faults);
            s3.proxy.silence(true);
            pause(rng, 2000).await;
            s3.proxy.silence(false);
        }
    }
    Ok(())
}

async fn strike_connections(proxies: &[Proxy], tally: &Tally, rng: &Random) {
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
