//! The simulated process: all tasks of one run of one daemon.
//!
//! Does: kill the tasks at any await, freeze them for a while like SIGSTOP, shuffle the order in
//! which they run. Does not: start a daemon (`host`). Invariant: no task of a dead process runs any
//! more code, and its memory is freed at once.

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

use crate::meter::Meter;
use crate::rng::Rng;
use crate::simulation::{Simulation, note, panic_text};

/// Once there are this many handles, those of finished tasks are dropped.
const PRUNE_AT: usize = 64;

pub struct Process {
    /// Number of the run, unique in its world.
    pub incarnation: u64,
    /// Counts the page bytes that it holds.
    pub meter: Arc<Meter>,
    simulation: Arc<Simulation>,
    rng: Rng,
    /// In how many of 1,000 polls a task yields to the others first.
    yield_per_mille: u64,
    state: Mutex<State>,
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    tasks: Vec<AbortHandle>,
    frozen: bool,
    /// Tasks that were to run while frozen.
    frozen_tasks: Vec<Waker>,
    polls: u64,
    /// Number of the poll at which it is killed.
    kill_at_poll: Option<u64>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {:x}", self.incarnation)
    }
}

impl Process {
    pub fn new(simulation: &Arc<Simulation>, incarnation: u64, yield_per_mille: u64) -> Arc<Self> {
        simulation.live_processes.lock().insert(incarnation);
        Arc::new(Self {
            incarnation,
            meter: Meter::new(simulation, incarnation),
            simulation: Arc::clone(simulation),
            rng: Rng::new(simulation.seed ^ incarnation.rotate_left(40), "process"),
            yield_per_mille,
            state: Mutex::default(),
            dead: watch::Sender::new(false),
        })
    }

    /// Starts a task of this process.
    pub fn start(self: &Arc<Self>, work: BoxFuture<'static, ()>) -> AbortHandle {
        let process = Arc::clone(self);
        let work = Some(work);
        let handle = tokio::spawn(Task { work, process }).abort_handle();
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
        self.simulation
            .live_processes
            .lock()
            .remove(&self.incarnation);
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Kills the process after this many more polls of its tasks, at whichever await that is.
    pub fn kill_after_polls(&self, polls: u64) {
        let mut state = self.state.lock();
        state.kill_at_poll = Some(state.polls + polls);
    }

    /// Cancels [`Process::kill_after_polls`].
    pub fn cancel_kill(&self) {
        self.state.lock().kill_at_poll = None;
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    pub async fn wait_until_dead(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Runs none of its tasks for a while; time continues.
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
        let wakers = std::mem::take(&mut state.frozen_tasks);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Decides what a task that is polled does.
    fn next_step(&self, cx: &Context<'_>) -> Step {
        if self.is_dead() {
            return Step::Die;
        }
        let mut state = self.state.lock();
        if state.frozen {
            state.frozen_tasks.push(cx.waker().clone());
            return Step::Wait;
        }
        state.polls += 1;
        if state.kill_at_poll.is_some_and(|at| state.polls >= at) {
            drop(state);
            self.simulation.count("a daemon killed at an await");
            self.kill("at an await");
            return Step::Die;
        }
        if self.rng.chance(self.yield_per_mille) {
            cx.waker().wake_by_ref();
            return Step::Wait;
        }
        Step::Run
    }
}

enum Step {
    Run,
    Wait,
    Die,
}

/// Starts the tasks of a daemon's `TaskGroup` in a process.
#[derive(Debug)]
pub struct ProcessSpawner(pub Arc<Process>);

impl Spawner for ProcessSpawner {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.0.start(work);
    }
}

struct Task {
    work: Option<BoxFuture<'static, ()>>,
    process: Arc<Process>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.process.next_step(cx) {
            Step::Wait => return Poll::Pending,
            Step::Die => {
                self.work = None;
                return Poll::Ready(());
            }
            Step::Run => {}
        }
        let Some(work) = self.work.as_mut() else {
            return Poll::Ready(());
        };
        let run = AssertUnwindSafe(|| work.as_mut().poll(cx));
        let polled = std::panic::catch_unwind(run);
        self.process.meter.check();
        match polled {
            Ok(polled) => polled,
            Err(panic) => {
                let text = panic_text(&*panic);
                self.process
                    .simulation
                    .violate(format_args!("a daemon panicked: {text}"));
                Poll::Ready(())
            }
        }
    }
}
