//! Whether the soak itself stood still, and what a daemon was doing that did not answer.
//!
//! All worlds share one thread: while one of them waits for a killed process whose last call of the
//! file system has not returned, timeouts of the others run out although the answers are there.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);

thread_local! {
    /// When the thread stood still, and for how long.
    static GAPS: RefCell<Vec<(Instant, Duration)>> = const { RefCell::new(Vec::new()) };
}

/// Notices when the thread stands still; never returns.
pub async fn watch() {
    loop {
        let before = Instant::now();
        tokio::time::sleep(TICK).await;
        let gap = before.elapsed().saturating_sub(TICK);
        if gap > TICK {
            GAPS.with_borrow_mut(|gaps| gaps.push((before, gap)));
        }
    }
}

/// For how long the thread has stood still since then.
pub async fn stood_still_since(start: Instant) -> Duration {
    // So that a gap that has just ended is noticed.
    tokio::time::sleep(2 * TICK).await;
    GAPS.with_borrow(|gaps| {
        let since = gaps.iter().filter(|(at, gap)| *at + *gap > start);
        since.map(|(_, gap)| *gap).sum()
    })
}

/// What each thread of a process waits for, as far as the kernel says.
pub fn threads(id: u32) -> String {
    let mut all = String::new();
    let folder = format!("/proc/{id}/task");
    for thread in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(thread.path().join(name));
        let line = |name: &str| read(name).unwrap_or_default().trim().to_owned();
        let stat = line("stat");
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]);
        let (name, waits, call) = (line("comm"), line("wchan"), line("syscall"));
        let _ = writeln!(all, "  {name}: {state}, {waits}, call {call}");
    }
    all
}
