//! The queue of log lines between the tasks that log them and the thread that writes them.
//!
//! Does: hold lines until a thread has written them, and drop and count lines when the queue is
//! full. Does not: format them. Invariant: no task waits for the reader of the log, such as a pipe
//! that is not read or a disk that does not answer; at most [`MAX_WAITING`] bytes wait.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait at most, besides those that are being written.
const MAX_WAITING: usize = 1 << 20;

/// Lines of this process that were lost. One for the process, as there is one log.
pub(in crate::telemetry) static LINES_LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The queue. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LineQueue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lines: Mutex<Lines>,
    /// Notified when lines were added.
    added: Condvar,
    /// Notified when all were written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Lines that were lost and not reported yet.
    lost: u64,
    is_writing: bool,
}

impl LineQueue {
    /// Starts the thread that writes to `out`. It is no task of a runtime: what is logged at the
    /// end of the process has to be written, too.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let lines = queue.clone();
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || lines.write_all_to(out))?;
        Ok(queue)
    }

    fn write_all_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let lost = self.next(&mut batch);
            // A closed stderr is ignored.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(MAX_WAITING);
            if lost > 0 {
                tracing::warn!(
                    lines = lost,
                    "lines of the log were lost: its reader was too slow"
                );
            }
        }
    }

    /// Waits for lines and takes them; returns how many have been lost since the last time.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        let mut lines = self.0.lines.lock();
        lines.is_writing = false;
        while lines.waiting.is_empty() {
            self.0.written.notify_all();
            self.0.added.wait(&mut lines);
        }
        lines.is_writing = true;
        std::mem::swap(batch, &mut lines.waiting);
        std::mem::take(&mut lines.lost)
    }

    fn add(&self, line: &[u8]) {
        let mut lines = self.0.lines.lock();
        if lines.waiting.len() + line.len() > MAX_WAITING {
            lines.lost += 1;
            LINES_LOST.inc();
        } else {
            lines.waiting.extend_from_slice(line);
            self.0.added.notify_one();
        }
    }

    /// Waits until all lines are written, for some time at most.
    pub(super) fn flush(&self, limit: Duration) {
        let mut lines = self.0.lines.lock();
        let is_unwritten = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        self.0
            .written
            .wait_while_for(&mut lines, is_unwritten, limit);
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Each call is one line.
impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what is written, once it may.
    struct Slow {
        may_write: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may_write.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Story: a daemon whose log went into a pipe answered no request any more, not even
    /// `/healthz`, once the pipe was full: its reader had stopped.
    #[test]
    fn who_logs_does_not_wait_for_the_reader_and_what_is_lost_is_counted() {
        let (go, may_write) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let queue = LineQueue::start(Slow { may_write, written }).unwrap();
        let before = LINES_LOST.get();
        let line = [b'x'; 1024];
        for _ in 0..3 * (MAX_WAITING >> 10) {
            (&queue).write_all(&line).unwrap();
        }
        let lost = LINES_LOST.get() - before;
        let room = (MAX_WAITING >> 10) as u64;
        assert!((room..=2 * room).contains(&lost), "{lost} lines were lost");
        queue.flush(Duration::ZERO);
        drop(go);
        queue.flush(Duration::from_secs(60));
        let bytes: usize = lines.try_iter().map(|bytes| bytes.len()).sum();
        assert_eq!(
            bytes as u64 + (lost << 10),
            3 * (MAX_WAITING as u64),
            "the rest was written"
        );
    }
}
