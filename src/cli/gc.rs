//! `stopover gc`: collects the exchanges of a dead cluster, or lists them, if no daemon sweeps.
//!
//! Does: observe the base directories as a sweeping daemon does, and print what is removed and why.
//! Does not: decide (`gc::one_shot`). Invariant: nothing is removed that was not watched for the
//! printed time, and that time is at least half a lease.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::async_runtime;
use super::progress::{self, Progress};
use super::{ConfigArgs, EXIT_USAGE, failure, print};
use crate::config::{Config, InvalidValue, units};
use crate::gc::one_shot::{GcEntry, GcOptions, GcOutcome, GcReport, collect_once};
use crate::human::count;
use crate::runtime::Runtime;
use crate::storage::{
    ForeignFolder, Identification, Inventory, Storage, StorageError, StoreError, StoreErrorKind,
};
use crate::telemetry::logs::printable_json;

/// Arguments of `gc`.
#[derive(Args)]
pub(super) struct GcArgs {
    /// List what would be removed, and why, but remove nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to watch first, such as 10m; an exchange not renewed meanwhile is removed. At least
    /// half of lease.duration, since live exchanges are renewed every third of it
    /// [default: lease.duration]
    #[arg(long, value_name = "DURATION")]
    watch: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Watches and collects.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn gc(args: GcArgs) -> Result<ExitCode, ExitCode> {
    let config = args.config.load()?.config;
    let watch = watch_time(args.watch.as_deref(), config.lease.duration).map_err(|why| {
        eprintln!("stopover: {why}");
        ExitCode::from(EXIT_USAGE)
    })?;
    let dry_run = args.dry_run;
    let options = GcOptions {
        watch,
        announcement: config.lease.announcement_timeout,
        dry_run,
    };
    let report = async_runtime::block_on(run(&config, options)).map_err(failure)?;
    let report = report.map_err(failure)?;
    print(&match args.json {
        true => as_json(&report, options),
        false => as_text(&report, options),
    });
    let unsettled = |entry: &GcEntry| matches!(entry.outcome, GcOutcome::Undetermined(_));
    Ok(match report.entries.values().any(unsettled) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn watch_time(given: Option<&str>, lease: Duration) -> Result<Duration, InvalidValue> {
    let Some(given) = given else {
        return Ok(lease);
    };
    let watch = units::parse_duration(given).map_err(|why| format!("--watch {given}: {why}"))?;
    if watch < lease / 2 {
        return Err(format!(
            "--watch {given} is too short to recognize live exchanges: they are renewed every \
             third of lease.duration, {}; watch for at least half of that, or set lease.duration \
             to the value that the daemons use",
            units::format_duration(lease)
        )
        .into());
    }
    Ok(watch)
}

async fn run(config: &Config, options: GcOptions) -> Result<GcReport, StorageError> {
    let runtime = Runtime::system();
    let storage = Storage::open_with(&config.base_directories, Identification::Require, &runtime)?;
    let probing = Progress::spinner("probing the base directories");
    let mut statuses = storage.probe().await.into_iter();
    drop(probing);
    // What is full has to be emptied.
    if let Some(broken) = statuses.find(|status| !status.healthy && !status.full) {
        return Err(StorageError {
            base: broken.name.to_string(),
            operation: "probe",
            object: broken.uri,
            source: StoreError::new(
                StoreErrorKind::Unavailable,
                broken.error.unwrap_or_default(),
            )
            .into(),
        });
    }
    let began = |number| {
        let (watch, ending) = (units::format_duration(options.watch), ending(options));
        let exchanges = count(number, "exchange");
        eprintln!("stopover: watching {exchanges} for {watch}{ending}");
    };
    tokio::select! {
        biased;
        report = collect_once(&storage, &runtime, options, began) => report,
        never = report_progress(options.watch, &runtime) => match never {},
    }
}

/// Reports the progress of the watch, which takes as long as a lease: with a bar on a terminal,
/// otherwise with a line from time to time.
async fn report_progress(watch: Duration, runtime: &Runtime) -> Infallible {
    let started = runtime.clock.now();
    if progress::is_visible() {
        let bar = Progress::seconds(watch, "watching");
        loop {
            runtime.clock.sleep(Duration::from_secs(1)).await;
            let elapsed = runtime.clock.now() - started;
            bar.set(elapsed.min(watch).as_secs());
            if elapsed > watch {
                bar.message("removing, or waiting for the last ones");
            }
        }
    }
    let interval = (watch / 15).clamp(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        runtime.clock.sleep(interval).await;
        let elapsed = runtime.clock.now() - started;
        eprintln!("stopover: {}", watched(elapsed, watch));
    }
}

fn watched(elapsed: Duration, watch: Duration) -> String {
    let whole = |time: Duration| units::format_duration(Duration::from_secs(time.as_secs()));
    match elapsed < watch {
        true => format!(
            "watched {} of {}",
            whole(elapsed),
            units::format_duration(watch)
        ),
        false => format!(
            "watched {}; removing, or waiting for the last ones",
            whole(elapsed)
        ),
    }
}

fn ending(options: GcOptions) -> &'static str {
    match options.dry_run {
        true => "; nothing is removed",
        false => "; exchanges that are not renewed will be removed",
    }
}

/// The verdict in JSON, and the reason as text.
fn explain(outcome: &GcOutcome, options: GcOptions) -> (&'static str, String) {
    let (verdict, why) = match outcome {
        GcOutcome::Expired => {
            let watch = units::format_duration(options.watch);
            return ("expired", format!("not renewed while watched for {watch}"));
        }
        GcOutcome::Orphaned => (
            "orphaned",
            "no marker: left behind by a late or dead writer",
        ),
        GcOutcome::HalfRemoved => (
            "half-removed",
            "claimed earlier, but not completely removed",
        ),
        GcOutcome::Renewed => ("renewed", "renewed while watched"),
        GcOutcome::Foreign => ("foreign", "holds only objects that Stopover did not write"),
        GcOutcome::New => ("new", "new: it appeared during the watch"),
        GcOutcome::RemovedElsewhere => (
            "removed-elsewhere",
            "closed or collected by another process",
        ),
        GcOutcome::Undetermined(why) => return ("undetermined", format!("undetermined: {why}")),
    };
    (verdict, why.to_owned())
}

fn as_text(report: &GcReport, options: GcOptions) -> String {
    let done = match options.dry_run {
        true => "would be removed",
        false => "removed",
    };
    let mut text = String::new();
    let (mut removable, mut retained, mut total) = (0, 0, Inventory::default());
    for (exchange, entry) in &report.entries {
        let Inventory { objects, bytes } = entry.inventory;
        let verdict = if entry.outcome.is_removable() {
            removable += 1;
            total.objects += objects;
            total.bytes += bytes;
            done
        } else if matches!(entry.outcome, GcOutcome::RemovedElsewhere) {
            "removed elsewhere"
        } else {
            retained += 1;
            "retained"
        };
        let (_, why) = explain(&entry.outcome, options);
        let _ = writeln!(
            text,
            "{verdict:<9} {exchange}  {}, {}: {why}",
            count(objects, "object"),
            count(bytes, "byte")
        );
    }
    for ForeignFolder { base, folder } in &report.foreign {
        let _ = writeln!(
            text,
            "retained  {folder}/ in base directory {base}: not all in it is Stopover's"
        );
    }
    if report.probes > 0 {
        let _ = writeln!(
            text,
            "{done}  {}: there since the watch began, left by dead daemons",
            count(report.probes, "probe object")
        );
    }
    if report.running_probes > 0 {
        let _ = writeln!(
            text,
            "retained  {}, which running daemons remove",
            count(report.running_probes, "probe object")
        );
    }
    text.push_str(
        "retained  v2/identity, v2/members, v2/sweeper and placeholders: they belong to the base \
         directory\n",
    );
    let _ = writeln!(
        text,
        "{} {done} with {}, {}; {retained} retained",
        count(removable, "exchange"),
        count(total.objects, "object"),
        count(total.bytes, "byte")
    );
    text
}

fn as_json(report: &GcReport, options: GcOptions) -> String {
    let entries = report.entries.iter().map(|(exchange, entry)| {
        let (verdict, why) = explain(&entry.outcome, options);
        json!({
            "exchange": exchange.as_str(),
            "query": exchange.query(),
            "verdict": verdict,
            "removable": entry.outcome.is_removable(),
            "why": why,
            "objects": entry.inventory.objects,
            "bytes": entry.inventory.bytes,
            "removed": entry.removed,
        })
    });
    let foreign = report.foreign.iter();
    let foreign = foreign.map(|f| json!({"base": f.base.as_str(), "folder": f.folder}));
    let whole = json!({
        "dry_run": options.dry_run,
        "watched_millis": u64::try_from(options.watch.as_millis()).unwrap_or(u64::MAX),
        "exchanges": entries.collect::<Vec<_>>(),
        "temporaries_removed": report.temporaries,
        "interrupted_probes": report.probes,
        "running_probes": report.running_probes,
        "foreign_folders": foreign.collect::<Vec<_>>(),
    });
    printable_json(&format!("{whole:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: the command printed nothing for a quarter of an hour.
    #[test]
    fn progress_says_how_much_of_the_watch_is_over() {
        let watch = Duration::from_secs(900);
        let of = |seconds: u64| watched(Duration::from_millis(seconds * 1000 + 7), watch);
        assert_eq!(of(60), "watched 1m of 15m");
        assert!(of(901).contains("watched 15m 1s; removing"), "{}", of(901));
    }

    #[test]
    fn a_watch_shorter_than_half_a_lease_is_refused() {
        let lease = Duration::from_secs(900);
        assert_eq!(watch_time(None, lease), Ok(lease));
        let shortest = Duration::from_secs(450);
        assert_eq!(watch_time(Some("7m 30s"), lease), Ok(shortest));
        for bad in ["0s", "7m", "soon"] {
            let why = watch_time(Some(bad), lease).unwrap_err().to_string();
            assert!(why.contains("--watch"), "{why}");
        }
    }
}
