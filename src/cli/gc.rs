//! `stopover gc`: collects the exchanges of a dead cluster, or lists them, where no daemon sweeps.
//!
//! Does: watch the base directories as a sweeping daemon does, and print what is removed and why.
//! Does not: decide (`gc::one_shot`). Invariant: nothing is removed that was not watched for the
//! printed time, and that time is at least half a lease.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, EXIT_FAILURE, EXIT_OK, EXIT_USAGE, failure, print};
use crate::config::{Config, InvalidValue, units};
use crate::gc::one_shot::{GcEntry, GcOptions, GcOutcome, GcReport, collect_once};
use crate::runtime::Runtime;
use crate::storage::{Inventory, Storage, StorageError, StoreError, StoreErrorKind};

/// Arguments of `gc`.
#[derive(Args)]
pub struct GcArgs {
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
pub fn gc(args: GcArgs) -> Result<ExitCode, ExitCode> {
    let GcArgs {
        dry_run,
        watch,
        json,
        config,
    } = args;
    let config = config.load()?.config;
    let watch = watch_time(watch.as_deref(), config.lease.duration).map_err(|why| {
        eprintln!("stopover: {why}");
        ExitCode::from(EXIT_USAGE)
    })?;
    let options = GcOptions { watch, dry_run };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failure(&error))?;
    let report = runtime.block_on(run(&config, options));
    let report = report.map_err(|error| failure(&error))?;
    print(&match json {
        true => as_json(&report, options),
        false => as_text(&report, options),
    });
    let unsettled = |entry: &GcEntry| matches!(entry.outcome, GcOutcome::Undetermined(_));
    Ok(match report.entries.values().any(unsettled) {
        true => ExitCode::from(EXIT_FAILURE),
        false => ExitCode::from(EXIT_OK),
    })
}

fn watch_time(given: Option<&str>, lease: Duration) -> Result<Duration, InvalidValue> {
    let Some(given) = given else {
        return Ok(lease);
    };
    let watch = units::parse_duration(given).map_err(|why| format!("--watch {given}: {why}"))?;
    if watch < lease / 2 {
        return Err(format!(
            "--watch {given} is too short to recognize live exchanges: they are renewed every third \
             of lease.duration, {}; watch for at least half of that, or set lease.duration to the \
             value that the daemons use",
            units::format_duration(lease)
        )
        .into());
    }
    Ok(watch)
}

async fn run(config: &Config, options: GcOptions) -> Result<GcReport, StorageError> {
    let runtime = Runtime::system();
    let storage = Storage::open(&config.base_directories, &runtime)?;
    let mut statuses = storage.probe().await.into_iter();
    if let Some(broken) = statuses.find(|status| !status.healthy) {
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
    let began = |count| {
        let (watch, ending) = (units::format_duration(options.watch), ending(options));
        eprintln!("stopover: watching {count} exchanges for {watch}{ending}");
    };
    collect_once(&storage, &runtime, options, began).await
}

fn ending(options: GcOptions) -> &'static str {
    match options.dry_run {
        true => "; nothing is removed",
        false => "; exchanges that are not renewed will be removed",
    }
}

fn why(outcome: &GcOutcome, options: GcOptions) -> String {
    match outcome {
        GcOutcome::Expired => {
            let watch = units::format_duration(options.watch);
            format!("not renewed while watched for {watch}")
        }
        GcOutcome::Orphaned => "no marker: left behind by a late or dead writer".to_owned(),
        GcOutcome::HalfRemoved => "claimed earlier, but not completely removed".to_owned(),
        GcOutcome::Renewed => "renewed while watched".to_owned(),
        GcOutcome::New => "new: it appeared during the watch".to_owned(),
        GcOutcome::RemovedElsewhere => "closed or collected by another process".to_owned(),
        GcOutcome::Undetermined(why) => format!("undetermined: {why}"),
    }
}

fn kind(outcome: &GcOutcome) -> &'static str {
    match outcome {
        GcOutcome::Expired => "silent",
        GcOutcome::Orphaned => "orphaned",
        GcOutcome::HalfRemoved => "ended",
        GcOutcome::Renewed => "renewed",
        GcOutcome::New => "new",
        GcOutcome::RemovedElsewhere => "gone",
        GcOutcome::Undetermined(_) => "unsettled",
    }
}

fn sum<'a>(entries: impl Iterator<Item = &'a GcEntry>) -> (u64, Inventory) {
    let mut count = 0;
    let mut all = Inventory::default();
    for entry in entries {
        count += 1;
        all.objects += entry.inventory.objects;
        all.bytes += entry.inventory.bytes;
    }
    (count, all)
}

fn as_text(report: &GcReport, options: GcOptions) -> String {
    let mut text = String::new();
    for (exchange, entry) in &report.entries {
        let verdict = match (entry.outcome.is_removable(), options.dry_run) {
            (true, true) => "would be removed",
            (true, false) => "removed",
            (false, _) if matches!(entry.outcome, GcOutcome::RemovedElsewhere) => "gone",
            (false, _) => "kept",
        };
        let Inventory { objects, bytes } = entry.inventory;
        let why = why(&entry.outcome, options);
        let _ = writeln!(
            text,
            "{verdict:<9} {exchange}  {objects} objects, {bytes} bytes: {why}"
        );
    }
    let (go, size) = sum(report.entries.values().filter(|e| e.outcome.is_removable()));
    let (stay, _) = sum(report.entries.values().filter(|e| {
        !e.outcome.is_removable() && !matches!(e.outcome, GcOutcome::RemovedElsewhere)
    }));
    let done = match options.dry_run {
        true => "would be removed",
        false => "removed",
    };
    let _ = writeln!(
        text,
        "{go} exchanges {done} with {} objects, {} bytes; {stay} kept",
        size.objects, size.bytes
    );
    text
}

fn as_json(report: &GcReport, options: GcOptions) -> String {
    let entries = report.entries.iter().map(|(exchange, entry)| {
        json!({
            "exchange": exchange.as_str(),
            "query": exchange.query(),
            "verdict": kind(&entry.outcome),
            "goes": entry.outcome.is_removable(),
            "why": why(&entry.outcome, options),
            "objects": entry.inventory.objects,
            "bytes": entry.inventory.bytes,
            "removed": entry.removed,
        })
    });
    let whole = json!({
        "dry_run": options.dry_run,
        "watched_millis": options.watch.as_millis() as u64,
        "exchanges": entries.collect::<Vec<_>>(),
        "temporaries_removed": report.temporaries,
    });
    format!("{whole:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_in_which_the_living_need_not_be_heard_is_refused() {
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
