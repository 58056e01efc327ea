//! Which connections may be open, and which one is closed for another.
//!
//! Does: bound the connections with and without a slot, and choose which to close when either limit
//! is reached. Does not: close connections or accept them (`server` does). Invariant: a client that
//! has sent no authorized request never displaces one that has.
//!
//! A connection acquires one of `limits.max_connections` slots with its first authorized request.
//! Until then it is a *stranger*: an unauthorized connection that may only call the probes. There
//! are few of them, and the oldest is closed for a new one. So clients without rights cannot keep
//! probes or other clients from being served.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::{Activity, Connection};
use super::limits::ServerLimits;
use crate::config::LimitsConfig;

/// Strangers that are younger are not closed: they have had no time to send a request.
const MIN_STRANGER_AGE: Duration = Duration::from_millis(50);
/// The same during a TLS handshake, which needs several round trips and CPU time.
const MIN_HANDSHAKE_AGE: Duration = Duration::from_millis(500);
/// Connections that are idle or stalled for less are closed only after their current request.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Interval at which a request that waits for a slot causes further evictions.
const EVICTION_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two evictions of connections with a slot, each of which scans all of them.
const CHOICE_INTERVAL: Duration = Duration::from_millis(20);

/// All open connections. Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Inner>);

struct Inner {
    limits: ServerLimits,
    free: Arc<Semaphore>,
    open: Mutex<Open>,
    /// Notified when a connection has been closed.
    closed: Notify,
}

#[derive(Default)]
struct Open {
    /// By number, hence oldest first.
    strangers: BTreeMap<u64, Connection>,
    with_slot: HashMap<u64, Connection>,
    next: u64,
    last_choice: Option<Instant>,
}

/// The client of a connection. Requests carry it as an extension. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    slots: Slots,
    number: u64,
    connection: Connection,
}

/// Represents an open connection among the limits, and owns its slot: both are released on drop.
pub struct Place(Client);

/// Why a connection got no slot.
#[derive(Debug, thiserror::Error)]
#[error("all of limits.max_connections ({limit}) are in use: retry later, or raise it")]
pub struct NoSlot {
    limit: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Client {
            slots,
            number,
            connection,
            ..
        } = &self.0;
        let mut open = slots.0.open.lock();
        open.strangers.remove(number);
        open.with_slot.remove(number);
        drop(open);
        connection.set_slot(None);
        slots.0.closed.notify_one();
    }
}

impl Place {
    /// The client, for the requests of the connection.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }
}

impl Client {
    /// Acquires a slot for the connection, unless it has one. An authorized request does so before
    /// anything else. Waits while all slots are in use, and evicts other connections.
    ///
    /// # Errors
    /// No slot became free in time.
    pub async fn acquire_slot(&self) -> Result<(), NoSlot> {
        if self.connection.has_slot() {
            return Ok(());
        }
        let patience = self.slots.0.limits.header_timeout;
        self.connection.set_waits_for_slot(true);
        let slot = tokio::select! {
            biased;
            slot = self.wait_for_slot() => Some(slot),
            () = self.connection.clock().sleep(patience) => None,
            () = self.connection.evicted() => None,
        };
        self.connection.set_waits_for_slot(false);
        match slot {
            Some(slot) => self.slots.grant(self, slot),
            None => {
                self.connection.close_after_request();
                let limit = self.slots.limit();
                return Err(NoSlot { limit });
            }
        }
        Ok(())
    }

    async fn wait_for_slot(&self) -> OwnedSemaphorePermit {
        let acquired = Arc::clone(&self.slots.0.free).acquire_owned();
        tokio::pin!(acquired);
        loop {
            let first = futures::poll!(acquired.as_mut());
            if first.is_pending() {
                self.slots.make_room(self.connection.clock().now());
            }
            let slot = match first {
                Poll::Ready(slot) => Some(slot),
                Poll::Pending => tokio::select! {
                    biased;
                    slot = acquired.as_mut() => Some(slot),
                    () = self.connection.clock().sleep(EVICTION_INTERVAL) => None,
                },
            };
            if let Some(slot) = slot {
                return slot.expect("the semaphore is never closed");
            }
        }
    }
}

