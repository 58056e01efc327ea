//! The process itself, as metrics: memory, descriptors, CPU, start.
//!
//! Does: read `/proc/self` when somebody scrapes. Does not: fail: what cannot be read is left out.
//! Invariant: names are those that every Prometheus client library uses.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalog::{self, Definition};

/// Reads this process.
#[derive(Debug)]
pub struct ProcessCollector;

/// What one look shows.
#[derive(Debug, Default, PartialEq)]
struct Sample {
    resident: Option<u64>,
    open_fds: Option<u64>,
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let sample = look();
        if let Some(seconds) = sample.cpu_seconds {
            let unit = catalog::PROCESS_CPU.unit();
            let metric = encoder.encode_descriptor(
                catalog::PROCESS_CPU.name,
                catalog::PROCESS_CPU.help,
                unit.as_ref(),
                MetricType::Counter,
            )?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        let mut gauge = |definition: &Definition, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let unit = definition.unit();
            let metric = encoder.encode_descriptor(
                definition.name,
                definition.help,
                unit.as_ref(),
                MetricType::Gauge,
            )?;
            ConstGauge::new(value).encode(metric)
        };
        gauge(
            &catalog::PROCESS_RESIDENT,
            sample.resident.map(|b| b as f64),
        )?;
        gauge(&catalog::PROCESS_FDS, sample.open_fds.map(|n| n as f64))?;
        gauge(&catalog::PROCESS_START, sample.start_seconds)
    }
}

fn look() -> Sample {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let open_fds = std::fs::read_dir("/proc/self/fd");
    Sample {
        open_fds: open_fds.ok().map(|entries| entries.count() as u64),
        ..read(&stat, &system, ticks_per_second(), page_size())
    }
}

/// Reads `/proc/self/stat` and the boot time in `/proc/stat`.
fn read(stat: &str, system: &str, ticks: f64, page: u64) -> Sample {
    // The name of the command may hold spaces and brackets: fields are counted after its end.
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return Sample::default();
    };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Field 3 (state) of proc(5) is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|text| text.trim().parse::<f64>().ok());
    Sample {
        resident: field(24).map(|pages| pages as u64 * page),
        open_fds: None,
        cpu_seconds: field(14)
            .zip(field(15))
            .map(|(user, system)| (user + system) / ticks),
        start_seconds: boot
            .zip(field(22))
            .map(|(boot, start)| boot + start / ticks),
    }
}

#[allow(unsafe_code)]
fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes no pointers and has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

#[allow(unsafe_code)]
fn page_size() -> u64 {
    // SAFETY: as above.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 3000 1000 25 1";
        let sample = read(stat, "cpu 1 2\nbtime 1700000000\n", 100.0, 4096);
        let expected = Sample {
            resident: Some(25 * 4096),
            open_fds: None,
            cpu_seconds: Some(2.0),
            start_seconds: Some(1_700_000_030.0),
        };
        assert_eq!(sample, expected);
    }

    #[test]
    fn this_process_has_memory_descriptors_cpu_time_and_a_start() {
        let sample = look();
        assert!(sample.resident.unwrap() > 1 << 20);
        assert!(sample.open_fds.unwrap() >= 3);
        assert!(sample.cpu_seconds.unwrap() < 1e6);
        assert!(sample.start_seconds.unwrap() > 1.5e9);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(read("", "", 100.0, 4096), Sample::default());
    }
}
