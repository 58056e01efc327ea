//! The async runtime of a command, and work of a command that may hang.
//!
//! Does: run a future on a new runtime and shut that runtime down. Does not: end a thread that
//! hangs in a system call, such as on a frozen file system: nothing can. Invariant: a command ends
//! soon after its work has, whatever hangs; the end of the process waits for no thread.

use std::future::Future;
use std::io;
use std::time::Duration;

use crate::runtime::blocking_within;

/// How long threads that are still in a system call may take once the work is done.
const GRACE: Duration = Duration::from_secs(1);

/// How long a command waits for file system calls that only help to tidy up.
const TIDYING: Duration = Duration::from_secs(3);

/// Runs the work of a command. The runtime is dropped without waiting for threads that hang.
///
/// # Errors
/// The operating system provides no runtime.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(GRACE);
    Ok(result)
}

/// The result of file system calls without which a command can go on; `None` if they hang.
pub(super) fn unless_it_hangs<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    blocking_within(TIDYING, work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    /// Far more than both limits, and less than for ever.
    const SOON: Duration = Duration::from_secs(30);

    /// Story: with one of two disks frozen, `serve` logged "stopped" and `check` printed its
    /// verdict, and neither ended: the runtime waited for the thread in the system call.
    #[test]
    fn a_command_ends_although_a_thread_of_its_runtime_hangs() {
        let (thaw, frozen) = mpsc::channel::<()>();
        let began = Instant::now();
        let result = block_on(async {
            let (hangs, hanging) = tokio::sync::oneshot::channel();
            let _hung = tokio::task::spawn_blocking(move || {
                let _ = hangs.send(());
                let _ = frozen.recv();
            });
            hanging.await.unwrap();
            7
        });
        assert_eq!(result.unwrap(), 7);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        drop(thaw);
    }

    #[test]
    fn file_system_calls_that_hang_are_given_up() {
        let (thaw, frozen) = mpsc::channel::<()>();
        let began = Instant::now();
        assert_eq!(unless_it_hangs(move || frozen.recv().is_ok()), None);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(unless_it_hangs(|| 7), Some(7));
        drop(thaw);
    }
}
