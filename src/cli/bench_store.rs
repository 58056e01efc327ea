//! What one base directory does: latency of each operation, and throughput.
//!
//! Does: write segments of an exchange of its own, read, list and delete them. Does not: print.
//! Invariant: all it has written is removed before it returns, also when it is told to stop; what a
//! killed process left has no marker, so that the sweeper of any daemon collects it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::bench_machine::elapsed_since;
use super::progress::Progress;
use crate::config::{BaseDirectoryConfig, Scheme};
use crate::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::runtime::Runtime;
use crate::storage::{Identification, Storage, StorageError};

/// Bytes of an object for latencies: a segment of a few small tasks.
const SMALL: usize = 16 << 10;
/// Operations at most for a latency.
const SAMPLES: usize = 100;

/// What is measured.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Bytes of an object for throughput.
    pub size: usize,
    /// Numbers of requests at a time.
    pub parallel: Vec<usize>,
    /// For each measurement.
    pub duration: Duration,
    /// Bytes stored at a time at most.
    pub volume: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Latency {
    pub samples: usize,
    pub p50_millis: f64,
    pub p90_millis: f64,
    pub p99_millis: f64,
    pub max_millis: f64,
}

/// Throughput with so many requests at a time.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub parallel: usize,
    pub put_bytes_per_second: f64,
    pub put_per_second: f64,
    pub get_bytes_per_second: f64,
    pub get_per_second: f64,
}

/// What was measured; what comes after an error is missing.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    pub put: Option<Latency>,
    pub get: Option<Latency>,
    pub list: Option<Latency>,
    pub delete: Option<Latency>,
    /// A put without fsync, where that is an option.
    pub put_unsynced: Option<Latency>,
    pub throughput: Vec<Throughput>,
    /// Requests that the measurements needed.
    pub requests: Requests,
    /// Why the measurements ended early.
    pub error: Option<String>,
}

/// How many requests of each kind.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Requests {
    pub put: u64,
    pub get: u64,
    pub list: u64,
    pub delete: u64,
}

impl Latency {
    /// The quantiles of some durations.
    pub(super) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |share: usize| {
            let rank = (durations.len() * share).div_ceil(100).max(1) - 1;
            durations
                .get(rank)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self {
            samples: durations.len(),
            p50_millis: at(50),
            p90_millis: at(90),
            p99_millis: at(99),
            max_millis: at(100),
        }
    }
}

/// A base directory that is being measured.
struct Bench<'a> {
    storage: Storage,
    exchange: ExchangeId,
    daemon: DaemonId,
    sequence: AtomicU64,
    /// Not compressible.
    content: Bytes,
    plan: &'a Plan,
    runtime: &'a Runtime,
    stop: &'a CancellationToken,
}

/// Measures a base directory until it is done or told to stop.
///
/// # Errors
/// It cannot be opened, or what was written cannot be removed.
pub(super) async fn measure(
    base: &BaseDirectoryConfig,
    plan: &Plan,
    runtime: &Runtime,
    stop: &CancellationToken,
) -> Result<Measured, StorageError> {
    let open = |base: &BaseDirectoryConfig| -> Result<Bench<'_>, StorageError> {
        let number = runtime.random.next_u64();
        let exchange = format!("stopover-bench-{number:016x}");
        let words = plan.size.max(SMALL).div_ceil(8);
        let content: Vec<u8> = (0..words)
            .flat_map(|_| runtime.random.next_u64().to_le_bytes())
            .collect();
        Ok(Bench {
            // It need not be one of Stopover's yet: sizes are chosen before the first daemon.
            storage: Storage::open_with(std::slice::from_ref(base), Identification::Skip, runtime)?,
            exchange: exchange.parse().expect("letters, digits and hyphens"),
            daemon: DaemonId(number),
            sequence: AtomicU64::new(0),
            content: content.into(),
            plan,
            runtime,
            stop,
        })
    };
    let mut measured = Measured::default();
    let mut outcome = open(base)?.run(&mut measured).await;
    if outcome.is_ok() && Scheme::of(&base.uri) == Some(Scheme::File) {
        let mut unsynced = base.clone();
        unsynced.options.insert("fsync".to_owned(), "false".into());
        outcome = open(&unsynced)?.unsynced(&mut measured).await;
    }
    measured.error = outcome.err().map(|error| error.to_string());
    Ok(measured)
}

