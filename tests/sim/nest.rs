//! All tasks of one run of one daemon, and the ways in which they can stop.
//!
//! Does: kill them at any await, freeze them for a while as SIGSTOP does, shuffle the order in
//! which they run. Does not: start a daemon (`host`). Invariant: a task of a dead nest runs no more
//! code; its memory goes at once.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use stopover::runtime::Spawner;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::chance::Chance;
use crate::meter::Meter;
use crate::simulation::{Simulation, note, panic_text};

/// Handles of tasks that have ended are dropped once there are so many.
const PRUNE_AT: usize = 64;

pub struct Nest {
    /// Which run of a daemon.
    pub incarnation: u64,
    /// What it holds in memory.
    pub meter: Arc<Meter>,
    simulation: Arc<Simulation>,
    chance: Chance,
    /// How often in a thousand a task lets others go first.
    shuffle: u64,
    state: Mutex<State>,
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    tasks: Vec<AbortHandle>,
    frozen: bool,
    waiting: Vec<Waker>,
    polls: u64,
    dies_at: Option<u64>,
}

impl std::fmt::Debug for Nest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nest {:x}", self.incarnation)
    }
}

impl Nest {
    pub fn new(simulation: &Arc<Simulation>, incarnation: u64, shuffle: u64) -> Arc<Self> {
        simulation.living.lock().insert(incarnation);
        Arc::new(Self {
            incarnation,
            meter: Meter::new(simulation, incarnation),
            simulation: Arc::clone(simulation),
            chance: Chance::new(simulation.seed ^ incarnation.rotate_left(40), "nest"),
            shuffle,
            state: Mutex::default(),
            dead: watch::Sender::new(false),
        })
    }

    /// Starts a task that ends with the nest.
    pub fn start(self: &Arc<Self>, work: BoxFuture<'static, ()>) -> AbortHandle {
        let nest = Arc::clone(self);
        let work = Some(work);
        let handle = tokio::spawn(Task { work, nest }).abort_handle();
        let mut state = self.state.lock();
        if *self.dead.borrow() {
            handle.abort();
        }
        if state.tasks.len() >= PRUNE_AT {
            state.tasks.retain(|task| !task.is_finished());
        }
        state.tasks.push(handle.clone());
        handle
    }

    /// `kill -9`.
    pub fn kill(&self, how: &str) {
        if self.dead.send_replace(true) {
            return;
        }
        note!(self.simulation, "{:x} dies {how}", self.incarnation);
        self.simulation.living.lock().remove(&self.incarnation);
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Kills it when its tasks have run so many more times: at whatever await that is.
    pub fn kill_after_polls(&self, polls: u64) {
        let mut state = self.state.lock();
        state.dies_at = Some(state.polls + polls);
    }

    /// Takes [`Nest::kill_after_polls`] back.
    pub fn spare(&self) {
        self.state.lock().dies_at = None;
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Waits for its end.
    pub async fn died(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Nothing of it runs for a while; time goes on.
    pub async fn freeze(&self, duration: Duration) {
        note!(
            self.simulation,
            "{:x} frozen for {} ms",
            self.incarnation,
            duration.as_millis()
        );
        self.state.lock().frozen = true;
        tokio::time::sleep(duration).await;
        self.thaw();
    }

    pub fn thaw(&self) {
        let mut state = self.state.lock();
        state.frozen = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What happens to a task that is about to run.
    fn turn(&self, cx: &Context<'_>) -> Turn {
        if self.is_dead() {
            return Turn::Dies;
        }
        let mut state = self.state.lock();
        if state.frozen {
            state.waiting.push(cx.waker().clone());
            return Turn::Waits;
        }
        state.polls += 1;
        if state.dies_at.is_some_and(|at| state.polls >= at) {
            drop(state);
            self.simulation.count("a daemon killed at some await");
            self.kill("at an await");
            return Turn::Dies;
        }
        if self.chance.yes(self.shuffle) {
            cx.waker().wake_by_ref();
            return Turn::Waits;
        }
        Turn::Runs
    }
}

enum Turn {
    Runs,
    Waits,
    Dies,
}

/// The nest as a daemon's task group is given it.
#[derive(Debug)]
pub struct Nursery(pub Arc<Nest>);

impl Spawner for Nursery {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.0.start(work);
    }
}

struct Task {
    work: Option<BoxFuture<'static, ()>>,
    nest: Arc<Nest>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.nest.turn(cx) {
            Turn::Waits => return Poll::Pending,
            Turn::Dies => {
                self.work = None;
                return Poll::Ready(());
            }
            Turn::Runs => {}
        }
        let Some(work) = self.work.as_mut() else {
            return Poll::Ready(());
        };
        let run = AssertUnwindSafe(|| work.as_mut().poll(cx));
        let polled = std::panic::catch_unwind(run);
        self.nest.meter.check();
        match polled {
            Ok(polled) => polled,
            Err(panic) => {
                let text = panic_text(&*panic);
                self.nest
                    .simulation
                    .violate(format_args!("a daemon panicked: {text}"));
                Poll::Ready(())
            }
        }
    }
}
