//! One connection: what it waits for, and whether it has a slot.
//!
//! Does: track the requests of a connection and what each of them waits for. Does not: end
//! connections (`server` does) or choose which one to close (`slots` does). Invariant: each request
//! is counted as waiting for exactly one thing until its response has been handed over or dropped.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::Clock;

/// How long a client may take to read the rest of its last response, some MiB at most. Until then,
/// what it reads is progress; after that, only a request is.
const REST_TIME: Duration = Duration::from_secs(300);

/// An open connection. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    clock: Clock,
    accepted: Instant,
    state: Mutex<State>,
    /// Notified when a request begins on an idle connection, and when `last_request` is set.
    changed: Notify,
    evicted: CancellationToken,
}

struct State {
    slot: Option<OwnedSemaphorePermit>,
    waits_for_slot: bool,
    in_handshake: bool,
    /// The connection is closed after its current requests.
    last_request: bool,
    /// How many requests wait for the daemon, for their body, and for the client to read.
    waiting: [usize; 3],
    /// Since when the numbers are as they are. The socket does not change it: a client that reads
    /// has not sent a request, nor more of a body.
    since: Instant,
    /// Since when the socket accepts bytes again.
    unblocked_since: Instant,
    /// Since when the socket accepts no more bytes.
    blocked_since: Option<Instant>,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// The handler, or the next part of the response.
    Daemon,
    /// The client, to send more of the body.
    Body,
    /// The client, to read more of the response.
    Reader,
}

/// What a connection does, and for how long it has done so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// There is no request: its head is incomplete, or has not begun.
    Idle(Duration),
    /// A request waits for the daemon.
    Busy,
    /// All requests wait for the client to send.
    BodyStalled(Duration),
    /// All requests wait for the client to read.
    ResponseStalled(Duration),
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(clock: &Clock) -> Self {
        let now = clock.now();
        Self(Arc::new(Inner {
            clock: clock.clone(),
            accepted: now,
            state: Mutex::new(State {
                slot: None,
                waits_for_slot: false,
                in_handshake: false,
                last_request: false,
                waiting: [0; 3],
                since: now,
                unblocked_since: now,
                blocked_since: None,
            }),
            changed: Notify::new(),
            evicted: CancellationToken::new(),
        }))
    }

    /// The clock that measures what the connection does.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Records whether a request waits for the slot of this connection.
    pub fn set_waits_for_slot(&self, waits: bool) {
        self.0.state.lock().waits_for_slot = waits;
    }

    /// Sets or clears the slot of the connection.
    pub fn set_slot(&self, slot: Option<OwnedSemaphorePermit>) {
        self.0.state.lock().slot = slot;
    }

    /// Whether the connection has a slot.
    pub fn has_slot(&self) -> bool {
        self.0.state.lock().slot.is_some()
    }

    /// Whether a request of this connection waits for its slot.
    pub fn waits_for_slot(&self) -> bool {
        self.0.state.lock().waits_for_slot
    }

    /// How long the connection has existed.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.0.accepted)
    }

    /// What the connection does.
    pub fn activity(&self, now: Instant) -> Activity {
        let state = self.0.state.lock();
        let since = |instant| now.saturating_duration_since(instant);
        let unchanged = since(state.since);
        match (state.blocked_since, state.waiting) {
            (None, [0, 0, 0]) if unchanged > REST_TIME => Activity::Idle(unchanged),
            (Some(_), [0, 0, 0]) if unchanged > REST_TIME => Activity::ResponseStalled(unchanged),
            (None, [0, 0, 0]) => Activity::Idle(unchanged.min(since(state.unblocked_since))),
            (_, [0, bodies, 0]) if bodies > 0 => Activity::BodyStalled(unchanged),
            (Some(blocked), _) => Activity::ResponseStalled(since(blocked)),
            (None, [0, 0, _]) => {
                Activity::ResponseStalled(unchanged.min(since(state.unblocked_since)))
            }
            (None, [0, ..]) => Activity::BodyStalled(unchanged),
            (None, _) => Activity::Busy,
        }
    }

    /// Records that a TLS handshake begins or ends; the time of [`Activity::Idle`] starts again.
    pub fn set_in_handshake(&self, in_handshake: bool) {
        let mut state = self.0.state.lock();
        state.in_handshake = in_handshake;
        state.since = self.0.clock.now();
    }

    /// Whether the connection is in its TLS handshake.
    pub fn is_in_handshake(&self) -> bool {
        self.0.state.lock().in_handshake
    }

    /// Records whether the socket accepts more bytes.
    pub fn set_blocked(&self, blocked: bool) {
        let mut state = self.0.state.lock();
        if blocked != state.blocked_since.is_some() {
            let now = self.0.clock.now();
            match blocked {
                true => state.blocked_since = Some(now),
                false => (state.blocked_since, state.unblocked_since) = (None, now),
            }
        }
    }

    /// Ends the connection to make room for another one.
    pub fn evict(&self) {
        self.0.evicted.cancel();
    }

    /// Whether the connection is to end.
    pub fn is_evicted(&self) -> bool {
        self.0.evicted.is_cancelled()
    }

    /// Completes once the connection is to end.
    pub async fn evicted(&self) {
        self.0.evicted.cancelled().await;
    }

    /// Closes the connection once its current requests are complete.
    pub fn close_after_request(&self) {
        self.0.state.lock().last_request = true;
        self.0.changed.notify_one();
    }

    /// Whether the connection is closed after its current requests.
    pub fn is_last_request(&self) -> bool {
        self.0.state.lock().last_request
    }

    /// Completes when a request has begun on an idle connection, or the current one became the
    /// last.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn count(&self, from: Option<WaitsFor>, to: Option<WaitsFor>) {
        let mut state = self.0.state.lock();
        let was_idle = state.waiting == [0; 3];
        if let Some(from) = from {
            state.waiting[from as usize] -= 1;
        }
        if let Some(to) = to {
            state.waiting[to as usize] += 1;
        }
        state.since = self.0.clock.now();
        drop(state);
        if was_idle {
            self.0.changed.notify_one();
        }
    }
}

/// One request of a connection, counted until it is dropped with the last of its bodies.
pub struct TrackedRequest {
    connection: Connection,
    waits_for: Mutex<WaitsFor>,
}

impl TrackedRequest {
    /// A request that waits for its handler.
    pub fn begin(connection: &Connection) -> Arc<Self> {
        connection.count(None, Some(WaitsFor::Daemon));
        Arc::new(Self {
            connection: connection.clone(),
            waits_for: Mutex::new(WaitsFor::Daemon),
        })
    }

    /// Records what the request waits for, from now on.
    pub fn record(&self, to: WaitsFor) {
        let mut waits_for = self.waits_for.lock();
        self.connection.count(Some(*waits_for), Some(to));
        *waits_for = to;
    }

    /// Records what the request waits for, if it waits for `from` so far.
    pub fn replace(&self, from: WaitsFor, to: WaitsFor) {
        let mut waits_for = self.waits_for.lock();
        if *waits_for == from {
            self.connection.count(Some(from), Some(to));
            *waits_for = to;
        }
    }
}

impl Drop for TrackedRequest {
    fn drop(&mut self) {
        self.connection.count(Some(*self.waits_for.get_mut()), None);
    }
}
