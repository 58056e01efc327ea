//! What the processor of this machine does with pages: copying and checksums.
//!
//! Does: measure both on one core. Does not: touch a base directory. Invariant: the work is done on
//! more bytes than the caches of a core hold.

use std::hint::black_box;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::crc::checksum;
use crate::runtime::Clock;

/// Larger than the second-level cache of a core.
const BUFFER: usize = 32 << 20;

/// What a core does.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub cores: usize,
    pub copy_bytes_per_second: f64,
    pub crc32c_bytes_per_second: f64,
}

/// Measures for about this long each.
pub(super) fn measure(clock: &Clock, duration: Duration) -> Machine {
    let source: Vec<u8> = (0..BUFFER).map(|at| at.to_le_bytes()[0]).collect();
    let mut target = vec![0; BUFFER];
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        copy_bytes_per_second: rate(clock, duration, || {
            black_box(&mut target).copy_from_slice(&source);
        }),
        crc32c_bytes_per_second: rate(clock, duration, || {
            black_box(checksum(&source));
        }),
    }
}

/// Bytes a second of work on a whole buffer.
fn rate(clock: &Clock, duration: Duration, mut work: impl FnMut()) -> f64 {
    // The first time, memory is mapped.
    work();
    let (started, mut rounds) = (clock.now(), 0_u32);
    while clock.now() - started < duration {
        work();
        rounds += 1;
    }
    let elapsed = elapsed_since(clock, started);
    f64::from(rounds.max(1)) * BUFFER as f64 / elapsed.as_secs_f64()
}

/// Never zero, so that it can be divided by.
pub(super) fn elapsed_since(clock: &Clock, started: Instant) -> Duration {
    (clock.now() - started).max(Duration::from_nanos(1))
}
