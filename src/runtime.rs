//! Time, randomness and background tasks, passed to every component that uses them.
//!
//! Does: the only uses of the process's clock, its random source and `tokio::spawn`. Does not:
//! decide anything. Invariant: a component that gets the same clock and seed behaves the same way
//! again, which makes a deterministic simulation possible.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Monotonic time and sleeping through tokio (a test can pause both), and wall time for display.
/// Nothing is decided by wall time, except whether a certificate is valid.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    wall: Wall,
}

/// Where the wall time comes from.
#[derive(Debug, Clone, Copy, Default)]
enum Wall {
    #[default]
    System,
    Fixed(SystemTime),
    /// It was this at that moment, and passes as the monotonic time does.
    Passing(SystemTime, Instant),
}

impl Clock {
    /// A clock with a constant wall time, for tests that compare output.
    pub fn with_fixed_wall(wall: SystemTime) -> Self {
        let wall = Wall::Fixed(wall);
        Self { wall }
    }

    /// A clock whose wall time is this now, and then passes as the monotonic time does, for tests
    /// that pause that.
    pub fn with_wall_from(wall: SystemTime) -> Self {
        let wall = Wall::Passing(wall, Instant::now());
        Self { wall }
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The wall time in milliseconds since 1970, for display and certificate validity only.
    pub fn wall_millis(&self) -> u64 {
        let wall = match self.wall {
            Wall::System => SystemTime::now(),
            Wall::Fixed(wall) => wall,
            Wall::Passing(wall, since) => wall + since.elapsed(),
        };
        wall.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// The result of `work`, or `None` if it has not completed within `limit`. Work that completes
    /// at that moment counts: a choice by chance would differ on every run of a simulation.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.sleep(limit) => None,
        }
    }
}

/// A seeded generator (splitmix64). Its clones share one sequence.
#[derive(Debug, Clone)]
pub struct Random {
    state: Arc<Mutex<u64>>,
    /// Whether secrets come from the sequence too, which can be computed from its output.
    reproducible: bool,
}

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(seed)),
            reproducible: true,
        }
    }

    /// A generator seeded by the operating system.
    pub fn from_system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            reproducible: false,
            ..Self::seeded(high ^ low.rotate_left(32))
        }
    }

    /// 32 unpredictable bytes; reproducible only with a seed.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub fn secret(&self) -> [u8; 32] {
        let mut secret = [0; 32];
        if self.reproducible {
            for part in secret.chunks_exact_mut(8) {
                part.copy_from_slice(&self.next_u64().to_le_bytes());
            }
        } else {
            aws_lc_rs::rand::fill(&mut secret).expect("the operating system's randomness");
        }
        secret
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        let mut state = self.state.lock();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Starts tasks instead of tokio: the simulation uses this to suspend or kill a daemon at any
/// await.
pub trait Spawner: std::fmt::Debug + Send + Sync {
    fn spawn(&self, work: BoxFuture<'static, ()>);
}

/// The background tasks of a daemon, started here and stopped together.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
    spawner: Option<Arc<dyn Spawner>>,
    computations: Computations,
}

/// Permits for long computations: one for each processor.
#[derive(Debug, Clone)]
struct Computations(Arc<Semaphore>);

impl Default for Computations {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors)))
    }
}

/// Steps of a computation that take about a millisecond, more or less. One with fewer delays no
/// other task noticeably.
const SHORT_COMPUTATION: usize = 1 << 15;

impl TaskGroup {
    /// A group whose tasks are started by `spawner` instead of tokio.
    pub fn with_spawner(spawner: Arc<dyn Spawner>) -> Self {
        Self {
            spawner: Some(spawner),
            ..Self::default()
        }
    }

    /// Starts a task that is completed even while the daemon stops (uploads).
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &self.spawner {
            None => drop(self.tracker.spawn(work)),
            Some(spawner) => spawner.spawn(Box::pin(self.tracker.track_future(work))),
        }
    }

    /// Starts a task that is dropped at its next await once the daemon stops (timers, sweepers).
    pub fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                biased; // the default order is random, hence different on every run
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs a computation of about so many steps, each of some nanoseconds to a microsecond. A long
    /// one keeps no other task from running: its thread leaves the runtime meanwhile, and no more
    /// of them run at a time than there are processors.
    pub async fn compute<T>(&self, steps: usize, work: impl FnOnce() -> T) -> T {
        let is_multi_thread = || {
            let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
            flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread)
        };
        if steps <= SHORT_COMPUTATION || self.spawner.is_some() || !is_multi_thread() {
            return work();
        }
        let _permit = self.computations.0.acquire().await;
        tokio::task::block_in_place(work)
    }

    /// Cancelled when the daemon stops, for tasks that then have something left to do.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Drops the tasks that run until the daemon stops, and waits for all others.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Runs work that may block for ever, such as calls of a file system, on a thread of its own.
/// `None` if it has not ended within `limit`, has panicked, or there is no thread. One that hangs
/// stays; the end of the process does not wait for it. Blocks.
pub fn blocking_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("may-hang".into());
    thread.spawn(move || drop(send.send(work()))).ok()?;
    receive.recv_timeout(limit).ok()
}

/// Clock, randomness and task group together.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub clock: Clock,
    pub random: Random,
    pub tasks: TaskGroup,
}

impl Runtime {
    /// The real clock, a random seed, and tasks on tokio.
    pub fn system() -> Self {
        Self {
            clock: Clock::default(),
            random: Random::from_system(),
            tasks: TaskGroup::default(),
        }
    }

    /// With a seed, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: Random::seeded(seed),
            ..Self::system()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Story: plans of large exchanges and segments of tiny pages were computed on the threads that
    /// answer `/healthz`; as many at a time as there are threads, and nothing was answered.
    #[test]
    fn long_computations_keep_no_other_task_from_running() {
        const TOGETHER: usize = 16;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let (tasks, running) = (TaskGroup::default(), Arc::new(AtomicUsize::new(0)));
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let answered = Arc::new(Mutex::new(Some(answered)));
        runtime.block_on(async {
            for _ in 0..TOGETHER {
                let (group, running) = (tasks.clone(), Arc::clone(&running));
                let answered = Arc::clone(&answered);
                tasks.spawn(async move {
                    let computed = group.compute(SHORT_COMPUTATION + 1, || {
                        let most = std::thread::available_parallelism().unwrap().get();
                        assert!(running.fetch_add(1, Ordering::SeqCst) < most);
                        // Ends only if another task of the only thread runs meanwhile.
                        if let Some(answered) = answered.lock().take() {
                            answered.recv_timeout(Duration::from_secs(30)).unwrap();
                        }
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                    computed.await;
                });
            }
            tasks.spawn(async move {
                tokio::task::yield_now().await;
                answer.send(()).unwrap();
            });
            tasks.shut_down().await;
        });
        assert!(answered.lock().is_none());
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_computation_runs_at_once_where_there_is_one_thread() {
        assert_eq!(TaskGroup::default().compute(usize::MAX, || 7).await, 7);
    }
}
