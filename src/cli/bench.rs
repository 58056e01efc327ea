//! `stopover bench`: what this machine and these base directories can do, so that one can size.
//!
//! Does: measure the processor and each base directory, estimate prices, print text or JSON. Does
//! not: need a daemon, or a base directory that is in use already. Invariant: everything that was
//! written is removed, also on SIGINT and SIGTERM; a second signal ends it at once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::async_runtime::{self, unless_it_hangs};
use super::bench_machine::{self, Machine};
use super::bench_store::{self, Latency, Measured, Plan, Requests};
use super::check::{missing_folders, remove_empty_folders};
use super::progress::Progress;
use super::table::Table;
use super::{ConfigArgs, EXIT_USAGE, failure, print};
use crate::config::units::{parse_duration, parse_size};
use crate::config::{BaseDirectoryConfig, BaseUri, Config, InvalidValue, Scheme};
use crate::human::{bytes_per_second, count, size};
use crate::runtime::Runtime;
use crate::store::keys;
use crate::store::metrics::{GET_PRICE, PUT_OR_LIST_PRICE};
use crate::telemetry::logs::{printable, printable_json};

/// For each measurement of the processor, which hardly varies.
const MACHINE_TIME: Duration = Duration::from_millis(300);

/// Arguments of `bench`.
#[derive(Args)]
pub(super) struct BenchArgs {
    /// Size of the objects for throughput: that of a segment
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    size: String,
    /// Most requests at a time; measured are 1, 2, 4 … up to this
    #[arg(long, value_name = "N", default_value_t = 16)]
    parallel: usize,
    /// How long each measurement takes
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    duration: String,
    /// Most bytes stored in a base directory at a time
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    volume: String,
    /// Requests whose price is estimated, such as put=1000,get=20000,list=500,delete=1000
    #[arg(
        long,
        value_name = "REQUESTS",
        default_value = "put=1000,get=10000,list=100,delete=1000"
    )]
    mix: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A base directory and what it does.
#[derive(Debug, Serialize)]
struct BaseReport {
    uri: String,
    #[serde(flatten)]
    measured: Measured,
    /// Of the given requests; 0 where the store is no cloud's.
    mix_dollars: f64,
    /// Of the measurements themselves.
    bench_dollars: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    base_directories: Vec<BaseReport>,
    /// Whether a signal ended it early.
    interrupted: bool,
}

