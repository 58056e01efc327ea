//! Metrics of the process itself: memory, file descriptors, CPU time, start time, wall clock; and
//! the name of its host.
//!
//! Does: read `/proc/self` and the clock at each scrape. Does not: fail: what cannot be read is
//! omitted. Invariant: the names that start with `process_` are those that Prometheus client
//! libraries have in common.

use std::fmt;

use procfs::process::{Process, Stat};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalog::{self, Kind};
use crate::runtime::Clock;

/// Collects the metrics of this process.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    pub clock: Clock,
}

#[derive(Debug, Default, PartialEq)]
struct Sample {
    resident_bytes: Option<f64>,
    open_fds: Option<f64>,
    cpu_seconds: Option<f64>,
    /// Seconds since 1970.
    start_seconds: Option<f64>,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let sample = sample();
        let clock_seconds = self.clock.wall_millis() as f64 / 1e3;
        let metrics = [
            (&catalog::CLOCK, Some(clock_seconds)),
            (&catalog::PROCESS_CPU, sample.cpu_seconds),
            (&catalog::PROCESS_RESIDENT, sample.resident_bytes),
            (&catalog::PROCESS_FDS, sample.open_fds),
            (&catalog::PROCESS_START, sample.start_seconds),
        ];
        for (definition, value) in metrics {
            let Some(value) = value else { continue };
            let metric = definition.encode(&mut encoder)?;
            match definition.kind {
                Kind::Counter => ConstCounter::new(value).encode(metric)?,
                _ => ConstGauge::new(value).encode(metric)?,
            }
        }
        Ok(())
    }
}

/// The name of the machine, container or pod that this process runs in.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn sample() -> Sample {
    let Ok(process) = Process::myself() else {
        return Sample::default();
    };
    let open_fds = process.fd_count().ok().map(|count| count as f64);
    let times = process.stat().map(|stat| {
        let boot = procfs::boot_time_secs().ok();
        from_stat(&stat, boot, procfs::ticks_per_second(), procfs::page_size())
    });
    Sample {
        open_fds,
        ..times.unwrap_or_default()
    }
}

fn from_stat(stat: &Stat, boot_seconds: Option<u64>, ticks: u64, page_size: u64) -> Sample {
    let seconds = |clock_ticks: u64| clock_ticks as f64 / ticks as f64;
    Sample {
        resident_bytes: Some((stat.rss * page_size) as f64),
        open_fds: None,
        cpu_seconds: Some(seconds(stat.utime + stat.stime)),
        start_seconds: boot_seconds.map(|boot| boot as f64 + seconds(stat.starttime)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_descriptors_cpu_time_and_a_start() {
        let sample = sample();
        assert!(sample.resident_bytes.unwrap() > f64::from(1 << 20));
        assert!(sample.open_fds.unwrap() >= 3.0);
        assert!(sample.cpu_seconds.unwrap() < 1e6);
        assert!(sample.start_seconds.unwrap() > 1.5e9);
    }

    #[test]
    fn the_host_is_named_as_the_kernel_names_it() {
        let expected = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(host_name(), expected.trim_end());
    }

    #[test]
    fn ticks_and_pages_become_seconds_and_bytes() {
        let mut stat = Process::myself().unwrap().stat().unwrap();
        (stat.utime, stat.stime) = (150, 50);
        (stat.starttime, stat.rss) = (3000, 25);
        let expected = Sample {
            resident_bytes: Some(25.0 * 4096.0),
            open_fds: None,
            cpu_seconds: Some(2.0),
            start_seconds: Some(1_700_000_030.0),
        };
        assert_eq!(from_stat(&stat, Some(1_700_000_000), 100, 4096), expected);
    }
}
