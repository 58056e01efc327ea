//! Threads that may block in a file system call, some for ever.
//!
//! Does: run an operation on a thread, count those whose callers have stopped waiting. Does not:
//! end any: a system call on a frozen file system cannot be interrupted. Invariant: of one base
//! directory no more than [`MAX_ABANDONED`] operations hang on threads of the process, which has
//! 512; beyond them its operations fail at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::store::{Result, StoreError, StoreErrorKind};

/// Operations of one base directory that may hang besides those that callers wait for.
pub(super) const MAX_ABANDONED: usize = 32;

/// The threads of one base directory.
#[derive(Debug, Default)]
pub(super) struct Threads {
    abandoned: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Awaited,
    Abandoned,
    Ended,
}

/// One operation, shared by its thread and its caller.
#[derive(Debug)]
struct Operation {
    state: Mutex<State>,
    abandoned: Arc<AtomicUsize>,
}

/// Held by the thread.
struct Running(Arc<Operation>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if std::mem::replace(&mut *state, State::Ended) == State::Abandoned {
            self.0.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Held by the caller.
struct Awaiting<T> {
    operation: Arc<Operation>,
    task: JoinHandle<T>,
}

impl<T> Drop for Awaiting<T> {
    fn drop(&mut self) {
        // One that has no thread yet does not start.
        self.task.abort();
        let mut state = self.operation.state.lock();
        if *state == State::Awaited {
            *state = State::Abandoned;
            self.operation.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Threads {
    /// Runs an operation on a thread. If this future is dropped, an operation that has started
    /// continues.
    ///
    /// # Errors
    /// `Unavailable` if too many operations hang, or this one panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let hanging = self.abandoned.load(Ordering::Relaxed);
        if hanging >= MAX_ABANDONED {
            let message = format!("{hanging} operations of this folder do not return");
            return Err(StoreError {
                hint: Some("its file system is frozen or its server is not reachable"),
                ..StoreError::new(StoreErrorKind::Unavailable, message)
            });
        }
        let operation = Arc::new(Operation {
            state: Mutex::new(State::Awaited),
            abandoned: Arc::clone(&self.abandoned),
        });
        let running = Running(Arc::clone(&operation));
        let task = tokio::task::spawn_blocking(move || {
            let _running = running;
            work()
        });
        let mut awaiting = Awaiting { operation, task };
        (&mut awaiting.task)
            .await
            .unwrap_or_else(|error| Err(StoreError::interrupted(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Story: on a frozen file system (`fsfreeze`) every call blocked a thread for ever. The
    /// threads of the process ran out, also for base directories that worked.
    #[tokio::test]
    async fn operations_that_hang_do_not_use_up_the_threads_and_end_once_the_system_thaws() {
        let threads = Threads::default();
        let (frozen, thaw) = (Arc::new(Mutex::new(())), mpsc::channel::<()>());
        let ice = Arc::clone(&frozen);
        let ice = std::thread::spawn(move || {
            let _held = ice.lock();
            let _ = thaw.1.recv();
        });
        while frozen.try_lock().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One that had no thread within 10 ms has not begun, and does not count.
        while threads.abandoned.load(Ordering::Relaxed) < MAX_ABANDONED {
            let frozen = Arc::clone(&frozen);
            let hanging = threads.run(move || {
                drop(frozen.lock());
                Ok(())
            });
            let answered = tokio::time::timeout(Duration::from_millis(10), hanging).await;
            assert!(answered.is_err(), "it hangs");
        }
        let error = threads.run(|| Ok(())).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("32 operations"), "{error}");
        drop(thaw.0);
        ice.join().unwrap();
        while threads.abandoned.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        threads.run(|| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn an_operation_that_panics_is_unavailable_and_counts_no_longer() {
        let threads = Threads::default();
        let failed = threads.run::<()>(|| panic!("injected panic")).await;
        assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(threads.abandoned.load(Ordering::Relaxed), 0);
    }
}