impl Slots {
    /// Slots according to the limits, all of them free.
    pub fn new(limits: ServerLimits) -> Self {
        let count = limits.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            limits,
            free: Arc::new(Semaphore::new(count)),
            open: Mutex::default(),
            closed: Notify::new(),
        }))
    }

    /// The number of slots.
    fn limit(&self) -> usize {
        self.0.limits.max_connections
    }

    /// Adds a connection that was just accepted, as a stranger.
    pub fn enter(&self, connection: Connection) -> Place {
        let mut open = self.0.open.lock();
        let number = open.next;
        open.next += 1;
        open.strangers.insert(number, connection.clone());
        drop(open);
        Place(Client {
            slots: self.clone(),
            number,
            connection,
        })
    }

    fn grant(&self, client: &Client, slot: OwnedSemaphorePermit) {
        let mut open = self.0.open.lock();
        // Without an entry, the connection was closed meanwhile.
        if let Some(connection) = open.strangers.remove(&client.number) {
            client.connection.set_slot(Some(slot));
            open.with_slot.insert(client.number, connection);
        }
    }

    /// Completes when a connection has been closed.
    pub async fn closed(&self) {
        self.0.closed.notified().await;
    }

    /// Whether another connection may be served. If there are too many strangers, the oldest one
    /// is evicted; one that waits for a slot, only if all do.
    pub fn admits_stranger(&self, now: Instant) -> bool {
        let open = self.0.open.lock();
        if open.strangers.len() < LimitsConfig::max_strangers(self.limit()) {
            return true;
        }
        let old_enough = || {
            let strangers = open.strangers.values();
            strangers
                .take_while(|connection| connection.age(now) >= MIN_STRANGER_AGE)
                .filter(|connection| {
                    let spared =
                        connection.is_in_handshake() && connection.age(now) < MIN_HANDSHAKE_AGE;
                    !spared && !connection.is_evicted()
                })
        };
        let silent = old_enough().find(|connection| !connection.waits_for_slot());
        if let Some(connection) = silent.or_else(|| old_enough().next()) {
            connection.evict();
        }
        false
    }

    /// Evicts one connection with a slot for each request that waits for one: the longest idle
    /// ones, then those that have been stalled longest. If there are none, busy ones are closed
    /// after their current request.
    fn make_room(&self, now: Instant) {
        let mut open = self.0.open.lock();
        let recently = |last| now.saturating_duration_since(last) < CHOICE_INTERVAL;
        if open.last_choice.is_some_and(recently) {
            return;
        }
        open.last_choice = Some(now);
        let waiting = open.strangers.values().filter(|c| c.waits_for_slot());
        let waiting = waiting.count();
        let staying = open
            .with_slot
            .values()
            .filter(|c| !c.is_evicted() && !c.is_last_request());
        let mut ranked: Vec<_> = staying.map(|c| (rank(c.activity(now)), c)).collect();
        let leaving = open.with_slot.len() - ranked.len();
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        let needed = waiting.saturating_sub(leaving).max(1);
        for (rank, connection) in ranked.into_iter().take(needed) {
            match rank {
                (Rank::Active, _) => connection.close_after_request(),
                _ => connection.evict(),
            }
        }
    }
}

/// The order of eviction of connections with a slot: the greatest rank first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Active,
    Stalled,
    Idle,
}