impl Bench<'_> {
    /// Measures all, and removes everything.
    async fn run(self, measured: &mut Measured) -> Result<(), StorageError> {
        let outcome = self.measure_all(measured).await;
        self.clean().await?;
        outcome
    }

    async fn unsynced(self, measured: &mut Measured) -> Result<(), StorageError> {
        let mut written = Vec::new();
        let put = self.latency_of_puts(&mut written, measured).await;
        self.clean().await?;
        measured.put_unsynced = Some(put?);
        Ok(())
    }

    /// Again if anything came late.
    async fn clean(&self) -> Result<(), StorageError> {
        self.storage.remove_exchange(&self.exchange).await?;
        self.storage.remove_exchange(&self.exchange).await.map(drop)
    }

    async fn measure_all(&self, measured: &mut Measured) -> Result<(), StorageError> {
        let mut written = Vec::new();
        measured.put = Some(self.latency_of_puts(&mut written, measured).await?);
        let mut next = written.iter().cycle();
        let get = self.latency(async || {
            let Some(at) = next.next() else { return Ok(()) };
            self.storage.get_range(at, 0..SMALL as u64).await.map(drop)
        });
        let get = get.await?;
        measured.requests.get += get.samples as u64;
        measured.get = Some(get);
        let list =
            self.latency(async || self.storage.list_segments(&self.exchange).await.map(drop));
        let list = list.await?;
        measured.requests.list += list.samples as u64;
        measured.list = Some(list);
        let mut times = Vec::new();
        for at in written {
            let started = self.runtime.clock.now();
            self.storage.remove_segments(&[at]).await?;
            times.push(elapsed_since(&self.runtime.clock, started));
        }
        measured.requests.delete += times.len() as u64;
        measured.delete = Some(Latency::of(times));
        let steps = self.plan.parallel.len() as u64;
        let progress = Progress::bar(steps, "throughput");
        for parallel in &self.plan.parallel {
            if self.stop.is_cancelled() {
                break;
            }
            let throughput = self.throughput(*parallel, measured).await?;
            measured.throughput.push(throughput);
            progress.advance(1);
        }
        Ok(())
    }

    async fn put(&self, size: usize) -> Result<SegmentAddress, StorageError> {
        let segment = SegmentId {
            daemon: self.daemon,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
        };
        let content = vec![self.content.slice(..size)];
        self.storage
            .put_segment(&self.exchange, segment, content)
            .await
    }

    async fn latency_of_puts(
        &self,
        written: &mut Vec<SegmentAddress>,
        measured: &mut Measured,
    ) -> Result<Latency, StorageError> {
        let put = self.latency(async || {
            written.push(self.put(SMALL).await?);
            Ok(())
        });
        let put = put.await?;
        measured.requests.put += put.samples as u64;
        Ok(put)
    }

    /// One after another.
    async fn latency(
        &self,
        mut operation: impl AsyncFnMut() -> Result<(), StorageError>,
    ) -> Result<Latency, StorageError> {
        let clock = &self.runtime.clock;
        let (started, mut times) = (clock.now(), Vec::new());
        while times.len() < SAMPLES && !self.is_over(started) {
            let began = clock.now();
            operation().await?;
            times.push(elapsed_since(clock, began));
        }
        Ok(Latency::of(times))
    }

    fn is_over(&self, started: tokio::time::Instant) -> bool {
        self.stop.is_cancelled() || self.runtime.clock.now() - started >= self.plan.duration
    }

    /// Puts, then gets of what was put, then removes it.
    async fn throughput(
        &self,
        parallel: usize,
        measured: &mut Measured,
    ) -> Result<Throughput, StorageError> {
        let (clock, size) = (&self.runtime.clock, self.plan.size);
        let stored = AtomicU64::new(0);
        let started = clock.now();
        let writers = (0..parallel).map(async |_| {
            let mut written = Vec::new();
            while !self.is_over(started) || written.is_empty() {
                let before = stored.fetch_add(size as u64, Ordering::Relaxed);
                if before + size as u64 > self.plan.volume && !written.is_empty() {
                    break;
                }
                written.push(self.put(size).await?);
                if self.stop.is_cancelled() {
                    break;
                }
            }
            Ok::<_, StorageError>(written)
        });
        let written: Result<Vec<_>, _> = join_all(writers).await.into_iter().collect();
        let put_time = elapsed_since(clock, started).as_secs_f64();
        let written: Vec<SegmentAddress> = written?.into_iter().flatten().collect();
        let (started, gets) = (clock.now(), AtomicU64::new(0));
        let readers = (0..parallel).map(async |_| {
            while !self.is_over(started) {
                let turn = gets.fetch_add(1, Ordering::Relaxed);
                let index = usize::try_from(turn).unwrap_or(0) % written.len();
                let at = &written[index];
                self.storage.get_range(at, 0..size as u64).await?;
            }
            Ok::<_, StorageError>(())
        });
        join_all(readers)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        let get_time = elapsed_since(clock, started).as_secs_f64();
        let (puts, gets) = (written.len() as u64, gets.into_inner());
        self.storage.remove_segments(&written).await?;
        measured.requests.put += puts;
        measured.requests.get += gets;
        measured.requests.delete += puts;
        let rate = |count: u64, time: f64| count as f64 / time;
        Ok(Throughput {
            parallel,
            put_bytes_per_second: rate(puts * size as u64, put_time),
            put_per_second: rate(puts, put_time),
            get_bytes_per_second: rate(gets * size as u64, get_time),
            get_per_second: rate(gets, get_time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_samples() {
        let millis = (1..=200).rev().map(Duration::from_millis);
        let latency = Latency::of(millis.collect());
        assert_eq!((latency.samples, latency.p50_millis), (200, 100.0));
        assert_eq!((latency.p90_millis, latency.p99_millis), (180.0, 198.0));
        assert_eq!(latency.max_millis, 200.0);
        assert_eq!(Latency::of(Vec::new()).max_millis, 0.0);
        assert_eq!(Latency::of(vec![Duration::from_millis(3)]).p50_millis, 3.0);
    }
}