/// Measures and prints.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn bench(args: BenchArgs) -> Result<ExitCode, ExitCode> {
    let (plan, mix) = args.plan().map_err(|why| {
        eprintln!("stopover: {why}");
        ExitCode::from(EXIT_USAGE)
    })?;
    let config = args.config.load()?.config;
    let missing = missing_folders(&config.base_directories);
    let fresh = fresh_folders(&config.base_directories);
    let report = async_runtime::block_on(measure(&config, &plan, mix));
    for folder in fresh {
        unless_it_hangs(move || remove_shared_folders(&folder));
    }
    remove_empty_folders(missing);
    let report = report.map_err(failure)??;
    print(&match args.json {
        true => printable_json(&format!("{:#}\n", serde_json::json!(report))),
        false => printable(&as_text(&report, &plan, mix)),
    });
    let failed = report
        .base_directories
        .iter()
        .any(|base| base.measured.error.is_some());
    Ok(match failed || report.interrupted {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Folders in which nothing of Stopover is yet. None of a file system that hangs.
fn fresh_folders(bases: &[BaseDirectoryConfig]) -> Vec<PathBuf> {
    let uris = bases
        .iter()
        .filter_map(|base| BaseUri::parse(&base.uri).ok());
    let folders = uris.filter_map(|uri| uri.folder());
    let fresh = |folder: PathBuf| (!folder.join("v2").exists()).then_some(folder);
    let fresh = folders.filter_map(|folder| unless_it_hangs(move || fresh(folder)));
    fresh.flatten().collect()
}

/// Removes what a probe has left in a folder that was fresh. A folder with anything else stays.
fn remove_shared_folders(folder: &Path) {
    for key in keys::keep() {
        let keep = folder.join(key.as_str());
        let _ = std::fs::remove_file(&keep);
        let above = keep
            .ancestors()
            .skip(1)
            .take_while(|above| *above != folder);
        for above in above {
            let _ = std::fs::remove_dir(above);
        }
    }
    for other in ["v2/probes", "v2"] {
        let _ = std::fs::remove_dir(folder.join(other));
    }
}

impl BenchArgs {
    fn plan(&self) -> Result<(Plan, Requests), InvalidValue> {
        let bytes = |flag: &str, text: &str| {
            parse_size(text).map_err(|why| InvalidValue::from(format!("{flag} {text}: {why}")))
        };
        let (object, volume) = (
            bytes("--size", &self.size)?,
            bytes("--volume", &self.volume)?,
        );
        let duration = parse_duration(&self.duration);
        let duration = duration.map_err(|why| format!("--duration {}: {why}", self.duration))?;
        if !(1..=1 << 30).contains(&object) || volume < object {
            return Err("--size is from 1B to 1GiB, and --volume at least as much".into());
        }
        if !(1..=1024).contains(&self.parallel) {
            return Err("--parallel is from 1 to 1024".into());
        }
        let doubled = std::iter::successors(Some(1), |n| Some(n * 2));
        let mut parallel: Vec<usize> = doubled.take_while(|n| *n < self.parallel).collect();
        parallel.push(self.parallel);
        let plan = Plan {
            size: usize::try_from(object).unwrap_or(usize::MAX),
            parallel,
            duration,
            volume,
        };
        Ok((plan, parse_mix(&self.mix)?))
    }
}

fn parse_mix(text: &str) -> Result<Requests, InvalidValue> {
    let mut mix = Requests::default();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (kind, count) = part.split_once('=').unwrap_or((part, ""));
        let place = match kind.trim() {
            "put" => &mut mix.put,
            "get" => &mut mix.get,
            "list" => &mut mix.list,
            "delete" => &mut mix.delete,
            _ => return Err(format!("--mix: {part}: write put=N,get=N,list=N,delete=N").into()),
        };
        *place = count
            .trim()
            .parse()
            .map_err(|_| format!("--mix: {part}: write a number"))?;
    }
    Ok(mix)
}

/// Dollars for some requests to a store; nothing where it is no cloud's.
fn price(base: &BaseDirectoryConfig, requests: Requests) -> f64 {
    let charged = matches!(
        Scheme::of(&base.uri),
        Some(Scheme::S3 | Scheme::Gs | Scheme::Az)
    );
    let puts = (requests.put + requests.list) as f64 * PUT_OR_LIST_PRICE;
    if charged {
        puts + requests.get as f64 * GET_PRICE
    } else {
        0.0
    }
}

async fn measure(config: &Config, plan: &Plan, mix: Requests) -> Result<Report, ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
    let mut either = async || {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let (runtime, stop) = (Runtime::system(), CancellationToken::new());
    let measuring = async {
        let machine = bench_machine::measure(&runtime.clock, plan.duration.min(MACHINE_TIME));
        let mut bases = Vec::new();
        for base in &config.base_directories {
            let _shown = Progress::spinner(format!("measuring {}", base.uri));
            let measured = bench_store::measure(base, plan, &runtime, &stop).await;
            let measured = measured.map_err(failure)?;
            bases.push(BaseReport {
                uri: base.uri.clone(),
                mix_dollars: price(base, mix),
                bench_dollars: price(base, measured.requests),
                measured,
            });
            if stop.is_cancelled() {
                break;
            }
        }
        // A probe may be under way.
        runtime.tasks.shut_down().await;
        Ok(Report {
            machine,
            base_directories: bases,
            interrupted: stop.is_cancelled(),
        })
    };
    let interrupted = async {
        either().await;
        eprintln!("stopover: interrupted; removing what was written. Again ends it at once");
        stop.cancel();
        either().await;
        eprintln!("stopover: what was written is left; the daemons collect it after a lease");
    };
    tokio::select! {
        biased;
        report = measuring => report,
        () = interrupted => Err(ExitCode::FAILURE),
    }
}

fn as_text(report: &Report, plan: &Plan, mix: Requests) -> String {
    let Machine {
        cores,
        copy_bytes_per_second,
        crc32c_bytes_per_second,
    } = report.machine;
    let (copy, crc) = (
        bytes_per_second(copy_bytes_per_second),
        bytes_per_second(crc32c_bytes_per_second),
    );
    let mut text = format!(
        "{}; one copies {copy}, computes CRC-32C of {crc}\n",
        count(cores, "core")
    );
    for base in &report.base_directories {
        let measured = &base.measured;
        let _ = writeln!(text, "\n{}", base.uri);
        let mut table = Table::new(&["16 KiB, ms", ">p50", ">p90", ">p99", ">max", ">samples"]);
        for (name, latency) in [
            ("put", &measured.put),
            ("put, no fsync", &measured.put_unsynced),
            ("get", &measured.get),
            ("list", &measured.list),
            ("delete", &measured.delete),
        ] {
            if let Some(latency) = latency {
                table.add(latency_row(name, latency));
            }
        }
        text.push_str(&table.render());
        let mut table = Table::new(&[">at a time", ">put", ">puts/s", ">get", ">gets/s"]);
        for of in &measured.throughput {
            table.add([
                of.parallel.to_string(),
                bytes_per_second(of.put_bytes_per_second),
                format!("{:.1}", of.put_per_second),
                bytes_per_second(of.get_bytes_per_second),
                format!("{:.1}", of.get_per_second),
            ]);
        }
        let bytes = size(plan.size as u64);
        let _ = write!(text, "objects of {bytes}\n{}", table.render());
        let Requests {
            put,
            get,
            list,
            delete,
        } = mix;
        let _ = writeln!(
            text,
            "{put} PUT, {get} GET, {list} LIST, {delete} DELETE cost ${:.4}; this bench ${:.4}",
            base.mix_dollars, base.bench_dollars
        );
        if let Some(error) = &measured.error {
            let _ = writeln!(text, "error: {error}");
        }
    }
    text
}

fn latency_row(name: &str, latency: &Latency) -> [String; 6] {
    let shown = |millis: f64| format!("{millis:.2}");
    [
        name.to_owned(),
        shown(latency.p50_millis),
        shown(latency.p90_millis),
        shown(latency.p99_millis),
        shown(latency.max_millis),
        latency.samples.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_of_requests_is_read_and_priced_where_a_cloud_charges() {
        let mix = parse_mix("put=1000, get=10000,list=1").unwrap();
        assert_eq!(
            (mix.put, mix.get, mix.list, mix.delete),
            (1000, 10_000, 1, 0)
        );
        for bad in ["post=1", "put", "put=x", "put=-1"] {
            assert!(parse_mix(bad).is_err(), "{bad}");
        }
        let base = |uri: &str| BaseDirectoryConfig {
            uri: uri.into(),
            ..BaseDirectoryConfig::default()
        };
        let dollars = price(&base("s3://bucket"), mix);
        assert!(
            (dollars - (1001.0 * 5e-6 + 10_000.0 * 4e-7)).abs() < 1e-9,
            "{dollars}"
        );
        assert!(price(&base("file:///x"), mix).abs() < 1e-9);
    }
}