fn rank(activity: Activity) -> (Rank, Duration) {
    match activity {
        Activity::Idle(time) if time >= MIN_IDLE => (Rank::Idle, time),
        Activity::BodyStalled(time) | Activity::ResponseStalled(time) if time >= MIN_IDLE => {
            (Rank::Stalled, time)
        }
        Activity::Idle(time) => (Rank::Active, time),
        _ => (Rank::Active, Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::{TrackedRequest, WaitsFor};
    use crate::runtime::Clock;

    fn slots(max_connections: usize) -> Slots {
        Slots::new(ServerLimits {
            max_connections,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
            http2: false,
        })
    }

    fn enter(slots: &Slots) -> Place {
        slots.enter(Connection::new(&Clock::default()))
    }

    async fn enter_with_slot(slots: &Slots) -> Place {
        let place = enter(slots);
        place.client().acquire_slot().await.unwrap();
        place
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_stranger_gives_way_but_not_before_it_could_send_a_request() {
        let slots = slots(4);
        let _busy = enter_with_slot(&slots).await;
        let mut places: Vec<_> = (0..64).map(|_| enter(&slots)).collect();
        places[1].connection().set_in_handshake(true);
        assert!(!slots.admits_stranger(Instant::now()));
        assert!(places.iter().all(|place| !place.connection().is_evicted()));
        pass(MIN_STRANGER_AGE).await;
        assert!(!slots.admits_stranger(Instant::now()));
        let evicted = |places: &[Place]| -> Vec<usize> {
            let numbers = 0..places.len();
            numbers
                .filter(|n| places[*n].connection().is_evicted())
                .collect()
        };
        assert_eq!(evicted(&places), [0]);
        assert!(!slots.admits_stranger(Instant::now()));
        assert_eq!(evicted(&places), [0, 2]);
        pass(MIN_HANDSHAKE_AGE).await;
        assert!(!slots.admits_stranger(Instant::now()));
        assert_eq!(evicted(&places), [0, 1, 2]);
        drop(places.remove(0));
        assert!(slots.admits_stranger(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_that_waits_for_a_slot_gives_way_last() {
        let slots = slots(1);
        let taken = enter_with_slot(&slots).await;
        let _request = TrackedRequest::begin(taken.connection());
        let waiting = enter(&slots);
        let mut wait = Box::pin(waiting.client().acquire_slot());
        assert!(futures::poll!(&mut wait).is_pending());
        let silent: Vec<_> = (1..64).map(|_| enter(&slots)).collect();
        pass(MIN_STRANGER_AGE).await;
        for _ in 0..63 {
            assert!(!waiting.connection().is_evicted());
            slots.admits_stranger(Instant::now());
        }
        assert!(silent.iter().all(|place| place.connection().is_evicted()));
        slots.admits_stranger(Instant::now());
        assert!(
            wait.await
                .unwrap_err()
                .to_string()
                .contains("limits.max_connections (1)")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_gives_way_then_the_longest_stalled_one() {
        let slots = slots(4);
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(enter_with_slot(&slots).await);
            pass(MIN_IDLE).await;
        }
        let requests = [0, 2, 3].map(|n: usize| TrackedRequest::begin(places[n].connection()));
        requests[0].record(WaitsFor::Reader);
        pass(MIN_IDLE).await;
        requests[1].record(WaitsFor::Body);
        pass(MIN_IDLE).await;
        // 0 does not read, 1 is idle, 2 does not send, and 3 waits for the daemon.
        let mut busy = Vec::new();
        for expected in [1, 0, 2] {
            pass(CHOICE_INTERVAL).await;
            let late = enter(&slots);
            let mut wait = Box::pin(late.client().acquire_slot());
            assert!(futures::poll!(&mut wait).is_pending());
            for (number, place) in places.iter().enumerate() {
                let gives_way = place.connection().is_evicted();
                assert_eq!(
                    gives_way,
                    number == expected,
                    "{number} instead of {expected}"
                );
            }
            drop(places.remove(expected));
            wait.await.unwrap();
            busy.push(TrackedRequest::begin(late.connection()));
            places.insert(expected, late);
        }
        pass(CHOICE_INTERVAL).await;
        let late = enter(&slots);
        let mut wait = Box::pin(late.client().acquire_slot());
        assert!(futures::poll!(&mut wait).is_pending());
        assert!(
            places
                .iter()
                .any(|place| place.connection().is_last_request())
        );
        assert!(places.iter().all(|place| !place.connection().is_evicted()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_free_again_when_its_connection_is_closed() {
        let slots = slots(1);
        for _ in 0..3 {
            let place = enter_with_slot(&slots).await;
            place.client().acquire_slot().await.unwrap();
            let outlives_it = place.client().clone();
            drop(place);
            assert_eq!(slots.0.free.available_permits(), 1);
            drop(outlives_it);
        }
    }
}
