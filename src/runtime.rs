//! Time, randomness and background work as things that are passed in.
//!
//! Does: the only places where the process's clock, its random source and `tokio::spawn` are named.
//! Does not: decide anything. Invariant: code that is given these runs the same way again when it
//! is given the same clock and seed, which is what makes a deterministic simulation possible.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The clock: monotonic time and sleeping through tokio (which a test can pause), wall time only
/// for people to read. Nothing may be decided by wall time, but whether a certificate is valid.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    fixed_wall: Option<SystemTime>,
}

impl Clock {
    /// A clock whose wall time stands still, for tests that compare output.
    pub fn with_fixed_wall(wall: SystemTime) -> Self {
        Self {
            fixed_wall: Some(wall),
        }
    }

    /// Monotonic now.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall clock time in milliseconds since 1970, for display only.
    pub fn wall_millis(&self) -> u64 {
        let wall = self.fixed_wall.unwrap_or_else(SystemTime::now);
        wall.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64)
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A seeded generator (splitmix64), shared by all who need randomness.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<u64>>);

impl Random {
    /// The generator for a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A generator seeded by the operating system.
    pub fn from_system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self::seeded(high ^ low.rotate_left(32))
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Starts work. The real one is tokio itself; a simulation passes its own, so that it can stop a
/// daemon at any await, or end it there.
pub trait Spawner: std::fmt::Debug + Send + Sync {
    /// Starts it.
    fn spawn(&self, work: BoxFuture<'static, ()>);
}

/// All background work of a daemon: spawned here, ended together.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
    spawner: Option<Arc<dyn Spawner>>,
}

impl TaskGroup {
    /// A group whose work is started by `spawner` instead of tokio.
    pub fn with_spawner(spawner: Arc<dyn Spawner>) -> Self {
        Self {
            spawner: Some(spawner),
            ..Self::default()
        }
    }

    /// Starts work that runs to its end, also while the daemon stops (uploads).
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &self.spawner {
            None => drop(self.tracker.spawn(work)),
            Some(spawner) => spawner.spawn(Box::pin(self.tracker.track_future(work))),
        }
    }

    /// Starts work that is dropped at its next await once the daemon stops (timers, sweepers).
    pub fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                biased; // tokio's own choice is random: not the same on every run
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Asks timers to end and waits for all work.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Clock, randomness and task group together: what a component is given to run on.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Background work.
    pub tasks: TaskGroup,
}

impl Runtime {
    /// The real one.
    pub fn system() -> Self {
        Self {
            clock: Clock::default(),
            random: Random::from_system(),
            tasks: TaskGroup::default(),
        }
    }

    /// One with a seed, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: Random::seeded(seed),
            ..Self::system()
        }
    }
}
