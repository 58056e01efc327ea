//! The threads on which the client of one base directory runs.
//!
//! Does: run work of the client on a separate runtime, so that calls of it that block (Kerberos,
//! names of hosts) block none of the daemon's threads. Does not: end one that blocks: nothing can.
//! Invariant: whatever blocks, there are no more than [`WORKERS`] threads of a base directory; work
//! whose caller has left holds nothing, unless a thread is within it at that moment.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::error::Failure;

/// Enough for what the client computes (checksums, encryption). While a KDC is silent, each new
/// connection blocks one.
const WORKERS: usize = 4;

/// How much work whose callers have left may wait for a thread.
const MAX_ABANDONED: usize = 32;

/// The threads, started when they are first used.
#[derive(Debug, Default)]
pub(super) struct Workers {
    runtime: Mutex<Option<Runtime>>,
    /// Work that was given to the runtime and has not been dropped by it.
    running: Arc<AtomicUsize>,
    /// Of that, what a caller waits for.
    awaited: AtomicUsize,
}

/// Work that its caller and a thread share.
type Shared<F> = Arc<Mutex<Option<Pin<Box<F>>>>>;

/// Counts its owner.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Held by the caller.
struct Awaiting<'a, F: Future> {
    workers: &'a Workers,
    work: Shared<F>,
    task: JoinHandle<Option<F::Output>>,
}

impl<F: Future> Drop for Awaiting<'_, F> {
    fn drop(&mut self) {
        self.workers.awaited.fetch_sub(1, Ordering::Relaxed);
        self.task.abort();
        // Here and now: with all threads blocked, the runtime drops nothing.
        let abandoned = self.work.try_lock().and_then(|mut work| work.take());
        drop(abandoned);
    }
}

impl Workers {
    /// Runs work on one of the threads. If this future is dropped, so is the work, at the latest
    /// when it awaits something.
    ///
    /// # Errors
    /// Too much work does not return, or there is no thread.
    pub(super) async fn run<F>(&self, work: F) -> Result<F::Output, Failure>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let running = self.running.load(Ordering::Relaxed);
        let abandoned = running.saturating_sub(self.awaited.load(Ordering::Relaxed));
        if abandoned >= MAX_ABANDONED {
            return Err(Failure::Blocked(abandoned));
        }
        let work: Shared<F> = Arc::new(Mutex::new(Some(Box::pin(work))));
        let task = self.spawn(Arc::clone(&work)).map_err(Failure::NoThread)?;
        self.awaited.fetch_add(1, Ordering::Relaxed);
        let mut awaiting = Awaiting {
            workers: self,
            work,
            task,
        };
        match (&mut awaiting.task).await {
            Ok(Some(output)) => Ok(output),
            // The runtime has ended, or the work was taken from it: neither while this waits.
            Ok(None) | Err(_) => Err(Failure::Blocked(0)),
        }
    }

    fn spawn<F>(&self, work: Shared<F>) -> std::io::Result<JoinHandle<Option<F::Output>>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.running.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.running));
        let task = async move {
            let _counted = counted;
            poll_fn(|context| match &mut *work.lock() {
                Some(work) => work.as_mut().poll(context).map(Some),
                None => Poll::Ready(None),
            })
            .await
        };
        let mut runtime = self.runtime.lock();
        let runtime = match &mut *runtime {
            Some(runtime) => runtime,
            none => none.insert(build()?),
        };
        Ok(runtime.spawn(task))
    }
}

fn build() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(WORKERS)
        .thread_name("hdfs")
        .enable_all()
        .build()
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Waiting for a thread that blocks would block this one.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(30);

    /// Holds a thread until the other end is dropped.
    async fn block(until: Arc<Mutex<mpsc::Receiver<()>>>) {
        let _ = until.lock().recv();
    }

    /// Story: the library of Kerberos waited for a KDC that was silent on the threads that answer
    /// `/healthz`, where no deadline could end the wait.
    #[tokio::test]
    async fn work_that_blocks_ends_with_its_caller_and_holds_no_other_thread() {
        let workers = Workers::default();
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        // More than there are threads; this test has one thread, and its timers run.
        for _ in 0..2 * WORKERS {
            let work = workers.run(block(Arc::clone(&blocked)));
            let ended = tokio::time::timeout(Duration::from_millis(50), work).await;
            assert!(ended.is_err(), "it blocks");
        }
        // What waits for a thread is dropped with its caller.
        let held = Arc::new(());
        let holding = Arc::clone(&held);
        let work = workers.run(async move { drop(holding) });
        let ended = tokio::time::timeout(Duration::from_millis(50), work).await;
        assert!(ended.is_err() && Arc::strong_count(&held) == 1);
        let mut refused = None;
        for _ in 0..2 * MAX_ABANDONED {
            let work = workers.run(std::future::ready(()));
            match tokio::time::timeout(Duration::from_millis(5), work).await {
                Err(_) => {}
                Ok(Err(Failure::Blocked(number))) => refused = Some(number),
                Ok(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, Some(MAX_ABANDONED));
        drop(unblock);
        let give_up = std::time::Instant::now() + SOON;
        while workers.run(std::future::ready(7)).await.ok() != Some(7) {
            assert!(std::time::Instant::now() < give_up);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn threads_that_block_do_not_keep_a_base_directory_from_being_closed() {
        let workers = Workers::default();
        let (unblock, blocked) = mpsc::channel::<()>();
        let work = workers.run(block(Arc::new(Mutex::new(blocked))));
        let _ = tokio::time::timeout(Duration::from_millis(50), work).await;
        drop(workers);
        drop(unblock);
    }
}
